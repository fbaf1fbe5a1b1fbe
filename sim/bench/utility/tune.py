"""Learning rates on other seeds than those that are reported: the best power of two, in lockstep.

One data set a task whose split and shuffling no reported cell has; the test set overlaps (there is
no other), which a dozen rates to choose from cannot exploit much.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from gossipfl.interfaces import Trainer
from gossipfl.privacy import RecordPrivacy
from sim.bench.report import progress
from sim.bench.utility import lockstep
from sim.bench.utility.cells import EPSILONS
from sim.bench.utility.lockstep import record, training
from sim.bench.utility.tasks import TASKS, Task, trainers

SEEDS = (101, 102)
GRID = tuple(2.0**power for power in range(-5, 5))
FREE_MAX = 4.0
"""Without privacy no larger: devices overshoot, and a node's guard then keeps the model it had."""
ALONE_MAX = 10  # devices that are tried alone: more tell nothing more


def tuned(tasks: Sequence[str]) -> dict[str, float]:
    """ "task row epsilon" -> rate. Equal ones: the smaller."""
    found: dict[str, float] = {}
    for name in tasks:
        task = TASKS[name]
        fleets = {seed: trainers(task, seed) for seed in SEEDS}
        for epsilon in (0.0, *EPSILONS):
            mode = record(task.record, task.z("record", epsilon)) if epsilon else None
            for row, look in (("together", _together), ("alone", _alone)):
                grid = [rate for rate in GRID if epsilon or rate <= FREE_MAX]
                scores = [_score(look, task, fleets, mode, rate) for rate in grid]
                best = grid[int(np.argmax(scores))]
                found[f"{name} {row} {epsilon:g}"] = best
                told = ", ".join(f"{r:g}: {s:.3f}" for r, s in zip(grid, scores, strict=True))
                progress(f"{name} {row} {epsilon:g}: rate {best:g} ({told})")
    return found


Look = Callable[[Task, Sequence[Trainer], RecordPrivacy | None, float, int], float]


def _score(
    look: Look,
    task: Task,
    fleets: dict[int, list[Trainer]],
    mode: RecordPrivacy | None,
    rate: float,
) -> float:
    return float(np.mean([look(task, fleets[seed], mode, rate, seed) for seed in SEEDS]))


def _together(
    task: Task, everyone: Sequence[Trainer], mode: RecordPrivacy | None, rate: float, seed: int
) -> float:
    return lockstep.together(everyone, task.record.rounds, mode, training(rate), seed)


def _alone(
    task: Task, everyone: Sequence[Trainer], mode: RecordPrivacy | None, rate: float, seed: int
) -> float:
    few = everyone[:ALONE_MAX]
    how = training(rate)
    return float(
        np.mean(
            [lockstep.alone(t, task.record.rounds, mode, how, seed + n) for n, t in enumerate(few)]
        )
    )
