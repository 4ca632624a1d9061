"""Who sees what: balance, order, overlap, and that the secret alone decides."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.arena.trials.design import Compare, Model
from studio.arena.trials.schedule import Item, Kind, schedule
from studio.errors import StudioError
from tests.arena.sample_trials import MERGED, RIVAL, design, prompts

THREE = tuple(Model(label, label) for label in ("merged", "one", "two"))


def counted(items: list[Item]) -> list[Item]:
    return [item for item in items if item.kind is Kind.COUNTED]


@given(
    count=st.integers(4, 40),
    votes=st.integers(1, 9),
    raters=st.integers(1, 8),
    compare=st.sampled_from(list(Compare)),
    secret=st.binary(min_size=32, max_size=32),
)
def test_schedule_keeps_its_promises(
    count: int, votes: int, raters: int, compare: Compare, secret: bytes
) -> None:
    plan = design(
        models=THREE,
        primary=("merged", "one"),
        compare=compare,
        votes_per_prompt=votes,
        raters=raters,
    )
    try:
        slots = schedule(plan, prompts(count), secret)
    except StudioError as error:  # with so few prompts a rater may get one prompt only
        assert count < 4 * raters and "too few prompts" in str(error)
        return
    assert len(slots) == raters
    every = [item for slot in slots for item in slot]
    assert len({item.id for item in every}) == len(every)
    assert len(counted(every)) == count * votes * len(plan.comparisons)
    for slot in slots:
        for before, after in zip(slot, slot[1:], strict=False):
            assert before.prompt != after.prompt
        pairings = Counter(item.pairing for item in slot if item.kind is not Kind.REPEAT)
        assert max(pairings.values(), default=1) == 1
    left: Counter[object] = Counter()
    for item in counted(every):
        sign = 1 if item.left.model == item.pair[0] else -1
        for group in ((item.slot,), (item.category,), (item.slot, item.category)):
            left[item.pair, group] += sign
    assert all(abs(difference) <= 1 for difference in left.values())


def test_draws_rotate_over_votes_so_that_each_is_used_alike() -> None:
    slots = schedule(design(draws=3, votes_per_prompt=9), prompts(4), b"s" * 32)
    for prompt in ("p0", "p1", "p2", "p3"):
        items = [item for item in counted(slots[0]) if item.prompt == prompt]
        pairs = {frozenset((item.left, item.right)) for item in items}
        assert len(pairs) == 9
        draws = Counter(key for item in items for key in (item.left, item.right))
        assert set(draws.values()) == {3} and len(draws) == 6


def test_overlapping_prompts_show_the_same_answers_to_all_raters() -> None:
    plan = design(raters=3, votes_per_prompt=3, overlap=0.5)
    slots = schedule(plan, prompts(20), b"s" * 32)
    raters_of: dict[str, set[int]] = {}
    for item in counted([item for slot in slots for item in slot]):
        raters_of.setdefault(item.pairing, set()).add(item.slot)
    assert Counter(len(raters) for raters in raters_of.values()) == {3: 10, 1: 30}


def test_measuring_items_are_few_far_and_what_they_say() -> None:
    (items,) = schedule(design(identical=0.1, repeats=0.1), prompts(60), b"s" * 32)
    assert Counter(item.kind for item in items) == {"counted": 60, "identical": 6, "repeat": 6}
    place = {item.pairing: place for place, item in enumerate(items) if item.kind is Kind.COUNTED}
    by_pairing = {item.pairing: item for item in counted(items)}
    for now, item in enumerate(items):
        if item.kind is Kind.IDENTICAL:
            assert item.left == item.right
        if item.kind is Kind.REPEAT:
            first = by_pairing[item.pairing]
            assert (item.left, item.right) == (first.right, first.left)
            assert now - place[item.pairing] > 1


def test_the_secret_alone_decides_and_ids_tell_nothing_of_sides() -> None:
    plan, asked = design(), prompts(30)
    one, same, other = (schedule(plan, asked, secret * 32) for secret in (b"a", b"a", b"b"))
    assert one == same != other
    sides = [item.left.model == MERGED for item in counted(one[0])]
    assert 13 <= sum(sides) <= 17 and sides != [i.left.model == MERGED for i in counted(other[0])]
    assert not {item.id for item in one[0]} & {item.id for item in other[0]}
    # The id names the two answers, not where they are.
    swapped = design(primary=(RIVAL, MERGED))
    assert {i.id for i in schedule(swapped, asked, b"a" * 32)[0]}.isdisjoint(
        {item.left.model for item in one[0]}
    )


def test_too_few_prompts_are_told() -> None:
    with pytest.raises(StudioError, match='prompt "p0" would come twice in a row.*more prompts'):
        schedule(design(votes_per_prompt=2), prompts(1), b"s" * 32)
