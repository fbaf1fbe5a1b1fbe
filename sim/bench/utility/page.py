"""The page: a table and plain sentences for each job, and what the figures rest on.

Accuracies are in percent: mean / worst honest device, the mean over seeds, the worst of all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gossipfl.privacy.plan import plan
from sim.bench.utility.cells import BREAK_EVEN_ROUNDS, EPSILONS, RULE, Cell, Row, Unit
from sim.bench.utility.rates import DEVICE_RATE
from sim.bench.utility.tasks import DELTA, TASKS, Task
from sim.bench.utility.words import HEAD, TAIL, sentence

Results = Mapping[Cell, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Figure:
    """Percent."""

    mean: float
    worst: float
    seeds: int
    failed: str = ""

    def __str__(self) -> str:
        return self.failed or f"{self.mean:.1f} / {self.worst:.1f}"


class Table:
    """One task's cells."""

    def __init__(self, results: Results, task: Task) -> None:
        self.task = task
        self._rows = {cell: row for cell, row in results.items() if cell.task == task.name}

    def of(self, row: Row, unit: Unit = "none", epsilon: float | None = None) -> Figure | None:
        """Over the seeds that are there."""
        found = [
            row_
            for cell, row_ in self._rows.items()
            if (cell.row, cell.unit, cell.epsilon) == (row, unit, epsilon)
        ]
        if not found:
            return None
        broken = [str(row_["failed"]) for row_ in found if "failed" in row_]
        if broken:
            return Figure(0.0, 0.0, len(found), f"FAILED: {broken[0]}")
        mean = sum(row_["mean"] for row_ in found) / len(found)
        return Figure(100 * mean, 100 * min(row_["worst"] for row_ in found), len(found))

    def even(self, unit: Unit, epsilon: float, rounds: int) -> Mapping[str, Any] | None:
        for cell, row in self._rows.items():
            if (cell.row, cell.unit, cell.epsilon, cell.rounds) == (
                "break-even",
                unit,
                epsilon,
                rounds,
            ):
                return row
        return None

    def spent(self, unit: Unit, epsilon: float) -> float:
        """The most that any ledger holds."""
        found = [
            row.get("spent") or 0.0
            for cell, row in self._rows.items()
            if (cell.unit, cell.epsilon) == (unit, epsilon)
        ]
        return max(found, default=0.0)


def page(results: Results, wanted: Sequence[Cell]) -> str:
    """The whole of it. `wanted` cells without a result are counted."""
    lines = [HEAD]
    for task in TASKS.values():
        table = Table(results, task)
        lines += [f"## {task.words}", "", *_setting(task), "", *_record(table)]
        lines += ["", *_device(table), ""]
    ran = sum(cell in results for cell in wanted)
    cpu = sum(row.get("cpu_s", 0.0) for row in results.values())
    lines += [TAIL.format(delta=f"{DELTA:g}", rule=RULE, rate=f"{DEVICE_RATE:g}")]
    lines += [f"{ran} of {len(wanted)} cells have run, in {cpu / 60:.0f} minutes of one core."]
    return "\n".join(lines) + "\n"


def _setting(task: Task) -> list[str]:
    how, by_device = task.record, task.device
    liars = f"{task.liars} of {task.devices} lie"
    if task.adds_liars:
        count = task.devices + task.liars
        liars = f"{task.liars} more that lie: {100 * task.liars / count:.0f} % of {count}"
    return [
        f"Bundle `{task.bundle}`; {how.rounds} rounds. `unit = record`: {how.steps} "
        f"step{'s' if how.steps > 1 else ''} a round, lot {how.lot}, clip {how.clip:g}. "
        f"`unit = device`: {by_device.rounds} rounds, clip {by_device.clip:g}. Liars: {liars}."
    ]


def _record(table: Table) -> list[str]:
    task = table.task
    lines = [
        "| `unit = record` | z | signal to noise | together | with liars | alone, same epsilon "
        "| devices: beat alone without noise / near the fleet without |",
        "|---|---|---|---|---|---|---|",
        f"| no privacy | | | {_cell(table.of('together'))} | {_cell(table.of('attacked'))} "
        f"| {_cell(table.of('alone'))} | |",
    ]
    for epsilon in EPSILONS:
        planned = plan(task.wish("record", epsilon))
        lines.append(
            f"| epsilon {epsilon:g} | {planned.z:g} | {planned.signal_to_noise:.1f} "
            f"| {_cell(table.of('together', 'record', epsilon))} "
            f"| {_cell(table.of('attacked', 'record', epsilon))} "
            f"| {_cell(table.of('alone', 'record', epsilon))} "
            f"| {_devices(table.even('record', epsilon, task.record.rounds), task)} |"
        )
    undefended = table.of("undefended")
    if undefended is not None:
        lines += ["", f"With liars, no privacy and the plain mean as rule: {undefended}."]
    free = table.of("together"), table.of("alone")
    told = [
        sentence(epsilon, task, _mean(found), _mean(free[0]), _mean(free[1]))
        for epsilon in EPSILONS
        if (found := table.of("together", "record", epsilon)) and all(free)
    ]
    return [*lines, "", *(f"- {text}" for text in told)]


def _device(table: Table) -> list[str]:
    task = table.task
    rounds = " | ".join(f"{count} rounds" for count in BREAK_EVEN_ROUNDS)
    rounds = rounds.replace("1 rounds", "1 round", 1)
    lines = [
        f"| `unit = device` | z | signal to noise | together | with liars | {rounds} |",
        "|---|---|---|---|---" + "|---" * len(BREAK_EVEN_ROUNDS) + "|",
    ]
    for epsilon in EPSILONS:
        planned = plan(task.wish("device", epsilon))
        evens = [_devices(table.even("device", epsilon, r), task) for r in BREAK_EVEN_ROUNDS]
        lines.append(
            f"| epsilon {epsilon:g} | {planned.z:g} | {planned.signal_to_noise:.2f} "
            f"| {_cell(table.of('together', 'device', epsilon))} "
            f"| {_cell(table.of('attacked', 'device', epsilon))} | {' | '.join(evens)} |"
        )
    text = (
        "The last columns are the break-even: how many devices, publishing so often, would be as "
        "good as one alone without noise / come within 5 points of the fleet without noise. The "
        "last column of the first table says the same."
    )
    told = [
        sentence(epsilon, task, _mean(found), _mean(free), _mean(table.of("alone")))
        for epsilon in EPSILONS
        if (found := table.of("together", "device", epsilon)) and (free := table.of("together"))
    ]
    return [*lines, "", text, "", *(f"- {line}" for line in told)]


def _mean(figure: Figure | None) -> float:
    return 0.0 if figure is None else figure.mean


def _cell(figure: Figure | None) -> str:
    return "not run" if figure is None else str(figure)


def _devices(found: Mapping[str, Any] | None, task: Task) -> str:
    if found is None:
        return "not run"
    if "failed" in found:
        return f"FAILED: {found['failed']}"

    def told(count: int | None) -> str:
        if count is None:
            return "never"
        return f"{count:,}" if count > task.devices else f"these {count}"

    return f"{told(found['beats_alone'])} / {told(found['is_near'])}"


def summary(results: Results) -> dict[str, Any]:
    """What learning together gains over learning alone at the same epsilon, in points."""
    gains = {}
    for task in TASKS.values():
        table = Table(results, task)
        for epsilon in EPSILONS:
            found = table.of("together", "record", epsilon), table.of("alone", "record", epsilon)
            if found[0] is not None and found[1] is not None:
                gains[f"{task.name}_{epsilon:g}"] = round(found[0].mean - found[1].mean, 1)
    return {"points_over_alone": gains}
