"""Whether a server elsewhere heeds every sampling parameter: tried, not believed.

Each trial has an outcome that the parameter alone decides. A server that ignores one would make a
comparison unfair without a word, so it is refused. A model may be so sure of itself, or a server so
busy, that one trial tells nothing: then it is tried again.
"""

from collections.abc import Iterator
from dataclasses import replace

from studio.errors import StudioError
from studio.serve.engine import Engine
from studio.serve.sampling import Sampling

PROMPT = "Once upon a time there was a river, and by the river there was a house"
SEEDS = range(16)  # before a parameter counts as ignored: most show in the first two
TIMES = 3  # a busy server rounds otherwise now and then, and answers otherwise
_GREEDY = Sampling(temperature=0.0, max_tokens=24)
_WILD = replace(_GREEDY, temperature=2.0)
# Few candidates, nearly equal odds: what was said before soon comes again, and a penalty shows.
# It is compared with its opposite, which shows best.
_LOOSE = Sampling(temperature=2.0, top_k=5, max_tokens=32)
_ONE_LEFT = {"top_k": 1, "top_p": 1e-6, "min_p": 1.0}
_OPPOSITES = {
    "repetition_penalty": (2.0, 0.5),
    "presence_penalty": (2.0, -2.0),
    "frequency_penalty": (2.0, -2.0),
}


def probe(engine: Engine) -> None:
    """Raise StudioError naming every sampling parameter that the engine ignores."""
    pairs = zip(_seeded(_GREEDY), _seeded(_WILD), strict=True)
    apart = (pair for pair in pairs if len({_answer(engine, each) for each in pair}) == 2)
    greedy, wild = next(apart, (None, None))
    if not greedy or not wild:
        raise _refusal(engine, ["temperature"])
    ignored = [
        name
        for name, value in _ONE_LEFT.items()
        if not _is_same(engine, replace(wild, **{name: value}), greedy)  # type: ignore[arg-type]
    ]
    drawn = _answer(engine, wild)
    others = (_answer(engine, each) for each in _seeded(_WILD))
    if not _is_same(engine, wild, wild) or all(other == drawn for other in others):
        ignored.append("seed")
    ignored += [name for name in _OPPOSITES if not _is_heeded(engine, name)]
    if engine.complete(PROMPT, replace(_GREEDY, max_tokens=2)).completion_tokens > 2:
        ignored.append("max_tokens")
    stop = _answer(engine, greedy).strip()[-4:]
    if stop and stop in _answer(engine, replace(_GREEDY, stop=(stop,))):
        ignored.append("stop")
    if ignored:
        raise _refusal(engine, ignored)


def _refusal(engine: Engine, ignored: list[str]) -> StudioError:
    return StudioError(
        f"{engine.identity.label}: the server ignores {', '.join(ignored)}; answers drawn there "
        "cannot be compared fairly: use a server that heeds them, such as vLLM"
    )


def _seeded(sampling: Sampling) -> Iterator[Sampling]:
    """The sampling with one seed after another."""
    return (replace(sampling, seed=seed) for seed in SEEDS)


def _is_same(engine: Engine, one: Sampling, other: Sampling) -> bool:
    """Whether both give the same answer."""
    return any(_answer(engine, one) == _answer(engine, other) for _ in range(TIMES))


def _is_heeded(engine: Engine, penalty: str) -> bool:
    """Whether the penalty changes any of some answers."""
    more, less = _OPPOSITES[penalty]
    return any(
        _answer(engine, replace(each, **{penalty: more}))  # type: ignore[arg-type]
        != _answer(engine, replace(each, **{penalty: less}))  # type: ignore[arg-type]
        for each in _seeded(_LOOSE)
    )


def _answer(engine: Engine, sampling: Sampling) -> str:
    return engine.complete(PROMPT, sampling).text
