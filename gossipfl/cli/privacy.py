"""`gossipfl privacy`: what a budget buys, what was spent, whether more leaks than is said."""

from __future__ import annotations

import dataclasses
import os
from argparse import Namespace
from typing import Any

from gossipfl.cli.device import add_where, settings_of
from gossipfl.cli.output import Result, progress
from gossipfl.errors import Exit, UserError

CANARIES_MIN = 100  # fewer can hardly show anything
CANARIES_MAX = 1_000_000  # delta 1e-5 then excuses all; and it takes minutes


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("privacy", help="what privacy costs, and whether it holds")
    words = parser.add_subparsers(dest="privacy_verb", metavar="VERB")
    one = words.add_parser("plan", help="noise, rounds and signal that a budget of epsilon buys")
    one.add_argument("--rounds", type=int, required=True, metavar="N", help="publications")
    one.add_argument("--epsilon", type=float, required=True, metavar="X")
    one.add_argument("--delta", type=float, default=1e-5, metavar="X", help="default 1e-5")
    one.add_argument(
        "--unit",
        choices=("device", "record"),
        default="device",
        help="what is hidden: all data of a device (default), or each example of it",
    )
    one.add_argument(
        "--sample-rate", type=float, default=0.1, metavar="Q", help="record: chance of an example"
    )
    one.add_argument("--steps", type=int, default=10, metavar="N", help="record: steps a round")
    one.add_argument(
        "--lot", type=int, default=32, metavar="N", help="record: examples expected in a step"
    )
    one.add_argument("--clip", type=float, default=1.0, metavar="C", help="default 1.0")
    one.add_argument("--z", type=float, metavar="Z", help="noise multiplier; default: the least")
    one.add_argument("--devices", type=int, metavar="N", help="whose models are averaged")
    one.add_argument("--parameters", type=int, metavar="N", help="of the model")
    one.set_defaults(handler=plan)
    three = words.add_parser("status", help="what this device promises, and what it has spent")
    add_where(three)
    three.set_defaults(handler=status)
    two = words.add_parser("audit", help="attack the mechanisms that ship here with canaries")
    two.add_argument("--unit", choices=("device", "record", "both"), default="both")
    two.add_argument("--z", type=float, default=2.0, metavar="Z", help="default 2: epsilon 1.99")
    two.add_argument("--delta", type=float, default=1e-5, metavar="X", help="default 1e-5")
    two.add_argument("--canaries", type=int, default=20_000, metavar="N", help="default 20,000")
    two.add_argument(
        "--runs", type=int, default=5, metavar="N", help="the median counts (default 5)"
    )
    two.set_defaults(handler=audit)


def plan(args: Namespace) -> Result:
    """Exit 1 if the plan cannot work."""
    from gossipfl.privacy.plan import Verdict, Wish
    from gossipfl.privacy.plan import plan as make
    from gossipfl.privacy.protection import Unit

    unit = Unit(args.unit)
    try:
        wish = Wish(
            rounds=args.rounds,
            epsilon=args.epsilon,
            delta=args.delta,
            unit=unit,
            clip=args.clip,
            z=args.z,
            sample_rate=args.sample_rate if unit is Unit.RECORD else 1.0,
            steps=args.steps if unit is Unit.RECORD else 1,
            lot=args.lot,
            devices=args.devices,
            parameters=args.parameters,
        )
        found = make(wish)
    except ValueError as error:
        raise UserError("GF601", str(error)) from None
    data = {
        "unit": unit.value,
        "delta": wish.delta,
        "rounds": wish.rounds,
        **dataclasses.asdict(found),
        "verdict": found.verdict.value,
    }
    ratio = found.signal_to_noise
    each = "coordinate of the model" if unit is Unit.DEVICE else "coordinate of a step's sum"
    lines = [
        f"z                {found.z:g}",
        f"sigma            {found.sigma:g} in each {each}, with a clip of {found.clip:g}",
        f"clip             {found.clip_advice}",
        f"epsilon          {found.epsilon:.3f} after {wish.rounds} rounds, delta {wish.delta:g}",
        f"affordable       {found.rounds_affordable} rounds within epsilon {wish.epsilon:g}",
        f"signal to noise  {'unknown' if ratio is None else f'{ratio:.3g} at best'}",
        "",
        found.sentence,
    ]
    return Result(data, "\n".join(lines), Exit.NO if found.verdict is Verdict.USELESS else Exit.OK)


def status(args: Namespace) -> Result:
    """The statement of the running agent. Exit 6 if it publishes nothing more for its budget."""
    from device_agent.local_api import call

    found = call(settings_of(args).socket, "privacy")
    said = found["statement"]
    if said is None:
        text = "The policy in force asks for no privacy: models leave as they are."
        if found["listen_only"]:
            text = f"Nothing leaves this device: {found['listen_only']}."
        return Result(found, text)
    spent = "without bound" if said["epsilon"] is None else f"{said['epsilon']:.3f}"
    lines = [
        f"epsilon      {spent} of {said['epsilon_max']:g} spent, delta {said['delta']:g}",
        f"releases     {said['releases']} of {said['releases_max']}",
        f"unit         {said['unit']}: {said['neighbours']}",
        f"adversary    {said['adversary']}",
        f"mechanism    {said['mechanism']}, clip {said['clip']:g}, z {said['z']:g}, "
        f"sigma {said['sigma']:g}",
        f"accountant   {said['accountant']}, version {said['accountant_version']}",
        f"randomness   {said['rng']}",
        f"ledger       {said['ledger']['number']} entries, {said['ledger']['digest'][:16]}",
        f"statement    {said['digest']}",
        *(f"not covered  {text}" for text in said["not_covered"]),
    ]
    spent_out = said["releases"] >= said["releases_max"]
    if found["listen_only"]:
        lines.append(f"listening    {found['listen_only']}")
    return Result(found, "\n".join(lines), Exit.BUDGET if spent_out else Exit.OK)


def audit(args: Namespace) -> Result:
    """Exit 1 if a claim was disproved."""
    from device_agent.canary import canary
    from gossipfl.privacy.canaries import GAMES, Audit, Subject
    from gossipfl.privacy.protection import Z_MAX, Z_MIN, Unit

    for what, value, low, high in (
        ("z", args.z, Z_MIN, Z_MAX),
        ("delta", args.delta, 1e-12, 0.1),
        ("canaries", args.canaries, CANARIES_MIN, CANARIES_MAX),
        ("runs", args.runs, 1, 100),
    ):
        if not low <= value <= high:
            raise UserError("GF601", f"{what} is {value:g}, allowed {low:g} to {high:g}")
    units = list(Unit) if args.unit == "both" else [Unit(args.unit)]
    look = Audit(z=args.z, delta=args.delta, canaries=args.canaries, runs=args.runs)
    example = canary() if Unit.RECORD in units else None
    findings = []
    for unit in units:
        for game in GAMES[unit]:
            progress(args, f"{unit.value}: {game.value}")
            findings.append(look.play(unit, game, Subject(), os.urandom, example))
    holds = all(finding.holds for finding in findings)
    data = {
        "holds": holds,
        "claim": {unit.value: look.claim(unit) for unit in units},
        "z": look.z,
        "delta": look.delta,
        "canaries": look.canaries,
        "runs": look.runs,
        "findings": [
            {
                "unit": finding.unit.value,
                "game": finding.game.value,
                "median": finding.median,
                "bounds": list(finding.bounds),
                "holds": finding.holds,
            }
            for finding in findings
        ],
    }
    lines = [f"{'unit':<8} {'game':<12} {'shown':>7} {'claimed':>8}"]
    lines += [
        f"{f.unit.value:<8} {f.game.value:<12} {f.median:>7.2f} {f.claim:>8.2f}"
        f"{'' if f.holds else '  LEAKS'}"
        for f in findings
    ]
    lines.append("")
    lines.append(
        "No game showed more than is claimed. That is no proof: bounds are too low by nature."
        if holds
        else "More leaks than is claimed: do not use this installation for private data."
    )
    return Result(data, "\n".join(lines), Exit.OK if holds else Exit.NO)
