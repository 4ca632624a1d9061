"""Do the sources belong together? Their configs, compared key by key."""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from studio.merge.findings import REMEDY, Findings, VocabularyProblem
from studio.weights.strict_json import shown

# Different values mean different tensor shapes: no merge of equal names is possible.
SHAPES = (
    "num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads",
    "num_key_value_heads", "head_dim", "num_local_experts", "num_experts",
)  # fmt: skip
# Different values change what equal weights compute.
NUMERICS = (
    "model_type", "rope_theta", "rope_scaling", "rms_norm_eps", "layer_norm_eps",
    "layer_norm_epsilon", "hidden_act", "hidden_activation", "activation_function",
    "sliding_window", "use_sliding_window", "max_window_layers", "layer_types",
    "partial_rotary_factor", "rotary_pct", "rotary_emb_base", "use_parallel_residual",
    "attention_bias", "mlp_bias", "attn_logit_softcapping", "final_logit_softcapping",
    "query_pre_attn_scalar", "attention_multiplier", "residual_multiplier",
    "embedding_multiplier", "logits_scaling", "num_experts_per_tok", "norm_topk_prob",
    "clip_qkv", "alibi", "logit_scale",
)  # fmt: skip
# Different values say nothing about the weights, or are settled elsewhere (dtype, vocabulary).
SILENT = (
    "_name_or_path", "architectures", "auto_map", "transformers_version", "torch_dtype", "dtype",
    "use_cache", "vocab_size", "tie_word_embeddings", "rope_parameters", "pretraining_tp",
    "initializer_range", "quantization_config", "attention_dropout", "hidden_dropout",
    "unsloth_version", "unsloth_fixed", "bos_token_id", "eos_token_id", "pad_token_id",
)  # fmt: skip
DEFAULTS = {
    "rope_theta": 10000.0, "attention_bias": False, "mlp_bias": False, "num_key_value_heads": None,
    "use_sliding_window": False,
}  # fmt: skip
WINDOW = ("sliding_window", "max_window_layers")  # without effect where use_sliding_window is false
ALIASES = {
    "num_hidden_layers": ("n_layer", "num_layers"),
    "hidden_size": ("n_embd", "d_model"),
    "num_attention_heads": ("n_head",),
    "intermediate_size": ("n_inner",),
}
PARAMETER_COUNT = re.compile(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)(b)(?![a-z0-9])", re.IGNORECASE)


@dataclass(slots=True)
class Comparison(Findings):
    """What was found in the configs.

    `misfits` are the sources whose shapes differ from the others': comparing their tensors one by
    one would only repeat it.
    """

    misfits: set[str] = field(default_factory=set)


def language_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a config.json that describes the language model."""
    inner = config.get("text_config")
    return inner if isinstance(inner, Mapping) else config


def value_of(config: Mapping[str, Any], key: str) -> Any:
    """A config value under any of the names that architectures give it; None if absent."""
    text = language_config(config)
    return next((text[k] for k in (key, *ALIASES.get(key, ())) if text.get(k) is not None), None)


def compare_configs(
    configs: Mapping[str, Mapping[str, Any]], allowed: Collection[str] = ()
) -> Comparison:
    """Compare the configs of the sources, by name; `allowed` keys may differ in their numerics."""
    found = Comparison()
    plain = {name: _normalised(config) for name, config in configs.items()}
    for key in SHAPES:
        _compare_shape(
            key, {name: value_of(config, key) for name, config in configs.items()}, found
        )
    alike = {name: config for name, config in plain.items() if name not in found.misfits}
    keys = sorted({key for config in alike.values() for key in config} - {*SHAPES, *SILENT})
    for key in keys:
        values = {name: config.get(key, DEFAULTS.get(key)) for name, config in alike.items()}
        if len({_canonical(value) for value in values.values()}) == 1:
            continue
        listing = ", ".join(f"{name}: {shown(value)}" for name, value in values.items())
        if key in NUMERICS and key not in allowed:
            found.problems.append(
                f"{key} differs ({listing}): equal weights would compute different things; "
                f"use sources trained alike, or allow it (--allow {key})"
            )
        else:
            found.warnings.append(f"{key} differs ({listing}); the result takes the base's")
    return found


def vocabulary_problems(configs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Vocabularies of different sizes, by the configs, which are there before any weights are."""
    sizes = {name: value_of(config, "vocab_size") for name, config in configs.items()}
    given = {name: size for name, size in sizes.items() if size is not None}
    if len({repr(size) for size in given.values()}) < 2:
        return []
    listing = ", ".join(f"{name}: {size}" for name, size in given.items())
    return [VocabularyProblem(f"the vocabularies have different sizes ({listing}); {REMEDY}")]


def _normalised(config: Mapping[str, Any]) -> dict[str, Any]:
    """The language model's config, the ways to write one thing made one."""
    plain = {key: value for key, value in language_config(config).items() if value is not None}
    for key, others in ALIASES.items():
        for other in others:
            if other in plain:
                plain.setdefault(key, plain.pop(other))
    _normalise_rope(plain)
    if plain.get("use_sliding_window") is False:
        plain = {key: value for key, value in plain.items() if key not in WINDOW}
    if set(_items(plain.get("layer_types"))) == {"full_attention"}:
        del plain["layer_types"]
    return plain


def _normalise_rope(plain: dict[str, Any]) -> None:
    """Today's rope_parameters as yesterday's rope_theta and rope_scaling."""
    rope = plain.get("rope_parameters")
    if isinstance(rope, Mapping):
        if rope.get("rope_theta") is not None:
            plain.setdefault("rope_theta", rope["rope_theta"])
        rest = {k: v for k, v in rope.items() if k != "rope_theta" and v is not None}
        plain.setdefault("rope_scaling", rest)
    scaling = plain.get("rope_scaling")
    if isinstance(scaling, Mapping):
        kind = scaling.get("rope_type", scaling.get("type", "default"))
        rest = {key: value for key, value in scaling.items() if key != "type"}
        plain["rope_scaling"] = rest | {"rope_type": kind}
        if kind == "default":
            del plain["rope_scaling"]


def _items(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def _canonical(value: Any) -> str:
    """Equal for equal values, however they are ordered and whether numbers are written 1 or 1.0."""
    if isinstance(value, Mapping):
        return str(sorted((str(k), _canonical(v)) for k, v in value.items()))
    if isinstance(value, list):
        return str([_canonical(item) for item in value])
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53:
        return repr(float(value))
    return repr(value)


def _compare_shape(key: str, values: Mapping[str, Any], found: Comparison) -> None:
    given = {name: value for name, value in values.items() if value is not None}
    alike = {name: _canonical(value) for name, value in given.items()}
    if len(set(alike.values())) < 2:
        return
    usual = Counter(alike.values()).most_common(1)[0][0]
    others = [name for name in given if alike[name] == usual]
    for name, value in given.items():
        if name in others:
            continue
        found.misfits.add(name)
        verb = "have" if others[1:] else "has"
        found.problems.append(
            f"{name} has {key} {shown(value)}, but {', '.join(others)} {verb} "
            f"{shown(given[others[0]])}: their shapes cannot merge{sibling_hint(name, others)}"
        )


def sibling_hint(name: str, others: Sequence[str]) -> str:
    """The hint that a larger or smaller model of the same name is meant, if the names say so."""
    own = PARAMETER_COUNT.search(name)
    sizes = Counter(m[1] for other in others if (m := PARAMETER_COUNT.search(other)))
    if own is None or not sizes or own[1] in sizes:
        return "; use models of one architecture and size"
    size = sizes.most_common(1)[0][0]
    meant = f"{name[: own.start()]}{size}{own[2]}{name[own.end() :]}"
    return f"; probably {meant} is meant (a {size}B model, as the others are)"
