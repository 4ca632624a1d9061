"""The command that makes a trial's answers: generate."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.cli.arena import load_trial
from studio.cli.exits import CANCELLED, add_tether
from studio.cli.progress import emit
from studio.errors import StudioError
from studio.settings import read_settings

if TYPE_CHECKING:
    from studio.arena.trials.design import Design
    from studio.arena.trials.generate import Progress
    from studio.arena.trials.trial import Trial

KEY_VARIABLE = "ENDPOINT_KEY"
TRIAL_HELP = "a design (TRIAL.yaml), or the folder of a trial"
SECONDS_BETWEEN = 1.0


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add this module's command to the parser."""
    command = commands.add_parser("generate", help="fix a trial and make its answers; resumes")
    add = command.add_argument
    add("trial", type=Path, metavar="TRIAL", help=TRIAL_HELP)
    add("--out", type=Path, metavar="DIR", help="the folder of all trials, default DATA/trials")
    add("--engine", choices=("vllm", "embedded"), help="default: vllm if installed")
    add(
        "--endpoint",
        action="append",
        default=[],
        metavar="LABEL=URL",
        help="a server that has this model, with #NAME if it has several; its key is read from "
        f"{KEY_VARIABLE}, or several as JSON: an object of keys by URL",
    )
    add("--tensor-parallel-size", "--tp", type=int, default=1, metavar="N", help="GPUs per model")
    add("--quantisation", "--quantization", metavar="NAME", help="on-line, e.g. fp8_per_tensor")
    add("--max-model-len", type=int, metavar="N", help="tokens of prompt and answer together")
    add("--price", type=float, metavar="PER_HOUR", help="of the machine, to show what it costs")
    add_tether(command)
    add("--json", action="store_true", help="data as JSON on stdout")
    command.set_defaults(run=_generate)


def _generate(parsed: argparse.Namespace) -> int:
    from studio.arena.trials.generate import generate, lacking
    from studio.cli.engines import Turns
    from studio.cli.speaking import Start
    from studio.serve.batch import Completions
    from studio.serve.processes.fleet import Fleet

    trial = _begun(parsed)
    show = _Shown(trial, parsed)
    start = Start(
        engine=parsed.engine,
        tensor_parallel_size=parsed.tensor_parallel_size,
        quantisation=parsed.quantisation,
        max_model_len=parsed.max_model_len,
        endpoints=_endpoints(parsed.endpoint, trial.design),
        key_of=_keys(os.environ.get(KEY_VARIABLE)),
    )
    data = read_settings(os.environ).data_dir
    fleet = Fleet(data / "engines", adopts=False)
    turns = Turns(fleet, start, Completions(data / "completions"), show.say)
    try:
        generate(trial, turns.turn, show.update, turns.arranged(lacking(trial)))
    except KeyboardInterrupt:
        print("cancelled; the same command resumes", file=sys.stderr)
        if parsed.json:
            emit({"event": "cancelled"})
        return CANCELLED
    finally:
        fleet.close()
    show.done()
    return 0


def _endpoints(given: Sequence[str], design: "Design") -> dict[str, str]:
    """URLs by the labels of models; raises StudioError for a label that the trial has not."""
    from studio.serve.planning.models import is_url

    labels = [model.label for model in design.models]
    found = {}
    for each in given:
        label, _, url = each.partition("=")
        if label not in labels or not is_url(url):
            raise StudioError(
                f'--endpoint "{each}": write LABEL=URL with one of the labels {", ".join(labels)}'
            )
        found[label] = url
    return found


def _keys(held: str | None) -> Callable[[str], str | None]:
    """What gives a server's key by its URL: the one that is held, or one of several."""
    if held is None or not held.startswith("{"):
        return lambda url: held
    try:
        return dict(json.loads(held)).get
    except ValueError as error:
        raise StudioError(
            f"{KEY_VARIABLE} begins like JSON and is none; give a key, or an object of keys by URL"
        ) from error


def _begun(parsed: argparse.Namespace) -> "Trial":
    """The trial of a folder, or the one that a design begins or has begun."""
    from studio.arena.outcome.power import plan
    from studio.arena.trials.trial import begin, open_trial
    from studio.serve.planning.models import check_source

    if parsed.trial.is_dir():
        return open_trial(parsed.trial)
    design, prompts = load_trial(parsed.trial)
    elsewhere = _endpoints(parsed.endpoint, design)
    for model in design.used_models:  # before the design is fixed, and spends what it costs
        if model.label not in elsewhere:
            check_source(model.source)
    print(f"{plan(design, len(prompts)).sentence()}.", file=sys.stderr)
    trials = parsed.out or read_settings(os.environ).data_dir / "trials"
    return begin(trials, design, prompts)


class _Shown:
    """Progress: a line a second for people, events for programs; minutes, and cost if asked."""

    def __init__(self, trial: "Trial", parsed: argparse.Namespace) -> None:
        from studio.arena.trials.answers import missing

        self._trial, self._json, self._price = trial, parsed.json, parsed.price
        self._total = len(trial.needed)
        self._done = self._total - len(missing(trial.needed, trial.answers()))
        self._next = 0.0

    def say(self, line: str) -> None:
        """Tell what happens to the engines between the answers."""
        print(line, file=sys.stderr)
        if self._json:
            far = {"done": self._done, "total": self._total, "left": None}
            emit({"event": "progress", "phase": "load", **far})

    def update(self, progress: "Progress") -> None:
        """Show how far it is, at most once a second."""
        self._done = progress.done
        if progress.seconds < self._next and progress.done < progress.total:
            return
        self._next = progress.seconds + SECONDS_BETWEEN
        if self._json:
            emit({"event": "progress", "phase": "generate", **self._numbers(progress)})
            return
        cost = ""
        if self._price is not None:
            spent, rest = (self._price * s / 3600 for s in (progress.seconds, progress.left))
            cost = f", {spent:.2f} spent, {spent + rest:.2f} in all"
        rate = progress.tokens / progress.seconds if progress.seconds else 0.0
        print(
            f"{progress.model}: {progress.done} of {progress.total} answers, {rate:.0f} tokens/s"
            f", {progress.left / 60:.1f} min left{cost}",
            file=sys.stderr,
        )

    def _numbers(self, progress: "Progress") -> dict[str, Any]:
        return {
            "done": progress.done,
            "total": progress.total,
            "resumed": progress.resumed,
            "tokens": progress.tokens,
            "seconds": round(progress.seconds, 3),
            "left": round(progress.left, 3),
        }

    def done(self) -> None:
        """Say where the trial is."""
        if self._json:
            emit({"event": "done", "path": str(self._trial.folder)})
        else:
            print(self._trial.folder)
