"""What a model takes of each GPU: the formula, its inputs, and what is left for the KV cache.

With tensor parallel size n and pipeline size p, GPU memory M and utilisation u, of each GPU

    KV cache = ⌈u·M⌉ − weights − activations − context − CUDA graphs

    weights       the stage's layers: their matrices / n, norms whole; key and value heads are
                  repeated where n is more than there are; embedding and lm_head / n on the first
                  and the last stage
    activations   T·(3·intermediate/n)·2 + 6·T·hidden + 6·S·vocab bytes, for T tokens and S
                  sequences in one step
    context       0.7 GiB for CUDA, 1.5 GiB where GPUs talk to each other
    CUDA graphs   0.8 GiB
    a token's KV  2 · the stage's layers · max(1, kv_heads/n) · head_dim · bytes of a number

The last three are estimates; vLLM measures them when it starts. The fullest stage decides.
"""

import math
from dataclasses import dataclass

from studio.serve.planning.gpus import GIB
from studio.serve.planning.quantisation import Quantisation
from studio.serve.planning.shapes import DTYPES, Shape

UTILISATION = 0.92  # vLLM's default
VOCAB_PADDING = 64  # vLLM pads the embedding's rows to a multiple of this
BLOCK = 16  # tokens: the KV cache comes in blocks
CONTEXT_ALONE, CONTEXT_TOGETHER, GRAPHS = 0.7 * GIB, 1.5 * GIB, 0.8 * GIB


@dataclass(frozen=True, slots=True)
class Way:
    """How a model is held.

    `tp` GPUs share each layer, `pp` such groups follow one another. `batch` tokens and `sequences`
    in one step at most. `dtype` of the numbers, `kv_bytes` of one number in the KV cache.
    """

    tp: int = 1
    pp: int = 1
    dtype: str = "bfloat16"
    quantisation: Quantisation = Quantisation()
    kv_bytes: int = 2
    batch: int = 8192
    sequences: int = 1024
    utilisation: float = UTILISATION

    @property
    def gpus(self) -> int:
        """How many it takes."""
        return self.tp * self.pp


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes of the fullest GPU. `kv` may be negative: so much is missing. `tokens`: of the cache,
    over all requests, 0 where nothing is left.
    """

    capacity: int
    weights: int
    activations: int
    fixed: int
    kv: int
    kv_per_token: int

    @property
    def tokens(self) -> int:
        """Tokens that the KV cache holds, in whole blocks."""
        return max(0, self.kv // (BLOCK * self.kv_per_token)) * BLOCK

    @property
    def spare(self) -> int:
        """What the engine leaves alone."""
        return self.capacity - self.weights - self.activations - self.fixed - max(0, self.kv)


def batch_of(memory: int, name: str) -> tuple[int, int]:
    """vLLM's own (tokens, sequences) of one step for a GPU of this memory and name."""
    if memory >= 160 * GIB:
        return 16384, 1024
    if memory >= 70 * GIB and "a100" not in name.lower():
        return 8192, 1024
    return 2048, 256


def stages(layers: int, pp: int) -> list[int]:
    """How vLLM divides the layers: what is over goes to the stages before the last."""
    parts = [layers // pp] * pp
    for index in range(2, layers % pp + 2):
        parts[-index] += 1
    return parts


def stage_weights(shape: Shape, way: Way) -> list[int]:
    """Bytes of weights on each GPU of each stage, rounded up."""
    item = DTYPES[way.dtype]
    rows = math.ceil(shape.vocab / VOCAB_PADDING) * VOCAB_PADDING
    table = rows * shape.hidden / way.tp * item
    heads = shape.heads / way.tp + max(1, shape.kv_heads / way.tp)
    matrices = 2 * shape.hidden * shape.head_dim * heads
    matrices += 3 * shape.hidden * shape.intermediate / way.tp
    layer = way.quantisation.bytes_of(matrices, item) + shape.small_per_layer * item
    found = [count * layer for count in stages(shape.layers, way.pp)]
    found[0] += table
    found[-1] += shape.hidden * item
    if not (shape.tied and way.pp == 1):  # the last stage of several has a copy of its own
        found[-1] += table
    return [math.ceil(size) for size in found]


def kv_per_token(shape: Shape, way: Way) -> int:
    """Bytes of a token in the KV cache, on a GPU of the stage with most layers."""
    heads = max(1, shape.kv_heads // way.tp)
    return 2 * max(stages(shape.layers, way.pp)) * heads * shape.head_dim * way.kv_bytes


def activations(shape: Shape, way: Way) -> int:
    """Bytes of the largest step beside weights and KV cache."""
    mlp = way.batch * 3 * shape.intermediate / way.tp * 2
    return math.ceil(mlp + 6 * way.batch * shape.hidden + 6 * way.sequences * shape.vocab)


def need(shape: Shape, way: Way, capacity: int) -> Need:
    """What the model takes of GPUs of `capacity` bytes, and what is left for the KV cache."""
    weights = max(stage_weights(shape, way))
    fixed = round((CONTEXT_ALONE if way.gpus == 1 else CONTEXT_TOGETHER) + GRAPHS)
    active = activations(shape, way)
    left = math.ceil(capacity * way.utilisation) - weights - active - fixed
    return Need(capacity, weights, active, fixed, left, kv_per_token(shape, way))


def refusal(shape: Shape, way: Way) -> str:
    """Why vLLM would not start this way, in its own words where it has some; empty if it would."""
    if shape.heads % way.tp:
        return (
            f"Total number of attention heads ({shape.heads}) must be divisible by tensor parallel "
            f"size ({way.tp})."
        )
    if shape.kv_heads % way.tp and way.tp % shape.kv_heads:
        return f"{shape.kv_heads} key-value heads neither divide by {way.tp} nor divide it"
    if shape.intermediate % way.tp:
        return f"intermediate_size {shape.intermediate} does not divide by {way.tp}"
    rows = math.ceil(shape.vocab / VOCAB_PADDING) * VOCAB_PADDING
    if rows % way.tp:
        return f"the vocabulary, padded to {rows} rows, does not divide by {way.tp}"
    if way.pp > shape.layers:
        return f"{shape.layers} layers cannot fill {way.pp} stages"
    group = way.quantisation.group
    if group and (shape.intermediate // way.tp) % group:
        return (
            f"{way.quantisation}: intermediate_size {shape.intermediate} / {way.tp} = "
            f"{shape.intermediate // way.tp} is no multiple of its groups of {group}"
        )
    return ""
