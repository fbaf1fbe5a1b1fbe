"""Rounds without a network: every device trains from one mean, exactly once a round.

For choosing learning rates, for devices that train alone, and for fleets larger than a simulated
world holds: the mean of n noised changes is the mean change with 1 / sqrt(n) of the noise.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np

from gossipfl.interfaces import Trainer
from gossipfl.messages import Training
from gossipfl.parameters import Vector
from gossipfl.privacy import RecordPrivacy
from sim.bench.utility.tasks import Schedule


def training(rate: float, epochs: int = 1) -> Training:
    """No momentum: what it gains without noise it loses with it."""
    return Training(epochs=epochs, learning_rate=rate, momentum=0.0)


def record(how: Schedule, z: float) -> RecordPrivacy:
    return RecordPrivacy(how.clip, z, how.sample_rate, how.steps, how.lot)


def published(
    trainer: Trainer, base: Vector, mode: RecordPrivacy | None, how: Training, seed: int
) -> Vector:
    """What one device has after one round; mode None: without privacy."""
    if mode is None:
        return trainer.train(base, how, seed)
    key = hashlib.sha256(f"lockstep {seed}".encode()).digest()
    return np.asarray(trainer.train_private(base, how, mode, key).vector)


def alone(
    trainer: Trainer, rounds: int, mode: RecordPrivacy | None, how: Training, seed: int
) -> float:
    """Accuracy of a device that starts each round from its own last model."""
    model = trainer.initial
    for number in range(rounds):
        model = published(trainer, model, mode, how, seed * 1_000_003 + number)
    return accuracy(trainer, model)


def together(
    everyone: Sequence[Trainer],
    rounds: int,
    mode: RecordPrivacy | None,
    how: Training,
    seed: int,
) -> float:
    """Accuracy of the mean model after so many rounds."""
    base = everyone[0].initial
    for number in range(rounds):
        found = [
            published(trainer, base, mode, how, (seed * 1_009 + index) * 1_000_003 + number)
            for index, trainer in enumerate(everyone)
        ]
        base = np.mean(found, axis=0, dtype=np.float32)
    return accuracy(everyone[0], base)


def clipped_rounds(
    everyone: Sequence[Trainer],
    rounds: int,
    how: Training,
    clip: float,
    deviation: float,
    seed: int,
) -> float:
    """unit = device: changes clipped to `clip`, and the mean's noise, of that deviation."""
    rng = np.random.default_rng(seed)
    base = everyone[0].initial
    for number in range(rounds):
        changes = []
        for index, trainer in enumerate(everyone):
            change = trainer.train(base, how, (seed * 1_009 + index) * 1_000_003 + number) - base
            changes.append(change * min(1.0, clip / max(float(np.linalg.norm(change)), 1e-12)))
        noise = rng.normal(0.0, deviation, len(base))
        base = (base + np.mean(changes, axis=0) + noise).astype(np.float32)
    return accuracy(everyone[0], base)


def accuracy(trainer: Trainer, model: Vector) -> float:
    return trainer.evaluate(model).accuracy or 0.0


def as_of(devices: int, there: int) -> float:
    """The factor on the noise of each of `there` devices that makes their mean one of `devices`."""
    return math.sqrt(there / devices)
