"""Both programs run the same recipes: tensor by tensor they give the same model.

The bars on the relative error ‖ours - theirs‖ / ‖theirs‖ allow for what mergekit rounds: its stages
in 16 bits, its float32 norms in large tensors. What it rounds at load is rounded for both.
"""

import numpy as np
import pytest
import torch

from tests.conformance.cases import CASES, OWN_CASES
from tests.conformance.conftest import Outcome, flat, is_buffer, load_folder, note_figure

pytestmark = pytest.mark.timeout(400)  # the first test runs every merge

SMALL = 128 * 1024  # elements
BARS = {"float32": (1e-6, 3e-5), "bfloat16": (4e-3, 4e-3), "float16": (1e-3, 1e-3)}
THRESHOLD, AROUND, OTHER_BRANCH = 0.9995, 5e-5, 2e-4
OWN_BAR = 2e-7
EPSILON = {torch.bfloat16: 2**-7, torch.float16: 2**-10}
WEIGHT_BAR = 0.01
ROUNDED_AT_LOAD = [title for title, case in CASES.items() if case.loaded_as]


def relative_error(ours: np.ndarray, theirs: np.ndarray) -> float:
    norm = np.linalg.norm(theirs)
    return float(np.linalg.norm(ours - theirs) / (norm or 1.0))


def recovered_weights(result: np.ndarray, sources: list[np.ndarray]) -> np.ndarray | None:
    """The mix of the sources that comes closest, by least squares; None where it is not unique.

    In the basis x_1, x_2 - x_1, … the fit is well conditioned for nearly parallel sources too.
    """
    columns = np.stack([sources[0], *(x - sources[0] for x in sources[1:])], axis=1)
    lengths = np.linalg.norm(columns, axis=0)
    if lengths.min() == 0 or np.linalg.cond(columns / lengths) > 100:
        return None
    found = np.linalg.lstsq(columns / lengths, result, rcond=None)[0] / lengths
    return np.array([found[0] - found[1:].sum(), *found[1:]])


def test_tensors_are_those_of_mergekit(outcome: Outcome) -> None:
    ours, theirs = load_folder(outcome.ours), load_folder(outcome.theirs)
    described = [
        {name: (tuple(t.shape), None if is_buffer(name) else t.dtype) for name, t in side.items()}
        for side in (ours, theirs)
    ]
    assert described[0] == described[1]


def test_every_tensor_agrees_with_mergekit(outcome: Outcome) -> None:
    ours, theirs = load_folder(outcome.ours_as_loaded), load_folder(outcome.theirs)
    wrong = {}
    for name, merged in outcome.expected.items():
        dtype = str(ours[name].dtype).removeprefix("torch.")
        large = ours[name].numel() > SMALL
        bar = BARS[dtype][large]
        at_threshold = any(abs(abs(c) - THRESHOLD) < AROUND for c in merged.cosines)
        if at_threshold:
            bar = max(bar, OTHER_BRANCH)
        error = relative_error(flat(ours[name]), flat(theirs[name]))
        group = "at the threshold" if at_threshold else "large" if large else "small"
        note_figure(f"{dtype} against mergekit, {group}", error, outcome.title, name)
        if not error <= bar:
            wrong[name] = (error, bar)
    assert wrong == {}


@pytest.mark.parametrize("title", ROUNDED_AT_LOAD)
def test_sources_as_in_the_file_give_more_of_the_recipe_than_rounded_ones(
    outcomes: dict[str, Outcome], title: str
) -> None:
    """In every tensor mergekit's result is farther from the recipe in float64 than ours."""
    outcome = outcomes[title]
    ours, theirs = load_folder(outcome.ours), load_folder(outcome.theirs)
    for name, merged in outcome.expected.items():
        error = relative_error(flat(ours[name]), merged.value)
        their_error = relative_error(flat(theirs[name]), merged.value)
        note_figure("rounded at load, from the oracle: ours", error, title, name)
        note_figure("rounded at load, from the oracle: mergekit's", their_error, title, name)
        assert error < their_error, name


@pytest.mark.parametrize("title", [*CASES, *OWN_CASES])
def test_result_is_the_recipe_in_float64(outcomes: dict[str, Outcome], title: str) -> None:
    """Stage by stage and by the book; a 16-bit result is that, rounded once."""
    outcome = outcomes[title]
    unequal = total = 0
    for name, ours in load_folder(outcome.ours).items():
        if is_buffer(name):
            continue
        expected = outcome.expected[name].value
        if ours.dtype == torch.float32:
            error = relative_error(flat(ours), expected)
            note_figure("float32 against the oracle", error, outcome.title, name)
            assert error <= OWN_BAR, name
            continue
        rounded = torch.from_numpy(expected).to(ours.dtype).double()
        difference = (ours.double().flatten() - rounded).abs()
        one_step = EPSILON[ours.dtype] * rounded.abs().numpy()
        inputs = zip(outcome.expected[name].weights, outcome.inputs(name).values(), strict=True)
        cancelled = sum(abs(w * x) for w, x in inputs) * OWN_BAR
        assert (difference.numpy() <= one_step + cancelled).all(), name
        unequal, total = unequal + int((difference > 0).sum()), total + ours.numel()
    share = unequal / total if total else 0.0
    note_figure("16 bits against the oracle, share of unequal values", share, outcome.title, "")
    assert share <= 2e-3


@pytest.mark.parametrize("program", ["ours", "theirs"])
def test_weights_recovered_from_the_result_are_the_recipes(outcome: Outcome, program: str) -> None:
    """What errors of rounding could hide between nearly parallel sources, the mix cannot."""
    checked = 0
    for name, tensor in load_folder(getattr(outcome, program)).items():
        least = 3 if tensor.dtype == torch.float32 else 1000  # elements that drown the rounding
        if is_buffer(name) or tensor.numel() < least:
            continue
        found = recovered_weights(flat(tensor), list(outcome.inputs(name).values()))
        if found is None:
            continue
        error = float(np.abs(found - outcome.expected[name].weights).max())
        note_figure(f"weights recovered, {program}", error, outcome.title, name)
        assert error <= WEIGHT_BAR, (name, found, outcome.expected[name].weights)
        checked += 1
    assert checked


@pytest.mark.parametrize("case", ["float32: house, near", "bfloat16: house, near"])
def test_recovered_weights_tell_a_wrong_t(outcomes: dict[str, Outcome], case: str) -> None:
    """The last stage's t is 0.5: had it been 0.54, the test above would have failed."""
    outcome, name = outcomes[case], "model.layers.1.mlp.up_proj.weight"
    sources = outcome.inputs(name)
    found = recovered_weights(flat(load_folder(outcome.ours)[name]), list(sources.values()))
    stages = [*outcome.case.stages[:2], outcome.case.stages[2] | {"parameters": {"t": 0.54}}]
    wrong = outcome.oracle(stages, name).weights
    assert found is not None
    assert np.abs(found - wrong).max() > WEIGHT_BAR
    assert np.abs(found - outcome.expected[name].weights).max() < WEIGHT_BAR


@pytest.mark.parametrize("title", CASES)
def test_mergekit_makes_the_same_of_the_recipe_as_dumped(
    outcomes: dict[str, Outcome], title: str
) -> None:
    """To the bit, but where writing the base first changes the order of a sum."""
    first, again = load_folder(outcomes[title].theirs), load_folder(outcomes[title].redone)
    assert first.keys() == again.keys()
    unlike = [name for name in first if not torch.equal(first[name], again[name])]
    if title == "float32: karcher, base not listed":
        unlike = [n for n in unlike if relative_error(flat(first[n]), flat(again[n])) > 1e-6]
    assert unlike == []


def test_buffers_are_copied_unrounded(outcomes: dict[str, Outcome]) -> None:
    outcome = outcomes["bfloat16: gpt_neox"]
    ours = load_folder(outcome.ours)
    copied = [name for name in ours if is_buffer(name)]
    assert len(copied) == 12
    for name in copied:
        assert torch.equal(ours[name], outcome.tensors["A"][name])


def test_some_case_has_tensors_at_the_threshold(outcomes: dict[str, Outcome]) -> None:
    merged = outcomes["float32: house, at the threshold"].expected
    near = [n for n, m in merged.items() if any(abs(c - THRESHOLD) < AROUND for c in m.cosines)]
    linear = [n for n, m in merged.items() if min(m.cosines) > THRESHOLD]
    assert near
    assert linear
    assert len(linear) < len(merged)
