"""`gossipfl service`: the systemd units of agent and hub, put in their place and taken away."""

from __future__ import annotations

import shutil
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from gossipfl.cli.output import Result
from gossipfl.errors import UserError

WHICH = ("agent", "hub")
PLACE = Path("etc/systemd/system")
PATH_LINE = "Environment=PATH="
CONFIGS = {"agent": "etc/gossipfl/config.toml", "hub": "etc/gossipfl/hub.toml"}
STATES = {"agent": "gossipfl", "hub": "gossipfl-hub"}
HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")
"""What a unit with ProtectHome and PrivateTmp does not see."""
CALL_S = 60.0  # systemctl: a stop takes ten seconds at most


def add_parser(subparsers: Any) -> None:
    service = subparsers.add_parser("service", help="the systemd units of agent and hub")
    verbs = service.add_subparsers(dest="service_verb")
    install_parser = verbs.add_parser(
        "install", help="put a unit in its place; it starts with the machine"
    )
    uninstall_parser = verbs.add_parser(
        "uninstall", help="stop it and take the unit away; keys, data and settings stay"
    )
    for parser in (install_parser, uninstall_parser):
        parser.add_argument("which", choices=WHICH)
        parser.add_argument(
            "--root",
            type=Path,
            default=Path("/"),
            metavar="DIR",
            help="of an image: nothing is started or stopped there",
        )
    install_parser.add_argument("--now", action="store_true", help="start it at once")
    install_parser.set_defaults(handler=install)
    uninstall_parser.add_argument(
        "--purge", action="store_true", help="delete its state too: keys, database, models"
    )
    uninstall_parser.add_argument("--yes", action="store_true", help="yes, delete the state")
    uninstall_parser.set_defaults(handler=uninstall)


def install(args: Namespace) -> Result:
    """The unit of this installation, enabled. UserError GF109."""
    unit = f"gossipfl-{args.which}.service"
    text = with_program(shipped(unit).read_text(), _programs(), is_image=_is_image(args.root))
    path = args.root / PLACE / unit
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o644)
    except OSError as error:
        raise UserError("GF109", f"{path}: {error.strerror or error}") from error
    if _is_image(args.root):
        _enable_in(args.root, unit)
    else:
        _systemctl("daemon-reload")
        _systemctl("enable", *(["--now"] if args.now else []), unit)
    config = args.root / CONFIGS[args.which]
    lines = [f"wrote {path}: it starts with the machine"]
    if not config.exists():
        lines.append(f"its settings are missing yet: {config}")
    return Result({"unit": str(path), "config": str(config)}, "\n".join(lines))


def uninstall(args: Namespace) -> Result:
    """UserError GF109; GF100 for `--purge` without `--yes`."""
    unit = f"gossipfl-{args.which}.service"
    if args.purge and not args.yes:
        raise UserError("GF100", "--purge deletes keys that cannot be made again", "add --yes")
    path = args.root / PLACE / unit
    wanted = args.root / PLACE / "multi-user.target.wants" / unit
    if not _is_image(args.root) and path.exists():
        _systemctl("disable", "--now", unit)
    gone = []
    try:
        for file in (wanted, path):
            if file.is_symlink() or file.exists():
                file.unlink()
                gone.append(str(file))
        drop_ins = path.with_name(f"{unit}.d")
        if drop_ins.exists():
            shutil.rmtree(drop_ins)
            gone.append(str(drop_ins))
        if args.purge:
            gone += _purge(args.root, STATES[args.which])
    except OSError as error:
        raise UserError("GF109", f"{error.filename}: {error.strerror or error}") from error
    if not _is_image(args.root):
        _systemctl("daemon-reload")
        _systemctl("reset-failed", unit, may_fail=True)
    text = "\n".join(f"removed {name}" for name in gone) or f"{unit} was not installed"
    return Result({"removed": gone}, text)


def _purge(root: Path, name: str) -> list[str]:
    """The state folder: with a dynamic user it lies in /var/lib/private, with a link to it."""
    gone = []
    for path in (root / "var/lib/private" / name, root / "var/lib" / name):
        if path.is_symlink():
            path.unlink()
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            continue
        gone.append(str(path))
    return gone


def shipped(unit: str) -> Path:
    """The unit file that came with this installation. UserError GF109."""
    own = Path(__file__).resolve().parent.parent.parent / "systemd" / unit  # a checkout
    for path in (Path(sys.prefix) / "share/gossipfl/systemd" / unit, own):
        if path.exists():
            return path
    raise UserError("GF109", f"{unit} is not part of this installation")


def with_program(text: str, programs: Path, *, is_image: bool) -> str:
    """The unit for the program in this folder. UserError GF109 if no unit could see it there."""
    if not is_image and any(programs.is_relative_to(hidden) for hidden in HIDDEN):
        raise UserError("GF109", f"a service sees nothing of {programs}")
    lines = []
    for line in text.splitlines():
        folders = line.removeprefix(PATH_LINE)
        if line.startswith(PATH_LINE) and str(programs) not in folders.split(":"):
            line = f"{PATH_LINE}{programs}:{folders}"
        lines.append(line)
    return "\n".join(lines) + "\n"


def _programs() -> Path:
    """Where `gossipfl` lies: beside the interpreter that runs us."""
    return Path(sys.executable).parent


def _is_image(root: Path) -> bool:
    return root.resolve() != Path("/")


def _enable_in(root: Path, unit: str) -> None:
    wants = root / PLACE / "multi-user.target.wants"
    wants.mkdir(parents=True, exist_ok=True)
    link = wants / unit
    link.unlink(missing_ok=True)
    link.symlink_to(Path("/") / PLACE / unit)


def _systemctl(*words: str, may_fail: bool = False) -> None:
    try:
        done = subprocess.run(
            ["systemctl", *words], capture_output=True, text=True, timeout=CALL_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError("GF109", f"systemctl {words[0]}: {error}") from error
    if done.returncode and not may_fail:
        said = done.stderr.strip().splitlines()
        raise UserError("GF109", f"systemctl {words[0]}: {said[0] if said else 'it failed'}")
