"""The exact geometry of a merge before it is made: all Gram matrices, nothing written."""

from collections.abc import Callable

import numpy as np

from studio.merge.mixing import Mixer
from studio.merge.plan import Plan
from studio.merge.preview import Preview, preview
from studio.merge.run import single_threaded_torch, worker_count


def measure(plan: Plan, on_tensor: Callable[[int], None] = lambda size: None) -> Preview:
    """Read every source once and return the exact preview.

    `on_tensor(bytes)` is called after each tensor with the bytes read for it. Raises StudioError
    for NaN or Inf in a source.
    """
    jobs = [job for shard in plan.shards for job in shard.tensors if job.name in plan.row_of]
    with single_threaded_torch(), Mixer(plan, worker_count(plan)) as mixer:
        records = mixer.measure(jobs, on_tensor)
    gram = np.array([records[name].gram for name in plan.layout.names])
    sizes = {job.name: job.numel for job in jobs}
    return preview(plan.recipe, plan.layout, [sizes[n] for n in plan.layout.names], gram)
