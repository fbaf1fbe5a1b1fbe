"""How many devices it would take: the fleet whose model, noise and all, is as good as what a device
learns alone without noise; and the one that comes within five points of a fleet without noise.

A model in lockstep, not a history of nodes: the devices that there are stand for n with data like
theirs, and the noise is that of the mean of n. Learning rates (clips, under `device`) are tried
around the table's, and the best counts: it asks what is possible.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from gossipfl.interfaces import Trainer
from gossipfl.privacy.protection import Z_MIN
from sim.bench.utility import lockstep
from sim.bench.utility.cells import Cell
from sim.bench.utility.lockstep import as_of, record, training
from sim.bench.utility.rates import DEVICE_RATE, rate_of
from sim.bench.utility.tasks import Task, trainers

NEAR = 0.05
DOUBLINGS_MAX = 20
"""Fleets are those of the task times a power of two: the answer is known as well as that."""
RATES_TRIED = (1.0, 4.0, 16.0)
CLIPS_TRIED = (0.25, 1.0)
SEEDS = 1  # of noise, for each fleet


def break_even(task: Task, cell: Cell) -> dict[str, Any]:
    """{"beats_alone", "is_near"}: devices, None if no such fleet is enough; what they have to
    reach, and what the largest fleet does."""
    if cell.epsilon is None:
        raise ValueError("without a budget there is nothing to break even with")
    everyone = trainers(task, cell.seed)
    z = task.z(cell.unit, cell.epsilon, cell.rounds)
    try_out = _device if cell.unit == "device" else _record
    accuracy = cache(try_out(task, cell, everyone, z))
    alone, near = _alone(task, everyone, cell.seed), _noise_free(task, everyone, cell.seed) - NEAR
    return {
        "beats_alone": _least(accuracy, task.devices, alone),
        "is_near": _least(accuracy, task.devices, near),
        "goals": [round(alone, 4), round(near, 4)],
        "reached": round(accuracy(task.devices << DOUBLINGS_MAX), 4),
        "z": z,
    }


def _least(accuracy: Callable[[int], float], devices: int, goal: float) -> int | None:
    """The least of the fleets that reaches the goal: more devices have less noise."""
    if accuracy(devices) >= goal:
        return devices
    low, high = 0, DOUBLINGS_MAX
    if accuracy(devices << high) < goal:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if accuracy(devices << middle) >= goal else (middle, high)
    return devices << high


def _noise_free(task: Task, everyone: Sequence[Trainer], seed: int) -> float:
    how = training(rate_of(task.name, "together", None))
    return lockstep.together(everyone, task.record.rounds, None, how, seed)


def _alone(task: Task, everyone: Sequence[Trainer], seed: int) -> float:
    how = training(rate_of(task.name, "alone", None))
    return float(
        np.mean(
            [
                lockstep.alone(trainer, task.record.rounds, None, how, seed * 1_009 + number)
                for number, trainer in enumerate(everyone)
            ]
        )
    )


def _device(
    task: Task, cell: Cell, everyone: Sequence[Trainer], z: float
) -> Callable[[int], float]:
    def accuracy(devices: int) -> float:
        return max(
            float(
                np.mean(
                    [
                        lockstep.clipped_rounds(
                            everyone,
                            cell.rounds,
                            training(DEVICE_RATE, task.device.epochs),
                            clip,
                            2.0 * z * clip / math.sqrt(devices),
                            cell.seed + 1_000 * again,
                        )
                        for again in range(SEEDS)
                    ]
                )
            )
            for clip in [task.device.clip * factor for factor in CLIPS_TRIED]
        )

    return accuracy


def _record(
    task: Task, cell: Cell, everyone: Sequence[Trainer], z: float
) -> Callable[[int], float]:
    def accuracy(devices: int) -> float:
        mode = record(task.record, max(Z_MIN, z * as_of(devices, task.devices)))
        first = rate_of(task.name, "together", cell.epsilon)
        return max(
            float(
                np.mean(
                    [
                        lockstep.together(
                            everyone,
                            cell.rounds,
                            mode,
                            training(min(first * factor, 16.0)),
                            cell.seed + 1_000 * again,
                        )
                        for again in range(SEEDS)
                    ]
                )
            )
            for factor in RATES_TRIED
        )

    return accuracy
