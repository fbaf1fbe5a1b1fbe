"""`gossipfl sim soak`: random histories with random faults, or one that a plan file describes.

Exit 1 if an invariant broke. The failure says the seed, the options, the commit and a plan that
shows it again, on request a small one.
"""

from __future__ import annotations

import os
import subprocess
import time
from argparse import Namespace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gossipfl.cli.output import Result, palette, progress
from gossipfl.errors import Exit, UserError

if TYPE_CHECKING:
    from sim.shrink import Shrunk
    from sim.soak import Failure, Summary

SOAK_SEEDS = 20  # about half a minute on one core of a laptop
PLAN_BYTES_MAX = 1024 * 1024
GIT_PATIENCE_S = 5.0


def add_soak(words: Any) -> None:
    many = words.add_parser("soak", help="play random histories with random faults")
    many.add_argument("--seeds", type=int, default=SOAK_SEEDS, help="how many")
    many.add_argument("--first-seed", type=int, default=1)
    many.add_argument("--seconds", type=float, default=None, help="start no seed after this long")
    many.add_argument("--workers", type=int, default=1, help="processes to spread the seeds over")
    many.add_argument(
        "--focus",
        choices=("any", "equivocation", "privacy", "sums"),
        default="any",
        help="what the histories are drawn from",
    )
    many.add_argument("--plan", type=Path, default=None, help="play this plan instead of seeds")
    many.add_argument("--shrink", action="store_true", help="make the first failing plan small")
    many.add_argument("--replays", type=int, default=60, help="histories played to make it small")
    many.add_argument("--out", type=Path, default=None, help="write the failing plan here")
    many.set_defaults(handler=soak)


def commit() -> str:
    """Which code this is: `git describe` of its checkout, or the version that is installed."""
    here = Path(__file__).resolve().parent
    try:
        said = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty", "--tags"],
            capture_output=True,
            text=True,
            timeout=GIT_PATIENCE_S,
            check=True,
        )
        return said.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        pass
    try:
        return f"version {version('gossipfl')}"
    except PackageNotFoundError:
        return "unknown"


def _read_plan(path: Path) -> Any:
    import msgspec

    from sim.history import LIARS
    from sim.plan import Plan

    try:
        with path.open("rb") as file:
            data = file.read(PLAN_BYTES_MAX)
        plan = Plan.from_json(data)
    except OSError as error:
        raise UserError("GF100", f"{path}: {error.strerror}", "name a plan file") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        hint = "plans are printed by a `gossipfl sim soak` that fails"
        raise UserError("GF100", f"{path} is no plan: {error}", hint) from None
    unknown = sorted(set(plan.liars) - set(LIARS))
    if unknown:
        hint = f"known are {', '.join(sorted(LIARS))}"
        raise UserError("GF100", f"{path}: there is no liar {unknown[0]!r}", hint)
    return plan


def soak(args: Namespace) -> Result:
    """Random histories. Exit 1, with how to run it again, if one of them fails."""
    from sim.soak import Summary, play
    from sim.soak import soak as many

    started, used = time.monotonic(), sum(os.times()[:4])
    until = None if args.seconds is None else started + args.seconds
    if args.plan is not None:
        plan = _read_plan(args.plan)
        summary = Summary(plan.seed)
        summary.add(play(plan))
    else:
        summary = many(
            args.seeds,
            args.first_seed,
            lambda: until is not None and time.monotonic() > until,
            workers=args.workers,
            focus=args.focus,
        )
    seconds, cpu_s = time.monotonic() - started, sum(os.times()[:4]) - used
    shrunk = _shrink(args, summary)
    first = shrunk.failure if shrunk else summary.failures[0] if summary.failures else None
    if first is not None and args.out is not None:
        args.out.write_text(first.plan.to_json() + "\n")
    data = _data(summary, seconds) | {"cpu_s": round(cpu_s, 1)}
    if first is not None:
        data["commit"] = commit()
        data["replays"] = shrunk.replays if shrunk else 0
        data["plan"] = first.plan.to_json()
    lines = [*_lines(summary, seconds), f"{cpu_s:.1f} s of CPU, workers included"]
    paint = palette(args).paint
    for failure in summary.failures:
        lines += [paint(f"seed {failure.seed}", "red"), *_report(failure, args)]
    if shrunk is not None:
        lines += _small(shrunk)
    return Result(data, "\n".join(lines), Exit.NO if summary.failures else Exit.OK)


def _shrink(args: Namespace, summary: Summary) -> Shrunk | None:
    if not (args.shrink and summary.failures):
        return None
    from sim.shrink import shrink

    progress(args, f"making the plan of seed {summary.failures[0].seed} small ...")
    return shrink(summary.failures[0], args.replays)


def _data(summary: Summary, seconds: float) -> dict[str, Any]:
    return {
        "seeds": summary.seeds,
        "first_seed": summary.first_seed,
        "failures": [
            {"seed": f.seed, "checker": f.checker, "cause": f.cause} for f in summary.failures
        ],
        "virtual_s": round(summary.virtual_s, 1),
        "device_hours": round(summary.device_hours, 2),
        "device_rounds": summary.device_rounds,
        "entries": summary.entries,
        "faults_injected": summary.injected,
        "forkers": summary.forkers,
        "forkers_proven": summary.proven,
        "faults": dict(sorted(summary.faults.items())),
        "seconds": round(seconds, 1),
        "device_rounds_per_s": round(summary.device_rounds / seconds, 1),
    }


def _lines(summary: Summary, seconds: float) -> list[str]:
    kinds = ", ".join(f"{count} {name}" for name, count in sorted(summary.faults.items()))
    return [
        f"{summary.seeds} seeds from {summary.first_seed} on: {len(summary.failures)} failed, "
        f"{summary.device_rounds} device rounds in {summary.virtual_s:.0f} virtual seconds, "
        f"{seconds:.1f} s",
        f"{summary.device_hours:.2f} simulated device-hours, {summary.injected} faults and liars"
        + (f": {kinds}" if kinds else ""),
        f"{summary.proven} of {summary.forkers} forkers proven to every honest device",
    ]


def _report(failure: Failure, args: Namespace) -> list[str]:
    again = f"gossipfl sim soak --seeds 1 --first-seed {failure.seed}"
    if args.focus != "any":
        again += f" --focus {args.focus}"
    if args.plan is not None:
        again = f"gossipfl sim soak --plan {args.plan}"
    return [
        failure.report,
        f"invariant: {failure.checker}; code: {commit()}",
        f"plan: {failure.plan.to_json()}",
        f"again: {again}",
        f"small: {again} --shrink",
    ]


def _small(shrunk: Shrunk) -> list[str]:
    plan = shrunk.failure.plan
    return [
        f"small, after {shrunk.replays} replays: {plan.devices} devices, {len(plan.liars)} liars, "
        f"{len(plan.faults)} faults: {shrunk.failure.cause}",
        plan.to_json(),
        "again: put that line into a file and play it: gossipfl sim soak --plan FILE",
    ]
