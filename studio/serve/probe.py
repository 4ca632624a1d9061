"""Whether a server elsewhere heeds every sampling parameter: tried, not believed.

Each trial has an outcome that the parameter alone decides. A server that ignores one would make a
comparison unfair without a word, so it is refused.
"""

from dataclasses import replace

from studio.errors import StudioError
from studio.serve.engine import Engine
from studio.serve.sampling import Sampling

PROMPT = "Once upon a time there was a river, and by the river there was a house"
TRIES = 16  # different seeds, before a penalty counts as ignored: most change an answer in two
_GREEDY = Sampling(temperature=0.0, max_tokens=24, seed=7)
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
    greedy, wild = _answer(engine, _GREEDY), _answer(engine, _WILD)
    if greedy == wild:
        raise _refusal(engine, ["temperature"])
    ignored = [
        name
        for name, value in _ONE_LEFT.items()
        if _answer(engine, replace(_WILD, **{name: value})) != greedy  # type: ignore[arg-type]
    ]
    if _answer(engine, _WILD) != wild or _answer(engine, replace(_WILD, seed=8)) == wild:
        ignored.append("seed")
    ignored += [name for name in _OPPOSITES if not _is_heeded(engine, name)]
    if engine.complete(PROMPT, replace(_GREEDY, max_tokens=2)).completion_tokens > 2:
        ignored.append("max_tokens")
    stop = greedy.strip()[-4:]
    if stop and stop in _answer(engine, replace(_GREEDY, stop=(stop,))):
        ignored.append("stop")
    if ignored:
        raise _refusal(engine, ignored)


def _refusal(engine: Engine, ignored: list[str]) -> StudioError:
    return StudioError(
        f"{engine.identity.label}: the server ignores {', '.join(ignored)}; answers drawn there "
        "cannot be compared fairly: use a server that heeds them, such as vLLM"
    )


def _is_heeded(engine: Engine, penalty: str) -> bool:
    """Whether the penalty changes any of some answers."""
    for seed in range(TRIES):
        first, second = (
            _answer(engine, replace(_LOOSE, seed=seed, **{penalty: value}))  # type: ignore[arg-type]
            for value in _OPPOSITES[penalty]
        )
        if first != second:
            return True
    return False


def _answer(engine: Engine, sampling: Sampling) -> str:
    return engine.complete(PROMPT, sampling).text
