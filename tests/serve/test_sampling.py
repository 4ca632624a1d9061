"""Sampling: its ranges, its data form, its presets."""

from typing import Any

import pytest

from studio.errors import StudioError
from studio.serve.sampling import PRESETS, Sampling


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": -0.1}, "temperature is -0.1; use a number from 0 to 2"),
        ({"temperature": 0.005}, "temperature is 0.005; use 0 for the likeliest tokens"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": "1"}, "temperature is '1'"),
        ({"temperature": True}, "temperature is True"),
        ({"temperature": None}, "temperature is empty; use a number from 0 to 2"),
        ({"top_p": 0.0}, "top_p is 0.0; use a number above 0"),
        ({"top_p": 1.01}, "top_p is 1.01"),
        ({"top_k": -1}, "top_k is -1; use a whole number from 0"),
        ({"top_k": 3.0}, "top_k is 3.0"),
        ({"min_p": 1.5}, "min_p is 1.5"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0"),
        ({"presence_penalty": 2.1}, "presence_penalty is 2.1"),
        ({"frequency_penalty": -2.1}, "frequency_penalty is -2.1"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**63}, "seed is 9223372036854775808"),
        ({"stop": ("",)}, "stop is .*none of them empty"),
        ({"stop": "USER:"}, "stop is 'USER:'"),
        ({"stop": tuple("abcdefghijklmnopq")}, "at most 16 texts"),
        ({"top_k": -1, "seed": -1}, r"2 problems(.|\n)*top_k(.|\n)*seed"),
    ],
)
def test_sampling_refuses_what_is_out_of_range(values: dict[str, Any], message: str) -> None:
    with pytest.raises(StudioError, match=message):
        Sampling(**values)


def test_sampling_accepts_the_ends_of_the_ranges() -> None:
    Sampling(temperature=0, top_p=1e-6, top_k=0, min_p=1.0, seed=2**63 - 1, max_tokens=1)
    Sampling(temperature=2, presence_penalty=-2, frequency_penalty=2, repetition_penalty=2)


def test_sampling_goes_through_its_data_unchanged() -> None:
    sampling = Sampling(temperature=0.5, top_k=7, stop=("USER:", "\n"), seed=11)
    assert Sampling.from_data(sampling.as_data()) == sampling
    assert sampling.as_data()["stop"] == ["USER:", "\n"]
    assert set(sampling.as_data()) == set(Sampling.__dataclass_fields__)


def test_sampling_from_data_refuses_unknown_names() -> None:
    with pytest.raises(StudioError, match=r'temprature.*did you mean "temperature"'):
        Sampling.from_data({"temprature": 1.0})
    with pytest.raises(StudioError, match="not 'greedy'"):
        Sampling.from_data("greedy")


def test_presets_are_what_their_names_say() -> None:
    assert PRESETS["greedy"].temperature == 0
    creative = PRESETS["creative"]
    assert creative.temperature == 1.0
    assert 0.05 <= creative.min_p <= 0.1
    assert 1.05 <= creative.repetition_penalty <= 1.1
