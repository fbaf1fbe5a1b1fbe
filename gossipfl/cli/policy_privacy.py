"""The privacy of a policy on the command line: its flags, and one line that says what they are."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gossipfl.cli.policy_sums import add_sums, given_sums, sums_line, sums_of
from gossipfl.errors import UserError

if TYPE_CHECKING:
    from gossipfl.messages import Privacy

FIELDS = ("unit", "epsilon", "delta", "clip", "z", "sample_rate", "steps", "lot")
NEEDED = ("epsilon", "clip", "z")
OF_RECORD = ("sample_rate", "steps", "lot")


def add_privacy(issue: Any) -> None:
    """Flags for each field of `messages.Privacy`."""
    group = issue.add_argument_group(
        "privacy",
        "what devices add before they publish, and what they may spend in all; plan it with "
        "`gossipfl privacy plan`. Without --privacy it is as in the policy before, else off",
    )
    group.add_argument(
        "--privacy",
        choices=("off", "local", "group-sum"),
        help="local: each device adds noise by itself; group-sum: see below",
    )
    group.add_argument(
        "--unit",
        choices=("device", "record"),
        help="what is hidden: all data of a device (default), or each example of it",
    )
    group.add_argument("--epsilon", type=float, metavar="X", help="at most, over all publications")
    group.add_argument("--delta", type=float, metavar="X", help="default 1e-5")
    group.add_argument("--clip", type=float, metavar="C", help="of the change, or of each gradient")
    group.add_argument("--z", type=float, metavar="Z", help="noise, at least; owners may add more")
    group.add_argument(
        "--sample-rate", type=float, metavar="Q", help="record: chance of an example in a step"
    )
    group.add_argument("--steps", type=int, metavar="N", help="record: steps a round")
    group.add_argument("--lot", type=int, metavar="N", help="record: examples expected in a step")
    add_sums(issue)


def privacy_of(args: Namespace) -> Privacy | None:
    """What the flags say, None if they say nothing. Raises UserError GF701."""
    from gossipfl.messages import Privacy

    given = {name: getattr(args, name) for name in FIELDS if getattr(args, name) is not None}
    sums = given_sums(args)
    if sums and args.privacy != "group-sum":
        raise UserError("GF701", f"{', '.join(sums)} without --privacy group-sum")
    if args.privacy not in ("local", "group-sum"):
        if given:
            flags = ", ".join(_flag(name) for name in given)
            raise UserError("GF701", f"{flags} without --privacy local")
        return Privacy() if args.privacy == "off" else None
    if args.privacy == "group-sum" and not given:
        return Privacy(mode="group-sum", sums=sums_of(args, noise=False))
    needed = (*NEEDED, *(OF_RECORD if args.unit == "record" else ()))
    missing = [_flag(name) for name in needed if name not in given]
    if missing:
        hint = "`gossipfl privacy plan` says which values a budget pays for"
        what = "local" if args.privacy == "local" else "group-sum with noise"
        raise UserError("GF701", f"--privacy {what} needs {', '.join(missing)}", hint)
    strange = [_flag(name) for name in OF_RECORD if name in given and args.unit != "record"]
    if strange:
        raise UserError("GF701", f"{', '.join(strange)}: for --unit record only")
    if args.privacy == "group-sum":
        return Privacy(mode="group-sum", sums=sums_of(args, noise=True), **given)
    return Privacy(mode="local", **given)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def privacy_line(privacy: Mapping[str, Any]) -> str:
    """`privacy`: the fields of `messages.Privacy`."""
    if privacy["mode"] == "off":
        return "off"
    sums = privacy.get("sums")
    if sums is not None and not sums["noise"]:
        return f"group-sum: {sums_line(sums)}"
    text = (
        f"{privacy['mode']}, unit {privacy['unit']}, epsilon {privacy['epsilon']:g} at delta "
        f"{privacy['delta']:g}, clip {privacy['clip']:g}, z {privacy['z']:g}"
    )
    if privacy["unit"] == "record":
        text += (
            f", {privacy['steps']} steps at {privacy['sample_rate']:g}, lots of {privacy['lot']}"
        )
    return text if sums is None else f"{text}; {sums_line(sums)}"
