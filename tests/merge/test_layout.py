"""Layers are found in the names of any architecture, without a table of architectures."""

import numpy as np
import pytest

from studio.errors import StudioError
from studio.merge.layout import Layout
from tests.checkpoints import ARCHITECTURES, Toy

GPT2 = ["wte.weight", "wpe.weight", "h.0.attn.bias", "h.1.attn.bias", "ln_f.weight"]


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("layers", [1, 2, 11])
def test_layout_finds_the_layer_of_every_tensor(arch: str, layers: int) -> None:
    names = list(Toy(arch, layers=layers).tensors())
    layout = Layout.of(names[::-1], layers)
    for name, layer in zip(layout.names, layout.layers, strict=True):
        inside = ".layers." in name
        assert layer == (int(name.split(".layers.")[1].split(".")[0]) if inside else -1), name


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_layout_is_in_the_order_of_the_model(arch: str) -> None:
    names = list(Toy(arch, layers=11).tensors())
    layout = Layout.of(sorted(names), 11)
    assert sorted(layout.names) == sorted(names)
    places = list(dict.fromkeys(layout.places))
    assert places == ["embeddings", "layer", "norm", "head"][: 3 if arch == "gemma" else 4]
    inside = layout.layers[layout.layers >= 0]
    assert (np.diff(inside) >= 0).all()


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("model.embed_tokens.weight", "embeddings"),
        ("gpt_neox.embed_in.weight", "embeddings"),
        ("transformer.wte.weight", "embeddings"),
        ("wpe.weight", "embeddings"),
        ("model.norm.weight", "norm"),
        ("gpt_neox.final_layer_norm.bias", "norm"),
        ("transformer.ln_f.weight", "norm"),
        ("lm_head.weight", "head"),
        ("lm_head.bias", "head"),
        ("embed_out.weight", "head"),
        ("output.weight", "head"),
        ("model.language_model.lm_head.weight", "head"),
    ],
)
def test_place_of_a_tensor_outside_the_layers(name: str, place: str) -> None:
    layout = Layout.of(["h.0.w", name], 1)
    assert dict(zip(layout.names, layout.places, strict=True))[name] == place


LLAMA = {"embeddings": "embed_tokens", "norm": "model.norm", "head": "lm_head"}
NEOX = {"embeddings": "embed_in", "norm": "final_layer_norm", "head": "embed_out"}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_places_outside_have_a_filter_of_their_own(arch: str) -> None:
    expected = dict(NEOX if arch == "gpt_neox" else LLAMA)
    if arch == "gemma":
        del expected["head"]
    assert Layout.of(list(Toy(arch).tensors()), 4).outside == expected


def test_a_place_that_no_filter_is_for_alone_has_none() -> None:
    assert Layout.of(GPT2, 2).outside == {"norm": "ln_f"}


def test_numbers_of_experts_are_not_layers() -> None:
    names = [
        f"model.layers.{i}.block_sparse_moe.experts.{j}.w1.weight" for i in range(2) for j in (0, 1)
    ]
    assert Layout.of(names, 2).layers.tolist() == [0, 0, 1, 1]


def test_other_numbered_blocks_are_outside_the_layers() -> None:
    names = ["h.0.w", "h.1.w", "h.2.w", "vision.blocks.0.w", "vision.blocks.1.w", "adapter.7.w"]
    layout = Layout.of(names, 3)
    outside = [n for n, layer in zip(layout.names, layout.layers, strict=True) if layer < 0]
    assert sorted(outside) == ["adapter.7.w", "vision.blocks.0.w", "vision.blocks.1.w"]


def test_names_that_begin_with_the_block_list_work() -> None:
    assert Layout.of(GPT2, 2).layers.tolist() == [-1, -1, 0, 1, -1]


@pytest.mark.parametrize(
    ("names", "layers", "found"),
    [
        (["h.0.w", "h.1.w"], 3, "h 2"),
        (["h.0.w", "h.1.w"], 1, "h 2"),
        (["h.0.w", "h.2.w"], 2, "h 2"),
        (["h.1.w", "h.2.w"], 2, "h 2"),
        (["a.w", "0.w"], 1, "none"),
    ],
)
def test_wrong_number_of_layers_is_refused(names: list[str], layers: int, found: str) -> None:
    with pytest.raises(StudioError, match=f"says {layers} layers, but .* count: {found}"):
        Layout.of(names, layers)


def test_subset_keeps_order_and_layers() -> None:
    layout = Layout.of(GPT2, 2)
    kept = layout.subset(["ln_f.weight", "h.1.attn.bias"])
    assert (kept.names, kept.layers.tolist(), kept.num_layers) == (
        ("h.1.attn.bias", "ln_f.weight"),
        [1, -1],
        2,
    )
