"""mergekit's files: read to the letter, refused with the line, written so both read the same."""

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.errors import StudioError
from studio.merge.gradient import Rule
from studio.merge.recipe import Input, Recipe, Slice, Stage, ordered
from studio.merge.recipe_files.recipe_dump import dump_recipe
from studio.merge.recipe_files.recipe_yaml import load_recipe

SLERP = """\
merge_method: slerp
base_model: A
models:
  - model: A
  - model: B
parameters:
  t: 0.5
"""
LINEAR = """\
merge_method: linear
models:
  - model: A
    parameters:
      weight: 0.5
  - model: B
    parameters:
      weight: [0.3, 0.7]
"""
TASK = """\
merge_method: task_arithmetic
base_model: A
models:
  - model: B
    parameters:
      weight: 0.5
  - model: C
    parameters:
      weight: [0.3, 0.7]
parameters:
  lambda: 0.9
  normalize: true
"""
KARCHER = "merge_method: karcher\nmodels: [{model: A}, {model: B}, {model: C}]\n"
STOCK = "merge_method: model_stock\nbase_model: A\nmodels: [{model: B}, {model: C}]\n"
SLICES = """\
merge_method: slerp
base_model: A
slices:
  - sources:
      - model: A
        layer_range: [0, 2]
      - model: B
        layer_range: [0, 2]
  - sources:
      - model: A
        layer_range: [2, 4]
      - model: B
        layer_range: [2, 4]
    parameters:
      t: 0.9
parameters:
  t: 0.5
"""
STAGES = f"name: part\n{SLERP}---\n{SLERP.replace('model: B', 'model: part')}"
# As published on model cards, comments and dead keys included.
WILD = """\
slices:
  - sources:
      - model: org/Left-7B-v0.1
        layer_range: [0, 32]
      - model: org/Right-7B
        layer_range: [0, 32]
        parameters:
          density: 0.53
          weight: 0.4
merge_method: slerp
base_model: org/Left-7B-v0.1
parameters:
  t:
    - filter: self_attn
      value: [0, 0.5, 0.3, 0.7, 1]
    - filter: mlp
      value: [1, 0.5, 0.7, 0.3, 0]
    - value: 0.5 # fallback for rest of tensors
  embed_slerp: true
  normalize: true
  int8_mask: true
dtype: bfloat16
int8_mask: true
"""


def value_of_t(text: str) -> tuple[Rule, ...]:
    found = load_recipe(SLERP.replace("0.5", text)).final.settings["t"]
    assert isinstance(found, tuple)
    return found


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("0.25", (Rule((0.25,)),)),
        ("1", (Rule((1.0,)),)),
        ("-.5", (Rule((-0.5,)),)),
        ("1e-3", (Rule((0.001,)),)),
        ("'0.5'", (Rule((0.5,)),)),
        ("010", (Rule((8.0,)),)),
        ("[0.1]", (Rule((0.1,)),)),
        ("[0.1, 1e-1, 2]", (Rule((0.1, 0.1, 2.0)),)),
        ("{value: 0.3}", (Rule((0.3,)),)),
        ("{filter: mlp, value: [0, 1]}", (Rule((0.0, 1.0), "mlp"),)),
        ("[{filter: mlp, value: 1}, {value: 0.2}]", (Rule((1.0,), "mlp"), Rule((0.2,)))),
        ("[{filter: '*', value: 1}]", (Rule((1.0,)),)),
        ("[{filter: 'a*', value: 1}]", (Rule((1.0,), "a*"),)),
        ("[{filter: null, value: 1}]", (Rule((1.0,)),)),
        ("[{filter: 12, value: 1}]", (Rule((1.0,), "12"),)),
    ],
)
def test_value_is_a_number_a_gradient_or_rules(text: str, rules: tuple[Rule, ...]) -> None:
    assert value_of_t(text) == rules


def test_stage_keeps_all_it_is_told() -> None:
    recipe = load_recipe(SLERP + "dtype: float16\nout_dtype: bfloat16\nchat_template: vicuna\n")
    assert recipe == Recipe(
        (
            Stage(
                "slerp",
                (Slice((Input("A"), Input("B"))),),
                None,
                {"t": (Rule((0.5,)),)},
                "float16",
                "bfloat16",
                "vicuna",
            ),
        )
    )
    assert recipe.warnings == ()


@pytest.mark.parametrize(
    "text",
    [
        SLERP.replace("  - model: A\n  - model: B", "  - model: B\n  - model: A"),
        SLERP.replace("  - model: A\n", ""),
        SLERP + "slices:\ndtype: ~\n",
        SLERP.replace("t: 0.5", "t: &x 0.5\n  int8_mask: *x"),
        "---\n" + SLERP + "...\n---\n",
        SLERP.replace("merge_method", '"merge_method"').replace("slerp", "!!str slerp"),
    ],
)
def test_ways_to_write_the_same_recipe(text: str) -> None:
    assert load_recipe(text) == load_recipe(SLERP)


def test_linear_takes_weights_of_models_or_of_the_stage() -> None:
    recipe = load_recipe(LINEAR + "  - model: C\nparameters: {weight: 2, normalize: false}\n")
    first, second, third = recipe.final.slices[0].inputs
    assert (first.settings["weight"], second.settings["weight"]) == (
        (Rule((0.5,)),),
        (Rule((0.3, 0.7)),),
    )
    assert third.settings == {}
    assert recipe.final.settings == {"weight": (Rule((2.0,)),), "normalize": (Rule((0.0,)),)}


def test_linear_puts_the_base_model_first() -> None:
    assert load_recipe(f"{LINEAR}base_model: B\n").final.models == ("B", "A")
    assert load_recipe(LINEAR).final.models == ("A", "B")


def test_task_arithmetic_puts_the_base_first_without_a_weight() -> None:
    recipe = load_recipe(TASK)
    base, *others = recipe.final.slices[0].inputs
    assert base == Input("A")
    assert [entry.settings["weight"] for entry in others] == [(Rule((0.5,)),), (Rule((0.3, 0.7)),)]
    assert recipe.final.settings == {"lambda": (Rule((0.9,)),), "normalize": (Rule((1.0,)),)}


def test_weight_of_the_base_has_no_effect() -> None:
    listed = TASK.replace("models:", "models:\n  - model: A\n    parameters: {weight: 1}")
    recipe = load_recipe(listed)
    assert recipe == load_recipe(TASK)
    assert recipe.warnings[0].endswith("weight has no effect here under the base and is ignored")


@pytest.mark.parametrize(
    ("text", "tokenizer"),
    [
        ("tokenizer_source: base", "base"),
        ("tokenizer_source: union", "union"),
        ("tokenizer_source: B", "B"),
        ("tokenizer: {source: base}", "base"),
        ("tokenizer: {source: A, tokens: null, pad_to_multiple_of: ~}", "A"),
        ("tokenizer: {}", "union"),
        ("tokenizer:", None),
    ],
)
def test_tokenizer_is_named_in_either_way(text: str, tokenizer: str | None) -> None:
    recipe = load_recipe(f"{SLERP}{text}\n")
    assert recipe.final.tokenizer == tokenizer
    assert recipe.is_aligned is (tokenizer is not None)
    assert load_recipe(dump_recipe(recipe)) == recipe
    linear = load_recipe(f"{LINEAR}base_model: A\n{text}\n")
    assert load_recipe(dump_recipe(linear)) == linear


def test_karcher_and_model_stock_need_no_numbers() -> None:
    assert load_recipe(KARCHER).final.models == ("A", "B", "C")
    assert load_recipe(f"{KARCHER}base_model: C\n").final.models == ("C", "A", "B")
    assert load_recipe(f"{KARCHER}base_model: D\n").final.models == ("D", "A", "B", "C")
    assert load_recipe(STOCK).final.models == ("A", "B", "C")
    given = load_recipe(KARCHER + "parameters: {max_iter: 3, tol: 1e-3}\n").final.settings
    assert given == {"max_iter": (Rule((3.0,)),), "tol": (Rule((0.001,)),)}


def test_filter_wise_false_is_what_is_done_anyway() -> None:
    assert load_recipe(STOCK + "parameters: {filter_wise: false}\n") == load_recipe(STOCK)


def test_slices_keep_their_ranges_and_settings() -> None:
    inputs = (Input("A"), Input("B"))
    first, second = load_recipe(SLICES).final.slices
    assert first == Slice(inputs, 0, 2)
    assert second == Slice(inputs, 2, 4, {"t": (Rule((0.9,)),)})


def test_stages_come_in_the_order_of_use() -> None:
    final, part = STAGES.split("---\n")[1], STAGES.split("---\n")[0]
    recipe = load_recipe(f"{final}---\n{part}")
    assert recipe == load_recipe(STAGES)
    assert [stage.name for stage in recipe.stages] == ["part", None]
    assert recipe.sources == ("A", "B")


def test_wild_recipe_runs_with_a_warning_for_each_dead_key() -> None:
    recipe = load_recipe(WILD, "card.yaml")
    assert recipe.final.settings["t"][2] == Rule((0.5,))
    dead = [(8, "density"), (9, "weight"), (19, "embed_slerp"), (20, "normalize")]
    dead += [(21, "int8_mask"), (23, "int8_mask")]
    expected = [f"card.yaml, line {line}: {key} has no effect" for line, key in dead]
    found = sorted(recipe.warnings, key=lambda text: int(text.split("line ")[1].split(":")[0]))
    assert [w[: len(e)] for w, e in zip(found, expected, strict=True)] == expected


def test_module_default_is_the_model_itself() -> None:
    """So mergekit writes the recipes that it puts beside its results."""
    own = yaml.safe_load(SLICES)
    module = {"slices": own.pop("slices"), "parameters": {"t": {"filter": "mlp", "value": 1}}}
    recipe = load_recipe(yaml.safe_dump(own | {"modules": {"default": module}}))
    plain = load_recipe(SLICES.replace("  t: 0.5", "  t: [{filter: mlp, value: 1}, {value: 0.5}]"))
    assert recipe == plain


def test_model_may_be_written_out_as_older_mergekits_do() -> None:
    written = SLERP.replace("base_model: A", "base_model: {model: {path: A, revision: main}}")
    written = written.replace("model: A", "model: {model: {path: A, revision: main}, lora: null}")
    written = written.replace("- model: B", "- model: {model: B}") + "tokenizer_source: {model: B}"
    plain = SLERP.replace(": A", ": A@main") + "tokenizer_source: B"
    assert load_recipe(written) == load_recipe(plain)


@pytest.mark.parametrize(("number", "meant"), [("1.0", "true"), ("0", "false")])
def test_switch_may_be_a_number_as_older_mergekits_write_it(number: str, meant: str) -> None:
    text = LINEAR + "parameters: {normalize: %s}"
    assert load_recipe(text % number) == load_recipe(text % meant)


@pytest.mark.parametrize("key", ["tokenizer_source", "tokenizer", "modules", "slices", "dtype"])
def test_key_without_a_value_says_nothing(key: str) -> None:
    recipe = load_recipe(f"{SLERP}{key}:\n")
    assert recipe == load_recipe(SLERP)
    assert recipe.warnings == ()


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (SLERP.replace("- model: B", "- model: B\n    parameters: {t: 1}"),
         "line 6: t has no effect here under a model"),
        (LINEAR + "parameters:\n  t: 0.5\n", "line 10: t has no effect"),
        (STOCK + "normalize: false\n", "line 4: normalize has no effect here"),
        (SLERP + "random_seed: 0\n", "line 8: random_seed has no effect"),
        (SLERP + "trust_remote_code: true\n", "line 8: trust_remote_code has no effect"),
        (STAGES.replace("model: part", "model: C"), 'stage "part" is not used'),
    ],
)  # fmt: skip
def test_what_has_no_effect_is_a_warning(text: str, match: str) -> None:
    (warning,) = load_recipe(text).warnings
    assert match in warning


REFUSED = {
    "empty": ("", "the recipe is empty"),
    "comment alone": ("# nothing\n", "the recipe is empty"),
    "not YAML": ("a: [1\nb: 2", "line 2: this is not valid YAML"),
    "tab": ("a:\n\t- b", "line 2: this is not valid YAML.*with spaces instead of tabs"),
    "fence of a card": ("```yaml\na: 1\n```", "line 1: this is not.*leave out the lines"),
    "end of a fence": ("a: 1\n```", "line 2: this is not valid YAML.*leave out the lines"),
    "control character": ("a: \x00", "this is not valid YAML"),
    "a list": ("- a\n", "line 1: recipe: expected a mapping"),
    "a word": ("hello\n", "line 1: recipe: expected a mapping"),
    "key twice": (SLERP + "dtype: float16\ndtype: float32\n", "line 9: dtype: given twice"),
    "key that is a list": (SLERP + "[a]: 1\n", "line 8: .*key must be plain text"),
    "typo of a key": (
        SLERP.replace("parameters", "paramters"),
        r'line 7: .*unknown key "paramters" \(did you mean "parameters"\?\).*supported here: name,',
    ),
    "unknown key": (SLERP + "foo: 1\n", 'line 8: foo: unknown key "foo"; supported here'),
    "typo under a model": (
        SLERP.replace("- model: B", "- modle: B"),
        r'line 5: .*"modle" \(did you mean "model"\?\); supported here: model, parameters',
    ),
    "typo of a parameter": (
        SLERP.replace("t: 0.5", "tt: 0.5"),
        r'line 7: tt: unknown parameter "tt".*slerp takes: t',
    ),
    "typo of weight": (
        LINEAR.replace("weight: 0.5", "wieght: 0.5"),
        r'line 5: .*"wieght" \(did you mean "weight"\?\); linear takes: weight, normalize',
    ),
    "t outside parameters": (
        SLERP.replace("parameters:\n  t: 0.5", "t: 0.5"),
        "line 6: t: .*wrong place; it belongs under parameters",
    ),
    "typo of a rule": (
        SLERP.replace("0.5", "[{fliter: mlp, value: 1}]"),
        r'line 7: .*"fliter" \(did you mean "filter"\?\)',
    ),
    "rule without value": (SLERP.replace("0.5", "[{filter: mlp}]"), "line 7: t: value: is missing"),
    "rules and numbers": (SLERP.replace("0.5", "[{value: 1}, 0.3]"), "line 7: t: expected a map"),
    "numbers and rules": (SLERP.replace("0.5", "[0.3, {value: 1}]"), "line 7: t: expected a num"),
    "empty gradient": (SLERP.replace("0.5", "[]"), "line 7: t: the list is empty"),
    "a word for t": (SLERP.replace("0.5", "half"), 'line 7: t: "half" is not a number'),
    "true for t": (SLERP.replace("0.5", "true"), "line 7: t: expected a number"),
    "infinite t": (SLERP.replace("0.5", ".inf"), "line 7: t: .inf is not a finite number"),
    "NaN in a gradient": (SLERP.replace("0.5", "[0, .nan]"), "line 7: t: .nan is not a finite"),
    "t too large": (SLERP.replace("0.5", "9" * 400), "line 7: t: .* is not a"),
    "of another program": (
        "base_model: A\ngate_mode: hidden\nexperts: []\n",
        "line 2: gate_mode: this recipe is one for mergekit-moe",
    ),
    "number for normalize": (
        LINEAR + "parameters: {normalize: 0.5}\n",
        "line 9: normalize: expected true or false",
    ),
    "no method": (SLERP.replace("merge_method: slerp\n", ""), "line 1: .*merge_method is missing"),
    **{
        name: (
            SLERP.replace("slerp", name),
            f'line 1: merge_method: "{name}" is not supported: .*single elements.*'
            "; supported: slerp, linear, task_arithmetic, karcher, model_stock$",
        )
        for name in ("ties", "dare_ties", "dare_linear", "della", "della_linear", "breadcrumbs",
                     "breadcrumbs_ties", "sce", "nearswap", "arcee_fusion", "ram")
    },
    "multislerp": (SLERP.replace("slerp", "multislerp"), "karcher is the spherical mean"),
    "filter_wise": (
        STOCK + "parameters: {filter_wise: true}\n",
        "line 4: filter_wise: true is not supported: it gives every row .* leave it out",
    ),
    "stock of two": (STOCK.replace(", {model: C}", ""), "at least 3 models, here are 2: A, B"),
    "stock without base": (
        STOCK.replace("base_model: A\n", "").replace("{model: C}", "{model: C}, {model: D}"),
        r"base_model is missing; model_stock needs it .* tuned from \(one of B, C, D",
    ),
    "task without base": (
        TASK.replace("base_model: A\n", ""),
        "base_model is missing; task_arithmetic needs it to know which model is the model that",
    ),
    "task without weight": (
        TASK.replace("    parameters:\n      weight: 0.5\n", ""),
        "weight is missing for B; task_arithmetic needs it",
    ),
    "lambda outside parameters": (TASK + "lambda: 1\n", "lambda: .*wrong place"),
    "normalize outside parameters": (LINEAR + "normalize: false\n", "line 9: .*wrong place"),
    "typo where there is nothing": (STOCK + "parameters: {tt: 1}\n", "model_stock takes: none"),
    "base beside the slices": (
        SLICES.replace("slerp", "linear").replace("base_model: A", "base_model: C")
        .replace("t:", "weight:"),
        "base_model C is not among the sources; list it, or leave base_model out",
    ),
    "typo of a method": (SLERP.replace("slerp", "slrep"), r'"slrep".*did you mean "slerp"\?'),
    "nuslerp": (SLERP.replace("slerp", "nuslerp"), '"nuslerp" is not supported'),
    "passthrough": (SLERP.replace("slerp", "passthrough"), '"passthrough" is not supported'),
    "no base": (SLERP.replace("base_model: A\n", ""), "base_model is missing; slerp needs it"),
    "no t": (SLERP.replace("parameters:\n  t: 0.5\n", ""), "parameters: t is missing; slerp needs"),
    "no weight": (
        LINEAR.replace("    parameters:\n      weight: 0.5\n", ""),
        "weight is missing for A; linear needs it",
    ),
    "one model": (SLERP.replace("  - model: B\n", ""), "line 4: .*exactly 2 models, here are 1"),
    "three models": (
        SLERP.replace("  - model: B\n", "  - model: B\n  - model: C\n"),
        "takes exactly 2 models, here are 3: A, B, C",
    ),
    "base is a third": (SLERP.replace("base_model: A", "base_model: C"), "here are 3: C, A, B"),
    "model twice": (LINEAR.replace("model: B", "model: A"), "line 3: .*a model is listed twice"),
    "no models": (SLERP.replace("  - model: A\n  - model: B\n", ""), "exactly one of models: and"),
    "models and slices": (SLICES + "models: [{model: A}]\n", "exactly one of models: and slices:"),
    "models not a list": (
        SLERP.replace("  - model: A\n  - model: B\n", "  A: B\n"),
        "line 4: models: expected a list",
    ),
    "models of words": (SLERP.replace("- model: A", "- A"), "line 4: models: expected a mapping"),
    "model is missing": (SLERP.replace("- model: B", "- parameters: {}"), "line 5: .*model: is"),
    "model is empty": (SLERP.replace("- model: B", "- model: ''"), "line 5: model: expected text"),
    "lora": (SLERP.replace("model: B", "model: B+lora"), "line 5: .*LoRA; merge the LoRA"),
    "lora, written out": (
        SLERP.replace("model: B", "model: {model: {path: B}, lora: {path: C}}"),
        "line 5: lora: not supported; leave it out",
    ),
    "no path": (SLERP.replace("model: B", "model: {model: {revision: x}}"), "path: is missing"),
    "two revisions": (SLERP.replace("model: B", "model: B@x@y"), "line 5: .*two revisions"),
    "layer_range under models": (
        SLERP.replace("- model: B", "- model: B\n    layer_range: [0, 2]"),
        'line 6: .*unknown key "layer_range"',
    ),
    "no layer_range": (
        SLICES.replace("        layer_range: [0, 2]\n", "", 1),
        "line 5: .*layer_range is missing",
    ),
    "layer_range as text": (SLICES.replace("[0, 2]", "'0, 2'", 1), "line 6: .*2 whole numbers"),
    "layer_range of words": (SLICES.replace("[0, 2]", "[a, b]", 1), 'line 6: .*"a" is not a num'),
    "layer_range of one": (SLICES.replace("[0, 2]", "[2]", 1), "line 6: .*2 whole numbers"),
    "broken layer": (SLICES.replace("[0, 2]", "[0, 1.5]", 1), "line 6: .*2 whole numbers"),
    "negative layer": (SLICES.replace("[0, 2]", "[-1, 2]", 1), "line 6: .*2 whole numbers"),
    "empty range": (SLICES.replace("[0, 2]", "[2, 2]", 1), "line 6: .*2 to 2 is empty"),
    "gap between slices": (SLICES.replace("[2, 4]", "[3, 4]"), "line 9: .*layer 3 where layer 2"),
    "overlap": (SLICES.replace("[2, 4]", "[1, 4]"), "line 9: .*starts at layer 1 where layer 2"),
    "not from 0": (SLICES.replace("[0, 2]", "[1, 2]"), "line 4: .*starts at layer 1 where layer 0"),
    "different depths": (SLICES.replace("[0, 2]", "[1, 3]", 1), "line 5: .*frankenmerge"),
    "models by slice": (
        SLICES.replace("B\n        layer_range: [2, 4]", "C\n        layer_range: [2, 4]"),
        "line 9: .*same models.*frankenmerge",
    ),
    "base by slice": (
        SLICES.replace("    parameters:\n      t: 0.9\n", "    base_model: B\n"),
        "line 14: base_model: .*not supported",
    ),
    "unknown key in a slice": (
        SLICES.replace("    parameters:\n      t: 0.9\n", "    residual_weight: 0.5\n"),
        'line 14: .*unknown key "residual_weight"',
    ),
    "modules of a name": (
        SLERP.replace("models:", "modules: {text_decoder: {}}\nint8_mask:"),
        r"line 3: modules: models of modules \(text_decoder\) are not supported",
    ),
    "modules and models": (
        SLERP + "modules: {default: {models: [{model: A}]}}\n",
        "line 8: models: given twice, here and outside modules",
    ),
    "typo in a module": (
        SLERP + "modules: {default: {slice: []}}\n",
        r'line 8: .*"slice" \(did you mean "slices"\?\)',
    ),
    "tokenizer_source": (
        SLERP + "tokenizer_source: C\n",
        'line 8: tokenizer_source: "C" is neither base nor union nor a model of this stage; use '
        "one of base, union, A, B",
    ),
    "typo of union": (SLERP + "tokenizer_source: uniom\n", r"did you mean \"union\"\?"),
    "both ways": (
        SLERP + "tokenizer_source: base\ntokenizer: {source: base}\n",
        "line 9: tokenizer: given beside tokenizer_source; keep one",
    ),
    "single tokens": (
        SLERP + "tokenizer:\n  source: base\n  tokens: {x: {source: B}}\n",
        "line 10: tokens: giving single tokens a source is not supported",
    ),
    "padding": (
        SLERP + "tokenizer: {source: base, pad_to_multiple_of: 64}\n",
        "line 8: pad_to_multiple_of: padding the vocabulary is not supported",
    ),
    "typo in tokenizer": (SLERP + "tokenizer: {sorce: base}\n", r"did you mean \"source\"\?"),
    "tokenizer without base": (
        LINEAR + "tokenizer_source: union\n",
        r"line 9: tokenizer_source: needs base_model beside it.*\(one of A, B\)",
    ),
    "dtype of another name": (SLERP + "dtype: bf16\n", 'line 8: dtype: "bf16".*use bfloat16, fl'),
    "dtype too wide": (SLERP + "dtype: float64\n", r'"float64" is not supported \(did you mean'),
    "out_dtype": (SLERP + "out_dtype: int8\n", 'line 8: out_dtype: "int8" is not supported'),
    "two unnamed": (f"{SLERP}---\n{SLERP}", "2 stages have no name"),
    "one name twice": (f"name: x\n{SLERP}---\nname: x\n{SLERP}", 'two stages are named "x"'),
    "cycle": (
        "name: x\n" + SLERP.replace("model: B", "model: y")
        + "---\nname: y\n" + SLERP.replace("model: B", "model: x"),
        "cycle",
    ),
    "error in a later stage": (STAGES + "foo: 1\n", "line 17: foo: unknown key"),
    "alias that holds itself": (SLERP.replace("0.5", "&a [*a]"), "line 7: t: expected a number"),
    "too long": ("#" * 1_000_001, "1,000,001 characters is too long"),
    "too deep": ("a: " + "[" * 100_000, "this is not valid YAML"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_mistake_is_one_error_with_line_and_remedy(case: str) -> None:
    text, match = REFUSED[case]
    with pytest.raises(StudioError, match=f"^recipe.*{match}") as caught:
        load_recipe(text)
    assert "\n" not in str(caught.value)


SOUND = [SLERP, LINEAR, TASK, KARCHER, STOCK, SLICES, STAGES, WILD]
BREAKS = f'{SLERP}chat_template: "a\\nb \\r\\N c\\L\\P\\ufeff\\t"\n'


@pytest.mark.parametrize("text", [*SOUND, BREAKS])
def test_dump_reads_back_as_the_same_recipe(text: str) -> None:
    recipe = load_recipe(text)
    dumped = dump_recipe(recipe)
    assert load_recipe(dumped) == recipe
    assert load_recipe(dumped).warnings == ()
    assert dump_recipe(load_recipe(dumped)) == dumped


def test_dump_writes_canonical_text() -> None:
    written = STAGES.replace("  - model", "- model")
    loose = written.replace("t: 0.5", "'t': {value: 5e-1} # half")
    assert dump_recipe(load_recipe(loose)) == written
    gradient = written.replace("0.5", "[0.25, 0.3, 0.5]")
    assert dump_recipe(load_recipe(gradient)) == gradient


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="+@"), min_size=1, max_size=12)
NUMBERS = st.floats(-2, 2) | st.sampled_from([0.0, 1.0, 1e-300, -1e17, 1 / 3])
RULES = st.builds(
    Rule,
    st.lists(NUMBERS, min_size=1, max_size=4).map(tuple),
    st.none() | TEXTS.filter(lambda text: text != "*"),
)
PARAMETERS = st.lists(RULES, min_size=1, max_size=3).map(tuple)
SWITCH = st.sampled_from([(Rule((0.0,)),), (Rule((1.0,)),), (Rule((1.0,), "x"), Rule((0.0,)))])


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    """Chains of merges with settings at every level they may have."""
    models = draw(st.lists(TEXTS, min_size=3, max_size=5, unique=True))
    stages: list[Stage] = []
    for number in range(draw(st.integers(1, 3))):
        used = draw(st.permutations(models))[:2] if number == 0 else [models[0], stages[-1].name]
        stages.append(draw(stage(tuple(str(model) for model in used), f"stage-{number}")))
    return Recipe(ordered(stages))


@st.composite
def stage(draw: st.DrawFn, models: tuple[str, ...], name: str) -> Stage:
    method = draw(st.sampled_from(["slerp", "linear", "task_arithmetic"]))
    key = "t" if method == "slerp" else "weight"
    own = {key: draw(PARAMETERS)}
    if method != "slerp" and draw(st.booleans()):
        own["normalize"] = draw(SWITCH)
    if method == "task_arithmetic" and draw(st.booleans()):
        own["lambda"] = draw(PARAMETERS)
    takes = {"slerp": (), "linear": models, "task_arithmetic": models[1:]}[method]
    inputs = tuple(
        Input(m, {key: draw(PARAMETERS)} if m in takes and draw(st.booleans()) else {})
        for m in models
    )
    parts: tuple[Slice, ...] = (Slice(inputs),)
    if draw(st.booleans()):
        parts = (Slice(inputs, 0, 3), Slice(inputs, 3, 7, {key: draw(PARAMETERS)}))
    dtypes = st.sampled_from([None, "float32", "bfloat16"])
    template = (
        st.none() | TEXTS | st.just("{% for m in messages %}\n  {{ m }}: '\"\n{% endfor %}\n")
    )
    tokenizer = draw(st.sampled_from([None, "base", "union", *models]))
    return Stage(method, parts, name, own, draw(dtypes), draw(dtypes), draw(template), tokenizer)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(recipes())
def test_every_recipe_survives_dump_and_load(recipe: Recipe) -> None:
    dumped = dump_recipe(recipe)
    assert load_recipe(dumped) == recipe
    assert all(isinstance(stage, dict) for stage in yaml.safe_load_all(dumped))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.data())
def test_no_damage_to_a_recipe_crashes_the_reader(data: st.DataObject) -> None:
    """Whatever is cut out, put in or moved: a recipe or one StudioError, never another error."""
    text = data.draw(st.sampled_from(SOUND))
    at = data.draw(st.integers(0, len(text)))
    cut = data.draw(st.integers(0, 12))
    put = data.draw(
        st.sampled_from(["", "[", "{", "- ", ": ", "\n", "&a ", "*a", "~", "0", "'", "t"])
    )
    try:
        recipe = load_recipe(text[:at] + put + text[at + cut :])
    except StudioError as error:
        assert str(error).startswith("recipe")
    else:
        assert load_recipe(dump_recipe(recipe)) == recipe
