"""The cells of the table, in the order in which they are played, and what all of them share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from sim.bench.utility.rates import RATES
from sim.bench.utility.tasks import DELTA, TASKS, Schedule

Row = Literal["together", "attacked", "undefended", "alone", "break-even"]
Unit = Literal["none", "record", "device"]
EPSILONS = (8.0, 4.0, 2.0, 1.0)
BREAK_EVEN_ROUNDS = (1, 5, 20)
RULE = "collapse+nna"
"""The rule that `policy issue` proposes."""


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What decides a cell's outcome beside the cell. Equal options, or another file."""

    delta: float
    rule: str
    attack: str
    record: dict[str, Schedule]
    device: dict[str, Schedule]
    rates: dict[str, float]


class Cell(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One history, or one question to the lockstep model (`break-even`)."""

    task: str
    row: Row
    unit: Unit = "none"
    epsilon: float | None = None
    rounds: int = 0  # break-even: publications; else the task's
    seed: int = 1

    @property
    def words(self) -> str:
        budget = "no privacy" if self.epsilon is None else f"epsilon {self.epsilon:g}"
        rounds = f", {self.rounds} rounds" if self.rounds else ""
        return f"{self.task} {self.row}, {self.unit}, {budget}{rounds}, seed {self.seed}"


def options() -> Options:
    return Options(
        delta=DELTA,
        rule=RULE,
        attack="foe",
        record={name: task.record for name, task in TASKS.items()},
        device={name: task.device for name, task in TASKS.items()},
        rates={" ".join(map(str, key)): rate for key, rate in RATES.items()},
    )


def cells(tasks: tuple[str, ...], seeds: tuple[int, ...]) -> list[Cell]:
    """One seed after the other; within it task by task. The lockstep model is asked once."""
    first, *further = seeds
    found = [cell for name in tasks for cell in _of(name, first)]
    found += [cell for name in tasks for cell in _questions(name, first)]
    return found + [cell for seed in further for name in tasks for cell in _of(name, seed)]


def _of(name: str, seed: int) -> Iterator[Cell]:
    for row in ("together", "attacked", "undefended", "alone"):
        yield Cell(name, row, seed=seed)
    for epsilon in EPSILONS:
        for row in ("together", "attacked", "alone"):
            yield Cell(name, row, "record", epsilon, seed=seed)  # type: ignore[arg-type]
    for epsilon in EPSILONS:
        yield Cell(name, "together", "device", epsilon, seed=seed)
        yield Cell(name, "attacked", "device", epsilon, seed=seed)


def _questions(name: str, seed: int) -> Iterator[Cell]:
    for epsilon in EPSILONS:
        yield Cell(name, "break-even", "record", epsilon, TASKS[name].record.rounds, seed)
        for rounds in BREAK_EVEN_ROUNDS:
            yield Cell(name, "break-even", "device", epsilon, rounds, seed)
