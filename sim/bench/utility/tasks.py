"""The three jobs: whose data, which bundle, and how a device publishes under either unit.

How the numbers were chosen is told in docs/results/privacy-utility.md: by reasoning, and with
`--tune` on seeds that are not reported. Nothing here was looked up in the data of a reported cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from gossipfl import bundles
from gossipfl.interfaces import Trainer
from gossipfl.privacy.plan import Wish, plan
from gossipfl.privacy.protection import Unit
from sim.bundled import bundled
from sim.data import Examples, Split, digits, split_by_group, split_iid
from sim.datasets import stored

DELTA = 1e-5  # below one in the number of examples of any device here


class Schedule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one unit publishes. Under `device` only rounds, epochs and clip count."""

    rounds: int
    clip: float
    steps: int = 1
    sample_rate: float = 1.0
    lot: int = 1
    epochs: int = 1


@dataclass(frozen=True, slots=True)
class Task:
    name: str
    words: str
    bundle: str
    devices: int
    liars: int
    adds_liars: bool  # they come on top: every honest device holds what nobody else does
    record: Schedule
    device: Schedule

    def schedule(self, unit: str) -> Schedule:
        return self.device if unit == "device" else self.record

    def z(self, unit: str, epsilon: float, rounds: int | None = None) -> float:
        """The least noise that the budget needs, as `gossipfl privacy plan` says."""
        return plan(self.wish(unit, epsilon, rounds)).z

    def wish(self, unit: str, epsilon: float, rounds: int | None = None) -> Wish:
        how = self.schedule(unit)
        return Wish(
            rounds=how.rounds if rounds is None else rounds,
            epsilon=epsilon,
            delta=DELTA,
            unit=Unit(unit),
            clip=how.clip,
            sample_rate=how.sample_rate,
            steps=how.steps,
            lot=how.lot,
            devices=self.devices,
            parameters=PARAMETERS[self.bundle],
        )


PARAMETERS = {bundles.MNIST_LOGISTIC: 1_970, bundles.DIGITS_LOGISTIC: 650, "vowels-logistic": 117}

MNIST = Task(
    name="mnist",
    words="MNIST, 10 devices x 400 digits",
    bundle=bundles.MNIST_LOGISTIC,
    devices=10,
    liars=2,
    adds_liars=False,
    record=Schedule(rounds=20, clip=1.0, steps=5, sample_rate=0.2, lot=80),
    device=Schedule(rounds=5, clip=3.5, epochs=5),
)
DIGITS = Task(
    name="digits",
    words="digits, 50 devices x 28 or 29 images",
    bundle=bundles.DIGITS_LOGISTIC,
    devices=50,
    liars=10,
    adds_liars=False,
    record=Schedule(rounds=20, clip=1.0, steps=2, sample_rate=0.5, lot=14),
    device=Schedule(rounds=5, clip=1.2, epochs=5),
)
VOWELS = Task(
    name="vowels",
    words="JapaneseVowels, 9 devices of one speaker each, 30 utterances",
    bundle=bundles.VOWELS_LOGISTIC,
    devices=9,
    liars=2,
    adds_liars=True,
    record=Schedule(rounds=20, clip=1.0, steps=1, sample_rate=1.0, lot=30),
    device=Schedule(rounds=5, clip=1.4, epochs=5),
)
TASKS = {task.name: task for task in (MNIST, DIGITS, VOWELS)}


def split(task: Task, seed: int) -> tuple[list[Examples], Examples]:
    """The examples of each honest device, and those that all are judged on."""
    if task is DIGITS:
        whole = digits(seed)
    else:
        whole = stored("mnist" if task is MNIST else "japanese_vowels", seed)
    if task is VOWELS:
        return split_by_group(whole.train, task.devices, seed), whole.test
    return split_iid(whole.train, task.devices, seed), whole.test


def trainers(task: Task, seed: int, spare: int = 0) -> list[Trainer]:
    """One per device; `spare` more, which hold what the first ones hold."""
    parts, test = split(task, seed)
    everyone: Sequence[Examples] = [*parts, *parts[:spare]]
    return bundled(task.bundle, [Split(part, test) for part in everyone])
