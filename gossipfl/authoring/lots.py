"""How many examples dp_grad.onnx should take at once.

A secret sample has a random size N, about the lot L, and a graph takes whole batches of r. That is
N / r + 1 / 2 runs on average, the last one partly empty. If a run costs a and an example b, a step
costs (L / r + 1 / 2) (a + b r), least at r = sqrt(2 L a / b): the square root of economic lots
(Harris 1913). L is taken as one batch, where an empty half costs most.

The costs are reckoned, not measured, so that the same source and torch give the same bytes.
"""

from __future__ import annotations

import math

from torch.utils.flop_counter import FlopCounterMode

from gossipfl.authoring.functions import FlatModel, functions
from gossipfl.authoring.selfcheck import Feed
from gossipfl.bundle.manifest import Task

# Rough, of one x86-64 core with onnxruntime; the result is rounded to a power of two.
RUN_S = 1e-4  # cutting, padding, the call itself
PARAMETER_S = 5e-9  # per run: the sum comes out, is looked at and added in float64
FLOPS = 1e10  # of small convolutions, forward and backward


def dp_batch(model: FlatModel, task: Task, batch: int, feed: Feed) -> int:
    """A power of two below `batch`, or `batch` itself."""
    example = seconds_per_example(model, task, feed)
    run = RUN_S + PARAMETER_S * model.count
    if example * batch <= 2.0 * run:  # sqrt(2 L a / b) >= L
        return batch
    best = math.sqrt(2.0 * batch * run / example)
    return min(batch, 1 << round(math.log2(max(1.0, best))))


def seconds_per_example(model: FlatModel, task: Task, feed: Feed) -> float:
    """From the multiplications and additions of matrices and convolutions; all else is free."""
    counter = FlopCounterMode(display=False)
    with counter:
        functions(model, task).single(feed["params"], feed["x"][0], feed["y"][0])
    return float(counter.get_total_flops()) / FLOPS
