"""The model card: README.md with the front matter that the Hub reads.

Names, licences and notes come from other people's files. In the front matter only a YAML writer
sets them, in the body they are always inside code spans, fences or escaped: no source can add a
line, a link or a heading of its own.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import yaml

from studio import __version__, chat_template
from studio.errors import StudioError
from studio.merge.methods import METHODS
from studio.merge.methods.slerp import SLERP
from studio.merge.plan import Plan
from studio.merge.recipe import Stage
from studio.merge.report import Report
from studio.merge.source_cards import license_of
from studio.weights.checkpoint import Checkpoint

LAYERS_SHOWN = 6
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Prompt:
    """The result's chat template, None if it has none, and the special tokens it may print."""

    template: str | None
    tokens: Mapping[str, str]


def make_card(plan: Plan, report: Report, prompt: Prompt) -> str:
    """The card of a finished merge, as Markdown with YAML front matter."""
    licenses = [license_of(source.path) for source in plan.sources]
    sections = [
        _front_matter(plan, licenses),
        f"# {plain(_title(plan))}",
        f"Made in one pass by Merge Studio {__version__}, by the rules of "
        "[mergekit](https://github.com/arcee-ai/mergekit).",
        "## Sources",
        _sources(plan, report, licenses),
        _license_text(licenses),
        "## Stages",
        _stages(plan.recipe.stages),
        "## Values of t and shares",
        _table(plan, report),
        _shares(report),
        "## Recipe",
        fenced(report["recipe"]["yaml"], "yaml"),
        "## Prompt format",
        _prompt(prompt),
        *_remarks(report),
    ]
    return "\n\n".join(sections) + "\n"


def plain(text: str) -> str:
    """Foreign text as one line of Markdown that shows exactly these characters."""
    line = " ".join(_printable(text).split())
    line = re.sub(r"([\\`*_\[\]<>|~&$@]|:(?=//))", r"\\\1", line)
    return re.sub(r"^([-+=#]|\d+(?=[.)]))", _no_marker, line)


def _no_marker(found: re.Match[str]) -> str:
    """What would begin a list or a heading, as plain characters."""
    return f"{found[0]}\\" if found[0].isdecimal() else f"\\{found[0]}"


def code(text: str) -> str:
    """Foreign text as a code span, also within a table."""
    line = " ".join(_printable(text).split()).replace("|", "\\|")
    ticks = "`" * (max((len(run) for run in re.findall("`+", line)), default=0) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{ticks}{pad}{line}{pad}{ticks}" if line else "(empty)"


def fenced(text: str, language: str) -> str:
    """Foreign text as a code block; the fence is longer than any run of backticks in it."""
    ticks = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{ticks}{language}\n{text.rstrip(chr(10))}\n{ticks}"


def hub_id(source: Checkpoint) -> str | None:
    """The Hub repository a source came from, without its revision; None for a local folder."""
    name = source.label.partition("@")[0]
    is_local = source.path == Path(source.label).expanduser()
    return name if _HUB_ID.fullmatch(name) and not is_local else None


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


def _title(plan: Plan) -> str:
    if plan.recipe.final.name:
        return plan.recipe.final.name
    names = [PurePath(source.label).name for source in plan.sources]
    return f"A merge of {', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]


def _front_matter(plan: Plan, licenses: Sequence[str | None]) -> str:
    data: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    bases = [name for source in plan.sources if (name := hub_id(source))]
    if bases:
        data["base_model"] = bases
        data["base_model_relation"] = "merge"
    methods = sorted({stage.method for stage in plan.recipe.stages})
    data["tags"] = ["mergekit", "merge", *methods]
    data["license"] = _common(licenses) or "other"
    if data["license"] == "other":  # the Hub shows this name; the text tells the terms
        data["license_name"] = "+".join(sorted({name or "unknown" for name in licenses}))
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=False, width=1000)
    return f"---\n{text}---"


def _common(licenses: Sequence[str | None]) -> str | None:
    """The licence all sources have, None if they differ or one is unknown."""
    return licenses[0] if len(set(licenses)) == 1 else None


def _sources(plan: Plan, report: Report, licenses: Sequence[str | None]) -> str:
    lines = ["| model | share | dtype | licence | fingerprint |", "|---|---:|---|---|---|"]
    shares = report["summary"]["shares"]
    for source, entry, license_ in zip(plan.sources, report["sources"], licenses, strict=True):
        name = hub_id(source)
        label = f"[{plain(name)}](https://huggingface.co/{name})" if name else code(source.label)
        cells = [
            label,
            f"{shares[source.label]:.1%}",
            ", ".join(entry["dtype"]),
            code(license_) if license_ else "unknown",
            code(entry["fingerprint"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    base = f"The config and the tokenizer are those of {code(plan.sources[0].label)}."
    if plan.alignment:
        base = (
            f"The config is that of {code(plan.sources[0].label)}. Rows were merged by token, into "
            f"{plan.alignment.rows:,} tokens that begin with those of "
            f"{code(plan.alignment.origin)}."
        )
    return "\n".join(lines) + f"\n\n{base} The weights are {code(report['dtype'])}."


def _license_text(licenses: Sequence[str | None]) -> str:
    if (common := _common(licenses)) is not None:
        return f"All sources state the licence {code(common)}."
    if None in licenses:
        reason = "Not every source names a known licence in its model card"
    else:
        reason = "The sources state different licences"
    return (
        f"**{reason}, so this card names none** (`license: other`). The terms of every source "
        "apply to the result: read them before you publish it."
    )


def _stages(stages: Sequence[Stage]) -> str:
    lines = []
    for number, stage in enumerate(stages, 1):
        models = [code(model) for model in stage.models]
        if stage.method == SLERP.name:
            text = f"slerp from {models[0]} (the t = 0 end) to {models[1]} (the t = 1 end)"
        elif METHODS[stage.method].needs_base:
            text = f"{stage.method} of {', '.join(models[1:])} on the base {models[0]}"
        else:
            text = f"{stage.method} of {', '.join(models)}"
        lines.append(f"{number}. **{plain(stage.title)}**: {text}")
    return "\n".join(lines)


def _table(plan: Plan, report: Report) -> str:
    """A row for embeddings, some layers evenly over the depth, norm and head."""
    last = plan.layout.num_layers - 1
    count = min(LAYERS_SHOWN, last + 1)
    layers = {round(i * last / (count - 1)) if count > 1 else 0 for i in range(count)}
    stages = [stage.title for stage in plan.recipe.stages if stage.method == SLERP.name]
    sources = [source.label for source in plan.sources]
    rows: dict[str, list[dict[str, Any]]] = {}
    for tensor in report["tensors"]:
        if tensor["layer"] in layers or tensor["place"] != "layer":
            name = f"layer {tensor['layer']}" if tensor["layer"] >= 0 else tensor["place"]
            rows.setdefault(name, []).append(tensor)
    head = ["", *(f"t of {code(s)}" for s in stages), *(f"share of {code(s)}" for s in sources)]
    lines = [f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
    for name, tensors in rows.items():
        cells = [_span([tensor["t"][stage] for tensor in tensors]) for stage in stages]
        cells += [
            _span([tensor["shares"][i] for tensor in tensors], ".1%") for i in range(len(sources))
        ]
        lines.append(f"| {' | '.join([name, *cells])} |")
    return "\n".join(lines)


def _span(values: Sequence[float], form: str = ".4g") -> str:
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} … {high}"


def _shares(report: Report) -> str:
    summary = report["summary"]
    shares = ", ".join(f"{code(model)} {part:.1%}" for model, part in summary["shares"].items())
    text = f"Over all mixed parameters: {shares}."
    if summary["linear"]:
        linear = ", ".join(f"{code(t)} {part:.1%}" for t, part in summary["linear"].items())
        text += (
            f" Inputs too close to parallel for an angle are mixed linearly, as in mergekit; "
            f"part of the parameters: {linear}."
        )
    return text + " Every tensor is in `merge-report.json`."


def _prompt(prompt: Prompt) -> str:
    if prompt.template is None:
        return (
            "The result has no chat template, because the base has none and the recipe names none. "
            "Prompt it in the format its sources were trained on."
        )
    if name := chat_template.name_of(prompt.template):
        text = f"The chat template is Merge Studio's {code(name)}."
    else:
        places = f"{code(chat_template.FILE)} or {code(chat_template.CONFIG)}"
        text = f"The chat template is in {places}."
    try:
        example = chat_template.render(prompt.template, prompt.tokens)
    except StudioError as error:
        return f"{text} An example cannot be shown: {plain(str(error))}"
    bos = prompt.tokens.get("bos_token")
    if bos and example.startswith(bos):
        text += (
            f" Its text already begins with {code(bos)}: tokenize it with "
            "`add_special_tokens=False`."
        )
    return f"{text}\n\n{fenced(example, 'text')}"


def _remarks(report: Report) -> list[str]:
    lines = [f"- {plain(text)}" for text in (*report["notes"], *report["warnings"])]
    return ["## Remarks", "\n".join(lines)] if lines else []
