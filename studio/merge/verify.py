"""Is a finished merge whole? Everything on disk against everything that was noted about it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from studio.errors import StudioError
from studio.merge import report
from studio.merge.companions import CARD, INDEX_FILE, digest
from studio.merge.compare import value_of
from studio.merge.layout import Layout, is_head
from studio.merge.recipe_files.recipe_dump import fingerprint as recipe_fingerprint
from studio.merge.recipe_files.recipe_yaml import load_recipe
from studio.merge.tensors import is_vocabulary
from studio.weights.dtypes import FLOATS, TORCH_NAMES
from studio.weights.elements import span_of
from studio.weights.header import TensorInfo, read_header
from studio.weights.strict_json import read_object, shown
from studio.weights.values import all_finite
from studio.weights.writer import digest_file

SHOWN = 3


def verify(folder: Path, on_line: Callable[[str], None] = lambda line: None) -> list[str]:
    """Read a finished merge again, whole, and return what was checked, a line for each.

    `on_line` gets each line as soon as it is known: a 70B model takes minutes. Raises StudioError
    that lists everything that is wrong.
    """
    if not folder.is_dir():
        raise StudioError(f"{folder}: there is no such folder; give the folder of a finished merge")
    if not (folder / report.FILE).is_file():
        raise StudioError(
            f"{folder}: no {report.FILE}, which every finished merge has; it is not the result of "
            "a merge of this studio, or the merge is not finished"
        )
    verification = _Verification(folder, on_line)
    for check in (
        verification.files,
        verification.shards,
        verification.index,
        verification.config,
        verification.recipe,
    ):
        check()
    if verification.problems:
        raise StudioError.listing(
            f"{folder} is not as it was written; restore it or merge again",
            [f"{folder}: {problem}" for problem in verification.problems],
        )
    return verification.lines


class _Verification:
    """The state of one check-up: what was read, what was fine, what was not."""

    def __init__(self, folder: Path, on_line: Callable[[str], None]) -> None:
        self._folder, self._on_line = folder, on_line
        self.lines: list[str] = []
        self.problems: list[str] = []
        self._report = read_object(folder / report.FILE)
        self._records = _shard_records(folder / report.FILE, self._report)
        self._tensors: dict[str, TensorInfo] = {}

    def files(self) -> None:
        """Every file that was written is there and unchanged, but for the card; no other shard."""
        noted = _companions(self._folder / report.FILE, self._report)
        missing = [n for n in (*noted, *self._records) if not (self._folder / n).is_file()]
        kept = noted.keys() - {CARD, *missing}
        changed = sorted(n for n in kept if digest((self._folder / n).read_bytes()) != noted[n])
        self.problems += [f"{name} is missing; it was written" for name in missing]
        self.problems += [f"{name} has changed since it was written" for name in changed]
        found = {path.name for path in self._folder.glob("*.safetensors")}
        for name in sorted(found - self._records.keys()):
            self.problems.append(
                f"{name} is not a file of this merge; remove it, tools may load it"
            )
        count = len(noted) + len(self._records)
        self._note(
            f"{count} files that were written are there, those beside the weights unchanged",
            missing + changed,
        )

    def shards(self) -> None:
        """Size, header, digest and values of every shard."""
        for name, (size, expected) in self._records.items():
            path = self._folder / name
            if not path.is_file():
                continue
            problems = self._shard(path, size, expected)
            self.problems += [f"{name}: {problem}" for problem in problems]
            self._note(f"{name}: size, header, digest and values of {size:,} bytes", problems)

    def _shard(self, path: Path, size: int, expected: str) -> list[str]:
        if (found := path.stat().st_size) != size:
            return [f"{found:,} bytes long, {size:,} were written"]
        try:
            tensors = read_header(path)
        except StudioError as error:
            return [str(error)]
        problems = []
        if (read := digest_file(path)) != expected:
            problems.append(f"its digest is {read}, written was {expected}: bytes have changed")
        for name in self._tensors.keys() & tensors.keys():
            problems.append(f"{name} is also in {self._tensors[name].file.name}")
        self._tensors |= tensors
        if bad := [name for name, info in tensors.items() if not _is_finite(info)]:
            problems.append(f"NaN or infinite values in {_listing(bad)}")
        return problems

    def index(self) -> None:
        """The index names the tensors that are there, where they are."""
        path = self._folder / INDEX_FILE
        if not path.is_file():
            if len(self._records) > 1:
                self.problems.append(f"{INDEX_FILE} is missing, so tools cannot find the weights")
            return
        index, problems = read_object(path), []
        noted = index.get("weight_map")
        actual = {name: info.file.name for name, info in self._tensors.items()}
        if not isinstance(noted, dict):
            problems.append(f"{INDEX_FILE}: weight_map is {shown(noted)}")
        elif wrong := sorted(n for n in noted.keys() | actual if noted.get(n) != actual.get(n)):
            problems.append(f"{INDEX_FILE} and the shards disagree about {_listing(wrong)}")
        total = sum(info.nbytes for info in self._tensors.values())
        metadata = index.get("metadata")
        if not isinstance(metadata, dict) or metadata.get("total_size") != total:
            problems.append(
                f"{INDEX_FILE}: metadata is {shown(metadata)}, total_size should be {total}"
            )
        self.problems += problems
        self._note(f"{INDEX_FILE}: {len(actual)} tensors, {total:,} bytes", problems)

    def config(self) -> None:
        """config.json tells the truth about the weights: layers, rows, head, dtype."""
        path = self._folder / "config.json"
        if not path.is_file():
            return  # told by `files`
        config, problems = read_object(path), []
        layers = value_of(config, "num_hidden_layers")
        try:
            Layout.of(list(self._tensors), layers if isinstance(layers, int) else 0)
        except StudioError as error:
            problems.append(str(error))
        rows = value_of(config, "vocab_size")
        for name, info in self._tensors.items():
            if (is_vocabulary(name) or name.endswith("lm_head.weight")) and info.shape[0] != rows:
                problems.append(f"config.json: vocab_size is {rows}, {name} has {info.shape[0]}")
        own_head = any(is_head(name) for name in self._tensors)
        if own_head and value_of(config, "tie_word_embeddings") is True:
            problems.append("config.json ties the output head, but the weights hold one of its own")
        problems += self._dtype_problems(config)
        self.problems += problems
        self._note(f"config.json: {layers} layers, {rows} tokens, as in the weights", problems)

    def _dtype_problems(self, config: dict[str, Any]) -> list[str]:
        named = config.get("dtype") or config.get("torch_dtype")
        mixed = self._report.get("tensors")
        names = [t.get("name") for t in mixed] if isinstance(mixed, list) else []
        found = {TORCH_NAMES[self._tensors[n].dtype] for n in names if n in self._tensors}
        if found - {named}:
            return [f"config.json: dtype is {named}, the weights are {', '.join(sorted(found))}"]
        return []

    def recipe(self) -> None:
        """The recipe beside the weights is the one that made them."""
        path = self._folder / "recipe.yaml"
        noted = self._report.get("recipe")
        fingerprint = noted.get("fingerprint") if isinstance(noted, dict) else None
        if not path.is_file():
            return  # told by `files`
        problems = []
        try:
            found = load_recipe(path.read_text(encoding="utf-8"), path.name)
            if recipe_fingerprint(found) != fingerprint:
                problems.append("recipe.yaml is not the recipe of this merge: it was changed")
        except (StudioError, UnicodeDecodeError) as error:
            problems.append(f"recipe.yaml cannot be read ({error})")
        self.problems += problems
        self._note(f"recipe.yaml: the recipe of this merge, {fingerprint}", problems)

    def _note(self, line: str, problems: list[str]) -> None:
        if not problems:
            self.lines.append(line)
            self._on_line(line)


def _shard_records(path: Path, content: dict[str, object]) -> dict[str, tuple[int, str]]:
    """Size and digest of each shard by its file's name."""
    entries = content.get("shards")
    if content.get("format") != report.FORMAT or not isinstance(entries, list) or not entries:
        raise StudioError(f"{path}: not a report of format {report.FORMAT}; merge again")
    records = {}
    for entry in entries:
        match entry:
            case {"file": str(file), "size": int(size), "digest": str(expected)} if (
                Path(file).name == file
            ):
                records[file] = (size, expected)
            case _:
                raise StudioError(f"{path}: {shown(entry)} does not describe a shard; merge again")
    return records


def _companions(path: Path, content: dict[str, object]) -> dict[str, str]:
    """The digest of each file beside the weights by its name."""
    match content.get("files"):
        case dict(noted) if all(Path(n).name == n and type(d) is str for n, d in noted.items()):
            return noted
        case other:
            raise StudioError(f"{path}: files is {shown(other)}, not digests by name; merge again")


def _is_finite(info: TensorInfo) -> bool:
    """Whether a tensor holds no NaN and no infinity; integers never do."""
    if info.dtype not in FLOATS:
        return True
    with span_of(info) as span:
        return all_finite(span)


def _listing(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
