"""Who sees which answers, on which side, in which order.

Everything here follows from the design, the prompts and a secret seed, so that a schedule is never
stored half and can be made again for an audit. The seed is secret because whoever knows it knows
the sides; its hash is part of what is fixed before the first answer.

For each pair of models and each prompt there are `votes_per_prompt` votes. The v-th of them goes
to rater slot (prompt's place + v) mod raters. Draws rotate over votes by a random permutation for
each model and prompt, so that no pairing of answers comes twice to a rater; on the overlapping
prompts different slots see the same pairing. Sides are random, but each model of a
pair is left as often as right, to within one: for each slot, for each category, and for both.

Two kinds of items measure the rater and count for nothing else: `identical` shows one answer on
both sides, `repeat` shows an earlier pairing with its sides swapped.
"""

import hashlib
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from studio.arena.prompts.prompt import Prompt
from studio.arena.trials.answers import AnswerKey
from studio.arena.trials.design import Design, Pair
from studio.errors import StudioError


class Kind(StrEnum):
    """What an item is for."""

    COUNTED = "counted"
    IDENTICAL = "identical"
    REPEAT = "repeat"


@dataclass(frozen=True, slots=True)
class Item:
    """Two answers to one prompt, as one rater sees them.

    `left`, `right`: the answers shown as A and as B. `pair`: the comparison, in the design's
    order. `pairing`: names the two answers whichever side they are on; the same for all raters.
    """

    id: str
    slot: int
    prompt: str
    category: str
    pair: Pair
    left: AnswerKey
    right: AnswerKey
    kind: Kind
    pairing: str


@dataclass(frozen=True, slots=True)
class Source:
    """A secret from which independent random streams are drawn by name."""

    secret: bytes

    def random(self, *names: object) -> random.Random:
        """The stream of that name."""
        return random.Random(self._digest("stream", *names))

    def id(self, *names: object) -> str:
        """16 hex digits that tell nothing of what they name to who has not the secret."""
        return self._digest("id", *names)[:16]

    def _digest(self, *names: object) -> str:
        message = "\x1f".join(map(str, names)).encode()
        return hashlib.blake2b(message, key=self.secret).hexdigest()


def schedule(design: Design, prompts: Sequence[Prompt], secret: bytes) -> list[list[Item]]:
    """For each rater slot its items in the order in which they are shown.

    Raises StudioError if some prompt would have to come twice in a row.
    """
    source = Source(secret)
    counted = _with_sides(list(_votes(design, prompts, source)), source)
    return [
        _in_order([item for item in counted if item.slot == slot], design, source, slot)
        for slot in range(design.raters)
    ]


def _votes(design: Design, prompts: Sequence[Prompt], source: Source) -> Iterator[Item]:
    """The items that count, the pair's first model always left for now."""
    for pair in design.comparisons:
        places = list(range(len(prompts)))
        source.random("places", *pair).shuffle(places)
        overlapping = round(design.overlap * len(prompts)) if design.raters > 1 else 0
        for place, index in enumerate(places):
            prompt = prompts[index]
            for vote in range(design.votes_per_prompt):
                slot = (place + vote) % design.raters
                turn = vote // design.raters if place < overlapping else vote
                left, right = _draws(design, prompt, pair, turn, source)
                pairing = source.id("pairing", left, right)
                yield Item(
                    id=source.id(Kind.COUNTED, slot, pairing),
                    slot=slot,
                    prompt=prompt.id,
                    category=prompt.category,
                    pair=pair,
                    left=left,
                    right=right,
                    kind=Kind.COUNTED,
                    pairing=pairing,
                )


def _draws(
    design: Design, prompt: Prompt, pair: Pair, turn: int, source: Source
) -> tuple[AnswerKey, AnswerKey]:
    """The answers of the `turn`-th pairing: after each cycle the second model is a draw ahead."""
    cycle, position = divmod(turn, design.draws)
    keys = []
    for label, shift in zip(pair, (0, cycle), strict=True):
        order = list(range(design.draws))
        source.random("draws", prompt.id, label).shuffle(order)
        keys.append(AnswerKey(label, prompt.id, order[(position + shift) % design.draws]))
    return keys[0], keys[1]


def _swapped(item: Item) -> Item:
    return replace(item, left=item.right, right=item.left)


def _with_sides(items: list[Item], source: Source) -> list[Item]:
    """Swap half of the items of each slot, pair and category; an odd one by `_evened`."""
    groups: dict[Pair, dict[tuple[int, str], list[Item]]] = {}
    for item in items:
        groups.setdefault(item.pair, {}).setdefault((item.slot, item.category), []).append(item)
    sided: list[Item] = []
    for pair, parts in groups.items():
        stream = source.random("sides", *pair)
        odd = _evened([where for where, part in parts.items() if len(part) % 2], stream)
        for where, part in parts.items():
            stream.shuffle(part)
            swap = odd[where] if where in odd else stream.random() < 0.5
            for item in part:
                sided.append(_swapped(item) if swap else item)
                swap = not swap
    return sided


def _evened(cells: list[tuple[int, str]], stream: random.Random) -> dict[tuple[int, str], bool]:
    """True or False for each cell of a table of slots and categories, so that in no row and no
    column one is given more than once more than the other.

    Cells are the edges between rows and columns: along any path that goes on until it cannot, the
    two are given in turn. A path begins where a row or column has an odd number of cells left.
    """
    rest: dict[int | str, list[tuple[int, str]]] = {}
    for cell in cells:
        for end in cell:
            rest.setdefault(end, []).append(cell)
    given: dict[tuple[int, str], bool] = {}
    while len(given) < len(cells):
        at = max(rest, key=lambda end: (len(rest[end]) % 2, len(rest[end])))
        swap = stream.random() < 0.5
        while rest[at]:
            cell = stream.choice(rest[at])
            for end in cell:
                rest[end].remove(cell)
            given[cell], swap = swap, not swap
            at = cell[1] if at == cell[0] else cell[0]
    return given


def _in_order(counted: list[Item], design: Design, source: Source, slot: int) -> list[Item]:
    """A slot's items in random order, the measuring ones mixed in."""
    stream = source.random("order", slot)
    identical = [
        replace(
            item,
            id=source.id(Kind.IDENTICAL, slot, item.pairing),
            right=item.left,
            kind=Kind.IDENTICAL,
            pairing=source.id("identical", item.pairing),
        )
        for item in stream.sample(counted, _share(design.identical, len(counted)))
    ]
    order = _apart(counted, stream)
    for item in identical:
        _insert_apart(order, item, stream)
    # A repeat must be far from its first showing: its pairing comes from the first half, itself
    # somewhere in the second.
    early = [item for item in order[: len(order) // 2] if item.kind is Kind.COUNTED]
    for item in stream.sample(early, min(_share(design.repeats, len(counted)), len(early))):
        again = replace(
            _swapped(item), id=source.id(Kind.REPEAT, slot, item.pairing), kind=Kind.REPEAT
        )
        _insert_apart(order, again, stream, first=len(order) // 2 + 1)
    return order


def _share(share: float, of: int) -> int:
    return round(share * of) or int(share > 0 and of >= 10)


def _apart(items: Sequence[Item], stream: random.Random) -> list[Item]:
    """A random order in which no prompt follows itself."""
    rest = list(items)
    stream.shuffle(rest)
    left = Counter(item.prompt for item in rest)
    order: list[Item] = []
    while rest:
        last = order[-1].prompt if order else None
        crowded, times = left.most_common(1)[0]
        must = crowded if 2 * times > len(rest) and crowded != last else None
        index = next(
            (
                index
                for index, item in enumerate(rest)
                if item.prompt != last and (must is None or item.prompt == must)
            ),
            None,
        )
        if index is None:
            raise StudioError(
                f'prompt "{last}" would come twice in a row: there are too few prompts for '
                f"{len(items)} items; use more prompts or fewer votes per prompt"
            )
        item = rest.pop(index)
        left[item.prompt] -= 1
        order.append(item)
    return order


def _insert_apart(order: list[Item], item: Item, stream: random.Random, *, first: int = 0) -> None:
    """Put an item at a random place from `first` on where its prompt has no neighbour of its own;
    where there is no such place the item is left out."""
    own = [place for place, other in enumerate(order) if other.prompt == item.prompt]
    beside = {*own, *(place + 1 for place in own)}
    places = [place for place in range(first, len(order) + 1) if place not in beside]
    if places:
        order.insert(stream.choice(places), item)
