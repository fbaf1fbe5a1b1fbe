"""What privacy costs in accuracy: three jobs, both units, five budgets, with liars and without.

A file of results line by line, as `gossipfl sim matrix` has one: stop it whenever you like.
"""

from __future__ import annotations

import argparse
import gc
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

from gossipfl.errors import UserError
from sim.bench.report import Figures, progress
from sim.matrix.book import Lines

OUT = Path("privacy-utility.jsonl")
TASKS = "mnist,digits,vowels"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=OUT, help="file of results")
    parser.add_argument("--resume", action="store_true", help="go on with --out")
    parser.add_argument("--report", type=Path, help="write the page here")
    parser.add_argument("--tasks", default=TASKS, help="some of them, joined by commas")
    parser.add_argument("--seeds", type=int, default=2, metavar="N", help="seeds 1 to N")
    parser.add_argument(
        "--cells", type=int, metavar="N", help="at most so many now; 0: only report"
    )
    parser.add_argument("--tune", action="store_true", help="only choose learning rates")


def run(args: Namespace) -> Figures:
    """How many cells there are, and what learning together has over learning alone."""
    from sim.bench.utility.cells import Cell, cells, options
    from sim.bench.utility.page import page, summary

    names = tuple(args.tasks.split(","))
    if not set(names) <= set(TASKS.split(",")) or args.seeds < 1:
        raise UserError("GF100", "no such task, or no seed", f"--tasks {TASKS} --seeds 2")
    if args.tune:
        from sim.bench.utility.tune import tuned

        return dict(tuned(names))
    wanted = cells(names, tuple(range(1, args.seeds + 1)))
    book: Lines[Cell, Any] = Lines(args.out, options(), Cell, resume=args.resume)
    _play(book, [cell for cell in wanted if cell not in book.results][: args.cells])
    if args.report is not None:
        args.report.write_text(page(book.results, wanted), encoding="utf-8")
    ran = sum(cell in book.results for cell in wanted)
    return {"cells": len(wanted), "ran": ran, "file": str(args.out), **summary(book.results)}


def _play(book: Lines[Any, Any], left: list[Any]) -> None:
    from sim.bench.utility.play import play
    from sim.world import WorldError

    began = time.monotonic()
    for done, cell in enumerate(left, 1):
        try:
            result = play(cell)
        except WorldError as error:  # a broken invariant ends no table, and is shown in it
            result = {"failed": error.cause}
        book.add(cell, result)
        gc.collect()  # a world is full of cycles, and the next one needs the room
        told = result.get("failed") or result.get("mean") or f"{result.get('beats_alone')} devices"
        progress(f"{done} of {len(left)}, {time.monotonic() - began:.0f} s: {cell.words}: {told}")
