"""The matrix: which cells, a file that outlives a power cut, tables that hide nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gossipfl.cli.main import run
from gossipfl.errors import UserError
from sim.matrix.book import Book, read
from sim.matrix.cells import Axes, Cell, Options, cells
from sim.matrix.engine import here
from sim.matrix.report import report

TINY = Options(devices=6, samples=20, rounds=2, data="digits", hidden=8, assumed=1)
CLEAN, ALONE = Cell("clean", "nna"), Cell("alone", "none")
FOE = Cell("attack", "nna", "foe", 0.0, 2)


def tiny(folder: Path, *more: str) -> list[str]:
    return [
        *("sim", "matrix", "--devices", "6", "--samples", "20", "--rounds", "2"),
        *("--data", "digits", "--hidden", "8", "--assumed", "1", "--attackers", "1"),
        *("--attacks", "foe", "--noise", "0,0.3", "--alphas", "1.0", "--seeds", "1"),
        *("--out", str(folder / "m.jsonl"), *more),
    ]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# --- which cells ---------------------------------------------------------------------------------


def test_what_tells_most_comes_first() -> None:
    order = cells(Axes(("nna",), ("gaussian", "foe", "nan"), (0.0, 0.3, 1.0)))
    places = {cell: place for place, cell in enumerate(order)}
    assert [cell.row for cell in order[:4]] == ["clean", "alone", "undefended", "undefended"]
    hardest = Cell("attack", "nna", "foe", 0.0, 33, 1.0, 1)
    assert places[hardest] < places[Cell("attack", "nna", "foe", 0.0, 20, 1.0, 1)]
    assert places[hardest] < places[Cell("attack", "nna", "foe", 0.0, 33, 0.1, 1)]
    assert (
        places[Cell("attack", "nna", "foe", 0.3, 20, 0.1, 1)]
        < places[Cell("attack", "nna", "gaussian", 0.0, 33, 1.0, 1)]
    )
    assert {cell.seed for cell in order[: len(order) // 2]} == {1}
    assert len(set(order)) == len(order)
    assert {cell.noise for cell in order if cell.attack == "nan"} == {0.0}


# --- playing -------------------------------------------------------------------------------------


def test_a_file_is_gone_on_with_and_a_torn_line_is_played_again(tmp_path: Path) -> None:
    file = tmp_path / "m.jsonl"
    assert run(tiny(tmp_path, "--cells", "2")) == 0
    first = lines(file)
    assert [row["cell"]["row"] for row in first[1:]] == ["clean", "alone"]
    file.write_bytes(file.read_bytes() + b'{"cell":{"row":"atta')
    assert run(tiny(tmp_path, "--resume", "--report", str(tmp_path / "m.md"))) == 0
    both = lines(file)
    assert both[: len(first)] == first, "what is there is not played again"
    assert [row["cell"]["row"] for row in both[3:]] == ["undefended", "attack", "attack"]
    assert "5 of 5 cells have run" in (tmp_path / "m.md").read_text()


def test_another_matrix_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tiny(tmp_path, "--cells", "1")) == 0
    assert run(tiny(tmp_path)) == 2
    assert "--resume goes on with it" in capsys.readouterr().err
    assert run([*tiny(tmp_path, "--resume"), "--rounds", "3"]) == 2
    assert "rounds: 2 there, 3 here" in capsys.readouterr().err
    assert len(lines(tmp_path / "m.jsonl")) == 2
    (tmp_path / "m.jsonl").write_text("no json\n")
    with pytest.raises(UserError, match="is no file of results"):
        read(tmp_path / "m.jsonl")


def test_processes_and_their_number_change_nothing() -> None:
    def figures(workers: int) -> dict[Cell, Any]:
        found = dict(here([CLEAN, ALONE, FOE], TINY, workers))
        return {cell: {**row, "seconds": 0} for cell, row in found.items()}

    alone = figures(1)
    assert alone == figures(2)
    assert set(alone) == {CLEAN, ALONE, FOE}
    assert alone[FOE]["pairs"] == 4 * 2, "four honest devices know two liars each"


def test_a_ray_cluster_gives_the_same(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    assert run(tiny(tmp_path, "--workers", "2", "--engine", "ray")) == 0
    spread = lines(tmp_path / "m.jsonl")
    (tmp_path / "m.jsonl").unlink()
    assert run(tiny(tmp_path)) == 0
    plain = lines(tmp_path / "m.jsonl")

    def means(rows: list[dict[str, Any]]) -> list[Any]:
        return sorted((str(row["cell"]), row["mean"], row.get("trace")) for row in rows[1:])

    assert means(spread) == means(plain)


# --- the tables ----------------------------------------------------------------------------------


def test_misses_failures_and_gaps_are_shown(tmp_path: Path) -> None:
    book = Book(tmp_path / "m.jsonl", Options(), resume=False)
    book.add(CLEAN, {"mean": 0.88, "worst": 0.86})
    book.add(ALONE, {"mean": 0.5, "worst": 0.3})
    good = Cell("attack", "nna", "foe", 0.0, 20)
    bad = Cell("attack", "nna", "foe", 0.3, 20)
    broken = Cell("attack", "nna", "alie", 0.0, 20)
    never = Cell("attack", "nna", "alie", 0.3, 20)
    book.add(good, {"mean": 0.87, "worst": 0.83, "influence": 0.0})
    book.add(bad, {"mean": 0.85, "worst": 0.79, "influence": 0.25})
    book.add(broken, {"failed": "a round has lasted 9 s"})
    page = report(Options(), book.results, [CLEAN, ALONE, good, bad, broken, never])
    rows = {line.split(" |")[0]: line for line in page.splitlines() if line.startswith("| ")}
    assert "87.0 / 83.0, influence 0.0 % |" in rows["| foe"]
    assert "**missed**: mean by 1.0, worst by 3.0" in rows["| foe"]
    assert "FAILED: a round has lasted 9 s | not run" in rows["| alie"]
    assert "5 of 6 cells have run." in page
    assert "- Dirichlet 1, 20 attackers, attack alie: noise 0.3 (seed 1)" in page


def test_the_worst_of_all_seeds_counts_and_alone_is_a_floor(tmp_path: Path) -> None:
    book = Book(tmp_path / "m.jsonl", Options(), resume=False)
    for seed, worst in ((1, 0.86), (2, 0.80)):
        book.add(Cell("clean", "nna", seed=seed), {"mean": 0.88, "worst": worst})
        book.add(Cell("alone", "none", seed=seed), {"mean": 0.86, "worst": 0.3})
        book.add(Cell("attack", "nna", "foe", 0.0, 33, seed=seed), {"mean": 0.855, "worst": worst})
    page = report(Options(), book.results)
    assert "Clean: 88.0 / 80.0." in page
    assert "**missed**: below alone by 0.5" in page
