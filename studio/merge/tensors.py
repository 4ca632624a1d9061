"""Which tensors the result has and what each is made of: mixed, copied from the base, or left."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from studio.merge.findings import REMEDY, VocabularyProblem
from studio.merge.layout import Layout, is_buffer, is_head
from studio.merge.plan import TensorJob
from studio.merge.tokens.alignment import Alignment
from studio.weights.checkpoint import Checkpoint
from studio.weights.dtypes import FLOATS
from studio.weights.header import TensorInfo

SHOWN = 4
LONGEST = 120


@dataclass(slots=True)
class Matching:
    """The outcome for all tensors: jobs, problems and notes.

    The jobs are in the order of the model, but for the layers, which come first: what they are
    made of is being written while the large Gram matrices of embeddings and head are measured.

    `everything`: all tensors of the sources. `mixed`: the names of those that are mixed, not
    copied. `clashes`: the names of those whose shapes differ, by what is to be said about them.
    """

    everything: Layout
    jobs: list[TensorJob] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    clashes: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def layout(self) -> Layout:
        """Of the tensors that are mixed."""
        return self.everything.subset(self.mixed)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whose tensors are to be matched, and how.

    `sources`: the base first. `dtype`: of mixed tensors, in safetensors' names; `missing`: "error",
    or "base" to take tensors that some sources lack from the base; `alignment`: of the
    vocabularies, if by token.
    """

    sources: Sequence[Checkpoint]
    num_layers: int
    dtype: str
    missing: str
    alignment: Alignment | None = None


def match_tensors(wanted: Wanted) -> Matching:
    """Match the sources' tensors by name."""
    sources = wanted.sources
    names = list(dict.fromkeys(name for source in sources for name in source.tensors))
    full = Layout.of(names, wanted.num_layers)
    found = Matching(full)
    copied: list[str] = []
    absent: dict[str, list[str]] = {}
    for name in full.names:
        infos = [_find(source, name) for source in sources]
        if _is_copied(name, infos):
            copied.append(name)
        elif None in infos:
            lacking = [s.label for s, info in zip(sources, infos, strict=True) if info is None]
            absent[name] = lacking
            if wanted.missing == "base":
                copied.append(name)
        else:
            _add_mix(found, wanted, name, [info for info in infos if info])
    for clash, clashing in found.clashes.items():
        verb = "have" if clashing[1:] else "has"
        found.problems.append(type(clash)(f"{_listing(clashing)} {verb} {clash}"))
    if absent and wanted.missing != "base":
        found.problems += _absences(absent)
    _add_copies(found, sources[0], copied)
    if any(name.endswith(".weight") and is_head(name) for name in full.names):
        _note_tied_heads(found, sources)
    places = enumerate(zip(full.names, full.layers, strict=True))
    order = {name: (layer < 0, rank) for rank, (name, layer) in places}
    found.jobs.sort(key=lambda job: order[job.name])
    return found


def _find(source: Checkpoint, name: str) -> TensorInfo | None:
    """The source's tensor; a model without an output head lends its embeddings, as in mergekit."""
    if name in source.tensors or not is_head(name):
        return source.tensors.get(name)
    if not name.endswith(".weight"):
        return None
    return next((info for key, info in source.tensors.items() if is_vocabulary(key)), None)


def is_vocabulary(name: str) -> bool:
    """Whether the tensor is the table of token embeddings, one row a token."""
    words = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")
    return name.endswith(words)


def rows_of(source: Checkpoint) -> int:
    """The rows of the source's table of token embeddings; 0 if it has none."""
    shapes = (info.shape for name, info in source.tensors.items() if is_vocabulary(name))
    return next((shape[0] for shape in shapes if shape), 0)


def _is_copied(name: str, infos: Sequence[TensorInfo | None]) -> bool:
    return is_buffer(name) or any(info and info.dtype not in FLOATS for info in infos)


def _add_mix(found: Matching, wanted: Wanted, name: str, infos: Sequence[TensorInfo]) -> None:
    everyone = tuple(range(len(infos)))
    alignment = wanted.alignment if is_vocabulary(name) or is_head(name) else None
    if alignment and all(
        info.shape[:1] == (rows_of(source),) and info.shape[1:] == infos[0].shape[1:]
        for source, info in zip(wanted.sources, infos, strict=True)
    ):
        shape = (alignment.rows, *infos[0].shape[1:])
        job = TensorJob(name, shape, wanted.dtype, tuple(infos), everyone, alignment.runs)
    elif alignment or len({info.shape for info in infos}) > 1:
        found.clashes.setdefault(_clash(wanted, name, infos), []).append(name)
        return
    else:
        job = TensorJob(name, infos[0].shape, wanted.dtype, tuple(infos), everyone)
    found.jobs.append(job)
    found.mixed.append(name)


def _clash(wanted: Wanted, name: str, infos: Sequence[TensorInfo]) -> str:
    """What is to be said of tensors of this name, whose shapes do not fit together."""
    shapes = ", ".join(
        f"{source.label} {list(info.shape)}"
        for source, info in zip(wanted.sources, infos, strict=True)
    )
    is_table = is_vocabulary(name) or is_head(name)
    if not is_table or len({info.shape[1:] for info in infos}) > 1:
        return f"different shapes ({shapes}): use models of one architecture and size"
    if wanted.alignment:
        return (
            f"different shapes ({shapes}): use models whose output head has as many rows as their "
            "embeddings"
        )
    return VocabularyProblem(
        f"different shapes ({shapes}): the vocabularies have different sizes; {REMEDY}"
    )


def _add_copies(found: Matching, base: Checkpoint, names: Sequence[str]) -> None:
    kept = [name for name in names if name in base.tensors]
    for name in kept:
        info = base.tensors[name]
        found.jobs.append(TensorJob(name, info.shape, info.dtype, (info,), (0,)))
    if kept:
        found.notes.append(f"copied from {base.label}: {_listing(kept)}")
    if left := [name for name in names if name not in base.tensors]:
        found.notes.append(f"not in {base.label} and left out: {_listing(left)}")


def _note_tied_heads(found: Matching, sources: Sequence[Checkpoint]) -> None:
    tied = [s.label for s in sources if not any(is_head(name) for name in s.tensors)]
    if tied:
        found.notes.append(
            f"{', '.join(tied)} ties its output head to the embeddings: they stand in for it, and "
            "the result has a head of its own"
        )


def _absences(absent: dict[str, list[str]]) -> list[str]:
    by_models: dict[tuple[str, ...], list[str]] = {}
    for name, models in absent.items():
        by_models.setdefault(tuple(models), []).append(name)
    return [
        f"{', '.join(models)} lacks {_listing(names)}, which other sources have; use sources of "
        "one architecture, or take them from the base (--missing base)"
        for models, names in by_models.items()
    ]


def _listing(names: Sequence[str]) -> str:
    shown = ", ".join(_brief(name) for name in names[:SHOWN])
    return shown + (f" and {len(names) - SHOWN} more tensors" if len(names) > SHOWN else "")


def _brief(name: str) -> str:
    """The name, shortened where it is longer than any real one."""
    return name if len(name) <= LONGEST else f"{name[:LONGEST]}…"
