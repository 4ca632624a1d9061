"""How an answer is drawn: the same fields, with the same meaning, for every engine."""

import math
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any

from studio.errors import StudioError, nearest

LARGEST_SEED = 2**63 - 1
LOWEST_TEMPERATURE = 0.01  # vLLM raises anything between 0 and this to this
MOST_STOPS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How to draw one answer. Every field is sent with every request, so that no default of a
    server and no generation_config.json of a model decides in its place.

    The logits pass through, in this order: `repetition_penalty` over the tokens of prompt and
    answer (positive logits divided by it, negative ones multiplied; 1 is off), `frequency_penalty`
    times a token's count in the answer, `presence_penalty` once if it occurs there (0 is off);
    division by `temperature` (0 takes the likeliest token); `min_p` drops tokens less likely than
    this share of the likeliest one's probability (0 is off), `top_k` all but so many (0 is off),
    `top_p` those beyond this much probability (1 is off). What is left is drawn with `seed`.

    An answer ends with one of the model's end tokens, after `max_tokens` tokens, or before the
    first of the `stop` strings, which is not part of it.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    max_tokens: int = 256
    seed: int = 0
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise StudioError naming every value that is out of its range."""
        problems = [
            f"{name} is {'empty' if (value := getattr(self, name)) is None else repr(value)}; "
            f"use {wanted}"
            for name, (kind, low, high, wanted) in RANGES.items()
            if not _within(getattr(self, name), kind, low, high)
        ]
        if not problems and 0 < self.temperature < LOWEST_TEMPERATURE:
            problems.append(
                f"temperature is {self.temperature}; use 0 for the likeliest tokens, or at least "
                f"{LOWEST_TEMPERATURE}"
            )
        texts = isinstance(self.stop, tuple) and all(type(s) is str and s for s in self.stop)
        if not texts or len(self.stop) > MOST_STOPS:
            problems.append(
                f"stop is {self.stop!r}; use at most {MOST_STOPS} texts, none of them empty"
            )
        if problems:
            raise StudioError.listing("the sampling cannot be used", problems)

    def as_data(self) -> dict[str, Any]:
        """Every field by name, as JSON takes it: what is sent, stored and shown."""
        return asdict(self) | {"stop": list(self.stop)}

    def shared(self) -> dict[str, Any]:
        """`as_data` without what each answer of a trial has of its own: seed and max_tokens."""
        data = self.as_data()
        del data["seed"], data["max_tokens"]
        return data

    @classmethod
    def from_data(cls, data: object) -> "Sampling":
        """The sampling that `as_data` gave, or a part of it; raises StudioError if unknown."""
        if not isinstance(data, dict):
            raise StudioError(f"a sampling is an object of named values, not {str(data)[:80]!r}")
        known = [field.name for field in fields(cls)]
        for name in data:
            if name not in known:
                raise StudioError(
                    f"{str(name)[:80]!r} is not a sampling parameter{nearest(str(name), known)}; "
                    f"known are {', '.join(known)}"
                )
        stop = data.get("stop", ())
        return cls(**{**data, "stop": tuple(stop) if isinstance(stop, list) else stop})


# Of each number: its type, the least and the greatest value, and how to say so.
RANGES: MappingProxyType[str, tuple[type, float, float, str]] = MappingProxyType(
    {
        "temperature": (float, 0.0, 2.0, "a number from 0 to 2"),
        "top_p": (float, 1e-6, 1.0, "a number above 0, at most 1"),
        "top_k": (int, 0, 100_000, "a whole number from 0 (off) to 100000"),
        "min_p": (float, 0.0, 1.0, "a number from 0 (off) to 1"),
        "repetition_penalty": (float, 0.1, 2.0, "a number from 0.1 to 2; 1 is off"),
        "presence_penalty": (float, -2.0, 2.0, "a number from -2 to 2; 0 is off"),
        "frequency_penalty": (float, -2.0, 2.0, "a number from -2 to 2; 0 is off"),
        "max_tokens": (int, 1, 1_000_000, "a whole number from 1 to 1000000"),
        "seed": (int, 0, LARGEST_SEED, f"a whole number from 0 to {LARGEST_SEED}"),
    }
)


def _within(value: object, kind: type, low: float, high: float) -> bool:
    allowed = (int, float) if kind is float else (int,)
    return type(value) in allowed and math.isfinite(value) and low <= value <= high  # type: ignore[arg-type, operator]


PRESETS: MappingProxyType[str, Sampling] = MappingProxyType(
    {
        "greedy": Sampling(temperature=0.0),
        "careful": Sampling(temperature=0.7, top_p=0.9),
        "creative": Sampling(temperature=1.0, min_p=0.08, repetition_penalty=1.08),
        "wild": Sampling(temperature=1.3, min_p=0.05, repetition_penalty=1.05),
    }
)
