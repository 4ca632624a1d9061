"""From a design to answers by real engines: formats, contexts, resuming, and the command."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pytest

from studio.arena.prompts.prompt import Message, Prompt
from studio.arena.trials.answers import AnswerKey
from studio.arena.trials.design import Model
from studio.arena.trials.generate import Ask
from studio.arena.trials.trial import open_trial
from studio.cli import generate as generate_cli
from studio.cli.speaking import EngineSpeaker, Start
from studio.errors import StudioError
from studio.merge import Options, check, load_recipe
from studio.merge.recipe_files.recipe_dump import fingerprint
from studio.merge.run import merge
from studio.serve.batch import Completions
from studio.serve.engine import Completion, Identity, Piece
from studio.serve.engine import Prompt as Sent
from studio.serve.formats import choose, detect, edited
from studio.serve.kept import Formats
from studio.serve.processes.fleet import Fleet
from studio.serve.processes.neighbours import neighbours
from studio.serve.processes.spec import ModelSpec
from studio.serve.sampling import Sampling
from tests.serve.engines import ready
from tests.test_architecture import ROOT

DEMO = ROOT / "demo" / "models" / "instruct"
LONG = Prompt(
    id="long",
    category="story",
    system="You are Mira.",
    messages=tuple(
        Message("user" if n % 2 == 0 else "assistant", f"turn {n} " + "word " * 20)
        for n in range(7)
    ),
)
SAMPLING = {"preset": "careful", **Sampling().as_data(), "max_tokens": 20, "stop": ["END"]}


class Echo:
    """An engine that says what it was asked."""

    identity = Identity("echo", "none", dtype="float32", fingerprint="f00")

    def __init__(self) -> None:
        self.asked: list[tuple[Sent, Sampling]] = []

    def complete(self, prompt: Sent, sampling: Sampling) -> Completion:
        self.asked.append((prompt, sampling))
        return Completion("answer", len(prompt), 3, "stop", 0.1)

    def stream(self, prompt: Sent, sampling: Sampling) -> Iterator[Piece]:
        raise NotImplementedError

    def logprobs(self, tokens: object) -> list[float | None]:
        raise NotImplementedError

    def close(self) -> None:
        pass


def ask(prompt: Prompt = LONG, seed: int = 7) -> Ask:
    return Ask(AnswerKey("m", prompt.id, 0), prompt, SAMPLING, seed)


def test_what_a_model_answered_in_another_trial_is_not_asked_again(tmp_path: Path) -> None:
    used = choose("vicuna", None)
    first, second = Echo(), Echo()
    list(EngineSpeaker(first, used, None, None, Completions(tmp_path)).answers([ask()]))
    again = EngineSpeaker(second, used, None, None, Completions(tmp_path))
    found = list(again.answers([ask(), ask(seed=8)]))
    assert [generated.text for _, generated in found] == ["answer", "answer"]
    assert [sampling.seed for _, sampling in second.asked] == [8]


def test_a_model_is_asked_in_its_format_with_every_parameter() -> None:
    engine, used = Echo(), choose("vicuna", None)
    ((_, generated),) = EngineSpeaker(engine, used, None, None).answers([ask()])
    ((sent, sampling),) = engine.asked
    assert isinstance(sent, str) and "You are Mira." in sent and sent.count("USER:") == 4
    assert (sampling.seed, sampling.max_tokens, sampling.stop) == (7, 20, ("END", "USER:"))
    assert generated.sent == sampling.as_data() and generated.left_out == 0
    assert EngineSpeaker(engine, used, None, None).prompt_format == "vicuna"
    assert EngineSpeaker(engine, used, None, None).identity == {
        "label": "echo",
        "engine": "none",
        "dtype": "float32",
        "fingerprint": "f00",
        "tensor_parallel_size": "1",
    }


def test_the_recipe_of_a_merge_is_told(tmp_path: Path) -> None:
    recipe = load_recipe((ROOT / "recipes" / "demo.yaml").read_text())
    out = tmp_path / "merged"
    merge(check(recipe, Options(), out), out, on_progress=lambda progress: None)
    engine, used = Echo(), choose("vicuna", None)
    found = EngineSpeaker(engine, used, out, None).identity
    assert found["recipe"] == fingerprint(recipe)
    assert "recipe" not in EngineSpeaker(engine, used, DEMO, None).identity


def test_a_short_context_leaves_the_oldest_out_and_says_so() -> None:
    engine, used = Echo(), detect(str(DEMO), DEMO)
    assert used is not None
    whole = EngineSpeaker(engine, used, DEMO, 100_000)
    short = EngineSpeaker(engine, used, DEMO, 160)
    ((_, kept),), ((_, cut),) = whole.answers([ask()]), short.answers([ask()])
    assert kept.left_out == 0 < cut.left_out
    (all_tokens, _), (fewer, _) = engine.asked
    assert len(fewer) + 20 <= 160 < len(all_tokens)
    with pytest.raises(StudioError, match='"long" takes .* tokens even without'):
        list(EngineSpeaker(engine, used, DEMO, 30).answers([ask()]))


def test_a_folder_is_started_by_its_whole_path_and_a_server_found_by_its_url() -> None:
    spec = Start(engine="embedded", max_model_len=64).spec(Model("m", "demo/models/instruct"))
    assert (spec.model, spec.label, spec.max_model_len) == (str(DEMO), "m", 64)
    start = Start(
        endpoints={"m": "http://127.0.0.1:1#served"}, key_of={"http://127.0.0.1:1": "secret"}.get
    )
    remote = start.spec(Model("m", "demo/models/instruct"))
    assert (remote.engine, remote.url, remote.model) == ("endpoint", "http://127.0.0.1:1", "served")
    assert (remote.key, remote.files) == ("secret", "demo/models/instruct")
    named = start.spec(Model("n", "https://gpu.example/v1"))
    assert (named.engine, named.url, named.model) == ("endpoint", "https://gpu.example/v1", "")
    assert (named.key, named.files) == (None, "")


@pytest.mark.parametrize(
    ("held", "key"), [(None, None), ("abc", "abc"), ('{"http://a": "x"}', "x"), ("{}", None)]
)
def test_keys_of_servers_are_one_or_several(held: str | None, key: str | None) -> None:
    assert generate_cli._keys(held)("http://a") == key


def test_keys_that_cannot_be_read_are_refused() -> None:
    with pytest.raises(StudioError, match="ENDPOINT_KEY begins like JSON and is none"):
        generate_cli._keys("{abc")


EDITED = "{{ bos_token }}{% for m in messages %}Guest: {{ m.content }}\nHost:{% endfor %}"
YAML = """\
name: small
project: demo
models:
  - {label: instruct, source: demo/models/instruct}
  - {label: story, source: demo/models/story, prompt_format: edited}
primary: [instruct, story]
prompts: [PROMPTS]
sampling: careful
"""


def generate_command(what: Path) -> list[str]:
    return [sys.executable, "-m", "studio", "generate", str(what), "--json", "--engine", "embedded"]


def small_trial(folder: Path) -> Path:
    prompts = [{"id": f"p{n}", "category": "c", "prompt": f"Say {w} twice.", "max_tokens": 8}
               for n, w in enumerate(["needle", "pink", "lantern"])]  # fmt: skip
    file = folder / "prompts.jsonl"
    file.write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts))
    (folder / "TRIAL.yaml").write_text(YAML.replace("PROMPTS", str(file)))
    return folder / "TRIAL.yaml"


def test_generate_makes_the_answers_and_goes_on_where_it_was(tmp_path: Path) -> None:
    small_trial(tmp_path)
    environment = {**os.environ, "STUDIO_DATA": str(tmp_path / "data")}
    kept = Formats(tmp_path / "data" / "serve")
    kept.save("demo/models/story", edited(EDITED, ["Guest:"], None))

    def generate(what: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            generate_command(what),
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=110,
        )  # fmt: skip

    done = generate(tmp_path / "TRIAL.yaml")
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    folder = tmp_path / "data" / "trials" / "small"
    assert events[-1] == {"event": "done", "path": str(folder)}
    assert (events[-2]["done"], events[-2]["total"]) == (18, 18)
    assert "3 votes on 3 prompts" in done.stderr
    assert "story: its weights take the place of the last model's" in done.stderr
    trial = open_trial(folder)
    found = trial.answers()
    assert set(found) == set(trial.needed) and len(found) == 18
    formats = {answer.model: answer.prompt_format for answer in found.values()}
    assert formats["story"] == f"edited:{sha256(EDITED.encode()).hexdigest()[:8]}"
    assert formats["instruct"].startswith("own:")
    assert {"Guest:" in answer.sampling["stop"] for answer in found.values()} == {True, False}
    for answer in found.values():
        assert answer.identity["engine"] and answer.identity["fingerprint"]
        assert answer.sampling["temperature"] == 0.7 and answer.sampling["seed"] == answer.seed
        assert 0 < answer.completion_tokens <= 8 and answer.prompt_tokens > 3
    lines = (folder / "answers.jsonl").read_text().splitlines(keepends=True)
    (folder / "answers.jsonl").write_text("".join(lines[:16]))
    kept.save("demo/models/story", edited(EDITED + " ", [], None))
    other = generate(tmp_path / "TRIAL.yaml")
    assert other.returncode == 2 and "with another design" in other.stderr
    again = generate(folder)
    assert again.returncode == 0, again.stderr
    assert [json.loads(line)["event"] for line in again.stdout.splitlines()][-1] == "done"
    assert len((folder / "answers.jsonl").read_text().splitlines()) == 18


def test_generate_and_the_serve_tab_leave_each_other_alone(tmp_path: Path) -> None:
    """The tab's engine is asked for its model, not started again, and lives on; and so does the
    command while a studio opens and closes beside it."""
    file, data = small_trial(tmp_path), tmp_path / "data"
    file.write_text(file.read_text().replace("prompt_format: edited", "prompt_format: own"))
    serve = Fleet(data / "engines")
    try:
        name = ready(serve, ModelSpec(model=str(DEMO.with_name("story")), engine="embedded"))
        run = subprocess.Popen(
            generate_command(file), cwd=ROOT, env={**os.environ, "STUDIO_DATA": str(data)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        while not neighbours(serve.folder, {name}):
            assert run.poll() is None, run.communicate()
        beside = Fleet(serve.folder)
        beside.close()
        out, said = run.communicate(timeout=110)
        assert run.returncode == 0, said
        assert sum("left alone" in line for line in beside.found) == 2
        assert f"story: is asked in the engine of process {os.getpid()}, which has it" in said
        assert (
            "story: an engine is started" not in said and "instruct: an engine is started" in said
        )
        found = open_trial(Path(json.loads(out.splitlines()[-1])["path"])).answers().values()
        held = {a.model: {**a.identity, "label": "", "fingerprint": ""} for a in found}
        assert held["story"] == held["instruct"] and len(found) == 18
        assert [state.phase for state in serve.snapshot()] == ["ready"]
        with closing(serve.engine(name)) as engine:
            assert engine.complete("Hello", Sampling(max_tokens=2)).completion_tokens
        assert [each.name for each in serve.folder.iterdir() if each.is_dir()] == [name]
    finally:
        serve.close()


def test_a_server_elsewhere_answers_for_its_model_and_its_key_is_stored_nowhere(
    tmp_path: Path,
) -> None:
    file, data = small_trial(tmp_path), tmp_path / "data"
    text = file.read_text().replace("prompt_format: edited", "prompt_format: own")
    file.write_text(text.replace("models/story", "models/roleplay"))
    elsewhere = Fleet(tmp_path / "elsewhere")
    try:
        spec = ModelSpec(model=str(DEMO.with_name("roleplay")), engine="embedded", open_port=True)
        state = elsewhere.state(ready(elsewhere, spec))
        command = [*generate_command(file), "--endpoint", f"story={state.url}"]
        unlocked = {**os.environ, "STUDIO_DATA": str(data), "ENDPOINT_KEY": str(state.key)}
        wrong = {**unlocked, "ENDPOINT_KEY": "x" * 40}
        refused, done = (
            subprocess.run(command, cwd=ROOT, env=each, capture_output=True, text=True, timeout=110)
            for each in (wrong, unlocked)
        )
    finally:
        elsewhere.close()
    assert refused.returncode == 2 and "the engine's key is missing or wrong" in refused.stderr
    assert done.returncode == 0, done.stderr
    found = open_trial(Path(json.loads(done.stdout.splitlines()[-1])["path"])).answers().values()
    asked = {a.model: (a.identity["engine"], a.prompt_format[:4]) for a in found}
    assert asked == {"instruct": ("embedded", "own:"), "story": ("endpoint", "own:")}
    assert len(found) == 18
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files and not [p for p in files if str(state.key).encode() in p.read_bytes()]


@pytest.mark.parametrize(
    ("source", "more", "told"),
    [
        ("/nowhere/story", [], "/nowhere/story: there is no such folder"),
        ("my model", [], "my model: neither a folder here nor a Hub id"),
        ("demo/models/story", ["--endpoint", "tale=http://127.0.0.1:1"], "one of the labels"),
    ],
)
def test_a_trial_whose_models_cannot_be_asked_is_not_fixed_and_spends_nothing(
    tmp_path: Path, source: str, more: list[str], told: str
) -> None:
    file = small_trial(tmp_path)
    text = file.read_text().replace(", prompt_format: edited", "")
    file.write_text(text.replace("demo/models/story", source))
    done = subprocess.run(
        [*generate_command(file), *more], cwd=ROOT, capture_output=True, text=True, timeout=110,
        env={**os.environ, "STUDIO_DATA": str(tmp_path / "data")},
    )  # fmt: skip
    assert done.returncode == 2 and told in done.stderr
    assert not (tmp_path / "data" / "trials").exists()
