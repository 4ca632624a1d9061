"""A merge of toy models, finished but for its companions: shards on disk and their records."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from studio.merge.coefficients import solve
from studio.merge.journal import ShardRecord, TensorRecord
from studio.merge.plan import Options, Plan, ShardJob
from studio.merge.preflight import check
from studio.merge.recipe_files.recipe_yaml import load_recipe
from studio.weights.header import make_header
from studio.weights.torch_kernels import TORCH
from studio.weights.writer import digest_file

LAYERS, WIDTH, TOKENS = 3, 8, 16
SHAPES = {
    "model.embed_tokens.weight": (TOKENS, WIDTH),
    **{f"model.layers.{i}.mlp.up_proj.weight": (WIDTH, WIDTH) for i in range(LAYERS)},
    **{f"model.layers.{i}.input_layernorm.weight": (WIDTH,) for i in range(LAYERS)},
    "model.norm.weight": (WIDTH,),
    "lm_head.weight": (TOKENS, WIDTH),
}
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_hidden_layers": LAYERS,
    "hidden_size": WIDTH,
    "num_attention_heads": 2,
    "vocab_size": TOKENS,
    "torch_dtype": "float32",
}
TOKENIZER = {
    "tokenizer_config.json": {"bos_token": {"content": "<s>"}, "eos_token": "</s>"},
    "tokenizer.json": {"model": {"vocab": {"a": 0, "b": 1}}},
    "generation_config.json": {"eos_token_id": 2},
}
RECIPE = """
name: first
merge_method: slerp
base_model: {a}
models: [{{model: {a}}}, {{model: {b}}}]
parameters: {{t: [0.25, 0.3, 0.5]}}
---
merge_method: slerp
base_model: first
models: [{{model: first}}, {{model: {c}}}]
parameters:
  t:
    - {{filter: mlp, value: 0.5}}
    - {{value: 0.4}}
dtype: float32
"""


@dataclass(frozen=True)
class Finished:
    """Shards in `folder`, and what a run knows about them."""

    plan: Plan
    folder: Path
    records: list[ShardRecord]


def write_model(folder: Path, seed: int, files: Mapping[str, Any] = TOKENIZER) -> Path:
    """A toy model of random float32 weights; its norms are 1, as parallel as can be."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    arrays = {
        name: np.ones(shape) if "norm" in name else rng.normal(size=shape)
        for name, shape in SHAPES.items()
    }
    content = make_header([(name, "F32", shape) for name, shape in SHAPES.items()])
    content += b"".join(array.astype("<f4").tobytes() for array in arrays.values())
    (folder / "model.safetensors").write_bytes(content)
    for name, value in {"config.json": CONFIG, **files}.items():
        text = value if isinstance(value, str) else json.dumps(value)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def finish(
    home: Path, models: Sequence[Path], *, recipe: str = RECIPE, shard_bytes: int = 10**9
) -> Finished:
    """Merge three toy models as a recipe says, in float64, up to the companions."""
    a, b, c = models
    text = recipe.format(a=a, b=b, c=c)
    plan = check(load_recipe(text), Options(shard_bytes=shard_bytes))
    folder = home / "result"
    folder.mkdir()
    return Finished(plan, folder, [_write(plan, shard, folder) for shard in plan.shards])


def _write(plan: Plan, shard: ShardJob, folder: Path) -> ShardRecord:
    path = folder / shard.file
    content, tensors = shard.header(), {}
    for job in shard.tensors:
        flat = [source.load(job.name).flatten().double() for source in plan.sources]
        x = torch.stack(flat).numpy()
        row = plan.row_of[job.name]
        settings = [
            {name: value[row : row + 1] for name, value in stage.items()} for stage in plan.settings
        ]
        gram = x @ x.T
        weights = solve(plan.recipe, gram[None], settings)[-1].weights[0]
        tensors[job.name] = TensorRecord(gram.tolist(), weights.tolist())
        mixed = torch.from_numpy(weights @ x).to(TORCH[job.dtype])
        content += mixed.view(torch.uint8).numpy().tobytes()
    path.write_bytes(content)
    return ShardRecord(shard.file, len(content), digest_file(path), tensors)
