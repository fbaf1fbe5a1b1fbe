"""The one entry point: which verb is meant, which module knows it, how its end is told.

Only the module of the verb in use is imported, so `gossipfl --help` costs what argparse costs.
A verb module exposes `add_parser(subparsers)`, registers its verbs there with
`set_defaults(handler=...)`, and imports what is heavy inside its handlers.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

from gossipfl import __version__
from gossipfl.cli import output
from gossipfl.errors import Exit, UserError

# (group, verb, module, what it does): the whole command at a glance.
VERBS: tuple[tuple[str, str, str, str], ...] = (
    ("Try", "demo", "demo", "seven devices on this machine learn together; one of them lies"),
    ("Try", "sim", "sim", "run the same node code in a simulated network"),
    ("Device", "init", "device", "make this device's state folder, keys and commented config"),
    ("Device", "join", "invite", "enrol this device with an invitation line"),
    ("Device", "id", "revoke", "the device id of a state folder"),
    ("Device", "first-start", "device", "say that its keys have signed nothing yet"),
    ("Device", "run", "device", "run the agent (what the systemd unit starts)"),
    ("Device", "status", "device", "this device's model, round, policy and accuracy"),
    ("Device", "peers", "device", "the peers it sees, their reputation, and why"),
    ("Device", "doctor", "device", "what keeps this device from taking part, and how to fix it"),
    ("Device", "reputation", "reputation", "what it thinks of its peers, and why"),
    ("Device", "quarantine", "reputation", "who is shut out here; let one in again"),
    ("Device", "predict", "models", "use the device's current model on an input"),
    ("Device", "service", "service", "the systemd units of agent and hub: install, uninstall"),
    ("Fleet", "fleet", "fleet", "make a fleet, its operators and its issuer"),
    ("Fleet", "invite", "invite", "print a line with which devices may join"),
    ("Fleet", "policy", "policy", "the signed settings of the fleet: show, issue"),
    ("Fleet", "revoke", "revoke", "shut a device out of the fleet for good"),
    ("Models", "bundle", "bundle", "make, sign and check the training job (.gfl)"),
    ("Models", "models", "models", "list and export the model that the device holds"),
    ("Evidence", "audit", "audit", "check, show and prove what a hub has recorded"),
    ("Evidence", "report", "report", "a hub's reports: summary, compliance, cost and more"),
    ("Evidence", "privacy", "privacy", "plan what a budget buys; audit what leaks"),
    ("Hub", "hub", "hub", "the optional hub that records and shows: make it, run it"),
    ("Hub", "user", "user", "who may log in to a hub"),
    ("Any", "explain", "explain", "what an error code means and what to do"),
)

_DEFAULTS = {"json": False, "quiet": False, "verbose": 0, "no_color": False}


class Parser(argparse.ArgumentParser):
    """argparse whose errors are ours, and whose every level takes the common flags."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("conflict_handler", "resolve")
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)
        common = self.add_argument_group("every verb")
        suppress = argparse.SUPPRESS  # a level that was not given a flag must not reset it
        common.add_argument(
            "--json", action="store_true", default=suppress, help="one JSON object as last line"
        )
        common.add_argument("-q", "--quiet", action="store_true", default=suppress)
        common.add_argument("-v", "--verbose", action="count", default=suppress)
        common.add_argument("--no-color", action="store_true", default=suppress)

    def error(self, message: str) -> NoReturn:
        raise UserError("GF100", message, f"see `{self.prog} --help`")


def overview() -> str:
    """The text of `gossipfl --help`, from the table alone."""
    lines = ["usage: gossipfl VERB [--json] [-q] [-v] [--no-color] ...", ""]
    lines += ["Small devices train one model together, without a server.", ""]
    group = ""
    for name, verb, _, text in VERBS:
        if name != group:
            lines.append(f"{name}:")
            group = name
        lines.append(f"  {verb:<11} {text}")
    lines += [
        "",
        "`gossipfl VERB --help` explains a verb. `gossipfl --version`. Start: gossipfl demo",
    ]
    return "\n".join(lines)


def module_of(verb: str) -> str:
    """The module that registers `verb`. Raises UserError with the nearest name."""
    for _, name, module, _ in VERBS:
        if name == verb:
            return f"gossipfl.cli.{module}"
    near = difflib.get_close_matches(verb, [name for _, name, _, _ in VERBS], n=1)
    hint = f"did you mean `gossipfl {near[0]}`?" if near else "`gossipfl --help` lists the verbs"
    raise UserError("GF100", f"there is no verb {verb!r}", hint)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The namespace of one call, with `handler` set. Raises UserError on wrong use."""
    verb = next((word for word in argv if not word.startswith("-")), None)
    if verb is None:
        raise UserError("GF100", "no verb was given", "`gossipfl --help` lists the verbs")
    parser = Parser(prog="gossipfl")
    subparsers = parser.add_subparsers(dest="verb", required=True)
    importlib.import_module(module_of(verb)).add_parser(subparsers)
    args = parser.parse_args(argv, argparse.Namespace(**_DEFAULTS))
    if not hasattr(args, "handler"):
        raise UserError(
            "GF100", f"`gossipfl {verb}` needs one more word", f"gossipfl {verb} --help"
        )
    return args


def version() -> output.Result:
    """`gossipfl --version`."""
    python = ".".join(str(part) for part in sys.version_info[:3])
    system = os.uname()
    return output.Result(
        {"version": __version__, "python": python, "machine": system.machine},
        f"gossipfl {__version__} (Python {python}, {system.sysname} {system.machine})",
    )


def run(argv: Sequence[str]) -> int:
    """One call of the command; returns its exit code. Never raises, except SystemExit of help."""
    early = argparse.Namespace(**_DEFAULTS)
    early.json = "--json" in argv
    early.no_color = "--no-color" in argv
    early.verbose = sum(word in ("-v", "-vv", "--verbose") for word in argv)
    leading = [word for word in argv if word not in ("--json", "-q", "--quiet", "--no-color")]
    try:
        if not leading or leading[0] in ("-h", "--help"):
            output.show(output.Result({"help": overview()}, overview()), early)
            return int(Exit.OK if leading else Exit.USAGE)
        if leading[0] == "--version":
            output.show(version(), early)
            return int(Exit.OK)
        args = parse(argv)
        result: output.Result = args.handler(args)
        output.show(result, args)
        return int(result.exit)
    except UserError as error:
        output.show_error(error, early)
        return int(error.exit)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return int(Exit.INTERRUPTED)
    except BrokenPipeError:
        # The reader went away (`| head`): not an error of ours, and nobody is left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(Exit.OK)
    except Exception as error:
        _show_bug(error, early)
        return int(Exit.BUG)


def _show_bug(error: Exception, args: argparse.Namespace) -> None:
    """What nobody foresaw: say that it is our fault, and what to send us."""
    cause = f"{type(error).__name__}: {error}"
    code = "GF001"
    bug = UserError(code, cause)
    if args.json:
        print(output.failure(code, bug.title, cause, bug.hint), flush=True)
    else:
        output.show_error(bug, args)
    if args.verbose:
        traceback.print_exception(error, file=sys.stderr)


def entry() -> int:
    """Console script and `python -m gossipfl`."""
    return run(sys.argv[1:])
