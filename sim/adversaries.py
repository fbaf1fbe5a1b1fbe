"""Liars. Each is an honest node with a poisoned trainer, or with its answers rewritten.

No attack code is in the product: a poisoned trainer sits behind the Trainer seam, and an
`Adversary` stands between a simulated node and the world, where it may know everything and lie
differently to each asker. Here are liars that break the protocol; what lies a model can tell is
in `sim.attacks`, and `sim.attacks.liar` is the adversary that tells them.

Inner product, "FOE" (Xie, Koyejo and Gupta 2019, arXiv 1903.03936): previous model minus
`strength` times the honest step; NaN; stale replay; equivocation by equal sequence
numbers; forks that show odd numbers to some and even ones to others; silence; flipped bits.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from gossipfl.events import Effect, Event, StartTraining, TrainingFinished
from gossipfl.interfaces import Evaluation, Trainer
from gossipfl.messages import Training
from gossipfl.objects import digest
from gossipfl.parameters import Layout, Vector
from gossipfl.privacy import Noised, RecordPrivacy
from gossipfl.shelf import Served
from gossipfl.work import local_step
from sim.forgery import as_noised, forged

if TYPE_CHECKING:
    from sim.device import SimDevice
    from sim.world import World

FOE_STRENGTH = 11.0
"""What the probe of the design used: one such liar among six honest turns a plain mean around."""
HEAD_BYTES = 4_096


# --- poisoned trainers: also for real agents ----------------------------------------------------


class PoisonedTrainer:
    """Delegates all but `train`, so that the liar's own status looks like anybody's."""

    def __init__(self, trainer: Trainer) -> None:
        self.honest = trainer

    @property
    def layout(self) -> Layout:
        return self.honest.layout

    @property
    def initial(self) -> Vector:
        return self.honest.initial

    def train(self, base: Vector, training: Training, seed: int) -> Vector:
        raise NotImplementedError

    def train_private(
        self, base: Vector, training: Training, mode: RecordPrivacy, key: bytes
    ) -> Noised:
        """A liar adds no noise to its lie."""
        return as_noised(mode, self.train(base, training, int.from_bytes(key[:4])))

    def evaluate(self, parameters: Vector) -> Evaluation:
        return self.honest.evaluate(parameters)

    def loss(self, parameters: Vector) -> float:
        return self.honest.loss(parameters)


class FoeTrainer(PoisonedTrainer):
    """base - strength * (trained - base): trains honestly, then walks the other way."""

    def __init__(self, trainer: Trainer, strength: float = FOE_STRENGTH) -> None:
        super().__init__(trainer)
        self.strength = strength

    def train(self, base: Vector, training: Training, seed: int) -> Vector:
        step = self.honest.train(base, training, seed) - base
        return (base - np.float32(self.strength) * step).astype(np.float32)


# --- adversaries of the simulated world ---------------------------------------------------------


class Withheld(Exception):
    """Raised instead of an answer: the asker hears nothing at all."""


class Adversary:
    """Honest in everything; attacks override single methods."""

    def bind(self, world: World) -> None:
        self.world = world

    def train(self, device: SimDevice, effect: StartTraining) -> Event:
        return local_step(effect, device.trainer, device.random.randbytes)

    def effects(self, device: SimDevice, effects: list[Effect]) -> list[Effect]:
        return effects

    def serve_head(
        self, device: SimDevice, asker: SimDevice, which: bytes | None, served: Served | None
    ) -> Served | None:
        """`which` None: its own head is asked for."""
        return served

    def serve_object(
        self, device: SimDevice, asker: SimDevice, name: bytes, data: bytes | None
    ) -> bytes | None:
        return data


class Foe(Adversary):
    """Omniscient inner product: honest mean before training - strength * honest mean step."""

    def __init__(self, strength: float = FOE_STRENGTH) -> None:
        self.strength = strength

    def train(self, device: SimDevice, effect: StartTraining) -> Event:
        steps = [d.last_step for d in self.world.devices if d.honest and d.last_step is not None]
        if not steps:
            return super().train(device, effect)
        before = np.mean([base for base, _ in steps], axis=0)
        after = np.mean([trained for _, trained in steps], axis=0)
        lie = before - self.strength * (after - before)
        return TrainingFinished(effect.job, forged(effect.protection, lie.astype(np.float32)))


class NotANumber(Adversary):
    """Publishes NaN past its own checks."""

    def train(self, device: SimDevice, effect: StartTraining) -> Event:
        nothing = np.full_like(effect.base, np.nan)
        return TrainingFinished(effect.job, forged(effect.protection, nothing))


class Silent(Adversary):
    """Trains and pulls like anybody, but answers nobody, or only askers with an even number."""

    def __init__(self, selective: bool = False) -> None:
        self.selective = selective

    def serve_head(
        self, device: SimDevice, asker: SimDevice, which: bytes | None, served: Served | None
    ) -> Served | None:
        if self.selective and asker.index % 2 == 0:
            return served
        raise Withheld

    def serve_object(
        self, device: SimDevice, asker: SimDevice, name: bytes, data: bytes | None
    ) -> bytes | None:
        if self.selective and asker.index % 2 == 0:
            return data
        raise Withheld


class StaleReplay(Adversary):
    """Serves its own head of `behind` heads ago, to odd askers after having shown the new one."""

    def __init__(self, behind: int = 3) -> None:
        self._past: deque[Served] = deque(maxlen=behind + 1)
        self._shown: set[tuple[int, bytes]] = set()

    def serve_head(
        self, device: SimDevice, asker: SimDevice, which: bytes | None, served: Served | None
    ) -> Served | None:
        if which is not None or served is None:
            return served
        if not self._past or self._past[-1].digest != served.digest:
            self._past.append(served)
        if asker.index % 2 == 1 and (asker.index, self._past[0].digest) in self._shown:
            return self._past[0]
        self._shown.add((asker.index, served.digest))
        return served


class BitFlipper(Adversary):
    """One random bit is wrong in everything that it serves, its own or others'."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(f"flip {seed}")
        self.flipped = 0

    def _flip(self, data: bytes) -> bytes:
        self.flipped += 1
        bit = self._random.randrange(len(data) * 8)
        wrong = bytearray(data)
        wrong[bit // 8] ^= 1 << (bit % 8)
        return bytes(wrong)

    def serve_head(
        self, device: SimDevice, asker: SimDevice, which: bytes | None, served: Served | None
    ) -> Served | None:
        if served is None:
            return None
        if served.update is not None and self._random.random() < 0.5:
            return replace(served, update=self._flip(served.update))
        envelope = self._flip(served.envelope)
        return replace(served, envelope=envelope, digest=digest(envelope))

    def serve_object(
        self, device: SimDevice, asker: SimDevice, name: bytes, data: bytes | None
    ) -> bytes | None:
        return self._flip(data) if data else data
