"""What a model's config.json says of its size: enough to count every weight."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from studio.errors import StudioError
from studio.serve.planning.quantisation import Quantisation, checkpoint_quantisation

DTYPES = {"bfloat16": 2, "float16": 2, "float32": 4}
# Families built like Llama: these differ in biases and in norms of queries and keys, no more.
BIASED = frozenset({"qwen2"})
NORMED = frozenset({"qwen3"})
KNOWN = frozenset({"llama", "mistral"}) | BIASED | NORMED
# Keys that change what is counted here: such models are not planned rather than planned wrongly.
FOREIGN = {
    "num_local_experts": "a mixture of experts",
    "num_experts": "a mixture of experts",
    "n_routed_experts": "a mixture of experts",
    "kv_lora_rank": "latent attention",
    "text_config": "more than text",
}


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder of Llama's build.

    Counts: `layers`, `hidden` (width), `intermediate` (width of the MLP), `heads`, `kv_heads`,
    `head_dim`, `vocab` (rows of the embedding), `max_len` (tokens). `tied`: the embedding is the
    output matrix too. `biased`: queries, keys and values have biases; `normed`: queries and keys
    have norms. `dtype` as stored; `quantisation`: the checkpoint's own. `notes`: what was assumed.
    """

    model_type: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    max_len: int
    tied: bool = False
    biased: bool = False
    normed: bool = False
    dtype: str = "bfloat16"
    quantisation: Quantisation = field(default_factory=Quantisation)
    notes: tuple[str, ...] = ()

    @property
    def linear_per_layer(self) -> int:
        """Elements of a layer's matrices, which quantisation packs."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)
        return attention + 3 * self.hidden * self.intermediate

    @property
    def small_per_layer(self) -> int:
        """Elements of a layer's norms and biases."""
        biases = self.head_dim * (self.heads + 2 * self.kv_heads) if self.biased else 0
        return 2 * self.hidden + biases + (2 * self.head_dim if self.normed else 0)

    @property
    def embedding(self) -> int:
        """Elements of the embedding; lm_head has as many, unless it is the embedding."""
        return self.vocab * self.hidden

    @property
    def parameters(self) -> int:
        """All elements."""
        layers = self.layers * (self.linear_per_layer + self.small_per_layer)
        return layers + self.embedding * (1 if self.tied else 2) + self.hidden


def read_shape(config: Mapping[str, Any], where: str) -> Shape:
    """The shape that a parsed config.json describes; `where` begins the messages.

    Raises StudioError for a config that lacks a size, and for models of another build.
    """
    for key, what in FOREIGN.items():
        if config.get(key) not in (None, 0, 1):
            raise StudioError(
                f"{where}: {what} ({key}), which the planner does not count; start it with vllm "
                "serve yourself and attach to it as an endpoint"
            )
    kind = config.get("model_type")
    size = _Sizes(config, where)
    heads, hidden = size("num_attention_heads"), size("hidden_size")
    if not config.get("head_dim") and hidden % heads:
        raise StudioError(
            f"{where}: hidden_size {hidden} does not divide by {heads} heads and there is no "
            "head_dim; mend config.json"
        )
    notes = () if kind in KNOWN else (f"model_type {kind!r} is counted like a Llama",)
    return Shape(
        model_type=str(kind),
        layers=size("num_hidden_layers"),
        hidden=hidden,
        intermediate=size("intermediate_size"),
        heads=heads,
        kv_heads=size("num_key_value_heads", heads),
        head_dim=size("head_dim", hidden // heads),
        vocab=size("vocab_size"),
        max_len=size("max_position_embeddings"),
        tied=bool(config.get("tie_word_embeddings", False)),
        biased=kind in BIASED or bool(config.get("attention_bias", False)),
        normed=kind in NORMED,
        dtype=_dtype(config, where),
        quantisation=checkpoint_quantisation(config, where),
        notes=notes,
    )


class _Sizes:
    """Reads whole numbers of at least 1 from a config."""

    def __init__(self, config: Mapping[str, Any], where: str) -> None:
        self._config, self._where = config, where

    def __call__(self, key: str, default: int | None = None) -> int:
        value = self._config.get(key)
        value = default if value is None else value
        if type(value) is not int or value < 1:
            raise StudioError(
                f"{self._where}: {key} is {value!r} in config.json; the planner needs a whole "
                "number of at least 1"
            )
        return value


def _dtype(config: Mapping[str, Any], where: str) -> str:
    """The stored dtype; newer configs write `dtype`, older ones `torch_dtype`."""
    value = config.get("dtype") or config.get("torch_dtype") or "float32"  # transformers' rule
    name = str(value).removeprefix("torch.")
    if name not in DTYPES:
        raise StudioError(
            f"{where}: dtype {name!r} in config.json; the planner knows {', '.join(DTYPES)}"
        )
    return name
