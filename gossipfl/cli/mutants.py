"""`gossipfl sim mutants`: known bugs are put back into the node; random histories must find them.

Exit 1 if one survives: then an invariant that should have seen it is asleep.
"""

from __future__ import annotations

import time
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from gossipfl.cli.output import Result, palette, progress
from gossipfl.errors import Exit, UserError

if TYPE_CHECKING:
    from sim.mutants import Caught

SEEDS = 500  # design: every mutant is found within so many


def add_mutants(words: Any) -> None:
    verb = words.add_parser("mutants", help="put known bugs back: random histories must find them")
    verb.add_argument("--seeds", type=int, default=SEEDS, help="histories tried for each at most")
    verb.add_argument("--first-seed", type=int, default=1)
    verb.add_argument("--only", action="append", default=[], metavar="NAME", help="this one only")
    verb.add_argument(
        "--quick", action="store_true", help="begin with seeds that are known to find"
    )
    verb.add_argument("--workers", type=int, default=1, help="processes to spread them over")
    verb.set_defaults(handler=mutants)


def mutants(args: Namespace) -> Result:
    """Hunts each mutant. Exit 1 if one survives all its seeds."""
    from sim.mutants import MUTANTS, Hunt, hunt
    from sim.workers import in_order

    names = [mutant.name for mutant in MUTANTS]
    unknown = sorted(set(args.only) - set(names))
    if unknown:
        hint = f"known are {', '.join(names)}"
        raise UserError("GF100", f"there is no mutant {unknown[0]!r}", hint)
    wanted = [name for name in names if not args.only or name in args.only]
    started = time.monotonic()
    hunts = [Hunt(name, args.seeds, args.first_seed, args.quick) for name in wanted]
    caught = []
    for found in in_order(hunt, hunts, args.workers):
        progress(args, _line(found))
        caught.append(found)
    survivors = [found.name for found in caught if found.failure is None]
    data = {
        "mutants": [_data(found) for found in caught],
        "survivors": survivors,
        "seconds": round(time.monotonic() - started, 1),
    }
    paint = palette(args).paint
    lines = []
    for found in caught:
        lines.append(_line(found) if found.failure else paint(_line(found), "red"))
        if found.failure is not None:
            lines += [f"    {found.failure.cause}", f"    again: {_again(found)}"]
    lines.append(f"{len(caught) - len(survivors)} of {len(caught)} found, {data['seconds']} s")
    return Result(data, "\n".join(lines), Exit.NO if survivors else Exit.OK)


def _again(found: Caught) -> str:
    seed = found.failure.seed if found.failure else 1
    return f"gossipfl sim mutants --only {found.name} --seeds 1 --first-seed {seed}"


def _line(found: Caught) -> str:
    if found.failure is None:
        return f"{found.name}: SURVIVES {found.tried} seeds ({found.bug})"
    return (
        f"{found.name}: seed {found.failure.seed}, by {found.failure.checker}, after {found.tried} "
        f"tried ({found.bug})"
    )


def _data(found: Caught) -> dict[str, Any]:
    row: dict[str, Any] = {"name": found.name, "bug": found.bug, "tried": found.tried}
    if found.failure is not None:
        row |= {
            "seed": found.failure.seed,
            "checker": found.failure.checker,
            "cause": found.failure.cause,
            "again": _again(found),
        }
    return row
