"""Many answers at once: all of them, each one once, and none twice."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from studio.errors import StudioError
from studio.serve.batch import FILE, Completions, Request, complete_all
from studio.serve.engine import Completion, Identity, Piece, Prompt
from studio.serve.sampling import Sampling

MODEL = Identity("merged", "embedded", dtype="float32", fingerprint="f" * 32)


@dataclass
class Echo:
    """An engine that answers with the prompt and the seed; `together` must be under way at once."""

    identity: Identity = MODEL
    together: int = 1
    asked: list[Prompt] = field(default_factory=list)
    ends: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._barrier = threading.Barrier(self.together, timeout=20)

    def complete(self, prompt: Prompt, sampling: Sampling) -> Completion:
        self.asked.append(prompt)
        self._barrier.wait()
        end = self.ends.get(str(prompt), "stop")
        return Completion(f"{prompt} {sampling.seed}", 1, 2, end, 0.1)  # type: ignore[arg-type]

    def stream(self, prompt: Prompt, sampling: Sampling) -> Iterator[Piece]:
        raise AssertionError("not asked here")

    def logprobs(self, tokens: Sequence[int]) -> list[float | None]:
        raise AssertionError("not asked here")

    def close(self) -> None: ...


def requests(*prompts: Prompt, seed: int = 0) -> list[Request]:
    return [Request(prompt, Sampling(seed=seed)) for prompt in prompts]


def texts(
    engine: Echo, wanted: Sequence[Request], kept: Completions | None = None
) -> dict[int, str]:
    return {index: found.text for index, found in complete_all(engine, wanted, kept)}


def test_complete_all_answers_each_request_by_its_index() -> None:
    wanted = [
        Request("a", Sampling(seed=1)),
        Request("b", Sampling(seed=2)),
        Request("a", Sampling()),
    ]
    assert texts(Echo(), wanted) == {0: "a 1", 1: "b 2", 2: "a 0"}
    assert texts(Echo(), []) == {}


def test_complete_all_sends_requests_together() -> None:
    engine = Echo(together=8)  # fewer at a time would break the barrier
    assert len(texts(engine, requests(*"abcdefgh"))) == 8


def test_kept_answers_are_not_made_again_even_by_another_process(tmp_path: Path) -> None:
    texts(Echo(), requests("a", "b"), Completions(tmp_path))
    engine = Echo(identity=replace(MODEL, label="another name for it"))
    assert texts(engine, requests("a", "b", "c"), Completions(tmp_path)) == {
        0: "a 0",
        1: "b 0",
        2: "c 0",
    }
    assert engine.asked == ["c"]


@pytest.mark.parametrize(
    ("identity", "wanted"),
    [
        (replace(MODEL, fingerprint="e" * 32), requests("a")),
        (replace(MODEL, quantisation="fp8"), requests("a")),
        (MODEL, requests("a", seed=1)),
        (MODEL, [Request("a", Sampling(temperature=0.5))]),
        (MODEL, [Request((1, 2), Sampling())]),
    ],
)
def test_what_an_answer_depends_on_makes_it_another(
    tmp_path: Path, identity: Identity, wanted: list[Request]
) -> None:
    texts(Echo(), requests("a"), Completions(tmp_path))
    engine = Echo(identity=identity)
    texts(engine, wanted, Completions(tmp_path))
    assert len(engine.asked) == 1


def test_a_model_without_fingerprint_is_never_kept(tmp_path: Path) -> None:
    nameless = replace(MODEL, fingerprint=None)
    texts(Echo(identity=nameless), requests("a"), Completions(tmp_path))
    engine = Echo(identity=nameless)
    texts(engine, requests("a"), Completions(tmp_path))
    assert engine.asked == ["a"]


def test_answers_before_an_abort_are_kept_and_the_abort_is_not(tmp_path: Path) -> None:
    engine = Echo(ends={"b": "abort"})
    with pytest.raises(StudioError, match="merged: the engine broke an answer off; run the same"):
        list(complete_all(engine, requests("a", "b"), Completions(tmp_path), at_a_time=1))
    again = Echo()
    assert texts(again, requests("a", "b"), Completions(tmp_path)) == {0: "a 0", 1: "b 0"}
    assert again.asked == ["b"]


def test_a_torn_last_line_is_made_again(tmp_path: Path) -> None:
    texts(Echo(), requests("a", "b"), Completions(tmp_path))
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes()[:-10])
    engine = Echo()
    assert len(texts(engine, requests("a", "b"), Completions(tmp_path))) == 2
    assert len(engine.asked) == 1
    assert len(texts(Echo(), requests("a", "b"), Completions(tmp_path))) == 2
