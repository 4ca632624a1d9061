"""The map of the house as a test: who may import whom, how long things may be, and their names."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAX_MODULE_LINES = 300
MAX_FUNCTION_LINES = 50
VAGUE_NAMES = ("util", "utils", "helper", "helpers", "common", "misc")

# Each room of studio/ and the rooms it may import. A new room is first a line here.
ARROWS: dict[str, set[str]] = {
    "__init__": set(),
    "__main__": {"cli"},
    "errors": set(),
    "durable": {"errors"},
    "settings": {"errors"},
    "weights": {"errors", "durable"},
    "jinja": set(),
    "chat_template": {"errors", "weights", "jinja"},
    "merge": {"errors", "durable", "weights", "chat_template"},
    "serve": {"errors", "durable", "weights", "chat_template"},
    "arena": {"errors", "durable"},
    "cli": {"errors", "durable", "settings", "merge", "serve", "arena"},
    "ui": {"errors", "durable", "settings", "merge", "serve", "arena"},
    "app.py": {"errors", "settings", "ui"},
}
# The rooms of the arena: each may import those before it, and none behind it.
ARENA = ("checks", "prompts", "trials", "rating", "outcome")
# Packages that only these places may import, and packages that these rooms may not.
ONLY_IN = {"gradio": ("studio/ui/", "app.py"), "vllm": ("studio/serve/plugin/",)}
NEVER_IN = {
    "weights": {"transformers", "pandas", "plotly"},
    "merge": {"transformers", "pandas", "plotly"},
    "arena": {"torch"},
}


def room(path: str) -> str:
    """studio/merge/recipe.py → merge; studio/cli/merge.py → cli; app.py → app.py."""
    parts = Path(path).parts
    return Path(parts[1]).stem if parts[0] == "studio" else path


def imported_names(tree: ast.Module) -> set[str]:
    """Every dotted name a module imports, wherever in it: at the top, in a function, for types."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            prefix = "." * node.level + (node.module or "")
            names |= {f"{prefix}.{alias.name}" for alias in node.names}
    return names


def _is_behind(path: str, module: str) -> bool:
    """Whether the imported module of the arena lies in a room behind the importing one's."""
    rooms = [Path(path).parts[2], *module.split(".")[1:2]]
    places = [ARENA.index(each) for each in rooms if each in ARENA]
    return len(places) == 2 and places[0] < places[1]


def wrong_imports(path: str, names: set[str]) -> list[str]:
    here = room(path)
    if here not in ARROWS:
        return [f"{path}: the map has no room '{here}'"]
    wrong = []
    for name in sorted(names):
        top, _, rest = name.partition(".")
        if top == "":
            wrong.append(f"{path}: imports {name}; write imports from the root: studio.<room>")
        elif top == "studio":
            target = rest.partition(".")[0]
            if target in ARROWS and target != here and target not in ARROWS[here]:
                wrong.append(f"{path}: {here} must not import {target} ({name})")
            elif here == target == "arena" and _is_behind(path, rest):
                wrong.append(f"{path}: comes before {rest} in the arena, and must not import it")
        elif top in ONLY_IN and not path.startswith(ONLY_IN[top]):
            wrong.append(f"{path}: {top} belongs in {' or '.join(ONLY_IN[top])} only ({name})")
        elif top in NEVER_IN.get(here, set()):
            wrong.append(f"{path}: {here} does without {top} ({name})")
    return wrong


def too_long(path: str, source: str, tree: ast.Module) -> list[str]:
    wrong = []
    if (lines := len(source.splitlines())) > MAX_MODULE_LINES:
        wrong.append(f"{path}: {lines} lines, at most {MAX_MODULE_LINES}")
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MAX_FUNCTION_LINES:
                wrong.append(f"{path}: {node.name} has {lines} lines, at most {MAX_FUNCTION_LINES}")
    return wrong


def vague_names(path: str) -> list[str]:
    stems = [Path(part).stem for part in Path(path).parts]
    vague = [stem for stem in stems if stem in VAGUE_NAMES or "manager" in stem]
    return [f"{path}: '{stem}' says nothing about what is in it" for stem in vague]


def violations(path: str, source: str) -> list[str]:
    tree = ast.parse(source)
    return (
        wrong_imports(path, imported_names(tree)) + too_long(path, source, tree) + vague_names(path)
    )


MODULES = [
    path.relative_to(ROOT).as_posix()
    for path in sorted([*ROOT.glob("studio/**/*.py"), *ROOT.glob("app.py")])
]


@pytest.mark.parametrize("path", MODULES)
def test_module_keeps_to_the_map_and_the_budgets(path: str) -> None:
    assert violations(path, (ROOT / path).read_text()) == []


LONG_FUNCTION = "def long():\n" + "    x = 1\n" * 50
BUDGET_FUNCTION = "def fits():\n" + "    x = 1\n" * 49


@pytest.mark.parametrize(
    ("path", "source", "message"),
    [
        ("studio/merge/run.py", "from studio.serve import plan", "merge must not import serve"),
        ("studio/merge/run.py", "from studio import arena", "merge must not import arena"),
        ("studio/serve/run.py", "import studio.arena.trials as t", "serve must not import arena"),
        ("studio/arena/run.py", "def f():\n    import studio.merge", "arena must not import merge"),
        ("studio/arena/run.py", "from studio.weights import open", "arena must not import weights"),
        (
            "studio/arena/trials/trial.py",
            "from studio.arena.rating.sheet import Sheet",
            "comes before arena.rating.sheet",
        ),
        ("studio/weights/gram.py", "from studio.merge.recipe import Recipe", "import merge"),
        ("studio/merge/run.py", "from studio.settings import Settings", "import settings"),
        ("studio/merge/run.py", "from studio.ui import app", "merge must not import ui"),
        ("studio/errors.py", "import studio.merge", "errors must not import merge"),
        ("studio/cli.py", "from studio.ui import app", "cli must not import ui"),
        ("studio/ui/app.py", "from studio.weights import gram", "ui must not import weights"),
        ("app.py", "import studio.merge", "app.py must not import merge"),
        ("studio/merge/run.py", "from .recipe import Recipe", "imports from the root"),
        ("studio/merge/run.py", "from .. import serve", "imports from the root"),
        ("studio/cli.py", "import gradio as gr", "gradio belongs in studio/ui/ or app.py"),
        (
            "studio/serve/processes/process.py",
            "from vllm import LLM",
            "vllm belongs in studio/serve/plugin/",
        ),
        ("studio/arena/outcome/results.py", "import torch.nn", "arena does without torch"),
        ("studio/weights/gram.py", "import transformers", "weights does without transformers"),
        ("studio/hub/stream.py", "", "the map has no room 'hub'"),
        ("studio/merge/utils.py", "", "'utils' says nothing"),
        ("studio/serve/common/ports.py", "", "'common' says nothing"),
        ("studio/serve/model_manager.py", "", "'model_manager' says nothing"),
        ("studio/merge/run.py", "x = 1\n" * 301, "301 lines, at most 300"),
        ("studio/merge/run.py", LONG_FUNCTION, "long has 51 lines, at most 50"),
        ("studio/merge/run.py", "async " + LONG_FUNCTION, "long has 51 lines, at most 50"),
    ],
)
def test_checker_finds(path: str, source: str, message: str) -> None:
    found = violations(path, source)
    assert len(found) == 1 and message in found[0], found


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("studio/merge/run.py", "import torch\nfrom studio.weights import gram\nimport studio"),
        ("studio/merge/run.py", "from studio.merge.recipe import Recipe"),
        ("studio/merge/run.py", "from studio import errors\nfrom studio.errors import StudioError"),
        ("studio/serve/plugin/loader.py", "from vllm.config import LoadConfig"),
        ("studio/ui/app.py", "import gradio as gr\nfrom studio.merge import recipe"),
        ("app.py", "import gradio\nfrom studio.ui.app import build_app"),
        ("studio/merge/run.py", "x = 1\n" * 300),
        ("studio/merge/run.py", BUDGET_FUNCTION),
    ],
)
def test_checker_accepts(path: str, source: str) -> None:
    assert violations(path, source) == []


def loaded_after(code: str) -> set[str]:
    """The top-level packages that a fresh Python has loaded after running some code."""
    code += "\nimport sys; print('loaded:', *{name.partition('.')[0] for name in sys.modules})"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert run.returncode == 0, run.stderr
    return set(run.stdout.rpartition("loaded:")[2].split())


def test_loaded_after_sees_packages_and_submodules() -> None:
    assert {"yaml", "email"} <= loaded_after("import yaml, email.message")


IMPORT_WEIGHS = {
    "studio.weights": {"gradio", "transformers", "pandas", "plotly", "vllm"},
    "studio.merge": {"gradio", "transformers", "pandas", "plotly", "vllm"},
    "studio.serve": {"gradio", "vllm"},
    "studio.arena": {"gradio", "torch", "transformers", "vllm"},
}


def exists(name: str) -> bool:
    return (ROOT / name.replace(".", "/")).with_suffix(".py").exists() or (
        ROOT / name.replace(".", "/") / "__init__.py"
    ).exists()


@pytest.mark.parametrize("package", [name for name in IMPORT_WEIGHS if exists(name)])
def test_importing_a_package_leaves_out(package: str) -> None:
    assert not loaded_after(f"import {package}") & IMPORT_WEIGHS[package]


SHOW_HELP = """
import runpy, sys
sys.argv = ["studio", "--help"]
try:
    runpy.run_module("studio", run_name="__main__")
except SystemExit as stop:
    assert stop.code in (0, None), stop.code
"""


@pytest.mark.parametrize("module", [name for name in ("studio.__main__",) if exists(name)])
def test_command_line_help_loads_no_heavy_package(module: str) -> None:
    assert not loaded_after(SHOW_HELP) & {"torch", "gradio", "transformers", "vllm", "pandas"}
