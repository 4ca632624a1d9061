"""The merge methods: each a pure function from a Gram matrix and settings to coefficients."""

from studio.merge.methods.karcher import KARCHER
from studio.merge.methods.linear import LINEAR
from studio.merge.methods.method import Method, Setting, cosine
from studio.merge.methods.model_stock import MODEL_STOCK
from studio.merge.methods.slerp import SLERP
from studio.merge.methods.task_arithmetic import TASK_ARITHMETIC
from studio.merge.methods.unsupported import UNSUPPORTED

METHODS: dict[str, Method] = {
    method.name: method for method in (SLERP, LINEAR, TASK_ARITHMETIC, KARCHER, MODEL_STOCK)
}

__all__ = ["METHODS", "UNSUPPORTED", "Method", "Setting", "cosine"]
