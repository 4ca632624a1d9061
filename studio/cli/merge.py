"""The commands on recipes and merges: check, preview, merge, verify."""

import argparse
import dataclasses
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from studio.cli.exits import CANCELLED, add_tether
from studio.cli.given import read_text
from studio.cli.preview import add_options, kept_grams, show_preview
from studio.cli.progress import Bar, Display, JsonLines, emit

if TYPE_CHECKING:
    from studio.merge.plan import Options
    from studio.merge.recipe import Recipe

DTYPES = ("bfloat16", "float16", "float32")
MISSING_HELP = "tensors that some sources lack: refuse (the default), or take the base's"
ALLOW_HELP = "let a config key, or the tokenizer, differ between sources"
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "MIB": 2**20, "GIB": 2**30}


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add this module's commands to the parser."""
    check = commands.add_parser("check", help="check a recipe without reading weights")
    merge = commands.add_parser("merge", help="merge a recipe into a folder")
    preview = commands.add_parser("preview", help="shares, angles and norms per layer")
    for command in (check, merge, preview):
        _add_merge_options(command, out_required=command is merge)
        add_tether(command)
    add_options(preview)
    verify = commands.add_parser("verify", help="read a finished merge again and check it all")
    verify.add_argument("folder", type=Path, metavar="DIR")
    for command, run in ((check, _check), (merge, _merge), (preview, _preview), (verify, _verify)):
        command.set_defaults(run=run)


def _add_merge_options(command: argparse.ArgumentParser, *, out_required: bool) -> None:
    add = command.add_argument
    add("recipe", type=Path, metavar="RECIPE", help="a recipe in mergekit's YAML")
    add("--out", type=Path, metavar="DIR", required=out_required, help="the folder to write")
    add("--dtype", choices=DTYPES, help="of the result, instead of the recipe's")
    add("--shard-size", type=_size, dest="shard_bytes", metavar="SIZE", help="default 5GB")
    add("--missing", choices=("error", "base"), help=MISSING_HELP)
    add("--allow", action="append", metavar="NAME", help=ALLOW_HELP)
    add("--device", choices=("cpu", "cuda"), help="where to compute, default cpu")
    add("--json", action="store_true", help="data as JSON on stdout")


def _size(text: str) -> int:
    """Bytes from '5GB', '500 MB', '64MiB' or a plain number."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)", text.strip())
    if not found or found[2].upper() not in UNITS or float(found[1]) <= 0:
        raise argparse.ArgumentTypeError(f'"{text}" is not a size; write it as 5GB or 500MB')
    return int(float(found[1]) * UNITS[found[2].upper()])


def _recipe(path: Path) -> "Recipe":
    from studio.merge.recipe_files.recipe_yaml import load_recipe

    return load_recipe(read_text(path), path.name)


def _options(parsed: argparse.Namespace) -> "Options":
    from studio.merge.plan import Options

    names = {field.name for field in dataclasses.fields(Options)}
    given = {k: v for k, v in vars(parsed).items() if k in names and v is not None}
    if "allow" in given:
        given["allow"] = frozenset(given["allow"])
    return Options(**given)


def _check(parsed: argparse.Namespace) -> int:
    from studio.merge.preflight import check
    from studio.merge.summary import summary, summary_text

    plan = check(_recipe(parsed.recipe), _options(parsed), parsed.out)
    found = summary(plan)
    emit(found) if parsed.json else print(summary_text(found))
    return 0


def _preview(parsed: argparse.Namespace) -> int:
    return show_preview(parsed, _recipe(parsed.recipe), _options(parsed))


def _verify(parsed: argparse.Namespace) -> int:
    from studio.merge.verify import verify

    verify(parsed.folder, print)
    return 0


def _merge(parsed: argparse.Namespace) -> int:
    # Read as numpy is imported: threads of its own would only take time from the merge's.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from studio.merge.preflight import check, fetch

    show: Display = JsonLines() if parsed.json else Bar(sys.stderr)
    plan = check(_recipe(parsed.recipe), _options(parsed), parsed.out)
    for line in (*plan.warnings, *plan.notes):
        print(f"note: {line}", file=sys.stderr)
    from studio.merge.run import merge  # heavy: only for a recipe that can be merged

    try:
        plan = fetch(plan, show.download)
        merge(plan, parsed.out, show.update, kept_grams())
    except KeyboardInterrupt:
        show.cancelled()
        return CANCELLED
    show.done(parsed.out)
    return 0
