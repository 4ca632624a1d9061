"""Bytes and numbers: reading checkpoints, Gram matrices, the mix and writing shards."""

from studio.weights.header import TensorInfo, make_header, read_header

__all__ = ["TensorInfo", "make_header", "read_header"]
