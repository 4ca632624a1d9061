"""Models as transformers makes them, of many architectures: no table of names, and none needed."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.checkpoints import write_tokenizer
from tests.conformance import oracle
from tests.conformance.cases import BF16, Case, house
from tests.conformance.conftest import flat, load_folder, recipe_text, run_engine
from tests.conformance.test_loading import load

LAYERS = 3
SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
LATENT = {"kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4}
# The name of its configuration in transformers: what it has besides SIZES.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "Phi3Config": {},
    "Qwen3Config": {"head_dim": 8},
    "Olmo2Config": {},
    "Gemma3TextConfig": {"head_dim": 8},
    "MixtralConfig": {"num_local_experts": 4},
    "Qwen3MoeConfig": {"num_experts": 4, "head_dim": 8} | EXPERTS,
    "DeepseekV3Config": {"n_routed_experts": 4, "n_group": 2, "topk_group": 1, "v_head_dim": 8}
    | {"first_k_dense_replace": 1, "num_key_value_heads": 4}
    | EXPERTS
    | LATENT,
    "FalconConfig": {"num_kv_heads": 2},
    "GPT2Config": {"n_embd": 32, "n_layer": LAYERS, "n_head": 4},
    "MambaConfig": {},
}


def write_models(home: Path, configuration: str) -> dict[str, str]:
    """Three models near to each other; the folder of each."""
    import transformers

    config = getattr(transformers, configuration)(**SIZES | ARCHITECTURES[configuration])
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    first = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for number, source in enumerate("ABC"):
        torch.manual_seed(2 + number)
        own = {name: t + 0.003 * torch.randn_like(t) for name, t in first.items()}
        model.load_state_dict(own)
        model.save_pretrained(home / source)
        write_tokenizer(home / source, SIZES["vocab_size"])
    return {source: str(home / source) for source in "ABC"}


@pytest.mark.parametrize("configuration", ARCHITECTURES)
def test_merge_is_the_recipe_and_transformers_loads_it(tmp_path: Path, configuration: str) -> None:
    folders = write_models(tmp_path, configuration)
    sources = {source: load_folder(Path(folder)) for source, folder in folders.items()}
    stages = house(BF16)
    merged = load_folder(
        run_engine(recipe_text(Case({}, stages).documents(folders)), tmp_path / "out")
    )
    assert merged.keys() == sources["A"].keys()
    for name, ours in merged.items():
        inputs = {source: flat(tensors[name]) for source, tensors in sources.items()}
        expected = torch.from_numpy(oracle.merge(stages, inputs, name, LAYERS).value)
        assert torch.allclose(ours.double().flatten(), expected, rtol=2**-8, atol=1e-7), name
    assert len({oracle.layer_of(name) for name in merged}) == 1 + LAYERS
    model, found = load(tmp_path / "out")
    assert not found["missing_keys"] | found["unexpected_keys"]
    assert model(torch.tensor([[3, 4, 5, 6]])).logits.isfinite().all()
