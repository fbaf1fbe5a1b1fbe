"""`gossipfl sim run`, `sim list` and `sim attacks`: scenarios as files, played in virtual time.

Exit 1 if an invariant broke or something expected did not come true: with the reason, the seed and
the options that show it again.
"""

from __future__ import annotations

import dataclasses
import os
import time
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gossipfl.cli.output import Result, palette
from gossipfl.errors import Exit, UserError

if TYPE_CHECKING:
    from sim.scenarios.play import Played


def add_scenarios(words: Any) -> None:
    one = words.add_parser("run", help="play a scenario: one that ships, or a file of your own")
    one.add_argument("scenario", metavar="NAME|FILE", help="a name of `sim list`, or a .toml file")
    one.add_argument("--seed", type=int, default=1, metavar="N")
    one.add_argument("--short", action="store_true", help="its quick form, with fewer rounds")
    one.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw it over virtual time")
    one.set_defaults(handler=run)
    names = words.add_parser("list", help="the scenarios that ship")
    names.set_defaults(handler=listed)
    lies = words.add_parser("attacks", help="what liars can do, by name")
    lies.set_defaults(handler=attacks)


def one_thread() -> None:
    """For small matrices threads of a linear algebra library only wait for each other."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")


def listed(args: Namespace) -> Result:
    """Names with what happens in each."""
    from sim.histories import HISTORIES
    from sim.scenarios.files import load, names

    told = {name: load(name).scenario.about for name in names()}
    more = {name: (call.__doc__ or "").splitlines()[0] for name, call in HISTORIES.items()}
    bold = palette(args).paint
    lines = [bold("scenarios", "bold"), *_aligned(told), "", bold("histories in code", "bold")]
    return Result({"scenarios": told, "histories": more}, "\n".join([*lines, *_aligned(more)]))


def attacks(args: Namespace) -> Result:
    """Names with what the liars do."""
    from sim.attacks import ATTACKS, in_words

    told = {name: in_words(name) for name in ATTACKS}
    return Result({"attacks": told}, "\n".join(_aligned(told)))


def _aligned(told: dict[str, str]) -> list[str]:
    width = max((len(name) for name in told), default=0)
    return [f"  {name:<{width}}  {text}" for name, text in told.items()]


def run(args: Namespace) -> Result:
    """Plays it and judges it."""
    one_thread()
    from sim.histories import HISTORIES

    if args.plot is not None and args.scenario in HISTORIES:
        raise UserError("GF100", f"{args.scenario} is a history in code: there is no plot of it")
    started = time.monotonic()
    try:
        if args.scenario in HISTORIES:
            return _history(args, started)
        return _scenario(args, started)
    except ImportError as error:
        if error.name != "sklearn":
            raise
        hint = "pip install 'gossipfl[demo]'"
        raise UserError("GF106", "scikit-learn, which has the digits, is missing", hint) from None


def _scenario(args: Namespace, started: float) -> Result:
    from sim.scenarios.files import Named, load, shortened
    from sim.scenarios.play import data, play

    named = load(args.scenario)
    if args.short:
        named = Named(f"{named.name} (short)", shortened(named.scenario))
    played = play(named, args.seed)
    seconds = time.monotonic() - started
    found = data(played)
    found["seconds"] = round(seconds, 2)
    if not played.is_good:
        from gossipfl.cli.soak import commit

        found |= {"options": played.options, "commit": commit()}
    if args.plot is not None:
        _draw(args.plot, played)
        found["plot"] = str(args.plot)
    return Result(found, _words(args, played, found), Exit.OK if played.is_good else Exit.NO)


def _draw(path: Path, played: Played) -> None:
    from sim.scenarios.drawing import draw

    try:
        path.write_text(draw(played))
    except OSError as error:
        raise UserError("GF100", f"{path}: {error.strerror}", "name another file") from None


def _words(args: Namespace, played: Played, found: dict[str, Any]) -> str:
    paint = palette(args).paint
    figures = {name: found[name] for name in played.figures}
    lines = [f"{name:<20} {value:g}" for name, value in figures.items()]
    for name in ("faults", "unmerged"):
        for what, count in found[name].items():
            lines.append(f"{name:<20} {what}: {count}")
    lines.append(f"{'seconds':<20} {found['seconds']}")
    if args.plot is not None:
        lines.append(f"{'plot':<20} {args.plot}")
    if played.is_good:
        lines.append(paint("all that was expected came true", "green"))
        return "\n".join(lines)
    lines += [paint(f"NOT as expected: {failure}", "red") for failure in played.failures]
    if played.report:
        lines.append(played.report)
    short = " --short" if args.short else ""
    lines.append(f"options: {played.options}; code: {found['commit']}")
    lines.append(f"again: gossipfl sim run {args.scenario} --seed {args.seed}{short}")
    return "\n".join(lines)


def _history(args: Namespace, started: float) -> Result:
    from sim.histories import HISTORIES
    from sim.world import WorldError

    try:
        outcome = HISTORIES[args.scenario](args.seed)
    except WorldError as error:
        data = {"scenario": args.scenario, "seed": args.seed, "failures": [error.cause]}
        return Result(data, str(error), Exit.NO)
    seconds = time.monotonic() - started
    found = {**dataclasses.asdict(outcome), "seconds": round(seconds, 2)}
    return Result(found, "\n".join(f"{name:<20} {value}" for name, value in found.items()))
