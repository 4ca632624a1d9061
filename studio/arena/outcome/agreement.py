"""How far raters agree, with each other and with themselves.

Krippendorff's alpha for nominal data: α = 1 − D_o / D_e, where D_o is the share of disagreeing
pairs of ratings within units (each unit's pairs weighted by 1/(m_u − 1) for m_u ratings) and D_e
the share expected if ratings were dealt out at random. 1 is perfect, 0 is chance.

Source: Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), departmental papers,
Annenberg School for Communication, University of Pennsylvania.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from studio.arena.rating.counted import Ballot
from studio.arena.rating.ratings import Verdict
from studio.arena.trials.schedule import Kind


def krippendorff_alpha(units: Iterable[Sequence[Hashable]]) -> float | None:
    """Alpha of units that hold the ratings each got; None where fewer than two ratings of one unit
    exist, or where all ratings are the same."""
    coincidences: defaultdict[tuple[Hashable, Hashable], float] = defaultdict(float)
    for ratings in units:
        if len(ratings) < 2:
            continue
        for i, one in enumerate(ratings):
            for j, other in enumerate(ratings):
                if i != j:
                    coincidences[one, other] += 1 / (len(ratings) - 1)
    totals: defaultdict[Hashable, float] = defaultdict(float)
    for (one, _), weight in coincidences.items():
        totals[one] += weight
    total = sum(totals.values())
    expected = (total**2 - sum(t**2 for t in totals.values())) / (total - 1) if total > 1 else 0.0
    observed = sum(weight for (one, other), weight in coincidences.items() if one != other)
    return 1 - observed / expected if expected > 0 else None


@dataclass(frozen=True, slots=True)
class Noise:
    """What the measuring items show.

    Of `identical` items, `called_ties` were called a tie (or both bad). Of `repeats`, with sides
    swapped, `same` got the same verdict again. `agreeing` of `shared` pairings judged by several
    raters got one verdict from all; `alpha` is Krippendorff's.
    """

    identical: int
    called_ties: int
    repeats: int
    same: int
    shared: int
    agreeing: int
    alpha: float | None


def noise(every: Sequence[Ballot]) -> Noise:
    """Rater noise and agreement; recognised and other excluded votes are among them."""
    by_pairing: dict[str, list[Ballot]] = {}
    for ballot in every:
        if ballot.item.kind is Kind.COUNTED:
            by_pairing.setdefault(ballot.item.pairing, []).append(ballot)
    first = {
        (b.vote.judge, b.item.pairing): opinion(b) for group in by_pairing.values() for b in group
    }
    repeats = [
        (opinion(b), first[b.vote.judge, b.item.pairing])
        for b in every
        if b.item.kind is Kind.REPEAT and (b.vote.judge, b.item.pairing) in first
    ]
    identical = [b.vote.winner for b in every if b.item.kind is Kind.IDENTICAL]
    shared = [[opinion(b) for b in group] for group in by_pairing.values() if len(group) > 1]
    return Noise(
        identical=len(identical),
        called_ties=sum(winner in (Verdict.TIE, Verdict.BOTH_BAD) for winner in identical),
        repeats=len(repeats),
        same=sum(again == before for again, before in repeats),
        shared=len(shared),
        agreeing=sum(len(set(opinions)) == 1 for opinions in shared),
        alpha=krippendorff_alpha(shared),
    )


def opinion(ballot: Ballot) -> str:
    """The verdict told by models instead of sides."""
    if ballot.preference is None:
        return "both bad"
    return {1.0: ballot.item.pair[0], 0.0: ballot.item.pair[1], 0.5: "tie"}[ballot.preference]
