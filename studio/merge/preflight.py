"""Everything that can go wrong is found before a byte of weights is read.

Preflight reads configs, tokenizers and headers only, lists every problem at once, and returns the
plan that the pass carries out.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from studio import chat_template
from studio.errors import StudioError
from studio.merge.coefficients import idle_filters, settings_of
from studio.merge.compare import (
    compare_configs,
    language_config,
    value_of,
    vocabulary_problems,
)
from studio.merge.findings import Findings, VocabularyProblem
from studio.merge.layout import is_head
from studio.merge.output import folder_problems, space_problems
from studio.merge.plan import Options, Plan, shards_of
from studio.merge.recipe import Recipe
from studio.merge.tensors import Matching, Wanted, is_vocabulary, match_tensors, rows_of
from studio.merge.tokens.alignment import Alignment
from studio.merge.tokens.tokenizer_files import changed_files
from studio.merge.tokens.tokenizers import compare_tokenizers
from studio.merge.tokens.vocabularies import alignment_of, table_text, vocabulary_table
from studio.weights import hub
from studio.weights.checkpoint import Checkpoint
from studio.weights.dtypes import FLOATS, TORCH_NAMES
from studio.weights.remote import open_model
from studio.weights.strict_json import read_object, shown

SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
SHORT_NAMES = {long: short for short, long in TORCH_NAMES.items()}


def check(recipe: Recipe, options: Options, out: Path | None = None) -> Plan:
    """Check the recipe against its sources and make the plan.

    Of Hub models that are not here, configs, tokenizers and the headers of weights are fetched, the
    latter only if nothing is wrong with the former; `fetch` gets the rest. `out` is the folder to
    be written, checked if given. Raises one StudioError that lists every problem.
    """
    found = Findings(warnings=list(recipe.warnings))
    folders, configs = _small_files(recipe, found)
    compared = compare_configs(configs, options.allow)
    found.add(compared)
    found.add(_text_findings(recipe, folders, options))
    if out is not None:
        found.problems += folder_problems(out)
    sizes = [] if recipe.is_aligned else vocabulary_problems(configs)
    is_remote = any(hub.local_folder(model) is None for model in configs)
    if is_remote:
        found.problems += sizes
    sources = _open(configs, found)
    if compared.misfits:
        raise StudioError.listing("these sources cannot merge", found.problems)
    if len(sources) < len(recipe.sources):
        found.problems += [] if is_remote else sizes
        rows = {model: value_of(config, "vocab_size") for model, config in configs.items()}
        raise _refusal("these sources cannot merge", found.problems, folders, rows)
    return _plan(recipe, sources, options, out, found)


def fetch(plan: Plan, on_progress: Callable[[int, int], None]) -> Plan:
    """Download the weights that are missing on this machine, and check again with them here.

    `on_progress(done, total)` is called now and then, in bytes. Raises StudioError if the Hub does
    not give them.
    """
    done, total = 0, plan.bytes_missing

    def count(more: int) -> None:
        nonlocal done
        done = min(done + more, total)
        on_progress(done, total)

    for source in plan.sources:
        if source.missing:
            hub.fetch(source.label, [file.name for file in source.files], count)
    return check(plan.recipe, plan.options) if total else plan


def folder_here(model: str) -> Path | None:
    """Where the model is on this machine, None if it would have to be fetched."""
    return hub.folder_here(model)


def _plan(
    recipe: Recipe,
    sources: tuple[Checkpoint, ...],
    options: Options,
    out: Path | None,
    found: Findings,
) -> Plan:
    """The plan for opened sources; `found`: what was found of them before."""
    dtype_name = options.dtype or recipe.dtype
    dtype = SHORT_NAMES[dtype_name] if dtype_name else _promoted(sources)
    num_layers = _num_layers(sources[0])
    alignment = _alignment(recipe, sources, found)
    matching = match_tensors(Wanted(sources, num_layers, dtype, options.missing, alignment))
    layout = matching.layout
    shards = shards_of(matching.jobs, options.shard_bytes)
    # Where tokens could not be aligned, the remedy for different rows has been tried already.
    solved = VocabularyProblem if recipe.is_aligned else ()
    found.problems += [text for text in matching.problems if not isinstance(text, solved)]
    found.problems += space_problems(out, shards, sources)
    with found.noting():
        settings_of(recipe, layout)
        found.warnings += idle_filters(recipe, layout)
    if found.problems:
        folders = {source.label: source.path for source in sources}
        rows = {source.label: rows_of(source) for source in sources}
        raise _refusal("this recipe cannot be merged", found.problems, folders, rows)
    return Plan(
        recipe=recipe,
        options=options,
        sources=sources,
        layout=layout,
        shards=shards,
        dtype=dtype,
        config=_result_config(_base_config(sources, alignment), matching, dtype),
        notes=(*matching.notes, *(alignment.notes if alignment else ())),
        warnings=tuple(found.warnings),
        alignment=alignment,
    )


def _alignment(
    recipe: Recipe, sources: tuple[Checkpoint, ...], found: Findings
) -> Alignment | None:
    """The alignment of a recipe that merges by token; None also where there can be none."""
    alignment = None
    if recipe.is_aligned:
        with found.noting():
            alignment = alignment_of(recipe, sources, found)
            changed_files({source.label: source.path for source in sources}, alignment)
    return alignment


def _base_config(sources: tuple[Checkpoint, ...], alignment: Alignment | None) -> dict[str, Any]:
    """The base's config, with the ids of special tokens of the model that gives the tokenizer."""
    config = dict(sources[0].config)
    if alignment is not None and alignment.origin != sources[0].label:
        (origin,) = (source for source in sources if source.label == alignment.origin)
        for key in SPECIAL_IDS:
            config.pop(key, None)
            if key in origin.config:
                config[key] = origin.config[key]
    return config


def _small_files(
    recipe: Recipe, found: Findings
) -> tuple[dict[str, Path], dict[str, Mapping[str, Any]]]:
    """Folders and configs of the sources that can be read; the others are problems."""
    folders: dict[str, Path] = {}
    configs: dict[str, Mapping[str, Any]] = {}
    for model in recipe.sources:
        with found.noting():
            folder = hub.small_files(model)
            configs[model] = read_object(folder / "config.json")
            folders[model] = folder
    return folders, configs


def _text_findings(recipe: Recipe, folders: Mapping[str, Path], options: Options) -> Findings:
    """What is wrong with the tokenizers and the chat template."""
    found = Findings()
    if not recipe.is_aligned:
        with found.noting():
            found.add(compare_tokenizers(folders))
    if "tokenizer" in options.allow:
        found = Findings(warnings=[*found.problems, *found.warnings])
    if recipe.base in folders:
        with found.noting():
            chat_template.resolve(recipe.final.chat_template, list(folders.values()))
    return found


def _open(configs: Mapping[str, Any], found: Findings) -> tuple[Checkpoint, ...]:
    """The sources that can be opened; where there are problems before, the Hub is not asked."""
    may_ask = not found.problems
    sources = []
    for model in configs:
        with found.noting():
            if may_ask or hub.local_folder(model) is not None:
                sources.append(open_model(model))
    return tuple(sources)


def _refusal(
    headline: str,
    problems: Sequence[str],
    folders: Mapping[str, Path],
    rows: Mapping[str, int | None],
) -> StudioError:
    """The error that lists the problems, with the vocabularies where they are one of these."""
    listed = StudioError.listing(headline, problems)
    if not any(isinstance(problem, VocabularyProblem) for problem in problems):
        return listed
    try:
        table = vocabulary_table(folders, rows)
    except StudioError:  # a damaged tokenizer is one of the problems already
        return listed
    return StudioError(f"{listed}\n{table_text(table)}", {"vocabularies": table})


def _num_layers(base: Checkpoint) -> int:
    num_layers = value_of(base.config, "num_hidden_layers")
    if type(num_layers) is not int or num_layers < 1:
        raise StudioError(
            f"{base.label}: config.json gives no number of layers (num_hidden_layers is "
            f"{shown(num_layers)}); it is not the config of a language model"
        )
    return num_layers


def _promoted(sources: tuple[Checkpoint, ...]) -> str:
    """The dtype that holds every value of every source: float32 where they differ."""
    found = {t.dtype for s in sources for t in s.tensors.values() if t.dtype in FLOATS}
    return found.pop() if found in ({"BF16"}, {"F16"}) else "F32"


def _result_config(base: Mapping[str, Any], matching: Matching, dtype: str) -> dict[str, Any]:
    """The base's config, made true to the weights that are written."""
    config = {key: value for key, value in base.items() if key != "_name_or_path"}
    if (inner := language_config(config)) is not config:
        config["text_config"] = dict(inner)
    own_head = any(is_head(job.name) for job in matching.jobs)
    rows = [job.shape[0] for job in matching.jobs if is_vocabulary(job.name)]
    for part in (config, config.get("text_config", config)):
        part["dtype" if "dtype" in part else "torch_dtype"] = TORCH_NAMES[dtype]
        part["tie_word_embeddings"] = not own_head
        if rows and "vocab_size" in part:
            part["vocab_size"] = rows[0]
    return config
