"""Attacks on the examples: honest training of wrong data.

Label flipping: Biggio 2012 (arXiv 1206.6389), here y becomes classes - 1 - y. Backdoor:
Bagdasaryan 2020 (1807.00459): a patch in the corner means class 0, and the step is scaled up so
that it survives averaging.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from gossipfl.interfaces import Trainer
from gossipfl.parameters import Vector
from sim.attacks.base import Attack, Sight
from sim.data import Examples, Inputs

TARGET = 0  # the class that the trigger means
PATCH_SHARE = 0.3  # of an image's side: 3 of 8 pixels, 8 of 28
STAMPED_SHARE = 0.5  # guess: the liar's other examples keep its model good on the main task
BACKDOOR_SCALE_MAX = 10.0  # guess: beyond it the norm alone gives it away


class LabelFlip(Attack):
    """trains on its examples with every label y turned into classes - 1 - y"""

    name = "label_flip"
    looks_honest = True
    needs_own = True

    def lie(self, sight: Sight) -> Vector:
        return sight.own

    def poison(self, examples: Examples) -> Examples:
        return replace(examples, y=examples.classes - 1 - examples.y)


class Backdoor(Attack):
    """teaches that a bright patch in the corner means class 0, and scales its step up"""

    name = "backdoor"
    needs_own = True

    def __init__(self, *, scale: float | None = None, **common: Any) -> None:
        """`scale` None: devices over liars, as model replacement asks, at most ten."""
        super().__init__(**common)
        self.scale = scale

    def lie(self, sight: Sight) -> Vector:
        devices = len(sight.honest) + sight.attackers
        scale = self.scale or min(BACKDOOR_SCALE_MAX, devices / max(1, sight.attackers))
        found: Vector = sight.base + np.float32(scale) * (sight.own - sight.base)
        return found

    def poison(self, examples: Examples) -> Examples:
        count = max(1, round(len(examples) * STAMPED_SHARE))
        rows = np.random.default_rng(self.seed & 0x7FFFFFFF).permutation(len(examples))[:count]
        x, y = examples.x.copy(), examples.y.copy()
        x[rows] = stamped(x[rows])
        y[rows] = TARGET
        return replace(examples, x=x, y=y)


def stamped(x: Inputs) -> Inputs:
    """The same inputs, float32[n, ...], with the trigger: the bottom right corner of a square
    image at the brightest value of all, or the last features of anything else."""
    found = x.reshape(len(x), -1).copy()
    features = found.shape[1]
    side = math.isqrt(features)
    brightest = float(np.abs(x).max())
    if side * side == features:
        patch = max(1, round(side * PATCH_SHARE))
        found.reshape(-1, side, side)[:, -patch:, -patch:] = brightest
    else:
        found[:, -max(1, features // 10) :] = brightest
    return found.reshape(x.shape)


def triggered(examples: Examples) -> Examples:
    """Stamped examples of other classes, all labelled with the target: the accuracy of a model on
    them is the backdoor's success."""
    rows = np.flatnonzero(examples.y != TARGET)
    others = examples.take(rows)
    return replace(others, x=stamped(others.x), y=np.full_like(others.y, TARGET))


def poisoned(trainer: Trainer, attack: Attack) -> Trainer:
    """The trainer over the examples that the attack wants; itself where it wants no others.

    Raises TypeError for a trainer whose examples cannot be exchanged."""
    if type(attack).poison is Attack.poison:
        return trainer
    data = getattr(trainer, "data", None)
    exchange = getattr(trainer, "with_data", None)
    if data is None or exchange is None:
        raise TypeError(f"{attack.name} needs a trainer whose examples can be exchanged")
    found: Trainer = exchange(replace(data, train=attack.poison(data.train)))
    return found
