"""Builds a ready world: a fleet of learners on split data, a policy, all checkers watching."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from msgspec import structs

from gossipfl.events import BundleGiven, Notice, PolicyReceived
from gossipfl.groups.schedule import ATTEMPT_STEPS, COLLECT_STEPS
from gossipfl.identity import device_name
from gossipfl.interfaces import Trainer
from gossipfl.messages import Privacy, Sums, Training
from gossipfl.parameters import Vector
from gossipfl.view import View
from sim.checkers import Checker, LedgerGoesOn, MergesFresh, RoundsEnd, Tally, all_checkers
from sim.data import Split, blobs, digits, split_dirichlet, split_iid, split_mixed
from sim.device import SimDevice
from sim.fleet import Fleet, Job
from sim.learners import Learner, Mlp, Model, Softmax
from sim.options import Options, describe
from sim.world import World

EXAMPLES = 100  # what a trainer of another kind is charged for, in examples


@dataclass(frozen=True, slots=True)
class Grouping:
    """A policy's group sums, of all devices of the fleet."""

    size: int = 4
    train_s: int = 6
    step_s: int = 2
    attempts: int = 2
    beside: Privacy | None = None  # noise that each device adds before

    @property
    def window_s(self) -> int:
        return self.train_s + (self.attempts * ATTEMPT_STEPS + COLLECT_STEPS) * self.step_s

    def privacy(self, devices: list[bytes]) -> Privacy:
        times = (self.train_s, self.step_s, self.attempts)
        noise = self.beside is not None
        sums = Sums(sorted(devices), self.size, *times, noise=noise)
        return structs.replace(self.beside or Privacy(), mode="group-sum", sums=sums)


@dataclass(frozen=True, slots=True)
class Setup:
    """Who learns what. Goes into the options' note, so that a failure prints it."""

    devices: int = 8
    data: Literal["blobs", "digits"] = "blobs"
    model: Literal["softmax", "mlp"] = "softmax"
    alpha: float | None = None  # Dirichlet skew; None: IID
    attackers: int = 0  # as the policy assumes
    rule: str = "nna"
    training: Training = field(default_factory=lambda: Training(learning_rate=0.05, momentum=0.9))
    scale: float = 1.0  # inputs times this; digits are 0 to 1 before
    guard: bool = True  # the catastrophe guard; off for an undefended run
    examples: int | None = None  # per device, drawn for each from all; None: they are dealt out
    poison: tuple[tuple[int, Callable[[Trainer], Trainer]], ...] = ()  # by device index
    policy: dict[str, Any] = field(default_factory=dict)
    sums: Grouping | None = None  # group sums, of all devices


class Scene:
    """A world with one fleet in it and helpers that tests read well with."""

    def __init__(
        self,
        seed: int,
        setup: Setup | None = None,
        options: Options | None = None,
        checkers: Sequence[Checker] | None = None,
        trainers: Sequence[Trainer] | None = None,
    ) -> None:
        """`trainers`: one per device, instead of what `setup` says of data and model."""
        self.setup = setup or Setup()
        options = options or Options()
        options.note["setup"] = describe(self.setup)
        self.tally = Tally()
        watching = all_checkers() if checkers is None else checkers
        self.world = World(seed, options, [*watching, self.tally])
        self.fleet = Fleet(seed)
        if trainers is None:
            trainers = self._learners(seed)
        elif len(trainers) != self.setup.devices:
            raise ValueError(f"{len(trainers)} trainers for {self.setup.devices} devices")
        settings = replace(options.settings, guard=options.settings.guard and self.setup.guard)
        self.job: Job = self.fleet.job(self.setup.data, trainers[0].layout)
        poison = dict(self.setup.poison)
        for index, trainer in enumerate(trainers):
            data = getattr(trainer, "data", None)
            examples = len(data.train) if isinstance(data, Split) else EXAMPLES
            keys = self.fleet.admit()
            self.world.add(
                self.fleet,
                keys,
                self.job,
                poison[index](trainer) if index in poison else trainer,
                examples=examples,
                settings=settings,
            )
        more = dict(self.setup.policy)
        if self.setup.sums is not None:
            for checker in watching:
                if isinstance(checker, RoundsEnd | MergesFresh):
                    checker.window_s = self.setup.sums.window_s
                if isinstance(checker, LedgerGoesOn):
                    checker.of_sums = self.setup.sums.beside is not None
            more["privacy"] = self.setup.sums.privacy([d.device for d in self.world.devices])
        self.policy = self.fleet.policy(
            self.job,
            n=self.setup.devices,
            attackers=self.setup.attackers,
            rule=self.setup.rule,
            training=self.setup.training,
            **more,
        )

    def _learners(self, seed: int) -> list[Trainer]:
        setup = self.setup
        split = (digits() if setup.data == "digits" else blobs()).scaled(setup.scale)
        features, classes = split.train.x.shape[1], split.train.classes
        model: Model = Softmax(features, classes)
        if setup.model == "mlp":
            model = Mlp(features, 128, classes)
        if setup.examples is not None:
            alpha = 100.0 if setup.alpha is None else setup.alpha
            parts = split_mixed(split.train, setup.devices, setup.examples, alpha, seed)
        elif setup.alpha is None:
            parts = split_iid(split.train, setup.devices, seed)
        else:
            parts = split_dirichlet(split.train, setup.devices, setup.alpha, seed)
        return [Learner(model, Split(part, split.test)) for part in parts]

    # --- who --------------------------------------------------------------------------------

    @property
    def devices(self) -> list[SimDevice]:
        return self.world.devices

    def honest(self) -> list[SimDevice]:
        """Neither an adversary nor a poisoned trainer."""
        poisoned = {index for index, _ in self.setup.poison}
        return [d for d in self.devices if d.honest and d.index not in poisoned]

    # --- what happens -----------------------------------------------------------------------

    def start(self, *, absent: Sequence[int] = (), told: Sequence[int] | None = None) -> Scene:
        """Boots all but `absent`. Devices in `told` (None: all) are handed policy and bundle; the
        others hear of both from peers."""
        for device in self.devices:
            if device.index not in absent:
                self.world.start(device)
                if told is None or device.index in told:
                    self.tell(device)
        return self

    def tell(self, device: SimDevice) -> None:
        self.world.deliver(device, PolicyReceived(self.policy))
        self.world.deliver(device, BundleGiven(self.job.data))

    def view(self, device: SimDevice) -> View:
        if device.node is None:
            raise ValueError(f"device {device.index} is down")
        return device.node.view()

    def base_round(self, device: SimDevice) -> int:
        """The round whose merge is the device's base; 0 while it is down or has merged nothing."""
        return device.node.base_round if device.node is not None else 0

    def run_rounds(self, rounds: int, limit_s: float, who: Sequence[SimDevice] = ()) -> float:
        """Until each of `who` (all honest ones that are up) has a base of `rounds` rounds later."""
        devices = list(who) or [d for d in self.honest() if d.up]
        goals = [(d, self.base_round(d) + rounds) for d in devices]
        return self.world.run_until(
            Every(self.world, lambda: all(self.base_round(d) >= goal for d, goal in goals)),
            limit_s,
        )

    @staticmethod
    def name(device: SimDevice) -> str:
        """Its full name, as views show it."""
        return device_name(device.device)

    # --- what came of it --------------------------------------------------------------------

    def base(self, device: SimDevice) -> Vector | None:
        return None if device.node is None else device.node.base

    def accuracy(self, device: SimDevice) -> float:
        """Of the device's base on its test set, which learners have in common; 0 without a base."""
        base = self.base(device)
        if base is None:
            return 0.0
        return device.trainer.evaluate(base).accuracy or 0.0

    def accuracies(self) -> list[float]:
        return [self.accuracy(d) for d in self.honest() if d.up]

    def consensus_distance(self) -> float:
        """Mean L2 distance of the honest bases to their mean."""
        bases = [b for d in self.honest() if (b := self.base(d)) is not None]
        centre = np.mean(bases, axis=0)
        return float(np.mean([np.linalg.norm(b - centre) for b in bases]))

    def notices(self, word: str) -> list[tuple[float, SimDevice, Notice]]:
        return [entry for entry in self.world.notices if word in entry[2].text]


class Every:
    """A costly condition looked at once per virtual tenth of a second."""

    def __init__(self, world: World, condition: Callable[[], bool]) -> None:
        self._world = world
        self._condition = condition
        self._next = -1.0

    def __call__(self) -> bool:
        if self._world.now < self._next:
            return False
        self._next = self._world.now + 0.1
        return self._condition()
