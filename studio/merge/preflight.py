"""Everything that can go wrong is found before a byte of weights is read.

Preflight reads configs, tokenizers and headers only, lists every problem at once, and returns the
plan that the pass carries out.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studio.errors import StudioError
from studio.merge import chat_template
from studio.merge.compare import Comparison, compare_configs, language_config, value_of
from studio.merge.layout import is_head
from studio.merge.plan import Options, Plan, ShardJob, shards_of
from studio.merge.recipe import Recipe
from studio.merge.tensors import Matching, is_vocabulary, match_tensors
from studio.merge.tokenizers import compare_tokenizers
from studio.weights import hub
from studio.weights.checkpoint import Checkpoint
from studio.weights.dtypes import FLOATS, TORCH_NAMES
from studio.weights.strict_json import read_object

SHORT_NAMES = {long: short for short, long in TORCH_NAMES.items()}
SLACK = 64 << 20


def check(recipe: Recipe, options: Options, out: Path | None = None) -> Plan:
    """Check the recipe against its sources and make the plan.

    Hub models are fetched if they are not here; their configs first, so that a wrong model is
    found before anything large is downloaded. `out` is the folder to be written, checked if given.
    Raises one StudioError that lists every problem.
    """
    configs = _configs(recipe)
    compared = compare_configs(configs, options.allow)
    if compared.misfits:
        raise StudioError.listing("these sources cannot merge", compared.problems)
    sources = _open(recipe)
    texts = _text_findings(recipe, sources, options)
    problems = [*compared.problems, *texts.problems]
    warnings = [*recipe.warnings, *compared.warnings, *texts.warnings]
    wanted = options.dtype or recipe.dtype
    dtype = SHORT_NAMES[wanted] if wanted else _promoted(sources)
    num_layers = value_of(sources[0].config, "num_hidden_layers")
    if not isinstance(num_layers, int) or num_layers < 1:
        raise StudioError(
            f"{sources[0].label}: config.json gives no number of layers (num_hidden_layers); "
            "it is not the config of a language model"
        )
    matching = match_tensors(sources, num_layers, dtype, options.missing)
    shards = shards_of(matching.jobs, options.shard_bytes)
    problems += matching.problems
    if out is not None:
        problems += _output_problems(out, shards)
    if problems:
        raise StudioError.listing("this recipe cannot be merged", problems)
    assert matching.layout is not None
    plan = Plan(
        recipe=recipe,
        options=options,
        sources=sources,
        layout=matching.layout,
        shards=shards,
        dtype=dtype,
        config=_result_config(sources[0].config, matching, dtype),
        notes=tuple(matching.notes),
        warnings=tuple(warnings),
    )
    plan.settings  # noqa: B018  a rule that matches nothing is a problem of the recipe, found here
    return plan


def _text_findings(recipe: Recipe, sources: tuple[Checkpoint, ...], options: Options) -> Comparison:
    """What is wrong with the tokenizers and the chat template."""
    found = Comparison()
    found.problems, found.warnings = compare_tokenizers({s.label: s.path for s in sources})
    if "tokenizer" in options.allow:
        found.problems, found.warnings = [], [*found.problems, *found.warnings]
    try:
        chat_template.resolve(recipe.final.chat_template, [source.path for source in sources])
    except StudioError as error:
        found.problems.append(str(error))
    return found


def _configs(recipe: Recipe) -> dict[str, Mapping[str, Any]]:
    configs: dict[str, Mapping[str, Any]] = {}
    problems = []
    for model in recipe.sources:
        try:
            configs[model] = read_object(hub.small_files(model) / "config.json")
        except StudioError as error:
            problems.append(str(error))
    if problems:
        raise StudioError.listing("some sources cannot be read", problems)
    return configs


def _open(recipe: Recipe) -> tuple[Checkpoint, ...]:
    sources, problems = [], []
    for model in recipe.sources:
        try:
            sources.append(Checkpoint.open(hub.all_files(model), model))
        except StudioError as error:
            problems.append(str(error))
    if problems:
        raise StudioError.listing("some sources cannot be read", problems)
    return tuple(sources)


def _promoted(sources: tuple[Checkpoint, ...]) -> str:
    """The dtype that holds every value of every source: float32 where they differ."""
    found = {t.dtype for s in sources for t in s.tensors.values() if t.dtype in FLOATS}
    return found.pop() if found in ({"BF16"}, {"F16"}) else "F32"


def _output_problems(out: Path, shards: tuple[ShardJob, ...]) -> list[str]:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        return [f"{out} exists and is not an empty folder; choose another output"]
    home = next(parent for parent in out.resolve().parents if parent.exists())
    done = sum(f.stat().st_blocks * 512 for f in partial_folder(out).glob("*.safetensors"))
    needed = sum(shard.nbytes + len(shard.header()) for shard in shards) + SLACK - done
    free = shutil.disk_usage(home).free
    if free < needed:
        return [
            f"{home} has {free / 1e9:.1f} GB free, the result needs {needed / 1e9:.1f} GB; "
            f"free {(needed - free) / 1e9:.1f} GB or choose another output"
        ]
    return []


def partial_folder(out: Path) -> Path:
    """Where the result is built before it is complete."""
    return out.with_name(out.name + ".partial")


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
