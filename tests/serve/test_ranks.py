"""The same model on one rank and on two: the same weights, and the same odds for a text."""

import random
from contextlib import closing
from statistics import median

import pytest

from demo.formats import FORMATS
from demo.text import draw_case, write_answer
from studio.serve.processes.fleet import Fleet
from studio.serve.processes.spec import ModelSpec
from tests.serve.engines import DEMO, MODEL, logprobs, ready, tokenizer

pytestmark = [pytest.mark.timeout(400), pytest.mark.slow]

DIALOGUES = 200
TOGETHER = 4  # dialogues of 58 to 90 tokens: some 300
BAR = 0.002


def dialogues() -> list[list[int]]:
    """Texts of the kind that the model was made for, none of which it has seen, as tokens."""
    rng, found = random.Random(1), []
    for _ in range(DIALOGUES):
        case = draw_case(rng, MODEL, held_out=True)
        text = FORMATS[MODEL].prompt(case.prompt)
        text += FORMATS[MODEL].answer(write_answer(case, MODEL, rng))
        found.append(tokenizer()(text, add_special_tokens=False)["input_ids"])
    return found


def apart(one: list[list[float]], two: list[list[float]]) -> list[list[float]]:
    """By how much the odds of each token differ."""
    return [
        [a - b for a, b in zip(first, second, strict=True)]
        for first, second in zip(one, two, strict=True)
    ]


def per_token(differences: list[list[float]]) -> float:
    """How far apart texts are together: the sum over all their tokens by the number of these."""
    return abs(sum(map(sum, differences))) / sum(map(len, differences))


def typical(differences: list[list[float]]) -> float:
    """The root mean square over single tokens."""
    squares = [each * each for text in differences for each in text]
    return float((sum(squares) / len(squares)) ** 0.5)


def test_one_and_two_ranks_hold_the_same_model_and_give_a_text_the_same_odds(fleet: Fleet) -> None:
    """In bfloat16 each rank rounds its part of a sum to 8 bits. That moves single tokens to either
    side, by 0.01 or so: less than bfloat16 itself moves them from float32, and what is left of it
    in the mean of 300 tokens is below 0.002. In float32 test_engines.py compares single tokens.
    """
    specs = [
        ModelSpec(model=str(DEMO / MODEL), tensor_parallel_size=ranks, dtype="bfloat16")
        for ranks in (1, 2)
    ]
    names = [ready(fleet, spec) for spec in specs]
    first, second = (fleet.state(name) for name in names)
    assert first.verified == second.verified == "27 of 27 parameters"
    assert first.digest == second.digest != "" and first.digests != second.digests
    texts = dialogues()
    with closing(fleet.engine(names[0])) as alone, closing(fleet.engine(names[1])) as both:
        one, two = ([engine.logprobs(text)[1:] for text in texts] for engine in (alone, both))
    exact = [logprobs(MODEL, text)[1:] for text in texts]
    differences, rounding = apart(one, two), apart(one, exact)
    groups = [per_token(differences[at : at + TOGETHER]) for at in range(0, DIALOGUES, TOGETHER)]
    single = [per_token([text]) for text in differences]
    above, whole = sum(each > BAR for each in single), per_token(differences)
    bfloat16 = typical(rounding), typical(apart(two, exact))
    print(f"texts: median {median(single):.5f}, most {max(single):.5f}, {above} above {BAR};")
    print(f"{TOGETHER} together: most {max(groups):.5f}; all: {whole:.5f} a token;")
    print(f"single tokens: {typical(differences):.4f}; from float32:", *bfloat16)
    assert max(groups) <= BAR
    assert above <= 0.1 * DIALOGUES and whole <= BAR / 4
    assert typical(differences) <= bfloat16[0]
    assert bfloat16[1] <= 1.1 * bfloat16[0]
    for name in names:
        fleet.stop(name)
        assert fleet.wait(name, ("failed", "stopped"), 60).phase == "stopped"
