"""The results in words: what can be claimed, for whom, and what is missing."""

from studio.arena.outcome.evidence import Evidence
from studio.arena.outcome.power import needed_units, percent, power_curve
from studio.arena.outcome.results import Comparison, Results

ENOUGH_VOTES = 20
MOST_TIES = 0.98


def verdict(results: Results) -> list[str]:
    """Sentences, the decisive one first."""
    lines = [headline(results)]
    if results.primary.claim:
        lines.append(reach_sentence(results))
    if results.categories and results.alpha > 0:
        lines.append(_by_category(results))
    lines += [_other(comparison) for comparison in results.others]
    lines += _cautions(results)
    return lines


def headline(results: Results) -> str:
    """The decisive sentence alone."""
    primary, alpha = results.primary, results.alpha
    found = primary.evidence
    if primary.preference is None:
        return f"No votes yet. {results.plan.sentence()}."
    if alpha == 0:
        return (
            f"Explored, nothing is claimed: {primary.first} was preferred to {primary.second} in "
            f"{_of_votes(primary)}."
        )
    span = f"{percent(found.low)} to {percent(found.high)}"
    if primary.claim:
        better, worse = primary.first, primary.second
        if primary.claim == "second":
            better, worse = worse, better
        return (
            f"{better} is better than {worse} for {_scope(results)}: preferred in "
            f"{_share(found, primary.claim)}; this was settled after {found.reached_at} prompts at "
            f"an error rate of {alpha:.3g}."
        )
    if primary.open_prompts:
        return (
            f"Not decided: {primary.first} is preferred to {primary.second} in "
            f"{percent(found.mean) if found.count else percent(primary.preference)} so far "
            f"({span}). {_missing(results)}"
        )
    return (
        f"Not decided, and all planned votes are in: no difference between {primary.first} and "
        f"{primary.second} can be claimed; preferences from {span} fit the votes. "
        f"{_missing(results)}"
    )


def reach_sentence(results: Results) -> str:
    """Whether what is claimed for the raters at hand holds for raters like them."""
    primary, found = results.primary, results.reach
    done = found.evidence.count
    if found.holds:
        better = primary.first if primary.claim == "first" else primary.second
        return (
            f"Raters like them prefer {better} too, on these prompts: the {done} who judged all "
            f"their pairs do, each counted once, in {_share(found.evidence, primary.claim)}."
        )
    who = "1 rater has" if done == 1 else f"{done or 'no'} raters have"
    so_far = f"This says nothing of other raters: {who} judged all their pairs"
    if found.fewest is None:
        return f"{so_far}, and prefer it too little, each counted once, to tell."
    if done < found.fewest:
        return f"{so_far}, at least {found.fewest} who prefer it as much would be needed for that."
    return f"{so_far}, and differ too much to tell."


def _share(found: Evidence, claim: str) -> str:
    """The preference for the better model, with its interval."""
    ends = (found.mean, found.low, found.high)
    if claim == "second":
        ends = (1 - found.mean, 1 - found.high, 1 - found.low)
    mean, low, high = map(percent, ends)
    return f"{mean} ({low} to {high}, however often one looked)"


def _missing(results: Results) -> str:
    """How many prompts more would find the planned preference in eight trials of ten.

    The share of ties is the one seen, once there are enough votes to tell it.
    """
    primary, chance = results.primary, results.plan.preference
    counted = primary.wins + primary.losses + primary.ties
    seen = primary.ties / counted if counted >= ENOUGH_VOTES else results.plan.ties
    ties = min(round(seen, 2), MOST_TIES)
    per_prompt = results.plan.votes // results.plan.prompts
    curve = power_curve(chance, ties, results.alpha, per_prompt)
    needed = needed_units(curve)
    words = f"a true {percent(chance)} preference at {percent(ties)} ties in eight trials of ten"
    if needed is None:
        return f"To find {words}, more than {len(curve) - 1:,} prompts would be needed."
    more = needed - primary.evidence.count - primary.without_preference
    if more <= 0:
        return f"{needed} prompts find {words}: a difference, if any, is likely smaller."
    votes = f"{more * per_prompt} more votes on {more} more prompts"
    left = f" ({primary.open_prompts} are still planned)" if primary.open_prompts else ""
    return f"To find {words}, about {votes} would be needed{left}."


def _by_category(results: Results) -> str:
    parts = [f"{c.category} {_clear(c)}" for c in results.categories]
    return f"By category (corrected for looking at {len(parts)}): {'; '.join(parts)}."


def _clear(comparison: Comparison) -> str:
    if comparison.claim:
        word = "better" if comparison.claim == "first" else "worse"
        return f"{word} for {_raters(comparison.raters)}"
    if comparison.preference is None:
        return "no votes"
    return f"unclear ({_of_votes(comparison)})"


def _of_votes(comparison: Comparison) -> str:
    assert comparison.preference is not None
    votes = "vote" if comparison.votes == 1 else "votes"
    return f"{percent(comparison.preference)} of {comparison.votes} {votes}"


def _other(comparison: Comparison) -> str:
    names = f"{comparison.first} against {comparison.second}"
    if comparison.preference is None:
        return f"{names}: no votes."
    clear = _clear(comparison) if comparison.claim else "unclear"
    return f"{names}: {clear}, preferred in {_of_votes(comparison)}."


def _scope(results: Results) -> str:
    count, total = results.primary.raters, len(results.raters)
    some = f", the first of {total}," if count < total else ""
    seen = " that were used before" if results.seen_prompts else ""
    return f"{_raters(count)}{some} on prompts like these {results.plan.prompts}{seen}"


def _raters(count: int) -> str:
    return "this rater" if count == 1 else f"these {count} raters together"


def _cautions(results: Results) -> list[str]:
    lines = []
    side, length, noise = results.left_wins, results.longer_wins, results.noise
    if side.total and not side.low <= 0.5 <= side.high:
        lines.append(
            f"The left answer won {side.count} of {side.total} times: sides were balanced, so this "
            "blurs the comparison but favours neither model."
        )
    if length.total and length.low > 0.5:
        lines.append(f"The longer answer won {length.count} of {length.total} times.")
    if noise.repeats and noise.same < noise.repeats:
        lines.append(
            f"Shown the same pair again, raters repeated their verdict {noise.same} of "
            f"{noise.repeats} times."
        )
    if noise.identical and noise.called_ties < noise.identical:
        lines.append(
            f"One answer on both sides was called a tie {noise.called_ties} of {noise.identical} "
            "times."
        )
    if len(results.raters) == 2:
        lines.append(
            "Two raters tell little of how raters differ: intervals over raters and prompts may "
            "then reach from 0 to 100 %. A claim does not rest on them."
        )
    lines += _trimmed(results)
    if results.amendments:
        count = len(results.amendments)
        times = "once" if count == 1 else f"{count} times"
        lines.append(f"The design was amended {times}: see below.")
    if results.alpha > 0 and results.unsealed:
        lines.append(
            f"{results.unsealed} of {results.plan.prompts} prompts are not from the sealed split."
        )
    return lines


def _trimmed(results: Results) -> list[str]:
    """What was left out of prompts, and where that makes the comparison itself uneven."""
    found, total = results.trimming, results.plan.prompts
    lines = []
    if found.rows:
        count = len({row.prompt for row in found.rows})
        lines.append(
            f"{count} of {total} prompts did not fit a model's context whole and lost their oldest "
            "messages: see below."
        )
    for each in found.uneven:
        lines.append(
            f"{each.first} and {each.second} did not get the same messages of {len(each.prompts)} "
            f"of {total} prompts: votes on these compare their contexts too, not only the models."
        )
    return lines
