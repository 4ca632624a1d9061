"""Bytes and numbers: reading checkpoints, Gram matrices, the mix and writing shards."""

from studio.weights.checkpoint import Checkpoint
from studio.weights.header import TensorInfo, make_header, read_header

__all__ = ["Checkpoint", "TensorInfo", "make_header", "read_header"]
