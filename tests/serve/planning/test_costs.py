"""Minutes and money of the house's job, by hand."""

import pytest

from studio.errors import StudioError
from studio.serve.planning.costs import (
    CPU,
    GPU,
    Rates,
    Step,
    Work,
    checkpoint_bytes,
    saved,
    speed,
    steps,
)
from studio.serve.planning.gpus import imagine
from studio.serve.planning.known_shapes import PUBLISHED
from studio.serve.planning.plan import Plan, Wish
from studio.serve.planning.planner import make_plan
from studio.serve.planning.shapes import read_shape

LLAMA = read_shape(PUBLISHED["meta-llama/Llama-2-70b-hf"], "m")
BYTES = 137_953_296_384


def planned(gpus: str, count: int) -> Plan:
    return make_plan({f"m{i}": LLAMA for i in range(count)}, imagine(gpus), Wish())


def test_steps_of_a_merge_and_a_comparison() -> None:
    plan = planned("8x80", 2)
    assert checkpoint_bytes(plan) == 2 * BYTES
    work = Work(sources=3 * BYTES, result=BYTES, prompts=100, tokens=300)
    rates = Rates(download=100e6, disk=1e9, tokens=1000, gpu_hour=24, cpu_hour=0.5)
    done = steps(plan, work, rates)
    assert [(s.name, round(s.seconds), s.machine, round(s.price, 2)) for s in done] == [
        ("download", 4139, CPU, 0.57),
        ("merge", 552, CPU, 0.08),
        ("load", 276, GPU, 1.84),
        ("generate", 30, GPU, 0.2),
    ]
    assert saved(done, rates) == pytest.approx((4138.6 + 551.8) / 3600 * 23.5, rel=1e-4)
    assert saved(done, Rates()) == 0


def test_models_in_turn_take_their_time_one_after_another() -> None:
    work, rates = Work(prompts=100, tokens=300), Rates(tokens=1000)
    beside, turns = planned("8x80", 2), planned("2x80", 2)
    assert steps(beside, work, rates)[-1] == Step("generate", 30.0, GPU, 0.0)
    assert steps(turns, work, rates)[-1] == Step("generate", 60.0, GPU, 0.0)


def test_speed_follows_the_memory_of_the_gpu() -> None:
    plan = planned("4x80", 1)
    row = plan.models[0].chosen
    assert row is not None and row.need is not None
    expected = 0.6 * 3350e9 / row.need.weights * 32
    assert speed(plan, plan.found.gpus, Rates()) == pytest.approx(expected)
    assert speed(plan, plan.found.gpus, Rates(tokens=7.0)) == 7.0
    assert speed(plan, (), Rates()) is None
    # Room for 8 requests only: no more are under way.
    tight = planned("2x80", 1)
    held = tight.models[0].chosen
    assert held is not None and held.need is not None
    assert speed(tight, tight.found.gpus, Rates()) == pytest.approx(
        0.6 * 3350e9 / held.need.weights * 8
    )


def test_nothing_to_do_costs_nothing() -> None:
    assert [s.name for s in steps(planned("4x80", 1), Work(), Rates())] == ["load"]


def test_rates_that_cannot_be() -> None:
    with pytest.raises(
        StudioError, match=r"(?s)2 problems.*download speed is 0; .*GPU machine's price is -1"
    ):
        Rates(download=0, gpu_hour=-1)
    with pytest.raises(StudioError, match="tokens a second is nan"):
        Rates(tokens=float("nan"))
