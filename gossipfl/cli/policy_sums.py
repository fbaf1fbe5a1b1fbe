"""Group sums of a policy on the command line: flags, and the lines that say what they are."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gossipfl.errors import UserError

if TYPE_CHECKING:
    from gossipfl.messages import Sums

FLAGS = {
    "group_size": "size",
    "train_s": "train_s",
    "step_s": "step_s",
    "attempts": "attempts",
    "reach": "reach",
}
FILE_BYTES_MAX = 256 * 1024  # 1,024 names of 40 characters, with room for comments


def add_sums(issue: Any) -> None:
    group = issue.add_argument_group(
        "group sums",
        "with --privacy group-sum: nobody sees a single model, only the mean of a group. With "
        "--epsilon, --clip and --z each device adds noise before, as in local",
    )
    group.add_argument(
        "--group-devices",
        type=Path,
        metavar="FILE",
        help="who sums: a device's full name on each line, as `gossipfl status` prints it",
    )
    group.add_argument("--group-size", type=int, metavar="N", help="4 to 16, about; default 8")
    group.add_argument("--train-s", type=int, metavar="S", help="a window's time to train: 60")
    group.add_argument("--step-s", type=int, metavar="S", help="time of each of six steps: 10")
    group.add_argument("--attempts", type=int, metavar="N", help="in a window; default 2")
    group.add_argument(
        "--reach", type=float, metavar="X", help="larger parameters count as this; default 8"
    )


def given_sums(args: Namespace) -> list[str]:
    """The flags that were given."""
    names = ("group_devices", *FLAGS)
    return [f"--{n.replace('_', '-')}" for n in names if getattr(args, n) is not None]


def sums_of(args: Namespace, noise: bool) -> Sums:
    """Raises UserError GF701."""
    from gossipfl.messages import Sums

    if args.group_devices is None:
        raise UserError("GF701", "--privacy group-sum needs --group-devices")
    more = {field: getattr(args, flag) for flag, field in FLAGS.items()}
    devices = _devices(args.group_devices)
    return Sums(devices, noise=noise, **{k: v for k, v in more.items() if v is not None})


def _devices(path: Path) -> list[bytes]:
    from gossipfl.fleet import files
    from gossipfl.identity import parse_device_name

    lines = files.read_file(path, FILE_BYTES_MAX).decode(errors="replace").splitlines()
    found = []
    for number, line in enumerate(lines, start=1):
        name = line.partition("#")[0].strip()
        if not name:
            continue
        try:
            found.append(parse_device_name(name))
        except ValueError as error:
            raise UserError("GF701", f"{path}, line {number}: {error}") from error
    return sorted(found)


def sums_line(sums: Mapping[str, Any]) -> str:
    return (
        f"{sums['devices']} devices in {sums['groups']} groups of about {sums['size']}, "
        f"{sums['attempts']} attempts of six steps of {sums['step_s']} s, {sums['train_s']} s to "
        f"train; {'noise beside it' if sums['noise'] else 'no noise beside it'}"
    )
