"""The numbers in a tensor's bytes, for what is looked at rarely: plain numpy, a copy each time."""

import numpy as np
from numpy.typing import NDArray

from studio.weights.elements import Elements

_AT_A_TIME = 1 << 16  # elements whose copies stay in a core's cache
_NUMPY = {"F16": np.float16, "F32": np.float32, "F64": np.float64}


def in_fp32(values: Elements) -> NDArray[np.float32]:
    """The elements in fp32: exact but for "F64", whose largest values become infinite."""
    if values.dtype == "BF16":
        return (values.data.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):
        return values.data.view(_NUMPY[values.dtype]).astype(np.float32)


def all_finite(values: Elements) -> bool:
    """Whether no element is NaN, infinite or beyond fp32."""
    return all(
        np.isfinite(in_fp32(values.part(start, start + _AT_A_TIME))).all()
        for start in range(0, values.count, _AT_A_TIME)
    )
