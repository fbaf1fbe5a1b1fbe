"""A simulated device that tells an attack's lies. It sees every honest model of its round.

The honest nodes are the ones that ship, so a lie is told as the protocol allows: one vector for all
as the result of training; another one for each asker, or one that an honest node would refuse to
publish, as further chains of signed heads. Colluders share one attack.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gossipfl.events import Commit, Effect, Event, StartTraining, TrainingFinished
from gossipfl.interfaces import Trainer
from gossipfl.parameters import Vector
from gossipfl.shelf import Served
from gossipfl.work import local_step
from sim.adversaries import Adversary, Withheld
from sim.attacks.base import Attack, Sight
from sim.attacks.faces import Faces
from sim.attacks.poisons import poisoned
from sim.forgery import forged

if TYPE_CHECKING:
    from sim.device import SimDevice
    from sim.world import World


class Conspiracy:
    """All liars of one world with one attack, and what they know of the honest devices."""

    def __init__(self, attack: Attack) -> None:
        self.attack = attack
        self.liars: list[Liar] = []
        self.round = 0  # of the liar that is furthest
        self._key: tuple[int, ...] = ()
        self._sight: Sight | None = None

    def sight(self, world: World, own: Vector, base: Vector, round_: int) -> Sight | None:
        """The newest honest models; None before there are any."""
        seen = [d for d in world.devices if d.honest and d.last_step is not None]
        steps = [d.last_step for d in seen if d.last_step is not None]
        if not steps:
            return None
        self.round = max(self.round, round_)
        key = tuple(id(step) for step in steps)
        if self._sight is None or key != self._key or self._sight.round != self.round:
            self._key = key
            self._sight = Sight(
                honest=np.stack([trained for _, trained in steps]),
                before=np.mean([start for start, _ in steps], axis=0, dtype=np.float32),
                own=own,
                base=base,
                round=self.round,
                attackers=len(self.liars),
                who=tuple(d.index for d in seen),
            )
            self._steps = steps  # so that no other object gets one of their ids
        return self._sight


class Liar(Adversary):
    def __init__(self, conspiracy: Conspiracy, since_s: float = 0.0) -> None:
        """Honest until virtual second `since_s`."""
        self._conspiracy = conspiracy
        self._attack = conspiracy.attack
        self._since_s = since_s
        self.number = len(conspiracy.liars)
        conspiracy.liars.append(self)
        self._trainer: Trainer | None = None
        self._faces: Faces | None = None
        self._own: tuple[Vector, Vector] | None = None  # base and model of its own last training
        self._round = 0

    @property
    def _lies(self) -> bool:
        return self.world.now >= self._since_s

    @property
    def _forks(self) -> bool:
        return self._attack.per_victim or self._attack.is_forged

    def train(self, device: SimDevice, effect: StartTraining) -> Event:
        self._round += 1
        if not self._lies:
            return super().train(device, effect)
        attack = self._attack
        own = effect.base
        if attack.needs_own or self._forks or not self._knows_any():
            if self._trainer is None:
                self._trainer = poisoned(device.trainer, attack)
            answer = local_step(effect, self._trainer, device.random.randbytes)
            if not isinstance(answer, TrainingFinished):
                return answer
            own = answer.model.vector
        self._own = (effect.base, own)
        if self._forks:
            return TrainingFinished(effect.job, forged(effect.protection, own))
        lie = self._tell(None)
        said = own if lie is None else lie
        return TrainingFinished(effect.job, forged(effect.protection, said))

    def _knows_any(self) -> bool:
        return any(d.honest and d.last_step is not None for d in self.world.devices)

    def _tell(self, asker: int | None) -> Vector | None:
        """What it publishes, or what it shows this asker; None: its own model."""
        if self._own is None:
            return None
        base, own = self._own
        sight = self._conspiracy.sight(self.world, own, base, self._round)
        if sight is None:
            return None
        victim = sight.who.index(asker) if asker in sight.who else None
        if self._attack.needs_own:  # the shared sight has the first speaker's
            sight = sight.of(own, base)
        return self._attack.vector(sight.at(self.number, victim))

    def effects(self, device: SimDevice, effects: list[Effect]) -> list[Effect]:
        if not self._forks:
            return effects
        if self._faces is None:
            self._faces = Faces(device.keys.signer, lambda face, round_: self._tell(face))
        for effect in effects:
            if isinstance(effect, Commit) and effect.batch.head is not None:
                self._faces.published(effect.batch.head)
        return effects

    def serve_head(
        self, device: SimDevice, asker: SimDevice, which: bytes | None, served: Served | None
    ) -> Served | None:
        if not self._lies:
            return served
        if not self._attack.answers(asker.index):
            raise Withheld
        if served is None or self._faces is None or which not in (None, device.device):
            return served
        return self._faces.shown(served, self._attack.face(asker.index))

    def serve_object(
        self, device: SimDevice, asker: SimDevice, name: bytes, data: bytes | None
    ) -> bytes | None:
        if self._lies and not self._attack.answers(asker.index):
            raise Withheld
        forged = None if self._faces is None else self._faces.object(name)
        return data if forged is None else forged


def corrupt(
    world: World, devices: Sequence[SimDevice], attack: Attack, since_s: float = 0.0
) -> Conspiracy:
    """From virtual second `since_s` on these devices lie, in concert."""
    conspiracy = Conspiracy(attack)
    for device in devices:
        world.corrupt(device, Liar(conspiracy, since_s))
    return conspiracy
