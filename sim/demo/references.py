"""What the fleet's figures are compared with: the same fleet without a defence.

It is computed in this process, with the bundle, shards, liar and training settings of the demo and
the very trainer that the agents run. It is the same job in lock-step: each round all devices train
from their base, publish, and take the plain mean of all published models, the liar's included. No
rule drops anybody and nobody is quarantined. (What a device reaches alone, each agent measures
itself.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gossipfl.aggregation import RuleError, merge_step
from gossipfl.interfaces import Trainer
from gossipfl.messages import Training
from gossipfl.parameters import Vector
from sim.attacks import Attack, Sight

HOW = (
    "computed in the demo's own process: same bundle, shards, liar, rounds and trainer; "
    "lock-step rounds, plain mean of all published models, no reputation"
)


@dataclass(frozen=True, slots=True)
class Accuracies:
    """Share of right answers on the common test split, over honest devices."""

    mean: float
    worst: float


def summarise(values: Sequence[float]) -> Accuracies:
    """Mean and worst; of nothing, zero: a fleet that never measured has not converged."""
    if not values:
        return Accuracies(0.0, 0.0)
    return Accuracies(float(np.mean(values)), float(min(values)))


def undefended(
    honest: Sequence[Trainer],
    liars: Sequence[Trainer],
    training: Training,
    rounds: int,
    seed: int,
    lie: Attack,
) -> Accuracies:
    """The same job with plain mean and nobody shut out. All are told the same lie: the mean of
    the same models is the same everywhere, so one base stands for all."""
    base = honest[0].initial
    for number in range(rounds):
        published = [t.train(base, training, seed + number) for t in honest]
        seen = Sight(np.stack(published), base, base, base, number, attackers=len(liars))
        for index, trainer in enumerate(liars):
            own = trainer.train(base, training, seed + number)
            told = lie.vector(seen.of(own, base).at(index))
            published += [] if told is None else [told]
        try:
            base = merge_step("mean", published[0], published[1:], 0).parameters
        except RuleError:
            # What is no number ruins every model that it is averaged into.
            return Accuracies(0.0, 0.0)
    return summarise([_accuracy(trainer, base) for trainer in honest])


def _accuracy(trainer: Trainer, model: Vector) -> float:
    measured = trainer.evaluate(model).accuracy
    if measured is None:
        raise ValueError("the demo's job is a classification: it has an accuracy")
    return measured
