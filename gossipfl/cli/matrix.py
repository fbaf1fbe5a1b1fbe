"""`gossipfl sim matrix`: rules x attacks x noise x attackers x skew x seeds, resumable."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gossipfl.cli.output import Result, progress
from gossipfl.cli.soak import commit
from gossipfl.errors import Exit, UserError

if TYPE_CHECKING:
    from sim.matrix.book import Book
    from sim.matrix.cells import Axes, Cell, Options


def add_matrix(words: Any) -> None:
    many = words.add_parser("matrix", help="rules against attacks, in a table of many histories")
    axis = many.add_argument_group("which cells: lists, joined by commas")
    axis.add_argument("--rules", default="", metavar="NAMES", help="default: the product's")
    axis.add_argument("--attacks", default="", metavar="NAMES", help="of `sim attacks`; all")
    axis.add_argument("--noise", default="0,0.3,0.7,1.0", metavar="SHARES")
    axis.add_argument("--attackers", default="20,33", metavar="NUMBERS", help="who really lie")
    axis.add_argument("--alphas", default="1.0,0.1", metavar="NUMBERS", help="Dirichlet skew")
    axis.add_argument("--seeds", type=int, default=2, metavar="N")
    axis.add_argument("--first-seed", type=int, default=1, metavar="N")
    each = many.add_argument_group("what all cells share")
    each.add_argument("--devices", type=int, default=100, metavar="N")
    each.add_argument("--samples", type=int, default=40, metavar="N", help="per device")
    each.add_argument("--rounds", type=int, default=100, metavar="N")
    each.add_argument("--data", choices=("mnist", "digits"), default="mnist")
    each.add_argument("--hidden", type=int, default=32, metavar="N", help="of the MLP")
    each.add_argument("--assumed", type=int, default=None, metavar="N", help="default: a third")
    each.add_argument("--sample", type=int, default=None, metavar="S", help="default: the bound")
    each.add_argument("--learning-rate", type=float, default=0.2)
    each.add_argument("--no-reputation", action="store_true")
    how = many.add_argument_group("how")
    how.add_argument("--out", type=Path, default=Path("matrix.jsonl"), metavar="FILE.jsonl")
    how.add_argument("--resume", action="store_true", help="go on with FILE.jsonl")
    how.add_argument("--workers", type=int, default=1, metavar="N")
    how.add_argument("--engine", choices=("local", "ray"), default="local")
    how.add_argument("--address", default="", help="of the Ray cluster; else one is started here")
    how.add_argument("--cells", type=int, default=None, metavar="N", help="play no more than N now")
    how.add_argument("--report", type=Path, default=None, metavar="FILE.md", help="the tables")
    many.set_defaults(handler=matrix)


def matrix(args: Namespace) -> Result:
    """Plays the cells that the file lacks. Exit 1 if an invariant broke in one of all."""
    from sim.matrix.book import Book
    from sim.matrix.cells import cells
    from sim.matrix.report import report

    options, axes = _options(args), _axes(args)
    wanted = cells(axes)
    book = Book(args.out, options, resume=args.resume)
    left = [cell for cell in wanted if cell not in book.results]
    began = time.monotonic()
    for done, cell in enumerate(_play(args, book, left[: args.cells]), 1):
        said = book.results[cell]
        told = said.get("failed") or f"{100 * said['mean']:.1f} / {100 * said['worst']:.1f}"
        progress(
            args, f"{done} of {len(left)}, {time.monotonic() - began:.0f} s: {cell.words}: {told}"
        )
    if args.report is not None:
        args.report.write_text(report(options, book.results, wanted), encoding="utf-8")
    failed = {c.words: r["failed"] for c, r in book.results.items() if "failed" in r}
    ran = sum(cell in book.results for cell in wanted)
    data = {"cells": len(wanted), "ran": ran, "failed": failed, "file": str(args.out)}
    lines = [f"{ran} of {len(wanted)} cells are in {args.out}"]
    lines += [f"FAILED {name}: {why}" for name, why in failed.items()]
    return Result(data, "\n".join(lines), Exit.NO if failed else Exit.OK)


def _play(args: Namespace, book: Book, left: list[Cell]) -> Iterator[Cell]:
    from sim.matrix import engine

    code = commit()
    if args.engine == "ray":
        answers = engine.ray(left, book.options, max(1, args.workers), args.address)
    else:
        answers = engine.here(left, book.options, args.workers)
    for cell, result in answers:
        book.add(cell, {**result, "commit": code})
        yield cell


def _options(args: Namespace) -> Options:
    from sim.matrix.cells import Options

    assumed = args.devices // 3 if args.assumed is None else args.assumed
    if args.devices < 4 or not 0 <= assumed < args.devices or args.rounds < 1 or args.samples < 1:
        hint = "at least 4 devices, 1 round and 1 sample, and fewer attackers than devices"
        raise UserError("GF100", "these numbers make no fleet", hint)
    return Options(
        devices=args.devices,
        samples=args.samples,
        rounds=args.rounds,
        data=args.data,
        hidden=args.hidden,
        assumed=assumed,
        learning_rate=args.learning_rate,
        sample=args.sample,
        reputation=not args.no_reputation,
    )


def _axes(args: Namespace) -> Axes:
    from gossipfl.aggregation import RuleError, rule
    from gossipfl.fleet.documents import DEFAULT_RULE
    from sim.attacks import ATTACKS
    from sim.matrix.cells import Axes, unknown_attack

    try:
        axes = Axes(
            rules=tuple(args.rules.split(",")) if args.rules else (DEFAULT_RULE,),
            attacks=tuple(args.attacks.split(",")) if args.attacks else tuple(ATTACKS),
            noise=tuple(float(text) for text in args.noise.split(",")),
            attackers=tuple(int(text) for text in args.attackers.split(",")),
            alphas=tuple(float(text) for text in args.alphas.split(",")),
            seeds=tuple(range(args.first_seed, args.first_seed + args.seeds)),
        )
        for name in axes.rules:
            rule(name)
    except (RuleError, ValueError) as error:
        raise UserError("GF100", str(error), "lists are joined by commas, without spaces") from None
    wrong = unknown_attack(axes.attacks)
    if wrong is not None:
        raise UserError("GF100", f"no attack is called {wrong!r}", "`sim attacks` lists them")
    if not all(0 < count < args.devices for count in axes.attackers):
        raise UserError("GF100", "--attackers: some devices must be honest", "take fewer")
    if not (axes.seeds and all(alpha > 0 for alpha in axes.alphas)):
        raise UserError("GF100", "no seed, or a skew that is not above 0", "see --help")
    return axes
