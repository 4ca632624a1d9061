"""The files beside the weights of a finished merge: config, index, tokenizer, card and report."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from studio import chat_template
from studio.durable import sync_folder
from studio.errors import StudioError
from studio.merge.card import Prompt, make_card
from studio.merge.journal import ShardRecord
from studio.merge.plan import Plan
from studio.merge.recipe_files.recipe_dump import dump_recipe
from studio.merge.report import FILE as REPORT
from studio.merge.report import make_report, report_text
from studio.merge.tokens.tokenizer_files import changed_files
from studio.weights.checkpoint import INDEX, SAFETENSORS
from studio.weights.strict_json import parse_object

INDEX_FILE = SAFETENSORS + INDEX
CARD = "README.md"
RECIPE = "recipe.yaml"
# Taken from the base as they are. Python files are left: the result must not run a source's code.
TOKENIZER_FILES = (
    "tokenizer_config.json", "special_tokens_map.json", "tokenizer.json", "tokenizer.model",
    "added_tokens.json", "merges.txt", "vocab.json", chat_template.FILE, "generation_config.json",
)  # fmt: skip


def write_companions(
    plan: Plan, folder: Path, records: Sequence[ShardRecord], seconds: float
) -> None:
    """Write everything but the shards into `folder`, where the shards lie.

    `records`: one for each shard; `seconds`: how long the merge took. The same plan gives the same
    bytes, but for the time in the report. Each file is synced to disk. Raises StudioError if a
    source's file cannot be read or the disk is full.
    """
    paths = {source.label: source.path for source in plan.sources}
    base = paths[plan.alignment.origin] if plan.alignment else plan.sources[0].path
    template = chat_template.resolve(
        plan.recipe.final.chat_template, [source.path for source in plan.sources]
    )
    report = make_report(plan, records, seconds)
    prompt = Prompt(template or chat_template.of_folder(base), chat_template.special_tokens(base))
    files = {"config.json": _json(dict(plan.config))}
    if len(plan.shards) > 1:
        files[INDEX_FILE] = _json(_index(plan))
    changed = changed_files(paths, plan.alignment) if plan.alignment else {}
    files |= _tokenizer(base, template, changed)
    files[RECIPE] = dump_recipe(plan.recipe).encode()
    files[CARD] = make_card(plan, report, prompt).encode()
    report["files"] = {name: digest(files[name]) for name in sorted(files)}
    files[REPORT] = report_text(report).encode()
    for name, content in files.items():
        _write(folder / name, content)
    sync_folder(folder)


def digest(content: bytes) -> str:
    """By which a companion is known again, as the report notes it."""
    return hashlib.sha256(content).hexdigest()


def _index(plan: Plan) -> dict[str, object]:
    places = {job.name: shard.file for shard in plan.shards for job in shard.tensors}
    return {
        "metadata": {"total_size": sum(shard.nbytes for shard in plan.shards)},
        "weight_map": dict(sorted(places.items())),
    }


def _tokenizer(
    base: Path, template: str | None, changed: Mapping[str, dict[str, Any]]
) -> dict[str, bytes]:
    """The base's tokenizer files, as they are or `changed`; with the given chat template in both
    places that hold one.

    Old tools know only tokenizer_config.json, and where the two differ it depends on the tool
    which one rules.
    """
    files = {name: _read(base / name) for name in TOKENIZER_FILES if (base / name).is_file()}
    files |= {name: _json(content) for name, content in changed.items()}
    if template is not None:
        if chat_template.CONFIG in files:
            config = parse_object(files[chat_template.CONFIG], base / chat_template.CONFIG)
            config["chat_template"] = template
            files[chat_template.CONFIG] = _json(config)
        files[chat_template.FILE] = template.encode()
    return files


def _json(value: dict[str, object]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StudioError(f"{path}: cannot be read ({error.strerror})") from error


def _write(path: Path, content: bytes) -> None:
    """Replace the file; the bytes are on the disk when this returns."""
    try:
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StudioError(
            f"{path}: cannot be written ({error.strerror}); make room, then run the same command "
            "again: the finished weights are kept"
        ) from error
