"""`gossipfl init`, `run`, `status`, `peers`, `doctor`: one device, seen from its own machine."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gossipfl.cli.new_config import flags_of, write_new
from gossipfl.cli.output import Result, palette
from gossipfl.errors import Exit, UserError

if TYPE_CHECKING:
    from device_agent.settings import Settings

CONFIG = "config.toml"
SYSTEM_CONFIGS = (Path("/etc/gossipfl") / CONFIG, Path("/var/lib/gossipfl") / CONFIG)


def add_parser(subparsers: Any) -> None:
    init_parser = subparsers.add_parser(
        "init", help="make this device's state folder and its commented config"
    )
    init_parser.add_argument("--state", type=Path, required=True, metavar="DIR")
    add_set(init_parser)
    init_parser.set_defaults(handler=init)

    first_parser = subparsers.add_parser(
        "first-start", help="say that this device's keys have never signed anything"
    )
    add_where(first_parser)
    first_parser.set_defaults(handler=first_start)

    run_parser = subparsers.add_parser("run", help="run the agent (what the systemd unit starts)")
    add_where(run_parser)
    run_parser.set_defaults(handler=run)

    status_parser = subparsers.add_parser(
        "status", help="this device's model, round, policy and accuracy"
    )
    add_where(status_parser)
    status_parser.set_defaults(handler=status)

    peers_parser = subparsers.add_parser(
        "peers", help="the peers it sees, their reputation, and why"
    )
    add_where(peers_parser)
    peers_parser.set_defaults(handler=peers)

    doctor_parser = subparsers.add_parser(
        "doctor", help="what keeps this device from taking part, and how to fix it"
    )
    add_where(doctor_parser)
    doctor_parser.set_defaults(handler=doctor)


def add_where(parser: Any) -> None:
    """Which device: by its config, or by its state folder."""
    parser.add_argument(
        "--config",
        type=Path,
        action="append",
        metavar="FILE",
        help="a config file, or a folder of them; several: later ones win",
    )
    parser.add_argument(
        "--state", type=Path, metavar="DIR", help="the state folder; its config.toml is read too"
    )
    add_set(parser)


def add_set(parser: Any) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="one setting, over file and environment",
    )


def settings_of(args: Namespace) -> Settings:
    """The settings of the device that is meant. UserError GF101 to GF103."""
    from device_agent.setting_files import load

    flags = flags_of(args.set)
    files = list(args.config or [])
    if args.state is not None:
        flags.setdefault("device.state", str(args.state))
        if not files and (args.state / CONFIG).exists():
            files = [args.state / CONFIG]
    elif not files:
        files = [path for path in SYSTEM_CONFIGS if path.exists()][:1]
        if not files and "device.state" not in flags:
            places = " or ".join(str(path) for path in SYSTEM_CONFIGS)
            raise UserError(
                "GF103", f"which device? There is no {places}", "add --config FILE or --state DIR"
            )
    return load(files, flags=flags)


def init(args: Namespace) -> Result:
    """The state folder (0700) and a config in which every default says where it comes from."""
    from device_agent.setting_files import load
    from device_agent.setting_template import template

    path = args.state / CONFIG
    flags = flags_of(args.set)
    given = load(flags=flags, environment={})
    values = {
        name: _absolute(name, value) for name, value, source in given.items() if source != "default"
    }
    write_new(path, template(values))
    joined = (args.state / "member").exists()
    steps = [f"gossipfl run --config {path}"]
    if not joined:
        steps.insert(0, f"gossipfl join LINE --state {args.state}")
    text = f"wrote {path}\nnext: set [data] source in it, then\n" + "\n".join(
        f"  {step}" for step in steps
    )
    return Result({"config": str(path), "state": str(args.state), "joined": joined}, text)


def _absolute(name: str, value: object) -> object:
    """A path on the command line is relative to where one stands, in the file to the file."""
    from device_agent.setting_files import ENTRY_POINT

    is_source = name == "data.source" and not ENTRY_POINT.match(str(value))
    if name != "local.socket" and (is_source or isinstance(value, Path)):
        return str(Path(str(value)).absolute())
    return value


def run(args: Namespace) -> Result:
    """The agent, until SIGTERM or SIGINT."""
    from device_agent.agent import run as run_agent

    code = run_agent(settings_of(args))
    return Result({"exit": code}, "", Exit(code))


def first_start(args: Namespace) -> Result:
    """Lets an agent with an empty store publish without asking a majority of the fleet."""
    from gossipfl.fleet.device import DeviceFolder

    folder = settings_of(args).device.state
    DeviceFolder(folder).say_first_start()
    text = (
        f"{folder} may begin with its first head; restart the agent.\n"
        "If these keys did sign heads before, the fleet will take this device for a liar and shut "
        "it out for good: join again instead"
    )
    return Result({"state": str(folder)}, text)


def status(args: Namespace) -> Result:
    """What the running agent says of itself."""
    from device_agent.local_api import call
    from device_agent.status_text import status_text

    found = call(settings_of(args).socket, "status")
    return Result(found, status_text(found, palette(args).paint))


def peers(args: Namespace) -> Result:
    """What the running agent thinks of every peer."""
    from device_agent.local_api import call
    from device_agent.status_text import peers_text

    found = call(settings_of(args).socket, "peers")
    return Result(found, peers_text(found["peers"], palette(args).paint))


def doctor(args: Namespace) -> Result:
    """Every check; exit 1 if one of them found a problem."""
    from dataclasses import asdict

    from device_agent.checks import State
    from device_agent.doctor import examine

    checks = examine(settings_of(args))
    problems = sum(check.state is State.PROBLEM for check in checks)
    paint, lines = palette(args).paint, []
    colours = {State.OK: "green", State.NOTE: "dim", State.PROBLEM: "red"}
    for check in checks:
        state = paint(f"{check.state:<7}", colours[check.state])
        lines.append(f"{state}  {check.name:<11}  {check.what}")
        if check.state is State.PROBLEM and check.fix:
            lines.append(f"{'':<9}{'how to fix':<11}  {check.fix}")
    found = f"{problems} problem{'' if problems == 1 else 's'}" if problems else "nothing is wrong"
    shown = {"problems": problems, "checks": [asdict(check) for check in checks]}
    return Result(shown, "\n".join([*lines, "", found]), Exit.NO if problems else Exit.OK)
