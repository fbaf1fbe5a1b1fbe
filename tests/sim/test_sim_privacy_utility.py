"""The table of privacy against accuracy: cells keep their budget, files go on, words are true."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gossipfl.errors import UserError
from sim.bench.utility import play as playing
from sim.bench.utility import tasks
from sim.bench.utility.breakeven import _least
from sim.bench.utility.cells import EPSILONS, Cell, Options, cells, options
from sim.bench.utility.page import page, summary
from sim.bench.utility.play import play
from sim.bench.utility.rates import rate_of
from sim.bench.utility.tasks import DIGITS, MNIST, TASKS
from sim.bench.utility.words import sentence
from sim.matrix.book import Lines

NAMES = tuple(TASKS)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four devices, two rounds."""
    pytest.importorskip("sklearn")
    pytest.importorskip("onnxruntime")
    how = msgspec.structs.replace(DIGITS.record, rounds=2)
    by_device = msgspec.structs.replace(DIGITS.device, rounds=2)
    tiny = replace(DIGITS, devices=4, liars=1, record=how, device=by_device)
    monkeypatch.setattr(tasks, "DIGITS", tiny)
    monkeypatch.setitem(TASKS, "digits", tiny)
    assert playing.TASKS["digits"].devices == 4


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("row", "unit"),
    [("together", "record"), ("attacked", "record"), ("together", "device")],
)
def test_a_fleets_cell_spends_its_budget_and_no_more(row: Any, unit: Any) -> None:
    found = play(Cell("digits", row, unit, 2.0))
    assert found["releases"] == 2
    assert 1.9 < found["spent"] <= 2.0, "the least noise that fits, for as many rounds"
    assert 0.0 <= found["worst"] <= found["mean"] <= 1.0


@pytest.mark.usefixtures("small")
def test_without_privacy_nothing_is_entered_and_a_fleet_learns() -> None:
    found = play(Cell("digits", "together"))
    assert (found["releases"], found["spent"], found["z"]) == (0, None, None)
    assert found["mean"] > 0.5


def test_alone_learns_less_the_smaller_epsilon_is() -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("onnxruntime")
    free = play(Cell("digits", "alone"))["mean"]
    high = play(Cell("digits", "alone", "record", 8.0))["mean"]
    low = play(Cell("digits", "alone", "record", 1.0))["mean"]
    assert free > high + 0.1 > low + 0.2


def test_every_cell_has_a_learning_rate_and_no_cell_comes_twice() -> None:
    wanted = cells(NAMES, (1, 2))
    assert len(set(wanted)) == len(wanted)
    for cell in wanted:
        assert rate_of(cell.task, cell.row, cell.epsilon) > 0.0
    assert {c.epsilon for c in wanted} == {None, *EPSILONS}


def test_a_file_goes_on_and_one_of_other_settings_is_refused(tmp_path: Path) -> None:
    file, cell = tmp_path / "u.jsonl", Cell("mnist", "together", "record", 8.0)
    book: Lines[Cell, Options] = Lines(file, options(), Cell, resume=False)
    book.add(cell, {"mean": 0.9, "worst": 0.8})
    again: Lines[Cell, Options] = Lines(file, options(), Cell, resume=True)
    assert again.results == {cell: {"mean": 0.9, "worst": 0.8}}
    other = msgspec.structs.replace(options(), delta=1e-6)
    with pytest.raises(UserError, match="delta"):
        Lines(file, other, Cell, resume=True)


def test_sentences_say_where_it_is_useless_does_not_pay_and_pays() -> None:
    assert "**useless**: 30 %" in sentence(1.0, MNIST, 30.0, 90.0, 84.0)
    assert "has 84 %" in sentence(1.0, MNIST, 30.0, 90.0, 84.0)
    assert "**does not pay**: 75 %" in sentence(1.0, MNIST, 75.0, 90.0, 84.0)
    assert "**breaks even**: 84.5 % against 84.0 %" in sentence(4.0, MNIST, 84.5, 90.0, 84.0)
    assert "costs little (3.0 points)" in sentence(8.0, MNIST, 87.0, 90.0, 84.0)
    assert "costs 10 points" in sentence(4.0, DIGITS, 80.0, 90.0, 70.0)


def test_the_least_fleet_is_found_among_powers_of_two() -> None:
    asked: list[int] = []

    def accuracy(devices: int) -> float:
        asked.append(devices)
        return min(0.9, devices / 10_000)

    assert _least(accuracy, 10, 0.5) == 5_120
    assert len(asked) < 10
    assert _least(accuracy, 10, 0.95) is None
    assert _least(accuracy, 10, 0.0001) == 10


def test_the_page_shows_figures_gaps_and_failures() -> None:
    even = {"beats_alone": 10, "is_near": None, "goals": [0.8, 0.85], "reached": 0.8, "z": 1.0}
    results: dict[Cell, dict[str, Any]] = {
        Cell("mnist", "together"): {"mean": 0.9, "worst": 0.88},
        Cell("mnist", "alone"): {"mean": 0.8, "worst": 0.7},
        Cell("mnist", "together", "record", 8.0): {"mean": 0.87, "worst": 0.86},
        Cell("mnist", "together", "record", 8.0, seed=2): {"mean": 0.85, "worst": 0.82},
        Cell("mnist", "alone", "record", 8.0): {"mean": 0.7, "worst": 0.6},
        Cell("mnist", "attacked", "record", 8.0): {"failed": "a round has lasted 9 s"},
        Cell("mnist", "break-even", "record", 8.0, 20): even,
    }
    text = page(results, cells(("mnist",), (1,)))
    row = next(line for line in text.splitlines() if line.startswith("| epsilon 8"))
    assert "| 86.0 / 82.0 | FAILED: a round has lasted 9 s | 70.0 / 60.0 |" in row
    assert "these 10 / never" in row
    assert "epsilon 8: **pays**: 86 % against 80 %" in text
    assert "not run" in text
    assert summary(results) == {"points_over_alone": {"mnist_8": 16.0}}
