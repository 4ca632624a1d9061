"""From rows of ratings to votes that count.

A vote's preference is 1 for the first model of its pair, 0 for the second, ½ for a tie; "both bad"
has none and is told apart. A prompt is complete for a pair once its planned number of votes stands;
its preference is the mean of those of them that count, later votes of further raters do not move
it. So the order of complete prompts is what the evidence is gathered along.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from studio.arena.rating.ratings import SEALED, Verdict, Vote
from studio.arena.rating.sitting_log import SittingLog
from studio.arena.trials.answers import Answer, AnswerKey
from studio.arena.trials.design import Design, Pair
from studio.arena.trials.schedule import Item, Kind
from studio.arena.trials.trial import Trial
from studio.errors import StudioError

BOTH_BAD = "both bad"


@dataclass(frozen=True, slots=True)
class Ballot:
    """A standing vote with what it was about.

    `preference`: 1, ½ or 0 as above; None for both bad. `excluded`: why it does not count, "" if
    it does. `a_chosen`: 1 if the left answer won, 0 if the right one, ½ for a tie. `longer`: the
    length of the first model's answer minus the second's, over their sum, -1 to 1, in characters.
    """

    vote: Vote
    item: Item
    preference: float | None
    excluded: str
    first_is_left: bool
    longer: float

    @property
    def counts(self) -> bool:
        """Whether the vote moves the results."""
        return not self.excluded and self.preference is not None


def ballots(trial: Trial, folder: Path | None = None) -> list[Ballot]:
    """The standing votes of a trial, in the order of their time.

    Raises StudioError for a row that does not belong to the trial: another design, an unknown
    item, or answers that are not those of the file.
    """
    log = SittingLog(folder or trial.folder)
    log.catch_up()
    answers = trial.answers()
    standing = sorted(log.standing, key=lambda vote: vote.tstamp)
    return [_ballot(trial, vote, answers) for vote in standing]


def check_vote(trial: Trial, vote: Vote, answers: Mapping[AnswerKey, Answer]) -> Item:
    """The item a vote is about; raises StudioError if the vote is not of this trial."""
    where = f"vote {vote.vote} by {vote.judge}"
    if vote.design_hash != trial.hash:
        raise StudioError(f"{where}: belongs to another trial; remove the row from this file")
    item = trial.items.get(vote.item)
    if item is None or (vote.pairing, vote.kind) != (item.pairing, item.kind):
        raise StudioError(f"{where}: the trial has no item {vote.item}; the row was changed")
    if (vote.answer_a, vote.answer_b) != (answers[item.left].hash, answers[item.right].hash):
        raise StudioError(f"{where}: its answers are not those in answers.jsonl; restore the file")
    if (vote.model_a, vote.model_b) not in (
        (item.left.model, item.right.model),
        (SEALED, SEALED),
    ):
        raise StudioError(f"{where}: its models are not those of the item; the row was changed")
    return item


def _ballot(trial: Trial, vote: Vote, answers: Mapping[AnswerKey, Answer]) -> Ballot:
    item = check_vote(trial, vote, answers)
    first_is_left = item.left.model == item.pair[0] or item.kind is Kind.IDENTICAL
    left, right = len(answers[item.left].text), len(answers[item.right].text)
    longer = (left - right) / max(left + right, 1)
    return Ballot(
        vote=vote,
        item=item,
        preference=_preference(vote.winner, first_is_left),
        excluded=_excluded(trial.design, vote),
        first_is_left=first_is_left,
        longer=longer if first_is_left else -longer,
    )


def _preference(winner: Verdict, first_is_left: bool) -> float | None:
    if winner is Verdict.BOTH_BAD:
        return None
    if winner is Verdict.TIE:
        return 0.5
    return float((winner is Verdict.MODEL_A) == first_is_left)


def _excluded(design: Design, vote: Vote) -> str:
    rules = design.exclusions
    if vote.kind != Kind.COUNTED:
        return f"{vote.kind}: measures the rater"
    if rules.recognised and vote.recognised:
        return "recognised"
    if rules.masked and vote.masked:
        return "identity masked"
    if vote.seconds < rules.faster_than:
        return f"faster than {rules.faster_than:g} s"
    return ""


def of_pair(every: Sequence[Ballot], pair: Pair) -> list[Ballot]:
    """The ballots on a pair's items that are no measuring items."""
    return [b for b in every if b.item.pair == pair and b.item.kind is Kind.COUNTED]


@dataclass(frozen=True, slots=True)
class Tally:
    """A pair's complete prompts: their preferences in order, for each how many raters had votes in
    it or an earlier one, and how many are not complete."""

    preferences: tuple[float, ...]
    prompts: tuple[str, ...]
    raters: tuple[int, ...]
    without: int
    open: int


def tally(every: Sequence[Ballot], pair: Pair, trial: Trial, category: str | None = None) -> Tally:
    """Gather a pair's votes by prompt; `without` counts complete prompts that have no preference
    (all votes both bad or excluded)."""
    planned = trial.design.votes_per_prompt
    wanted = [p.id for p in trial.prompts if category in (None, p.category)]
    given: dict[str, list[Ballot]] = {prompt: [] for prompt in wanted}
    complete: dict[str, list[Ballot]] = {}
    for ballot in of_pair(every, pair):
        if ballot.item.prompt not in given:
            continue
        votes = given[ballot.item.prompt]
        if len(votes) < planned:
            votes.append(ballot)
            if len(votes) == planned:
                complete[ballot.item.prompt] = votes
    means: dict[str, float] = {}
    raters: list[int] = []
    judges: set[str] = set()
    for prompt, votes in complete.items():
        if counted := [b for b in votes if b.counts]:
            means[prompt] = sum(b.preference or 0.0 for b in counted) / len(counted)
            judges |= {b.vote.judge for b in counted}
            raters.append(len(judges))
    return Tally(
        preferences=tuple(means.values()),
        prompts=tuple(means),
        raters=tuple(raters),
        without=len(complete) - len(means),
        open=len(wanted) - len(complete),
    )
