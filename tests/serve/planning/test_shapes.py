"""Shapes and packings, read from config.json without trust."""

from pathlib import Path
from typing import Any

import pytest

from studio.errors import StudioError
from studio.serve.planning.known_shapes import LLAMA_2_70B
from studio.serve.planning.models import shape_of
from studio.serve.planning.quantisation import Quantisation, online, unlike
from studio.serve.planning.shapes import read_shape
from studio.weights.checkpoint import Checkpoint

GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128}
AWQ = {"quant_method": "awq", "w_bit": 4, "q_group_size": 64}
PACKED = {
    "quant_method": "compressed-tensors",
    "config_groups": {"group_0": {"weights": {"num_bits": 8, "group_size": None}}},
}
BLOCKS = {"quant_method": "fp8", "weight_block_size": [128, 128]}


def config(**changes: Any) -> dict[str, Any]:
    return {**LLAMA_2_70B, **changes}


def test_the_demo_models_are_counted_exactly() -> None:
    for name in ("base", "instruct", "story", "roleplay"):
        shape = shape_of(f"demo/models/{name}")
        checkpoint = Checkpoint.open(Path(f"demo/models/{name}"), name)
        held = sum(tensor.nbytes for tensor in checkpoint.tensors.values())
        assert 2 * shape.parameters == held and shape.dtype == "bfloat16"


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        ({"model_type": "qwen2"}, "biased", True),
        ({"attention_bias": True}, "biased", True),
        ({"model_type": "qwen3"}, "normed", True),
        ({"head_dim": 100}, "head_dim", 100),
        ({"num_key_value_heads": None}, "kv_heads", 64),
        ({"tie_word_embeddings": True}, "tied", True),
        ({"dtype": "bfloat16"}, "dtype", "bfloat16"),
        ({"torch_dtype": None}, "dtype", "float32"),
        ({"model_type": "yi"}, "notes", ("model_type 'yi' is counted like a Llama",)),
        ({"quantization_config": GPTQ}, "quantisation", Quantisation("gptq", 4, 128)),
        ({"quantization_config": AWQ}, "quantisation", Quantisation("awq", 4, 64)),
        ({"quantization_config": PACKED}, "quantisation", Quantisation("compressed-tensors", 8, 0)),
        ({"quantization_config": BLOCKS}, "quantisation", Quantisation("fp8", 8, 128)),
    ],
)
def test_read_shape(changes: dict[str, Any], field: str, value: object) -> None:
    assert getattr(read_shape(config(**changes), "m"), field) == value


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": None}, "m: num_hidden_layers is None in config.json"),
        ({"hidden_size": "8192"}, "hidden_size is '8192'"),
        ({"vocab_size": True}, "vocab_size is True"),
        ({"num_attention_heads": 60}, "does not divide by 60 heads"),
        ({"num_local_experts": 8}, "a mixture of experts"),
        ({"text_config": {}}, "more than text"),
        ({"torch_dtype": "float8"}, "dtype 'float8'"),
        ({"quantization_config": {"quant_method": "quip"}}, "quant_method 'quip' cannot be"),
        ({"quantization_config": {"quant_method": "gptq"}}, "cannot be planned"),
        ({"quantization_config": "yes"}, "quant_method None"),
    ],
)
def test_read_shape_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(StudioError, match=message):
        read_shape(config(**changes), "m")


def test_online_names() -> None:
    assert online("fp8") == online("fp8_per_tensor") and online("none") == Quantisation()
    with pytest.raises(StudioError, match=r'"fp8_tensor" is not .*did you mean "fp8_per_tensor"'):
        online("fp8_tensor")


def test_models_that_are_not_held_alike_are_warned_about() -> None:
    one, other = ("bfloat16", "none"), ("bfloat16", "fp8_per_tensor")
    assert unlike({"a": one, "b": one}) == ""
    warning = unlike({"a": one, "b": other, "c": one})
    assert "b: bfloat16, fp8_per_tensor; a, c: bfloat16" in warning
    assert unlike({"a": ("float16", "none"), "b": one}) != ""


def test_published_sizes_serve_where_a_model_is_not_here() -> None:
    shape = shape_of("xwin-lm/Xwin-LM-70B-V0.1")
    assert (shape.parameters, shape.notes != ()) == (68_976_648_192, True)
    with pytest.raises(StudioError, match="no-such/model: not a folder here"):
        shape_of("no-such/model")
    with pytest.raises(StudioError, match="there is no config.json"):
        shape_of("demo")
