"""Every method against values worked out by hand."""

from math import cos, pi, sin, sqrt

import numpy as np
import pytest

from studio.errors import StudioError
from studio.merge.methods import METHODS, cosine


def gram_of(*vectors: list[float]) -> np.ndarray:
    matrix = np.array(vectors)
    return (matrix @ matrix.T)[None]


def pair(angle: float, norms: tuple[float, float] = (1.0, 1.0)) -> np.ndarray:
    """The Gram matrix of two vectors at an angle."""
    a, b = norms
    return np.array([[[a * a, a * b * cos(angle)], [a * b * cos(angle), b * b]]])


def slerp(gram: np.ndarray, t: float) -> list[float]:
    return METHODS["slerp"].coefficients(gram, {"t": np.array([t])})[0].tolist()


def linear(weight: list[float], normalize: bool = True) -> list[float]:
    gram = np.eye(len(weight))[None]
    values = {"weight": np.array([weight]), "normalize": np.array([float(normalize)])}
    return METHODS["linear"].coefficients(gram, values)[0].tolist()


@pytest.mark.parametrize(
    ("angle", "t", "expected"),
    [
        (pi / 2, 0.5, (sqrt(0.5), sqrt(0.5))),
        (pi / 2, 1 / 3, (sin(pi / 3), sin(pi / 6))),
        (pi / 3, 0.25, (sin(pi / 4) / sin(pi / 3), sin(pi / 12) / sin(pi / 3))),
        (3 * pi / 4, 0.5, (sin(3 * pi / 8) / sqrt(0.5), sin(3 * pi / 8) / sqrt(0.5))),
        (pi / 2, 1.5, (sin(-pi / 4), sin(3 * pi / 4))),
        (pi / 2, -0.5, (sin(3 * pi / 4), sin(-pi / 4))),
        (pi / 2, 0.0, (1.0, 0.0)),
        (pi / 2, 1.0, (0.0, 1.0)),
    ],
)
def test_slerp_weighs_by_sines(angle: float, t: float, expected: tuple[float, float]) -> None:
    assert slerp(pair(angle), t) == pytest.approx(expected)


@pytest.mark.parametrize("norms", [(8.4, 24.8), (1e-6, 1e6), (3e5, 2e-7)])
def test_slerp_ignores_the_norms(norms: tuple[float, float]) -> None:
    """It mixes the tensors as they are, as mergekit does."""
    assert slerp(pair(1.1, norms), 0.3) == pytest.approx(slerp(pair(1.1), 0.3), rel=1e-9)


@pytest.mark.parametrize(
    ("cosine_", "is_linear"),
    [(1.0, True), (0.99951, True), (0.99949, False), (-0.99949, False), (-0.99951, True),
     (-1.0, True)],
)  # fmt: skip
def test_slerp_is_linear_beyond_the_threshold(cosine_: float, is_linear: bool) -> None:
    found = slerp(np.array([[[1.0, cosine_], [cosine_, 1.0]]]), 0.3)
    assert (found == pytest.approx([0.7, 0.3], abs=1e-12)) is is_linear


@pytest.mark.parametrize(
    ("vectors", "expected"),
    [
        (([3.0, 4.0], [0.0, 0.0]), (sin(0.7 * pi / 2), sin(0.3 * pi / 2))),
        (([0.0, 0.0], [3.0, 4.0]), (sin(0.7 * pi / 2), sin(0.3 * pi / 2))),
        (([0.0, 0.0], [0.0, 0.0]), (sin(0.7 * pi / 2), sin(0.3 * pi / 2))),
        (([1e-9, 0.0], [1e-9, 0.0]), (sin(0.7 * pi / 2), sin(0.3 * pi / 2))),
        (([1e-7, 0.0], [1e-7, 0.0]), (0.7, 0.3)),
    ],
)
def test_slerp_takes_a_tiny_norm_for_one(
    vectors: tuple[list[float], list[float]], expected: tuple[float, float]
) -> None:
    """So that a zero tensor is orthogonal to everything."""
    assert slerp(gram_of(*vectors), 0.3) == pytest.approx(expected, rel=1e-6)


def test_cosine_stays_in_range_where_rounding_leaves_it() -> None:
    above = np.array([[[1.0, 1.0 + 1e-12], [1.0 + 1e-12, 1.0]]])
    assert cosine(above).tolist() == [1.0]
    assert cosine(-above + 2 * np.eye(2) * 1.0).tolist() == [-1.0]


def test_methods_treat_each_tensor_by_itself() -> None:
    gram = np.concatenate([pair(0.001), pair(pi / 2), pair(1.0)])
    found = METHODS["slerp"].coefficients(gram, {"t": np.array([0.2, 0.5, 0.9])})
    single = [slerp(gram[i : i + 1], t) for i, t in enumerate((0.2, 0.5, 0.9))]
    assert found == pytest.approx(np.array(single))


@pytest.mark.parametrize(
    ("weight", "normalize", "expected"),
    [
        ([1.0, 3.0], True, [0.25, 0.75]),
        ([1.0, 3.0], False, [1.0, 3.0]),
        ([0.5, 0.3, 0.4], True, [5 / 12, 0.25, 1 / 3]),
        ([2.0], True, [1.0]),
        ([2.0, -1.0], True, [2.0, -1.0]),
        ([1.0, -1.0], False, [1.0, -1.0]),
        ([0.0, 0.0], False, [0.0, 0.0]),
    ],
)
def test_linear_weighs_as_told(weight: list[float], normalize: bool, expected: list[float]) -> None:
    assert linear(weight, normalize) == pytest.approx(expected)


@pytest.mark.parametrize("weight", [[1.0, -1.0], [0.0, 0.0], [0.1, 0.2, -0.3]])
def test_linear_refuses_to_normalize_a_sum_of_zero(weight: list[float]) -> None:
    with pytest.raises(StudioError, match="sum to 0.*normalize: false"):
        linear(weight)


def task(weight: list[float], scale: float = 1.0, normalize: bool = False) -> list[float]:
    values = {
        "weight": np.array([weight]),
        "lambda": np.array([scale]),
        "normalize": np.array([float(normalize)]),
    }
    return METHODS["task_arithmetic"].coefficients(np.eye(len(weight))[None], values)[0].tolist()


@pytest.mark.parametrize(
    ("weight", "scale", "normalize", "expected"),
    [
        ([0, 1.0], 1.0, False, [0.0, 1.0]),
        ([0, 0.5, 0.75], 1.0, False, [-0.25, 0.5, 0.75]),
        ([0, 0.5, 0.75], 0.4, False, [0.5, 0.2, 0.3]),
        ([0, 1.0, 3.0], 1.0, True, [0.0, 0.25, 0.75]),
        ([0, 1.0, 3.0], 0.5, True, [0.5, 0.125, 0.375]),
        ([0, 1.0, -1.0], 1.0, True, [1.0, 1.0, -1.0]),
        ([0], 1.0, False, [1.0]),
    ],
)
def test_task_arithmetic_takes_from_the_base_what_it_adds(
    weight: list[float], scale: float, normalize: bool, expected: list[float]
) -> None:
    assert task(weight, scale, normalize) == pytest.approx(expected)


def stock(*vectors: list[float]) -> list[float]:
    return METHODS["model_stock"].coefficients(gram_of(*vectors), {})[0].tolist()


@pytest.mark.parametrize(
    ("changes", "t"),
    [
        ([[1.0, 0, 0], [0, 2.0, 0]], 0.0),
        ([[1.0, 0, 0], [3.0, 0, 0]], 1.0),
        ([[1.0, 0, 0], [0.5, sqrt(0.75), 0]], 2 / 3),
        ([[1.0, 0, 0], [0, 1.0, 0], [1.0, 1.0, 0]], sqrt(2) / (1 + sqrt(8) / 3)),
        ([[1.0, 0, 0], [-1.0, 0, 0]], 0.0),
        ([[1e-5, 0, 0], [1e-5, 0, 0]], 2e-4 / (1 + 1e-4)),
        ([[0.0, 0, 0], [0.0, 0, 0]], 0.0),
    ],
)
def test_model_stock_goes_as_far_as_the_changes_agree(changes: list[list[float]], t: float) -> None:
    """Parallel changes: all the way to their mean; orthogonal or opposite ones: not at all."""
    base = np.array([0.5, 0.25, 1.0])
    found = stock(base.tolist(), *(list(base + change) for change in changes))
    share = t / len(changes)
    assert found == pytest.approx([1 - t, *[share] * len(changes)], abs=1e-9)


def karcher(*vectors: list[float], max_iter: float = 10, tol: float = 1e-5) -> list[float]:
    values = {"max_iter": np.array([max_iter]), "tol": np.array([tol])}
    return METHODS["karcher"].coefficients(gram_of(*vectors), values)[0].tolist()


def test_karcher_of_two_is_their_slerp_halfway_with_the_mean_norm() -> None:
    a, b = [3.0, 0.0], [4 * cos(1.1), 4 * sin(1.1)]
    found = np.array(karcher(a, b)) @ np.array([a, b])
    assert found == pytest.approx([3.5 * cos(0.55), 3.5 * sin(0.55)])


def test_karcher_of_the_axes_lies_between_them() -> None:
    assert karcher([1, 0, 0], [0, 2, 0], [0, 0, 3]) == pytest.approx(
        [2 / sqrt(3), 1 / sqrt(3), 2 / 3 / sqrt(3)]
    )


def test_karcher_is_the_mean_of_angles_on_a_circle() -> None:
    """Where the normalized sum is not yet the mean, the rounds make the difference."""
    angles = np.array([0.0, 0.2, 1.6])
    vectors = [[cos(a), sin(a)] for a in angles]
    found = np.array(karcher(*vectors)) @ np.array(vectors)
    assert np.arctan2(found[1], found[0]) == pytest.approx(0.6, abs=1e-9)
    start = np.array(karcher(*vectors, max_iter=0)) @ np.array(vectors)
    assert abs(np.arctan2(start[1], start[0]) - 0.6) > 0.01


@pytest.mark.parametrize(
    ("vectors", "expected"),
    [
        ([[2.0, 0.0]], [1.0]),
        ([[3.0, 4.0], [3.0, 4.0]], [0.5, 0.5]),
        ([[3.0, 4.0], [0.0, 0.0]], [0.5, 0.0]),
        ([[0.0, 0.0], [0.0, 0.0]], [0.0, 0.0]),
        ([[0.0, 0.0], [1e-6, 0.0]], [0.0, 0.0]),
        ([[3.0, 4.0], [-3.0, -4.0]], [1.0, 0.0]),
    ],
)
def test_karcher_of_degenerate_inputs(vectors: list[list[float]], expected: list[float]) -> None:
    assert karcher(*vectors) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("max_iter", "tol", "match"),
    [(2.5, 1e-5, "max_iter must be a whole"), (-1, 1e-5, "max_iter"), (1e6, 1e-5, "to 1000"),
     (10, 0.0, "tol must be above 0")],
)  # fmt: skip
def test_karcher_refuses_settings_without_sense(max_iter: float, tol: float, match: str) -> None:
    with pytest.raises(StudioError, match=match):
        karcher([1.0, 0.0], [0.0, 1.0], max_iter=max_iter, tol=tol)


def test_karcher_treats_each_tensor_by_itself() -> None:
    pairs = [([1.0, 0.0], [0.0, 1.0]), ([1.0, 0.0], [1.0, 1e-9]), ([0.0, 0.0], [2.0, 1.0])]
    values = {"max_iter": np.array([10.0, 1.0, 10.0]), "tol": np.array([1e-5, 1e-3, 1e-5])}
    together = METHODS["karcher"].coefficients(
        np.concatenate([gram_of(*pair) for pair in pairs]), values
    )
    assert together.tolist() == [pytest.approx(karcher(*pair)) for pair in pairs]
