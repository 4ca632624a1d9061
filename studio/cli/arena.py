"""The commands on blind trials: design, amend, pack, collect, results."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from studio.cli.given import read_text
from studio.cli.progress import emit
from studio.errors import StudioError
from studio.settings import read_settings

if TYPE_CHECKING:
    from studio.arena.prompts.prompt import Prompt
    from studio.arena.trials.design import Design


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add this module's commands to the parser."""
    design = commands.add_parser("design", help="what a trial can find, before anything is fixed")
    design.add_argument("trial", type=Path, metavar="TRIAL.yaml")
    amend = commands.add_parser("amend", help="change what may be changed, with a reason")
    amend.add_argument("trial", type=Path, metavar="DIR")
    amend.add_argument("changes", metavar="YAML", help="such as 'reveal: each'")
    amend.add_argument("--why", required=True, metavar="TEXT", help="the reason; the report has it")
    pack = commands.add_parser("pack", help="a trial to be rated elsewhere, without its models")
    _add_pack(pack)
    collect = commands.add_parser("collect", help="take over votes that were given on packs")
    collect.add_argument("trial", type=Path, metavar="DIR")
    collect.add_argument("ratings", type=Path, nargs="+", metavar="RATINGS")
    results = commands.add_parser("results", help="what a trial's votes show")
    _add_results(results)
    for command, run in (
        (design, _design),
        (amend, _amend),
        (pack, _pack),
        (collect, _collect),
        (results, _results),
    ):
        command.set_defaults(run=run)
        command.add_argument("--json", action="store_true", help="data as JSON on stdout")


def _add_pack(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("trial", type=Path, metavar="DIR")
    add("--out", type=Path, metavar="FILE", help="the pack to write, default NAME.pack.zip")
    add("--rater", type=int, default=1, metavar="N", help="for the N-th of the planned raters")
    add("--space", type=Path, metavar="DIR", help="a folder to upload as a Space that rates it")


def _add_results(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("trial", type=Path, metavar="DIR", help="the trial's folder, or the ratings.csv in it")
    add("--html", type=Path, metavar="FILE", help="write the report as one HTML file")
    add("--csv", type=Path, metavar="FILE", help="write the votes that count, for other tools")
    add("--card", action="store_true", help="a paragraph for the model card, in Markdown")
    add("--into-card", type=Path, metavar="MODEL", help="put it into the card of a model's folder")


def load_trial(path: Path) -> "tuple[Design, list[Prompt]]":
    """The design of a TRIAL.yaml, what it names here written out, and the prompts it chooses."""
    from studio.arena.prompts.prompt import load_prompts
    from studio.arena.trials.design import with_formats
    from studio.arena.trials.design_yaml import load_design
    from studio.serve.kept import Formats, Presets
    from studio.serve.sampling import Sampling

    kept = read_settings(os.environ).data_dir / "serve"
    presets = {name: sampling.shared() for name, sampling in Presets(kept).all().items()}
    design = load_design(read_text(path), path.name, presets)
    design = with_formats(design, Formats(kept).written)
    Sampling.from_data({k: v for k, v in design.sampling.items() if k != "preset"})
    return design, design.choose(load_prompts(*map(Path, design.prompts)))


def _design(parsed: argparse.Namespace) -> int:
    from dataclasses import asdict

    from studio.arena.outcome.power import plan
    from studio.arena.trials.workload import workload

    design, prompts = load_trial(parsed.trial)
    told, work = plan(design, len(prompts)), workload(design, prompts)
    answers = len(design.used_models) * len(prompts) * design.draws
    if parsed.json:
        emit({**asdict(told), "answers": answers, "workload": work, "hash": design.hash})
        return 0
    print(f"{told.sentence()}.")
    if scope := told.scope():
        print(f"{scope}.")
    print(f"{answers} answers to make. {work}")
    for first, second in design.comparisons:
        print(f"{first} against {second}" + (" (primary)" if second == design.primary[1] else ""))
    return 0


def _amend(parsed: argparse.Namespace) -> int:
    import yaml

    from studio.arena.rating.amending import amend

    try:
        changes = yaml.safe_load(parsed.changes)
    except yaml.YAMLError as error:
        raise StudioError(f'"{parsed.changes}" is not YAML; write it as "reveal: each"') from error
    if not isinstance(changes, dict) or not changes:
        raise StudioError(f'"{parsed.changes}" changes nothing; write it as "reveal: each"')
    amendment = amend(parsed.trial, changes, parsed.why).amendments[-1]
    emit(dict(amendment)) if parsed.json else print("amended")
    return 0


def _pack(parsed: argparse.Namespace) -> int:
    from studio.arena.rating.pack import write_pack
    from studio.arena.rating.space import write_space
    from studio.arena.trials.trial import open_trial

    trial = open_trial(parsed.trial)
    if parsed.space:
        write_space(trial, parsed.space, parsed.rater)
        out = parsed.space
    else:
        out = parsed.out or Path(f"{trial.design.name}.pack.zip")
        write_pack(trial, out, parsed.rater)
    emit({"path": str(out)}) if parsed.json else print(out)
    return 0


def _collect(parsed: argparse.Namespace) -> int:
    from dataclasses import asdict

    from studio.arena.rating.pack import collect
    from studio.arena.trials.trial import open_trial

    done = collect(open_trial(parsed.trial), parsed.ratings)
    if parsed.json:
        emit(asdict(done))
    else:
        print(f"{done.taken} votes taken over, {done.known} known, {done.refused} refused")
    return 0


def _results(parsed: argparse.Namespace) -> int:
    from studio.arena.outcome.export import card_paragraph, insert_in_card, votes_csv
    from studio.arena.outcome.report import html_report
    from studio.arena.outcome.results import read_results
    from studio.arena.outcome.verdict import verdict
    from studio.arena.rating.counted import ballots
    from studio.arena.trials.trial import open_trial
    from studio.durable import write_whole

    folder = parsed.trial.parent if parsed.trial.suffix == ".csv" else parsed.trial
    trial = open_trial(folder)
    found, every = read_results(trial), ballots(trial)
    if parsed.html:
        write_whole(parsed.html, html_report(found, every))
    if parsed.csv:
        write_whole(parsed.csv, votes_csv(every))
    if parsed.into_card:
        insert_in_card(found, parsed.into_card)
    if parsed.json:
        emit({**found.as_data(), "verdict": verdict(found)})
    else:
        lines: Sequence[str] = [card_paragraph(found)] if parsed.card else verdict(found)
        print("\n".join(lines))
    return 0
