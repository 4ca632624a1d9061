"""Toy checkpoints on disk: the tensor names, shapes and configs of real architectures, made small.

    write_checkpoint(folder, "qwen2", seed=2, near=(1, 0.01), dtype="float16", shards=3)

Equal options give equal files. A tensor's values depend on its name and the seed alone, so two
folders of one seed hold the same model, whatever their format.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from safetensors.torch import save_file

Shapes = dict[str, tuple[int, ...]]

SPREAD = 0.1  # of the elements of matrices and, around 1, of norm weights
NORM = ("norm.weight", "layernorm.weight", "layer_norm.weight")


@dataclass(frozen=True, slots=True)
class Toy:
    """A toy checkpoint; see the module for the usual way to write one.

    `through`: values are rounded to this dtype first, so that both hold them exactly (float16 but
    for those below 2^-17). `near`: (seed of another toy, distance): that toy's values plus noise of
    `distance` times their size, so 0.01 makes a close fine-tune, None an unrelated model.
    `dtype`: of all tensors but those of `extra`, which are written as they are. `without`: leave
    out the tensors whose names contain one of these. `config`: overrides of config.json, sizes
    included.
    """

    arch: str = "llama"
    seed: int = 1
    near: tuple[int, float] | None = None
    dtype: str = "bfloat16"
    through: str | None = None
    format: str = "safetensors"
    shards: int = 1
    layers: int = 4
    tied: bool = False
    tokenizer: bool = True
    extra: Mapping[str, torch.Tensor] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)

    def full_config(self) -> dict[str, Any]:
        """The content of config.json."""
        sizes = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 64}
        heads = {"num_attention_heads": 4, "max_position_embeddings": 64}
        ids = {"bos_token_id": 0, "eos_token_id": 1, "tie_word_embeddings": self.tied}
        layers = {"num_hidden_layers": self.layers, "torch_dtype": self.dtype}
        return sizes | heads | ids | layers | ARCHITECTURES[self.arch][0] | dict(self.config)

    def tensors(self) -> dict[str, torch.Tensor]:
        """All tensors in the order of the model."""
        config = self.full_config()
        shapes = ARCHITECTURES[self.arch][1](config)
        if config["tie_word_embeddings"]:
            shapes = {name: shape for name, shape in shapes.items() if name not in HEADS}
        dtype = getattr(torch, self.dtype)
        first = getattr(torch, self.through or self.dtype)
        made = {
            name: torch.from_numpy(self._values(name, shape)).to(first).to(dtype)
            for name, shape in shapes.items()
        } | dict(self.extra)
        return {k: v for k, v in made.items() if not any(word in k for word in self.without)}

    def _values(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        values = _noise(self.near[0] if self.near else self.seed, name, shape)
        if self.near:
            values += self.near[1] * _noise(self.seed, name, shape)
        values *= SPREAD
        return values + 1 if name.endswith(NORM) else values

    def write(self, folder: Path) -> Path:
        """Write the checkpoint into `folder` (made if missing) and return it."""
        folder.mkdir(parents=True, exist_ok=True)
        config = self.full_config()
        (folder / "config.json").write_text(json.dumps(config, indent=2))
        tensors = self.tensors()
        _write_weights(folder, tensors, self.format, self.shards)
        if self.tokenizer:
            write_tokenizer(folder, config["vocab_size"])
        return folder


def write_checkpoint(folder: Path, arch: str = "llama", **options: Any) -> Path:
    """Write a toy into `folder` and return it: options of `Toy`, all others go into config.json."""
    own = {f.name for f in fields(Toy)}
    config = options.pop("config", {}) | {k: v for k, v in options.items() if k not in own}
    chosen = {key: value for key, value in options.items() if key in own}
    return Toy(arch, config=config, **chosen).write(folder)


def write_tokenizer(folder: Path, words: int | Sequence[str], added: Sequence[str] = ()) -> None:
    """A tokenizer of whole words, then added tokens; of a number: <s>, </s>, <unk>, w3, w4, …"""
    if isinstance(words, int):
        words = ["<s>", "</s>", "<unk>", *(f"w{i}" for i in range(3, words))]
    vocab = {word: i for i, word in enumerate(words)}
    numbered = [(vocab[word], word) for word in ("<s>", "</s>", "<unk>")]
    special = [
        {"id": number, "content": token, "special": True}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for number, token in (*sorted(numbered), *enumerate(added, len(words)))
    ]
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
    }
    (folder / "tokenizer.json").write_text(json.dumps(content))
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast"} | names
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def _noise(seed: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng([seed, crc32(name.encode())])
    return rng.standard_normal(shape, dtype=np.float32)


def _write_weights(
    folder: Path, tensors: Mapping[str, torch.Tensor], format: str, shards: int
) -> None:
    stem, end = {"safetensors": ("model", "safetensors"), "bin": ("pytorch_model", "bin")}[format]
    names = list(tensors)
    parts = [[str(n) for n in part] for part in np.array_split(np.array(names), shards)]
    files = [f"{stem}.{end}"]
    if shards > 1:
        files = [f"{stem}-{i:05d}-of-{shards:05d}.{end}" for i in range(1, shards + 1)]
        size = sum(tensor.nbytes for tensor in tensors.values())
        weight_map = {n: file for file, part in zip(files, parts, strict=True) for n in part}
        index = {"metadata": {"total_size": size}, "weight_map": weight_map}
        (folder / f"{stem}.{end}.index.json").write_text(json.dumps(index))
    for file, part in zip(files, parts, strict=True):
        shard = {name: tensors[name].contiguous() for name in part}
        if format == "bin":
            torch.save(shard, folder / file)
        else:
            save_file(shard, folder / file, {"format": "pt"})


def _llama(config: Mapping[str, Any]) -> Shapes:
    hidden, inner, vocab = _sizes(config)
    head = config.get("head_dim", hidden // config["num_attention_heads"])
    queries, keys = head * config["num_attention_heads"], head * config["num_key_value_heads"]
    shapes: Shapes = {"model.embed_tokens.weight": (vocab, hidden)}
    for i in range(config["num_hidden_layers"]):
        at = f"model.layers.{i}"
        for part, rows in (("q", queries), ("k", keys), ("v", keys)):
            shapes[f"{at}.self_attn.{part}_proj.weight"] = (rows, hidden)
            if config["model_type"] == "qwen2":
                shapes[f"{at}.self_attn.{part}_proj.bias"] = (rows,)
        shapes[f"{at}.self_attn.o_proj.weight"] = (hidden, queries)
        shapes |= _feed_forward(config, at, hidden, inner)
        shapes[f"{at}.input_layernorm.weight"] = (hidden,)
        shapes[f"{at}.post_attention_layernorm.weight"] = (hidden,)
    return shapes | {"model.norm.weight": (hidden,), "lm_head.weight": (vocab, hidden)}


def _feed_forward(config: Mapping[str, Any], at: str, hidden: int, inner: int) -> Shapes:
    if config["model_type"] != "mixtral":
        up, down = (inner, hidden), (hidden, inner)
        return {f"{at}.mlp.{p}_proj.weight": up for p in ("gate", "up")} | {
            f"{at}.mlp.down_proj.weight": down
        }
    experts = config["num_local_experts"]
    shapes: Shapes = {f"{at}.block_sparse_moe.gate.weight": (experts, hidden)}
    for number in range(experts):
        for part, shape in (
            ("w1", (inner, hidden)),
            ("w2", (hidden, inner)),
            ("w3", (inner, hidden)),
        ):
            shapes[f"{at}.block_sparse_moe.experts.{number}.{part}.weight"] = shape
    return shapes


def _gpt_neox(config: Mapping[str, Any]) -> Shapes:
    hidden, inner, vocab = _sizes(config)
    shapes: Shapes = {"gpt_neox.embed_in.weight": (vocab, hidden)}
    linear = {
        "attention.query_key_value": (3 * hidden, hidden),
        "attention.dense": (hidden, hidden),
        "mlp.dense_h_to_4h": (inner, hidden),
        "mlp.dense_4h_to_h": (hidden, inner),
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
    }
    for i in range(config["num_hidden_layers"]):
        for part, shape in linear.items():
            shapes[f"gpt_neox.layers.{i}.{part}.weight"] = shape
            shapes[f"gpt_neox.layers.{i}.{part}.bias"] = shape[:1]
    last = "gpt_neox.final_layer_norm"
    shapes |= {f"{last}.weight": (hidden,), f"{last}.bias": (hidden,)}
    return shapes | {"embed_out.weight": (vocab, hidden)}


def _sizes(config: Mapping[str, Any]) -> tuple[int, int, int]:
    return config["hidden_size"], config["intermediate_size"], config["vocab_size"]


def _model(model_type: str, name: str, **rest: Any) -> dict[str, Any]:
    return {"model_type": model_type, "architectures": [name]} | rest


HEADS = ("lm_head.weight", "embed_out.weight")
GATED: dict[str, Any] = {"hidden_act": "silu", "rms_norm_eps": 1e-5, "num_key_value_heads": 2}
ARCHITECTURES: dict[str, tuple[dict[str, Any], Callable[[Mapping[str, Any]], Shapes]]] = {
    "llama": (_model("llama", "LlamaForCausalLM", **GATED), _llama),
    "mistral": (_model("mistral", "MistralForCausalLM", sliding_window=None, **GATED), _llama),
    "qwen2": (_model("qwen2", "Qwen2ForCausalLM", **GATED), _llama),
    "mixtral": (
        _model(
            "mixtral",
            "MixtralForCausalLM",
            num_local_experts=3,
            num_experts_per_tok=2,
            **GATED,
        ),
        _llama,
    ),
    "gemma": (
        _model(
            "gemma",
            "GemmaForCausalLM",
            head_dim=16,
            tie_word_embeddings=True,
            hidden_activation="gelu_pytorch_tanh",
            **GATED | {"hidden_act": "gelu_pytorch_tanh"},
        ),
        _llama,
    ),
    "gpt_neox": (
        _model("gpt_neox", "GPTNeoXForCausalLM", hidden_act="gelu", rotary_pct=0.25),
        _gpt_neox,
    ),
}
