"""Shapes of published models, to plan with before anything is downloaded.

Sizes as the makers published them; fine-tunes have their base's, though a few rows may have been
added to their vocabulary. The config.json of a folder always wins.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

LLAMA_2_70B = MappingProxyType(
    {
        "model_type": "llama", "num_hidden_layers": 80, "hidden_size": 8192,
        "intermediate_size": 28672, "num_attention_heads": 64, "num_key_value_heads": 8,
        "vocab_size": 32000, "max_position_embeddings": 4096, "torch_dtype": "float16",
    }
)  # fmt: skip

PUBLISHED: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "meta-llama/Llama-2-70b-hf": LLAMA_2_70B,
        "Doctor-Shotgun/Mythospice-70b": LLAMA_2_70B,
        "Xwin-LM/Xwin-LM-70B-V0.1": LLAMA_2_70B,
        "NousResearch/Nous-Hermes-Llama2-70b": LLAMA_2_70B,
        "meta-llama/Llama-3.3-70B-Instruct": LLAMA_2_70B
        | {
            "vocab_size": 128256, "max_position_embeddings": 131072, "torch_dtype": "bfloat16",
            "tie_word_embeddings": False,
        },
        "Qwen/Qwen2.5-72B-Instruct": {
            "model_type": "qwen2", "num_hidden_layers": 80, "hidden_size": 8192,
            "intermediate_size": 29568, "num_attention_heads": 64, "num_key_value_heads": 8,
            "vocab_size": 152064, "max_position_embeddings": 32768, "torch_dtype": "bfloat16",
            "tie_word_embeddings": False,
        },
        "mistralai/Mistral-Large-Instruct-2407": {
            "model_type": "mistral", "num_hidden_layers": 88, "hidden_size": 12288,
            "intermediate_size": 28672, "num_attention_heads": 96, "num_key_value_heads": 8,
            "head_dim": 128, "vocab_size": 32768, "max_position_embeddings": 131072,
            "torch_dtype": "bfloat16", "tie_word_embeddings": False,
        },
    }
)  # fmt: skip
