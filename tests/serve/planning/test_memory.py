"""The planner's formula and inputs, to the digit: not the truth of an estimate."""

from dataclasses import replace

import pytest

from studio.serve.planning.gpus import GIB, imagine
from studio.serve.planning.known_shapes import PUBLISHED
from studio.serve.planning.memory import (
    Way,
    activations,
    batch_of,
    kv_per_token,
    need,
    refusal,
    stage_weights,
    stages,
)
from studio.serve.planning.quantisation import Quantisation, online
from studio.serve.planning.shapes import Shape, read_shape

SHAPES = {name: read_shape(config, name) for name, config in PUBLISHED.items()}
LLAMA_2 = SHAPES["meta-llama/Llama-2-70b-hf"]
LLAMA_3 = SHAPES["meta-llama/Llama-3.3-70B-Instruct"]
QWEN = SHAPES["Qwen/Qwen2.5-72B-Instruct"]
MISTRAL = SHAPES["mistralai/Mistral-Large-Instruct-2407"]


def test_parameters_of_known_models() -> None:
    counts = [shape.parameters for shape in (LLAMA_2, LLAMA_3, QWEN, MISTRAL)]
    assert counts == [68_976_648_192, 70_553_706_496, 72_706_203_648, 122_610_069_504]


# GPUs, quantisation → weights per GPU in GiB, tokens in the KV cache, at TP = all of the GPUs.
TABLE = [
    ("2x80", "none", 64.24, 32_864),
    ("2x80", "fp8", 32.37, 241_760),
    ("2xA100", "none", 64.24, 38_832),
    ("2xA100", "fp8", 32.37, 247_728),
    ("4x80", "none", 32.12, 491_040),
    ("4x80", "fp8", 16.18, 699_936),
    ("8x80", "none", 16.06, 1_407_392),
    ("8x80", "fp8", 8.09, 1_616_288),
    ("4x48", "none", 32.12, 117_504),
    ("4x48", "fp8", 16.18, 326_400),
    ("4xL40S", "none", 32.12, 81_328),
    ("4xL40S", "fp8", 16.18, 290_224),
    ("8x48", "none", 16.06, 657_072),
    ("8x48", "fp8", 8.09, 865_968),
    ("8x24", "none", 16.06, 80_672),
    ("8x24", "fp8", 8.09, 289_568),
    ("8xL4", "none", 16.06, 44_496),
    ("8xL4", "fp8", 8.09, 253_392),
    ("1x141", "none", 128.48, 0),
    ("1x141", "fp8", 64.73, 198_288),
]


@pytest.mark.parametrize(("gpus", "quantisation", "weights", "tokens"), TABLE)
def test_llama_2_70b(gpus: str, quantisation: str, weights: float, tokens: int) -> None:
    found = imagine(gpus).gpus
    batch, sequences = batch_of(found[0].memory, found[0].name)
    way = Way(len(found), 1, "bfloat16", online(quantisation), 2, batch, sequences)
    counted = need(LLAMA_2, way, found[0].memory)
    assert (round(counted.weights / GIB, 2), counted.tokens) == (weights, tokens)


def test_one_h200_lacks_so_much_for_bfloat16() -> None:
    (gpu,) = imagine("1x141").gpus
    assert round(need(LLAMA_2, Way(), gpu.memory).kv / GIB, 2) == -3.23


@pytest.mark.parametrize(
    ("shape", "tp", "weights", "per_token"),
    [
        (LLAMA_2, 16, 8.19, 40_960),
        (LLAMA_3, 4, 32.86, 81_920),
        (LLAMA_3, 8, 16.43, 40_960),
        (LLAMA_3, 16, 8.37, 40_960),
        (QWEN, 4, 33.86, 81_920),
        (QWEN, 8, 16.93, 40_960),
        (MISTRAL, 4, 57.1, 90_112),
        (MISTRAL, 8, 28.55, 45_056),
        (MISTRAL, 16, 14.54, 45_056),
    ],
)
def test_key_value_heads_are_repeated_above_their_number(
    shape: Shape, tp: int, weights: float, per_token: int
) -> None:
    way = Way(tp=tp)
    assert round(stage_weights(shape, way)[0] / GIB, 2) == weights
    assert kv_per_token(shape, way) == per_token


@pytest.mark.parametrize(
    ("tp", "batch", "gib"), [(1, 8192, 1.87), (8, 8192, 0.72), (1, 2048, 0.47)]
)
def test_activations(tp: int, batch: int, gib: float) -> None:
    way = Way(tp=tp, batch=batch, sequences=1024 if batch == 8192 else 256)
    assert round(activations(LLAMA_2, way) / GIB, 2) == gib


def test_a_whole_model_is_its_parameters() -> None:
    assert sum(stage_weights(LLAMA_2, Way())) == 2 * LLAMA_2.parameters
    assert sum(stage_weights(LLAMA_2, Way(dtype="float32"))) == 4 * LLAMA_2.parameters
    # Divided by layers, nothing is held twice.
    assert sum(stage_weights(QWEN, Way(pp=4))) == 2 * QWEN.parameters


def test_a_tied_embedding_is_held_once_unless_the_stages_are_apart() -> None:
    tied = Shape("llama", 4, 256, 512, 8, 4, 32, 960, 512, tied=True)
    assert sum(stage_weights(tied, Way())) == 2 * tied.parameters
    assert sum(stage_weights(tied, Way(pp=2))) == 2 * (tied.parameters + 960 * 256)


@pytest.mark.parametrize(
    ("layers", "pp", "expected"),
    [
        (80, 1, [80]),
        (80, 3, [27, 27, 26]),
        (88, 3, [29, 30, 29]),
        (80, 7, [11, 11, 11, 12, 12, 12, 11]),
        (81, 2, [41, 40]),
    ],
)
def test_layers_are_divided_as_vllm_divides_them(layers: int, pp: int, expected: list[int]) -> None:
    assert stages(layers, pp) == expected


@pytest.mark.parametrize(
    ("shape", "way", "reason"),
    [
        (LLAMA_2, Way(tp=3), "Total number of attention heads (64) must be divisible by tensor "
         "parallel size (3)."),
        (MISTRAL, Way(tp=6), "8 key-value heads neither divide by 6 nor divide it"),
        (replace(QWEN, intermediate=29_600), Way(tp=64), "intermediate_size 29600 does not divide"),
        (LLAMA_2, Way(pp=81), "80 layers cannot fill 81 stages"),
        (QWEN, Way(tp=2, quantisation=Quantisation("gptq", 4, 128)),
         "no multiple of its groups of 128"),
        (QWEN, Way(tp=2, quantisation=online("fp8_per_block")), "no multiple of its groups"),
        (Shape("llama", 2, 384, 1536, 12, 12, 32, 1000, 512), Way(tp=12), "padded to 1024 rows"),
    ],
)  # fmt: skip
def test_refusals(shape: Shape, way: Way, reason: str) -> None:
    assert reason in refusal(shape, way)


@pytest.mark.parametrize("tp", [1, 2, 4, 8, 16, 32, 64])
def test_llama_2_can_be_divided(tp: int) -> None:
    assert refusal(LLAMA_2, Way(tp=tp)) == ""


def test_four_bits_in_groups() -> None:
    packed = Quantisation("awq", 4, 128).bytes_of(1280, 2)
    assert packed == 640 + 10 * 2.5  # halves, and a scale and a zero point for each group
    assert Quantisation().bytes_of(10, 2) == 20
    assert online("fp8").bytes_of(10, 2) == 10


@pytest.mark.parametrize(
    ("gib", "name", "batch"),
    [(79, "H100", (8192, 1024)), (79, "NVIDIA A100-SXM4-80GB", (2048, 256)),
     (47, "A6000", (2048, 256)), (178, "B200", (16384, 1024))],
)  # fmt: skip
def test_steps_are_as_large_as_vllm_makes_them(gib: int, name: str, batch: tuple[int, int]) -> None:
    assert batch_of(gib * GIB, name) == batch
