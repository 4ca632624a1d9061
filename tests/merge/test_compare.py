"""Configs that belong together, configs that do not, and what is said about them."""

from typing import Any

import pytest

from studio.merge.compare import (
    NUMERICS,
    SHAPES,
    SILENT,
    compare_configs,
    sibling_hint,
    value_of,
    vocabulary_problems,
)

LLAMA = {
    "model_type": "llama",
    "num_hidden_layers": 80,
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
}
SEVEN = LLAMA | {
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
}
MYTHOSPICE, HERMES = "Doctor-Shotgun/Mythospice-70b", "NousResearch/Nous-Hermes-Llama2-70b"
XWIN_7B = "Xwin-LM/Xwin-LM-7B-V0.1"


def pair(**difference: Any) -> dict[str, dict[str, Any]]:
    return {"one": LLAMA, "other": LLAMA | difference}


def test_equal_configs_are_fine() -> None:
    found = compare_configs({"one": LLAMA, "other": dict(LLAMA)})
    assert (found.problems, found.warnings, found.misfits) == ([], [], set())


@pytest.mark.parametrize("base", [0, 1, 2], ids=["7B first", "7B second", "7B last"])
def test_house_trap_is_named_with_both_values_and_the_sibling(base: int) -> None:
    models = {MYTHOSPICE: LLAMA, HERMES: LLAMA}
    order = [MYTHOSPICE, HERMES]
    order.insert(base, XWIN_7B)
    found = compare_configs({name: models.get(name, SEVEN) for name in order})

    assert found.misfits == {XWIN_7B}
    assert len(found.problems) == 5, found.problems
    assert found.problems[1] == (
        f"{XWIN_7B} has hidden_size 4096, but {MYTHOSPICE}, {HERMES} have 8192: their shapes "
        "cannot merge; probably Xwin-LM/Xwin-LM-70B-V0.1 is meant (a 70B model, as the others are)"
    )
    assert "num_hidden_layers 32" in found.problems[0] and "have 80" in found.problems[0]


def test_numerics_of_a_misfit_are_not_compared() -> None:
    found = compare_configs({"one": LLAMA, "two": LLAMA, "odd": SEVEN | {"rope_theta": 1e6}})
    assert not any("rope_theta" in problem for problem in found.problems)


@pytest.mark.parametrize("key", SHAPES)
def test_different_shape_is_a_problem_that_nothing_allows(key: str) -> None:
    configs = {"one": LLAMA | {key: 8}, "two": LLAMA | {key: 8}, "odd": LLAMA | {key: 9}}
    found = compare_configs(configs, allowed=[key])
    assert found.misfits == {"odd"}
    assert len(found.problems) == 1
    assert f"odd has {key} 9, but one, two have 8" in found.problems[0]


@pytest.mark.parametrize("key", NUMERICS)
def test_different_numerics_are_refused_unless_allowed(key: str) -> None:
    configs = {"one": LLAMA | {key: "this"}, "other": LLAMA | {key: "that"}}
    refused = compare_configs(configs)
    assert refused.warnings == [] and refused.misfits == set()
    assert len(refused.problems) == 1
    for part in (key, "one: 'this'", "other: 'that'", f"--allow {key}"):
        assert part in refused.problems[0]

    allowed = compare_configs(configs, allowed=[key])
    assert allowed.problems == []
    assert len(allowed.warnings) == 1 and key in allowed.warnings[0]


@pytest.mark.parametrize("key", ["max_position_embeddings", "some_new_key"])
def test_what_does_not_compute_is_only_a_warning(key: str) -> None:
    found = compare_configs(pair(**{key: 4096}))
    assert found.problems == []
    assert found.warnings == [
        f"{key} differs (one: None, other: 4096); the result takes the base's"
    ]


@pytest.mark.parametrize("key", SILENT)
def test_what_says_nothing_about_weights_is_not_mentioned(key: str) -> None:
    found = compare_configs(pair(**{key: ["x"]}))
    assert (found.problems, found.warnings) == ([], [])


OLD_LINEAR = {"rope_scaling": {"type": "linear", "factor": 4}}
NEW_LINEAR = {"rope_parameters": {"factor": 4.0, "rope_type": "linear", "rope_theta": 10000}}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {"rope_theta": 10000.0}),
        ({"rope_theta": 10000}, {"rope_theta": 10000.0}),
        ({}, {"rope_scaling": None, "sliding_window": None}),
        ({}, {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}),
        ({}, {"rope_scaling": {"type": "default"}}),
        ({"rope_theta": 5e5}, {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}),
        (OLD_LINEAR, NEW_LINEAR),
        ({"rope_scaling": {"factor": 4.0, "type": "linear"}}, OLD_LINEAR),
        ({}, {"attention_bias": False, "mlp_bias": False, "use_sliding_window": False}),
        ({}, {"layer_types": ["full_attention"] * 80}),
        (
            {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 70},
            {"use_sliding_window": False, "sliding_window": None},
        ),
    ],
)
def test_two_ways_to_write_one_thing_are_equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    found = compare_configs({"one": LLAMA | one, "other": LLAMA | other})
    assert (found.problems, found.warnings) == ([], [])


@pytest.mark.parametrize(
    ("one", "other", "key"),
    [
        ({}, {"rope_theta": 1e6}, "rope_theta"),
        ({}, {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}, "rope_theta"),
        (OLD_LINEAR, {"rope_scaling": {"type": "linear", "factor": 8}}, "rope_scaling"),
        (OLD_LINEAR, {"rope_scaling": {"type": "dynamic", "factor": 4}}, "rope_scaling"),
        (NEW_LINEAR, {}, "rope_scaling"),
        ({"use_sliding_window": True, "sliding_window": 64}, {}, "sliding_window"),
        ({"sliding_window": 4096}, {"sliding_window": 8192}, "sliding_window"),
        ({}, {"attention_bias": True}, "attention_bias"),
        ({"layer_types": ["sliding_attention", "full_attention"]}, {}, "layer_types"),
        ({"rope_theta": "ten thousand"}, {}, "rope_theta"),
        ({"rope_theta": [1]}, {"rope_theta": {"a": 1}}, "rope_theta"),
        ({"rope_theta": 10**400}, {}, "rope_theta"),
    ],
)
def test_a_real_difference_is_found(one: dict[str, Any], other: dict[str, Any], key: str) -> None:
    found = compare_configs({"one": LLAMA | one, "other": LLAMA | other})
    assert any(problem.startswith(f"{key} differs") for problem in found.problems), found


def test_other_names_and_nested_configs_are_understood() -> None:
    gpt = {"n_layer": 12, "n_embd": 768, "n_head": 12}
    assert value_of(gpt, "num_hidden_layers") == 12
    assert value_of({"text_config": gpt, "hidden_size": 1}, "hidden_size") == 768
    assert value_of({}, "hidden_size") is None
    found = compare_configs({"one": gpt, "other": {"text_config": gpt | {"n_embd": 1024}}})
    assert "other has hidden_size 1024, but one has 768" in found.problems[0]


def test_all_differences_are_told_at_once() -> None:
    found = compare_configs(pair(rope_theta=1e6, rms_norm_eps=1e-6, hidden_act="gelu"))
    assert [problem.split()[0] for problem in found.problems] == [
        "hidden_act",
        "rms_norm_eps",
        "rope_theta",
    ]


@pytest.mark.parametrize(
    ("name", "others", "meant"),
    [
        (XWIN_7B, [MYTHOSPICE, HERMES], "probably Xwin-LM/Xwin-LM-70B-V0.1 is meant"),
        ("a/llama-1.1b", ["b/llama-3b"], "probably a/llama-3b is meant"),
        ("models/big-13B-chat", ["x-7b", "y-7b"], "probably models/big-7B-chat is meant"),
        ("a/llama-7b", ["b/other-7b"], "; use models of one architecture and size"),
        ("a/llama", ["b/other-7b"], "; use models of one architecture and size"),
        ("a/web7beta", ["b/other-70b"], "; use models of one architecture and size"),
        ("a/x-7b", ["b/mine"], "; use models of one architecture and size"),
    ],
)
def test_sibling_hint(name: str, others: list[str], meant: str) -> None:
    assert meant in sibling_hint(name, others)


def test_vocabularies_of_different_sizes_are_listed() -> None:
    sizes = {"one": {"vocab_size": 32000}, "other": {"vocab_size": 32001}, "silent": {}}
    (problem,) = vocabulary_problems(sizes)
    for part in ("one: 32000", "other: 32001", "different sizes"):
        assert part in problem
    assert vocabulary_problems({"one": {"vocab_size": 5}, "other": {"vocab_size": 5}}) == []
