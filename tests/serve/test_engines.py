"""One suite for every kind of engine: the same request means the same in all of them.

What must come out is computed here, in this process, from the same files.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from studio.errors import StudioError
from studio.serve.endpoint import Endpoint
from studio.serve.processes.fleet import Fleet
from studio.serve.processes.state import EngineState
from studio.serve.sampling import Sampling
from studio.serve.special_tokens import SpecialTokens
from tests.serve.engines import (
    DEMO,
    END,
    ENDLESS,
    MODEL,
    QUESTION,
    greedy,
    logits_after,
    logprobs,
    text_of,
    tokenizer,
    with_ends,
)

pytestmark = pytest.mark.timeout(300)

GREEDY = Sampling(temperature=0.0, max_tokens=40)
WILD = Sampling(temperature=2.0, max_tokens=40, seed=3)


def test_greedy_answer_is_the_likeliest_one(engine: Endpoint) -> None:
    expected = greedy(MODEL, QUESTION, 40)
    done = engine.complete(QUESTION, GREEDY)
    assert done.text == text_of(QUESTION, expected)
    assert done.prompt_tokens == len(tokenizer()(QUESTION)["input_ids"])
    assert (done.completion_tokens, done.finish_reason) == (40, "length")
    assert done.seconds > 0


def test_answer_ends_with_the_end_token_which_counts(engine: Endpoint) -> None:
    expected = greedy(MODEL, QUESTION, 200)
    assert expected[-1] == END
    done = engine.complete(QUESTION, replace(GREEDY, max_tokens=200))
    assert (done.completion_tokens, done.finish_reason) == (len(expected), "stop")
    assert done.text == text_of(QUESTION, expected)


def switched(fleet: Fleet, name: str, model: Path) -> None:
    fleet.switch(name, str(model))
    assert fleet.wait(name, ("ready", "failed", "stopped"), 120).spec.model == str(model)


@pytest.fixture
def with_second_end(
    fleet: Fleet, name: str, engine: Endpoint, tmp_path: Path
) -> Iterator[tuple[Endpoint, int]]:
    """Each kind of engine, where a token of the greedy answer is a second end token, and where in
    the answer that is. An endpoint's model is told of as if its files were here.
    """
    answer = greedy(MODEL, QUESTION, 40)
    at = next(i for i in range(8, 40) if answer[i] not in answer[:i])
    state = fleet.state(name)
    if state.spec.engine == "endpoint":
        ends = (END, answer[at])
        engine.identity = replace(engine.identity, ends=ends)
        yield engine, at
        return
    switched(fleet, name, with_ends(tmp_path / "two-ends", END, answer[at]))
    with closing(fleet.engine(name)) as other:
        yield other, at
    switched(fleet, name, DEMO / MODEL)


def test_answer_ends_with_the_second_end_token_too(
    with_second_end: tuple[Endpoint, int],
) -> None:
    engine, at = with_second_end
    done = engine.complete(QUESTION, GREEDY)
    assert (done.completion_tokens, done.finish_reason) == (at + 1, "stop")
    assert done.text == text_of(QUESTION, greedy(MODEL, QUESTION, 40)[:at])
    pieces = list(engine.stream(QUESTION, GREEDY))
    assert "".join(piece.text for piece in pieces) == done.text
    assert (pieces[-1].tokens, pieces[-1].finish_reason) == (at + 1, "stop")


def test_stop_string_that_is_a_special_token_ends_the_answer(engine: Endpoint) -> None:
    """It prints nothing, so its text never comes: the engine is told the token."""
    answer = greedy(MODEL, QUESTION, 40)
    at = next(i for i in range(8, 40) if answer[i] not in answer[:i])
    engine.tokens = SpecialTokens(ids={"<|im_end|>": answer[at]})
    done = engine.complete(QUESTION, replace(GREEDY, stop=("never said", "<|im_end|>")))
    assert (done.completion_tokens, done.finish_reason) == (at + 1, "stop")
    assert engine.complete(QUESTION, GREEDY).completion_tokens == 40


def test_stream_gives_the_same_answer_in_pieces(engine: Endpoint) -> None:
    pieces = list(engine.stream(QUESTION, GREEDY))
    assert "".join(piece.text for piece in pieces) == engine.complete(QUESTION, GREEDY).text
    assert len(pieces) > 10
    assert pieces[-1].finish_reason == "length" and pieces[-1].tokens == 40
    assert all(piece.finish_reason is None for piece in pieces[:-1])
    counts = [piece.tokens for piece in pieces]
    assert counts == sorted(counts) and counts[0] >= 1


def test_tokens_and_text_are_the_same_prompt(engine: Endpoint) -> None:
    ids = tokenizer()(QUESTION)["input_ids"]
    by_text, by_ids = engine.complete(QUESTION, GREEDY), engine.complete(ids, GREEDY)
    assert (by_text.text, by_text.prompt_tokens) == (by_ids.text, by_ids.prompt_tokens)


def test_begin_token_in_the_text_is_not_doubled(engine: Endpoint, state: EngineState) -> None:
    if state.spec.engine == "endpoint":
        pytest.skip("what another server's tokenizer begins with is not known here")
    plain, begun = engine.complete(QUESTION, GREEDY), engine.complete("<s>" + QUESTION, GREEDY)
    assert (plain.text, plain.prompt_tokens) == (begun.text, begun.prompt_tokens)


@pytest.mark.parametrize("stop", ["dear", "forest", "ear gu", "."])
def test_stop_string_ends_the_answer_and_is_left_out(engine: Endpoint, stop: str) -> None:
    whole = engine.complete(QUESTION, GREEDY).text
    assert stop in whole
    sampling = replace(GREEDY, stop=("never said", stop))
    done = engine.complete(QUESTION, sampling)
    assert (done.text, done.finish_reason) == (whole.partition(stop)[0], "stop")
    pieces = list(engine.stream(QUESTION, sampling))
    assert "".join(piece.text for piece in pieces) == done.text
    assert pieces[-1].tokens == done.completion_tokens
    ids = greedy(MODEL, QUESTION, done.completion_tokens)
    assert stop in text_of(QUESTION, ids) and stop not in text_of(QUESTION, ids[:-1])


def test_the_stop_string_that_is_complete_first_counts(engine: Endpoint) -> None:
    whole = engine.complete(QUESTION, GREEDY).text
    done = engine.complete(QUESTION, replace(GREEDY, stop=("forest", "dear guest", "dear")))
    assert done.text == whole.partition("dear")[0]


@pytest.mark.parametrize("one_left", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}])
def test_one_candidate_left_is_the_likeliest(engine: Endpoint, one_left: dict[str, float]) -> None:
    only = replace(WILD, **one_left)  # type: ignore[arg-type]
    assert engine.complete(QUESTION, only).text == engine.complete(QUESTION, GREEDY).text


@pytest.mark.parametrize(
    "penalties",
    [
        {"repetition_penalty": 1.3},
        {"presence_penalty": 1.5},
        {"frequency_penalty": 1.5},
        {"repetition_penalty": 0.8, "presence_penalty": 0.5, "frequency_penalty": 0.7},
    ],
)
def test_penalties_change_the_likeliest_answer_as_stated(
    engine: Endpoint, penalties: dict[str, float]
) -> None:
    plain, expected = greedy(MODEL, QUESTION, 40), greedy(MODEL, QUESTION, 40, **penalties)
    assert plain != expected
    done = engine.complete(QUESTION, replace(GREEDY, **penalties))  # type: ignore[arg-type]
    assert done.text == text_of(QUESTION, expected)


def drawn(engine: Endpoint, sampling: Sampling, count: int) -> list[str]:
    with ThreadPoolExecutor(16) as threads:
        return list(
            threads.map(
                lambda seed: engine.complete(QUESTION, replace(sampling, seed=seed)).text,
                range(count),
            )
        )


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=1.5, max_tokens=1),
        Sampling(temperature=2.0, max_tokens=1, min_p=0.05),
        Sampling(temperature=2.0, max_tokens=1, top_k=4),
        Sampling(temperature=2.0, max_tokens=1, top_p=0.6),
        Sampling(temperature=1.7, max_tokens=1, min_p=0.02, top_k=6, top_p=0.9),
    ],
    ids=str,
)
def test_first_tokens_are_drawn_as_often_as_they_should(
    engine: Endpoint, sampling: Sampling
) -> None:
    """What must never come never comes, and the rest is near its share (five standard errors)."""
    count = 120
    logits = logits_after(MODEL, tokenizer()(QUESTION)["input_ids"]) / sampling.temperature
    shares = logits.softmax(-1)
    if sampling.min_p:
        shares[shares < sampling.min_p * shares.max()] = 0
    if sampling.top_k:
        shares[shares < shares.topk(sampling.top_k).values[-1]] = 0
    if sampling.top_p < 1:
        values, order = (shares / shares.sum()).sort(descending=True)
        shares[order[values.cumsum(0) - values >= sampling.top_p]] = 0
    shares /= shares.sum()
    expected: dict[str, float] = {}
    for token in shares.nonzero().flatten().tolist():
        text = text_of(QUESTION, [token])
        expected[text] = expected.get(text, 0.0) + float(shares[token])
    found = drawn(engine, sampling, count)
    assert set(found) <= set(expected)
    for text, share in expected.items():
        error = (share * (1 - share) / count) ** 0.5
        assert abs(found.count(text) / count - share) <= 5 * error + 0.01, text


def test_a_seed_repeats_its_answer_and_another_gives_another(engine: Endpoint) -> None:
    first = engine.complete(QUESTION, WILD).text
    assert engine.complete(QUESTION, WILD).text == first
    assert "".join(piece.text for piece in engine.stream(QUESTION, WILD)) == first
    assert engine.complete(QUESTION, replace(WILD, seed=4)).text != first


def test_logprobs_are_those_of_the_model(engine: Endpoint, state: EngineState) -> None:
    tokens = [*tokenizer()(QUESTION)["input_ids"], *greedy(MODEL, QUESTION, 60)]
    found, expected = engine.logprobs(tokens), logprobs(MODEL, tokens)
    assert found[0] is None and len(found) == len(tokens)
    pairs = zip(found[1:], expected[1:], strict=True)
    assert max(abs(a - b) for a, b in pairs if a is not None and b is not None) < 1e-4
    assert engine.logprobs([1]) == [None]


def test_a_prompt_that_is_too_long_is_refused_with_the_numbers(engine: Endpoint) -> None:
    with pytest.raises(StudioError, match=r"maximum context length is 512 tokens.*600"):
        engine.complete([5] * 600, GREEDY)
    with pytest.raises(StudioError, match=r"maximum context length is 512 tokens"):
        list(engine.stream([5] * 600, GREEDY))


def test_an_answer_ends_where_the_context_is_full(engine: Endpoint) -> None:
    done = engine.complete([5] * 508, replace(WILD, max_tokens=100))
    assert (done.completion_tokens, done.finish_reason) == (4, "length")


def test_many_requests_at_once_get_their_own_answers(engine: Endpoint) -> None:
    questions = [
        f"Guest: Tell me about the {thing}.\nHost:" for thing in ("ring", "lantern", "key")
    ]
    expected = {text: text_of(text, greedy(MODEL, text, 12)) for text in questions}
    with ThreadPoolExecutor(32) as threads:
        jobs = [
            (text, threads.submit(engine.complete, text, replace(GREEDY, max_tokens=12)))
            for text in questions * 11
        ]
        assert all(job.result().text == expected[text] for text, job in jobs)


@pytest.mark.parametrize(
    "path",
    ["health", "metrics", "version", "openapi.json", "v1/models", "v1/completions", "invocations",
     "tokenize", "collective_rpc", "v1/studio/switch", "no-such-path"],
)  # fmt: skip
def test_every_path_wants_the_key(state: EngineState, path: str) -> None:
    """The door alone is tried in test_gate.py; here, that it is the only way into a real server."""
    url = f"{state.url.removesuffix('/v1')}/{path}"
    for key in ({}, {"Authorization": "Bearer wrong"}):
        assert httpx2.get(url, headers=key).status_code == 401
        assert httpx2.post(url, headers=key, json={}).status_code == 401


def test_closing_a_stream_early_leaves_the_engine_well(engine: Endpoint) -> None:
    stream = engine.stream(QUESTION, WILD)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert engine.complete(QUESTION, replace(GREEDY, max_tokens=3)).completion_tokens == 3


def test_a_second_answer_does_not_wait_for_the_first_to_end(engine: Endpoint) -> None:
    first = engine.stream([5] * 4, ENDLESS)
    parts = [next(first)]
    assert engine.complete(QUESTION, replace(GREEDY, max_tokens=3)).completion_tokens == 3
    parts += first
    assert "".join(part.text for part in parts) == engine.complete([5] * 4, ENDLESS).text


def test_model_settings_cannot_decide(engine: Endpoint) -> None:
    """The demo models' generation_config.json says: do not sample, at most 128 tokens."""
    done = engine.complete([5] * 4, replace(WILD, max_tokens=200, temperature=2.0, seed=1))
    assert done.text != engine.complete([5] * 4, replace(GREEDY, max_tokens=200)).text
