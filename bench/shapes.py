"""The shapes of the models that the bench makes: a Llama, tensor by tensor."""

from dataclasses import asdict, dataclass, replace
from math import prod

BYTES = 2  # of one bfloat16


@dataclass(frozen=True)
class Shape:
    """A Llama's sizes; `vocab` rows in the embeddings and in a separate lm_head."""

    hidden: int
    inter: int
    layers: int
    heads: int
    kv_heads: int
    vocab: int

    def tensors(self) -> list[tuple[str, tuple[int, ...]]]:
        """(name, shape) in the order in which the safetensors library stores them: by name."""
        h, kv = self.hidden, self.hidden // self.heads * self.kv_heads
        found: dict[str, tuple[int, ...]] = {
            "lm_head.weight": (self.vocab, h),
            "model.embed_tokens.weight": (self.vocab, h),
            "model.norm.weight": (h,),
        }
        for layer in range(self.layers):
            at = f"model.layers.{layer}"
            found |= {
                f"{at}.input_layernorm.weight": (h,),
                f"{at}.post_attention_layernorm.weight": (h,),
                f"{at}.self_attn.q_proj.weight": (h, h),
                f"{at}.self_attn.k_proj.weight": (kv, h),
                f"{at}.self_attn.v_proj.weight": (kv, h),
                f"{at}.self_attn.o_proj.weight": (h, h),
                f"{at}.mlp.gate_proj.weight": (self.inter, h),
                f"{at}.mlp.up_proj.weight": (self.inter, h),
                f"{at}.mlp.down_proj.weight": (h, self.inter),
            }
        return sorted(found.items())

    @property
    def parameters(self) -> int:
        """Elements of all tensors."""
        return sum(prod(shape) for _, shape in self.tensors())

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors of one model, without its header."""
        return self.parameters * BYTES

    def config(self) -> dict[str, object]:
        """The config.json of such a model."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "intermediate_size": self.inter,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "vocab_size": self.vocab,
            "max_position_embeddings": 2048,
            "initializer_range": 0.02,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "attention_bias": False,
            "tie_word_embeddings": False,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "torch_dtype": "bfloat16",
        }

    def with_layers(self, layers: int) -> "Shape":
        """The same with another depth."""
        return replace(self, layers=layers)

    def as_arguments(self) -> list[str]:
        """The sizes as bench/models.py takes them."""
        return [str(size) for size in asdict(self).values()]


LLAMA_1B = Shape(hidden=2048, inter=5632, layers=22, heads=32, kv_heads=4, vocab=32000)
LLAMA_70B_SLICE = Shape(hidden=8192, inter=28672, layers=1, heads=64, kv_heads=8, vocab=32000)
SCALE_LAYERS = (11, 22, 44)

# --quick: seconds for everything, only to see that the harness works
TINY = Shape(hidden=256, inter=704, layers=4, heads=4, kv_heads=2, vocab=4000)
TINY_SLICE = Shape(hidden=512, inter=1792, layers=1, heads=8, kv_heads=1, vocab=4000)
TINY_SCALE_LAYERS = (4, 8, 16)
