"""What the planner recommends for the house's models on usual machines, and what it refuses."""

from dataclasses import replace
from typing import Any

import pytest

from studio.errors import StudioError
from studio.serve.planning.gpus import GIB, Found, imagine
from studio.serve.planning.known_shapes import PUBLISHED
from studio.serve.planning.plan import BESIDE, IMPOSSIBLE, IN_TURN, ONE, Plan, Wish
from studio.serve.planning.planner import make_plan
from studio.serve.planning.quantisation import Quantisation
from studio.serve.planning.shapes import Shape, read_shape

SHAPES = {name: read_shape(config, name) for name, config in PUBLISHED.items()}
LLAMA = SHAPES["meta-llama/Llama-2-70b-hf"]
QWEN = SHAPES["Qwen/Qwen2.5-72B-Instruct"]
SMALL = Shape("llama", 4, 256, 512, 8, 4, 32, 960, 512)


def planned(gpus: str, *shapes: Shape, **wish: Any) -> Plan:
    models = {f"m{index}": shape for index, shape in enumerate(shapes or (LLAMA,))}
    return make_plan(models, imagine(gpus), Wish(**wish), memory=16 * GIB)


def ways(plan: Plan) -> list[tuple[int, int, tuple[int, ...]]]:
    return [(m.chosen.way.tp, m.chosen.way.pp, m.gpus) for m in plan.models if m.chosen]


# GPUs, on-line quantisation, models → arrangement, (tp, pp, GPUs) of each model.
RECOMMENDED: list[tuple[str, str, int, str, list[tuple[int, int, tuple[int, ...]]]]] = [
    ("2x80", "none", 1, ONE, [(2, 1, (0, 1))]),
    ("4x80", "none", 1, ONE, [(4, 1, (0, 1, 2, 3))]),
    ("4x80", "none", 2, BESIDE, [(2, 1, (0, 1)), (2, 1, (2, 3))]),
    ("4x80", "none", 3, IN_TURN, [(4, 1, (0, 1, 2, 3))] * 3),
    ("4x80", "fp8", 3, BESIDE, [(1, 1, (0,)), (1, 1, (1,)), (1, 1, (2,))]),
    ("8x80", "none", 2, BESIDE, [(4, 1, (0, 1, 2, 3)), (4, 1, (4, 5, 6, 7))]),
    ("8x80", "none", 4, BESIDE, [(2, 1, (i, i + 1)) for i in (0, 2, 4, 6)]),
    ("4x48", "none", 2, IN_TURN, [(4, 1, (0, 1, 2, 3))] * 2),
    ("8x48", "none", 2, BESIDE, [(4, 1, (0, 1, 2, 3)), (4, 1, (4, 5, 6, 7))]),
    ("8x24", "none", 2, IN_TURN, [(8, 1, tuple(range(8)))] * 2),
    ("1x141", "fp8", 2, IN_TURN, [(1, 1, (0,))] * 2),
    ("3x80", "none", 1, ONE, [(2, 1, (0, 1))]),
    ("6x80", "none", 1, ONE, [(4, 1, (0, 1, 2, 3))]),
]


@pytest.mark.parametrize(("gpus", "quantisation", "count", "arrangement", "held"), RECOMMENDED)
def test_recommendation(
    gpus: str,
    quantisation: str,
    count: int,
    arrangement: str,
    held: list[tuple[int, int, tuple[int, ...]]],
) -> None:
    requests = 3 if (gpus, count) == ("4x80", 3) and quantisation == "fp8" else 8
    plan = planned(gpus, *[LLAMA] * count, quantisation=quantisation, requests=requests)
    assert (plan.arrangement, ways(plan)) == (arrangement, held)
    plan.require()


def test_models_are_held_in_turn_where_side_by_side_too_few_requests_fit() -> None:
    plan = planned("4x80", LLAMA, LLAMA, requests=16)
    assert (plan.arrangement, ways(plan)) == (IN_TURN, [(4, 1, (0, 1, 2, 3))] * 2)
    assert plan.why[0] == (
        "side by side, 2 GPUs each, only 8 requests of full length would fit at once, 16 were "
        "asked for"
    )
    # Where neither way holds what was asked for, being there at once is worth more.
    assert planned("4x80", LLAMA, LLAMA, requests=500).arrangement == BESIDE


def test_small_models_take_no_more_gpus_than_pay() -> None:
    assert ways(planned("8x80", SMALL)) == [(1, 1, (0,))]
    assert ways(planned("8x80", SMALL, tp=4)) == [(4, 1, (0, 1, 2, 3))]


def test_models_in_turn_share_an_engine_only_if_their_shapes_are_the_same() -> None:
    assert "one engine takes their weights in turn" in " ".join(planned("2x80", LLAMA, LLAMA).why)
    widened = replace(LLAMA, vocab=32_032)
    assert "is a restart" in " ".join(planned("2x80", LLAMA, widened).why)


def test_impossible_says_what_is_missing_and_what_would_help() -> None:
    plan = planned("1x141")
    assert plan.arrangement == IMPOSSIBLE and ways(plan) == []
    assert plan.why == (
        "m0 does not fit: at tensor parallel 1, the best way here, weights take 128.5 GiB of "
        "139.8 GiB; 3.2 GiB are missing before any request",
    )
    assert plan.remedies == (
        "fp8_per_tensor on line",
        "2 such machines together, see the commands",
    )
    with pytest.raises(StudioError, match="3.2 GiB are missing .*; instead: fp8_per_tensor"):
        plan.require()


def test_what_is_true_of_several_models_is_said_once() -> None:
    noted = replace(LLAMA, notes=("planned with its published sizes",))
    plan = planned("1x141", noted, noted, SMALL)
    (reason,) = plan.why
    assert reason.startswith("m0, m1 do not fit: at tensor parallel 1, the best way here, ")
    assert plan.warnings[0] == "m0, m1: planned with its published sizes"


def test_a_remedy_is_named_only_if_it_fits() -> None:
    plan = planned("1x24")
    assert plan.remedies == ("8 such machines together, see the commands",)
    mistral = replace(SHAPES["mistralai/Mistral-Large-Instruct-2407"], dtype="float16")
    assert planned("1xT4", mistral).remedies == ()  # 16 machines do not do


def test_a_pipeline_is_the_way_where_no_tensor_parallel_size_holds_enough() -> None:
    plan = planned("3x80", requests=16)
    assert ways(plan) == [(1, 3, (0, 1, 2))]
    assert "a pipeline, because no tensor parallel size alone" in " ".join(plan.why)


def test_several_machines_get_commands_to_type() -> None:
    several = planned("8x24", SHAPES["mistralai/Mistral-Large-Instruct-2407"]).several
    assert several is not None
    assert (several.machines, several.row.way.tp, several.row.way.pp) == (2, 8, 2)
    commands = [command for _, command in several.commands]
    assert commands[1] == "VLLM_HOST_IP=HEAD ray start --head --port=6379 --node-ip-address=HEAD"
    assert commands[3] == (
        "vllm serve m0 --tensor-parallel-size 8 --pipeline-parallel-size 2 "
        "--distributed-executor-backend ray --max-model-len 4096 --gpu-memory-utilization 0.92 "
        "--dtype bfloat16 --generation-config vllm --host HEAD --port 8000 "
        '--api-key "$STUDIO_ENGINE_KEY"'
    )


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"tp": 3}, r"heads \(64\) must be divisible by tensor parallel size \(3\)"),
        ({"tp": 8}, "takes 8 GPUs, there are 4"),
    ],
)
def test_a_size_that_vllm_refuses_is_refused_before_it_starts(
    wish: dict[str, int], message: str
) -> None:
    plan = planned("4x80", **wish)
    assert plan.arrangement == IMPOSSIBLE
    assert "leave the parallel sizes to the planner" in plan.remedies
    with pytest.raises(StudioError, match=message):
        plan.require()


def test_length_is_checked_in_vllms_words() -> None:
    with pytest.raises(StudioError, match=r"max_model_len \(8192\) is greater than the derived"):
        planned("4x80", length=8192)
    assert planned("4x80", SMALL).length == 512


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"length": 0}, "context in tokens is 0; use a whole number"),
        ({"tp": True}, "tensor parallel size is True"),
        ({"utilisation": 1.2}, "GPU memory to use is 1.2"),
        ({"kv_cache": "fp4"}, "kv_cache is 'fp4'"),
        ({"dtype": "fp16"}, "dtype is 'fp16'"),
        ({"quantisation": "fp9"}, '"fp9" is not an on-line quantisation'),
    ],
)
def test_wishes_that_cannot_be(wish: dict[str, Any], message: str) -> None:
    with pytest.raises(StudioError, match=message):
        Wish(**wish)


def test_no_model_is_refused() -> None:
    with pytest.raises(StudioError, match="no model to plan for"):
        make_plan({}, imagine("1x80"), Wish())


def test_what_is_quantised_is_not_quantised_again() -> None:
    packed = replace(QWEN, quantisation=Quantisation("gptq", 4, 128))
    with pytest.raises(StudioError, match="m0: already quantised"):
        planned("4x80", packed, quantisation="fp8")
    # 29568 / 2 splits a group of 128, so vLLM could not divide it; one GPU holds it whole.
    plan = planned("2x80", packed)
    assert ways(plan) == [(1, 1, (0,))]
    assert "no multiple of its groups" in plan.models[0].rows[-1].refusal


def test_different_packings_are_warned_about() -> None:
    packed = replace(LLAMA, quantisation=Quantisation("awq", 4, 128))
    plan = planned("8x80", LLAMA, packed)
    assert any("not held alike" in line for line in plan.warnings)
    assert not planned("8x80", LLAMA, LLAMA).warnings


def test_float32_models_are_held_in_half_of_it_and_it_is_said() -> None:
    plan = planned("4x80", replace(LLAMA, dtype="float32"))
    assert plan.models[0].dtype == "bfloat16"
    assert plan.warnings == ("m0: stored as float32, held as bfloat16",)


def test_old_gpus_cannot_do_bfloat16() -> None:
    plan = planned("8xT4", replace(SMALL, dtype="bfloat16"))
    assert "bfloat16 needs compute capability 8.0, T4 has 7.5" in plan.why[0]
    assert planned("8xT4", SMALL, dtype="float16").arrangement == ONE


def test_gpus_in_use_or_unlike_the_others_are_left_out() -> None:
    gpus = list(imagine("4x80").gpus)
    gpus[1] = replace(gpus[1], free=gpus[1].free - 20 * GIB)
    gpus[3] = replace(gpus[3], name="T4", memory=15 * GIB)
    plan = make_plan({"m": LLAMA}, Found(tuple(gpus)), Wish())
    assert ways(plan) == [(2, 1, (0, 2))]
    assert plan.warnings == (
        "GPU 1 is left out: 20.0 GiB of it are in use",
        "GPU 3 (T4) is left out: it is unlike the others",
    )
    busy = tuple(replace(gpu, free=0) for gpu in gpus)
    with pytest.raises(StudioError, match="all GPUs are in use"):
        make_plan({"m": LLAMA}, Found(busy), Wish())


def test_without_gpus_the_processor_is_planned_for() -> None:
    plan = planned("cpu", SMALL, SMALL)
    assert (plan.arrangement, ways(plan)) == (BESIDE, [(1, 1, ())] * 2)
    need = plan.models[0].chosen and plan.models[0].chosen.need
    assert need is not None and need.weights == 2 * SMALL.parameters
    large = planned("cpu", LLAMA)
    assert large.arrangement == IMPOSSIBLE and large.several is None
    assert large.remedies == ()  # on-line quantisation does not run there
    piped = planned("cpu", SMALL, pp=2)
    assert piped.why[0].startswith("m0: no pipeline runs on the CPU")
    assert piped.remedies == ("leave the parallel sizes to the planner",)
    middling = replace(SMALL, layers=100, hidden=2048, intermediate=8192)
    assert planned("cpu", middling, middling).arrangement == IN_TURN


def test_the_fp8_cache_holds_twice_the_tokens() -> None:
    plain, packed = (planned("4x80", kv_cache=kind).models[0].chosen for kind in ("auto", "fp8"))
    assert plain and packed and plain.need and packed.need
    assert packed.need.tokens == pytest.approx(2 * plain.need.tokens, abs=16)
