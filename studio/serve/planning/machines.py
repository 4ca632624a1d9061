"""A model over several machines: tensor parallel within each, a pipeline between them.

Tensor parallelism talks after every layer and wants the fast links inside a machine; a pipeline
passes one activation from machine to machine. vLLM's Ray backend starts the workers.
"""

from collections.abc import Sequence
from shlex import quote

from studio.serve.planning.gpus import Gpu
from studio.serve.planning.memory import Way, batch_of
from studio.serve.planning.plan import Row, Several, Wish
from studio.serve.planning.shapes import Shape
from studio.serve.planning.ways import model_plan, row

MOST_MACHINES = 16
PORT, RAY_PORT = 8000, 6379


def several(
    label: str, shape: Shape, gpus: Sequence[Gpu], wish: Wish, length: int
) -> Several | None:
    """The fewest machines, each with these GPUs, on which the model fits; None if 16 do not do."""
    one = model_plan(label, shape, gpus, wish, length)
    sizes = [r.way.tp for r in one.rows if r.need]
    if not sizes:
        return None
    tp = max(sizes)
    batch, sequences = batch_of(gpus[0].memory, gpus[0].name)
    for machines in range(2, MOST_MACHINES + 1):
        first = next(r.way for r in one.rows if r.need)
        way = Way(
            tp, machines, first.dtype, first.quantisation, first.kv_bytes, batch, sequences,
            wish.utilisation,
        )  # fmt: skip
        found = row(shape, way, list(gpus) * machines, length, wish.requests)
        if found.fits:
            return Several(machines, found, commands(label, found, wish, length))
    return None


def commands(label: str, found: Row, wish: Wish, length: int) -> tuple[tuple[str, str], ...]:
    """What to type, and where: Ray on each machine, then vLLM on the first."""
    way = found.way
    serve = [
        "vllm serve", quote(label), f"--tensor-parallel-size {way.tp}",
        f"--pipeline-parallel-size {way.pp}", "--distributed-executor-backend ray",
        f"--max-model-len {length}", f"--gpu-memory-utilization {wish.utilisation}",
        f"--dtype {way.dtype}", "--generation-config vllm",
    ]  # fmt: skip
    if way.quantisation.online:
        serve.append(f"--quantization {way.quantisation.name}")
    if wish.kv_cache == "fp8":
        serve.append("--kv-cache-dtype fp8")
    serve.append(f'--host HEAD --port {PORT} --api-key "$STUDIO_ENGINE_KEY"')
    start = "VLLM_HOST_IP={ip} ray start {role} --node-ip-address={ip}"
    return (
        ("every machine", 'pip install "ray[cgraph]"'),
        ("the first machine, HEAD its address",
         start.format(ip="HEAD", role=f"--head --port={RAY_PORT}")),
        ("each other machine, NODE its own address",
         start.format(ip="NODE", role=f"--address=HEAD:{RAY_PORT}")),
        ("the first machine", " ".join(serve)),
        ("the studio", f"attach to http://HEAD:{PORT}/v1 as an endpoint, with the same key"),
    )  # fmt: skip
