"""The merge methods: each a pure function from a Gram matrix and settings to coefficients."""

from studio.merge.methods.linear import LINEAR
from studio.merge.methods.method import Method, cosine
from studio.merge.methods.slerp import SLERP

METHODS: dict[str, Method] = {method.name: method for method in (SLERP, LINEAR)}

__all__ = ["METHODS", "Method", "cosine"]
