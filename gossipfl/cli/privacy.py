"""`gossipfl privacy plan`: what a budget of epsilon buys."""

from __future__ import annotations

import dataclasses
from argparse import Namespace
from typing import Any

from gossipfl.cli.output import Result
from gossipfl.errors import Exit, UserError


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
