"""The recipes that both programs run, as data.

A case names its sources (options of a toy checkpoint) and its stages (mergekit's YAML as Python
values, in which a source's name stands for its folder).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

Options = Mapping[str, Any]
Data = dict[str, Any]

UP = "model.layers.1.mlp.up_proj.weight"
NORM = "model.layers.2.input_layernorm.weight"


@dataclass(frozen=True)
class Case:
    """One recipe on its sources; the first source is the base of the result.

    `loaded_as`: the recipe's dtype where it does not hold the sources' values. mergekit rounds them
    to it at load; this project mixes them as they are in the file.
    """

    sources: Mapping[str, Options]
    stages: Sequence[Data]
    loaded_as: str | None = None

    @property
    def loaded(self) -> Mapping[str, Options]:
        """The sources as mergekit sees them: those that it rounds at load, rounded."""
        if self.loaded_as is None:
            return self.sources
        return {
            name: dict(options) | {"through": options["dtype"], "dtype": self.loaded_as}
            for name, options in self.sources.items()
        }

    def documents(self, folders: Mapping[str, str]) -> list[Data]:
        """The stages with the sources' folders in place of their names."""

        def located(value: Any, key: str = "") -> Any:
            if isinstance(value, dict):
                return {k: located(v, k) for k, v in value.items()}
            if isinstance(value, list):
                return [located(v, key) for v in value]
            return folders.get(value, value) if key in ("model", "base_model") else value

        return [located(stage) for stage in self.stages]


def stage(base: str, other: str, t: Any, name: str | None = None, **more: Any) -> Data:
    """One slerp."""
    head: Data = {"name": name} if name else {}
    models = [{"model": base}, {"model": other}]
    body = {"merge_method": "slerp", "base_model": base, "models": models, "parameters": {"t": t}}
    return head | body | more


def house(dtype: str | None = None) -> list[Data]:
    """The three stages of the house recipe."""
    more = {"dtype": dtype} if dtype else {}
    return [
        stage("A", "B", [0.25, 0.3, 0.5], "component-1", **more),
        stage("B", "C", [0.4, 0.3, 0.25], "component-2", **more),
        stage("component-1", "component-2", 0.5, **more),
    ]


def linear(weights: Mapping[str, Any], **more: Any) -> Data:
    """One linear merge; a weight of None is left to the stage's own."""
    models = [
        {"model": model} | ({} if weight is None else {"parameters": {"weight": weight}})
        for model, weight in weights.items()
    ]
    return {"merge_method": "linear", "models": models} | more


def on_base(method: str, base: str, weights: Mapping[str, Any], **more: Any) -> Data:
    """One merge of others on a base, which is not listed."""
    return linear(weights) | {"merge_method": method, "base_model": base} | more


def karcher(models: str, **more: Any) -> Data:
    """One Karcher mean of models of one letter."""
    return linear(dict.fromkeys(models)) | {"merge_method": "karcher"} | more


def sources(distance: float | None = None, count: int = 3, **options: Any) -> dict[str, Options]:
    """Sources A, B, C, …: unrelated, or fine-tunes at `distance` from one hidden base."""
    near = {} if distance is None else {"near": (100, distance)}
    return {"ABCDE"[i]: {"seed": i + 1} | near | options for i in range(count)}


def with_extra(base: dict[str, Options], name: str, **extra: Any) -> dict[str, Options]:
    """The sources with one of them changed."""
    return base | {name: dict(base[name]) | extra}


def filters() -> list[Data]:
    return [
        {"filter": "layers.1", "value": 0.9},
        {"filter": "self_attn", "value": [0.0, 0.5, 0.3, 0.7, 1.0]},
        {"filter": "mlp", "value": [1.0, 0.4]},
        {"filter": "lm_head", "value": 0.15},
        {"filter": "*", "value": [0.65, 0.2]},
    ]


def slices(*parts: tuple[int, int, Data]) -> list[Data]:
    return [
        {"sources": [{"model": m, "layer_range": [start, end]} for m in "AB"]} | more
        for start, end, more in parts
    ]


def neox_buffers(layers: int = 4) -> dict[str, torch.Tensor]:
    """The constants that GPT-NeoX checkpoints store and that mergekit insists on."""
    made: dict[str, torch.Tensor] = {}
    for i in range(layers):
        at = f"gpt_neox.layers.{i}.attention"
        made[f"{at}.bias"] = torch.ones(1, 1, 8, 8).tril()
        made[f"{at}.masked_bias"] = torch.tensor(-1e9)
        made[f"{at}.rotary_emb.inv_freq"] = torch.tensor([1.0, 0.1])
    return made


F32, F16, BF16 = "float32", "float16", "bfloat16"
WIDE = {"hidden_size": 64, "vocab_size": 20_000, "layers": 2}
TWO = {"dtype": F32, "count": 2}

FLOAT32 = {
    "house, far apart": Case(sources(dtype=F32), house(F32)),
    "house, near": Case(sources(0.1, dtype=F32), house(F32)),
    "house, at the threshold": Case(sources(0.02237, dtype=F32), house(F32)),
    "house, parallel": Case(sources(0.005, dtype=F32), house(F32)),
    "house, 1.3 million elements": Case(sources(0.1, dtype=F32, **WIDE), house(F32)),
    "house, far, 1.3 million elements": Case(sources(dtype=F32, **WIDE), house(F32)),
    "bfloat16 sources, float32 result": Case(sources(0.1), house(F32)),
    "sharded .bin": Case(sources(0.1, dtype=F32, format="bin", shards=3), house(F32)),
    "one layer": Case(sources(dtype=F32, layers=1), house(F32)),
    "two layers, five anchors": Case(
        sources(layers=2, **TWO), [stage("A", "B", [0.1, 0.9, 0.2, 0.8, 0.3])]
    ),
    "filters": Case(sources(layers=12, **TWO), [stage("A", "B", filters(), dtype=F32)]),
    "one filter as a mapping": Case(
        sources(**TWO), [stage("A", "B", {"filter": "*", "value": [0.2, 0.6]})]
    ),
    "outside 0 to 1": Case(sources(**TWO), [stage("A", "B", [-0.3, 1.4])]),
    "one-element list": Case(sources(**TWO), [stage("A", "B", [0.35])]),
    "number as text": Case(sources(**TWO), [stage("A", "B", ["1e-1", "9e-1"])]),
    "base listed last": Case(
        sources(**TWO), [stage("A", "B", 0.3) | {"models": [{"model": "B"}, {"model": "A"}]}]
    ),
    "base not listed": Case(sources(**TWO), [stage("A", "B", 0.3) | {"models": [{"model": "B"}]}]),
    "slices": Case(
        sources(**TWO),
        [
            stage("A", "B", [0.1, 0.8])
            | {
                "models": None,
                "slices": slices(
                    (0, 1, {"parameters": {"t": [0.2, 0.9]}}),
                    (1, 3, {}),
                    (3, 4, {"parameters": {"t": [{"filter": "mlp", "value": 0.6}]}}),
                ),
            }
        ],
    ),
    "linear": Case(sources(dtype=F32), [linear({"A": 0.5, "B": 0.3, "C": 0.4})]),
    "linear, not normalized": Case(
        sources(dtype=F32),
        [linear({"A": 0.5, "B": 0.3, "C": 0.4}, parameters={"normalize": False})],
    ),
    "linear, gradients and filters": Case(
        sources(0.1, dtype=F32),
        [
            linear(
                {"A": [0.5, 1.0], "B": [{"filter": "mlp", "value": [0.9, 0.1]}], "C": None},
                parameters={"weight": [{"filter": "self_attn", "value": 0.7}, {"value": 0.2}]},
            )
        ],
    ),
    "linear of one": Case(sources(dtype=F32, count=1), [linear({"A": 1.0})]),
    "linear inside slerp": Case(
        sources(dtype=F32, count=4),
        [
            linear({"B": 1, "C": 2, "D": [1, 3]}, name="mean", dtype=F32),
            stage("A", "mean", [0.2, 0.7], dtype=F32),
        ],
    ),
    "slerp inside linear": Case(
        sources(dtype=F32),
        [stage("A", "B", 0.3, "pair", dtype=F32), linear({"pair": 2, "C": 1}, dtype=F32)],
    ),
    "five stages": Case(
        sources(0.3, dtype=F32, count=5),
        [
            stage("A", "B", [0.2, 0.6], "one", dtype=F32),
            stage("C", "D", filters(), "two", dtype=F32),
            stage("one", "two", [0.5, 0.1, 0.9], "three", dtype=F32),
            stage("two", "E", 0.45, "four", dtype=F32),
            stage("three", "four", [0.3, 0.6], dtype=F32),
        ],
    ),
    "a source used at every step": Case(
        sources(dtype=F32, count=2),
        [
            stage("A", "B", 0.4, "one", dtype=F32),
            stage("one", "B", 0.4, "two", dtype=F32),
            stage("two", "A", [0.1, 0.6], dtype=F32),
        ],
    ),
    "result named, part after it": Case(
        sources(dtype=F32), [house(F32)[2], house(F32)[1], house(F32)[0]]
    ),
    "task_arithmetic": Case(
        sources(0.1, dtype=F32), [on_base("task_arithmetic", "A", {"B": 0.7, "C": [0.2, 0.9]})]
    ),
    "task_arithmetic, all settings": Case(
        sources(dtype=F32, layers=6),
        [
            on_base(
                "task_arithmetic",
                "A",
                {"B": None, "C": [{"filter": "mlp", "value": 0.4}]},
                parameters={"weight": 0.8, "lambda": [0.5, 1.2], "normalize": True},
            )
        ],
    ),
    "task_arithmetic, base listed in the middle": Case(
        sources(0.1, dtype=F32),
        [
            linear({"B": 0.3, "A": 99, "C": -0.2})
            | {"merge_method": "task_arithmetic", "base_model": "A"}
        ],
    ),
    "task_arithmetic, weights that cancel": Case(
        sources(0.1, dtype=F32),
        [on_base("task_arithmetic", "A", {"B": 1, "C": -1}, parameters={"normalize": True})],
    ),
    "karcher, far apart": Case(sources(dtype=F32, count=4), [karcher("ABCD")]),
    "karcher, near": Case(sources(0.1, dtype=F32), [karcher("ABC")]),
    "karcher, some rounds": Case(
        sources(dtype=F32), [karcher("ABC", parameters={"max_iter": 2, "tol": 1e-3})]
    ),
    "karcher of one": Case(sources(dtype=F32, count=1), [karcher("A")]),
    "karcher, a zero tensor": Case(
        with_extra(sources(dtype=F32), "B", extra={UP: torch.zeros(64, 32)}), [karcher("ABC")]
    ),
    "karcher, base not listed": Case(sources(dtype=F32), [karcher("BC", base_model="A")]),
    "model_stock": Case(
        sources(0.1, dtype=F32, count=4),
        [on_base("model_stock", "A", dict.fromkeys("BCD"))],
    ),
    "model_stock, far apart": Case(
        sources(dtype=F32), [on_base("model_stock", "A", {"B": None, "C": None})]
    ),
    "slerp of task_arithmetic and karcher": Case(
        sources(0.2, dtype=F32, count=4),
        [
            on_base("task_arithmetic", "A", {"B": 0.6, "C": 0.5}, name="task", dtype=F32),
            karcher("BCD", name="mean", dtype=F32),
            stage("task", "mean", [0.2, 0.7], dtype=F32),
        ],
    ),
    "model_stock over slerp": Case(
        sources(0.2, dtype=F32, count=4),
        [
            stage("A", "B", 0.3, "pair", dtype=F32),
            on_base("model_stock", "A", dict.fromkeys(["pair", "C", "D"]), name="stock", dtype=F32),
            on_base("task_arithmetic", "pair", {"stock": 0.5, "A": 0.25}, dtype=F32),
        ],
    ),
    "zero tensors": Case(
        with_extra(
            sources(**TWO),
            "B",
            extra={UP: torch.zeros(64, 32), NORM: torch.zeros(32)},
        ),
        [stage("A", "B", 0.3)],
    ),
    "antiparallel tensor": Case(
        with_extra(sources(**TWO), "B", near=(1, 0.001), extra={UP: -torch.ones(64, 32)})
        | {"A": {"seed": 1, "dtype": F32, "extra": {UP: torch.ones(64, 32)}}},
        [stage("A", "B", 0.3)],
    ),
    "mistral": Case(sources(0.1, arch="mistral", dtype=F32), house(F32)),
    "qwen2": Case(sources(0.1, arch="qwen2", dtype=F32), house(F32)),
    "qwen2, far apart": Case(sources(arch="qwen2", dtype=F32), house(F32)),
    "gpt_neox": Case(sources(0.1, arch="gpt_neox", dtype=F32, extra=neox_buffers()), house(F32)),
    "gemma": Case(sources(0.1, arch="gemma", dtype=F32), house(F32)),
    "tied llama": Case(sources(0.1, tied=True, dtype=F32), house(F32)),
    "tied base, others not": Case(
        with_extra(sources(dtype=F32), "A", tied=True), house(F32)
    ),
    "one tied that is not the base": Case(
        with_extra(sources(dtype=F32), "C", tied=True), house(F32)
    ),
    "promoted from three dtypes": Case(
        {"A": {"seed": 1}, "B": {"seed": 2, "dtype": F16}, "C": {"seed": 3, "dtype": F32}},
        house(),
    ),
}  # fmt: skip

BFLOAT16 = {
    "house, far apart": Case(sources(), house(BF16)),
    "house, near": Case(sources(0.1), house(BF16)),
    "house, sharded": Case(sources(0.1, shards=4), house(BF16)),
    "house, .bin": Case(sources(0.1, format="bin"), house(BF16)),
    "house, large": Case(sources(0.1, **WIDE), house(BF16)),
    "house, float16 sources": Case(sources(0.1, dtype=F16, through=BF16), house(BF16)),
    "house, rounded from float16": Case(sources(0.1, dtype=F16), house(BF16), BF16),
    "house, rounded from float32": Case(sources(0.1, dtype=F32), house(BF16), BF16),
    "house, far apart, rounded from float32": Case(sources(dtype=F32), house(BF16), BF16),
    "house, no dtype given": Case(sources(0.1), house()),
    "filters": Case(sources(count=2, layers=12), [stage("A", "B", filters(), dtype=BF16)]),
    "out_dtype": Case(
        sources(dtype=F32, count=2), [stage("A", "B", [0.2, 0.7], dtype=F32, out_dtype=BF16)]
    ),
    "linear": Case(sources(0.1), [linear({"A": 0.5, "B": [0.3, 0.1], "C": 0.4}, dtype=BF16)]),
    "gemma": Case(sources(0.1, arch="gemma"), house(BF16)),
    "qwen2": Case(sources(0.1, arch="qwen2"), house(BF16)),
    "gpt_neox": Case(sources(0.1, arch="gpt_neox", extra=neox_buffers()), house(BF16)),
}

FLOAT16 = {
    "house, far apart": Case(sources(dtype=F16), house(F16)),
    "house, near": Case(sources(0.1, dtype=F16), house(F16)),
    "house, sharded .bin": Case(sources(0.1, dtype=F16, format="bin", shards=2), house(F16)),
    "house, large": Case(sources(0.1, dtype=F16, **WIDE), house(F16)),
    "house, one source bfloat16": Case(
        with_extra(sources(0.1, dtype=F16), "B", dtype=BF16), house(F16)
    ),
    "house, rounded from float32": Case(sources(0.1, dtype=F32), house(F16), F16),
    "linear": Case(sources(0.1, dtype=F16), [linear({"A": 0.5, "B": 0.3, "C": 0.4}, dtype=F16)]),
    "mistral": Case(sources(0.1, arch="mistral", dtype=F16), house(F16)),
}

# mergekit merges all experts of a layer as one tensor with one angle, and writes other names.
OWN_CASES = {
    "float32: mixtral": Case(sources(0.3, arch="mixtral", dtype=F32), house(F32)),
    "bfloat16: mixtral": Case(sources(arch="mixtral"), house(BF16)),
}

CASES = {
    f"{dtype}: {name}": case
    for dtype, group in ((F32, FLOAT32), (BF16, BFLOAT16), (F16, FLOAT16))
    for name, case in group.items()
}
