"""What rating a trial takes, and how its raters are measured by it, told before it is fixed."""

from collections import defaultdict
from collections.abc import Sequence

from studio.arena.prompts.prompt import Prompt
from studio.arena.trials.design import Design
from studio.arena.trials.schedule import Item, Kind, schedule


def workload(design: Design, prompts: Sequence[Prompt]) -> str:
    """Sentences on the pairs a rater sees, what of them measures the rater, and whether raters'
    agreement will show; raises StudioError as `schedule` does."""
    slots = schedule(design, prompts, bytes(32))
    longest, wanted = max(slots, key=len), design.repeats + design.identical > 0
    who = "The rater" if design.raters == 1 else f"Each of {design.raters} raters"
    upto = "" if design.raters == 1 else "up to "
    return f"{who} sees {upto}{_pairs(len(longest))}: {_kinds(longest, wanted)}.{_agreement(slots)}"


def _kinds(items: Sequence[Item], wanted: bool) -> str:
    def of(kind: Kind) -> int:
        return sum(item.kind is kind for item in items)

    if not (of(Kind.REPEAT) or of(Kind.IDENTICAL)):
        few = " as that takes 10 at least" if wanted else ""
        return f"all count, none measures the rater{few}"
    return (
        f"{of(Kind.COUNTED)} that count and, to measure the rater, {of(Kind.REPEAT)} shown again "
        f"with sides swapped and {of(Kind.IDENTICAL)} with one answer on both sides"
    )


def _agreement(slots: Sequence[Sequence[Item]]) -> str:
    if len(slots) == 1:
        return ""
    seen: defaultdict[str, int] = defaultdict(int)
    for items in slots:
        for pairing in {item.pairing for item in items if item.kind is Kind.COUNTED}:
            seen[pairing] += 1
    if shared := sum(count > 1 for count in seen.values()):
        verb = "is" if shared == 1 else "are"
        return f" {_pairs(shared)} {verb} judged by several raters: their agreement will show."
    return (
        " No pair is judged by two raters, so their agreement will not show: plan more votes per "
        "prompt for that, and prompts shared by raters."
    )


def _pairs(count: int) -> str:
    return f"{count} pair{'' if count == 1 else 's'}"
