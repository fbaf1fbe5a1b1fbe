"""Reference pages that are made from the code: error codes and verbs. `script/docs` writes them.

A test compares the files in docs/reference with what this makes, so they cannot drift.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path

from gossipfl.cli.main import VERBS, Parser
from gossipfl.config import Limits
from gossipfl.errors import ERRORS, Exit

_MADE = "<!-- Made by script/docs from the code. Change it there. -->\n"
# A field of `Limits` with the comment behind it, which may go on in the next line.
_FIELD = re.compile(
    r"^    (?P<name>\w+): (?:int|float) = [^#\n]+(?P<why>#[^\n]*(?:\n +#[^\n]*)*)", re.MULTILINE
)
_AREAS = {
    "GF0": "ourselves",
    "GF1": "usage and config",
    "GF2": "identity and enrolment",
    "GF3": "network",
    "GF4": "bundle and data",
    "GF5": "store",
    "GF6": "privacy",
    "GF7": "fleet and policy",
    "GF8": "the hub",
    "GF9": "the audit log",
}
_EXITS = {
    Exit.OK: "done",
    Exit.NO: "the answer is no: a check failed, a wait was in vain",
    Exit.USAGE: "the command was not understood, or a file it names cannot be used",
    Exit.CONFIG: "settings, data or this machine's set-up are wrong",
    Exit.UNREACHABLE: "nobody answered: an agent, an issuer, a peer",
    Exit.IDENTITY: "keys, membership or invitation are wrong",
    Exit.BUDGET: "a privacy budget is spent",
    Exit.BUNDLE: "a bundle was refused",
    Exit.BUG: "a bug of ours",
    Exit.INTERRUPTED: "interrupted by Ctrl-C",
}


def errors_page() -> str:
    """docs/reference/errors.md"""
    lines = [
        _MADE,
        "# Error codes and exit codes\n",
        "Every error says its code, what happened, why, and what to do next. "
        "`gossipfl explain CODE` prints an entry offline.\n",
        "| exit code | meaning |",
        "|---|---|",
        *(f"| {int(code)} | {_EXITS[code]} |" for code in Exit),
        "",
    ]
    area = ""
    for code, entry in sorted(ERRORS.items()):
        if code[:3] != area:
            area = code[:3]
            lines += [
                f"\n## {area}xx: {_AREAS[area]}\n",
                "| code | what happened | what to do next | exit |",
                "|---|---|---|---|",
            ]
        lines.append(f"| {code} | {_cell(entry.title)} | {_cell(entry.hint)} | {int(entry.exit)} |")
    return "\n".join(lines) + "\n"


def cli_page() -> str:
    """docs/reference/cli.md"""
    lines = [
        _MADE,
        "# The command\n",
        "`gossipfl VERB ...`; `python -m gossipfl` is the same program. Every verb takes "
        '`--json` (one object `{"schema":1,"status":"ok","data":...}` as the last line of '
        "stdout), `-q`, `-v` and `--no-color`; `NO_COLOR` counts too. Exit codes are in "
        "[errors.md](errors.md).\n",
    ]
    group = ""
    for name, verb, module, text in VERBS:
        if name != group:
            group = name
            lines.append(f"## {group}\n")
        lines.append(f"### `gossipfl {verb}`\n\n{text[0].upper()}{text[1:]}.\n")
        for path, parser in _leaves(_verb_parser(verb, module), f"gossipfl {verb}"):
            if path != f"gossipfl {verb}":
                lines.append(f"**`{path}`** {parser.description or ''}\n")
            lines += _arguments(parser)
    return "\n".join(lines).rstrip() + "\n"


def _verb_parser(verb: str, module: str) -> argparse.ArgumentParser:
    subparsers = Parser(prog="gossipfl").add_subparsers(dest="verb")
    importlib.import_module(f"gossipfl.cli.{module}").add_parser(subparsers)
    found: argparse.ArgumentParser = subparsers.choices[verb]
    return found


def _leaves(
    parser: argparse.ArgumentParser, path: str
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """The parser itself if it ends here, else those of its sub-verbs."""
    below = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not below:
        yield path, parser
    for action in below:
        helps = {choice.dest: choice.help for choice in action._choices_actions}
        for name, child in action.choices.items():
            child.description = child.description or helps.get(name)
            yield from _leaves(child, f"{path} {name}")


def _arguments(parser: argparse.ArgumentParser) -> list[str]:
    rows = []
    for action in parser._actions:
        if action.dest in ("help", "json", "quiet", "verbose", "no_color"):
            continue
        names = ", ".join(action.option_strings) or str(action.metavar or action.dest)
        takes = action.option_strings and action.nargs != 0
        choices = "\\|".join(str(choice) for choice in action.choices or ())
        value = f" {action.metavar or choices or action.dest.upper()}" if takes else ""
        text = (action.help or "") % {**vars(action), "prog": parser.prog}
        if takes and isinstance(action.default, (int, float, str, Path)) and action.default != "":
            text += f" (default {action.default})" if "default" not in text else ""
        rows.append(f"| `{names}{value}` | {_cell(text)} |")
    return ["| argument | |", "|---|---|", *rows, ""] if rows else []


def config_page() -> str:
    """docs/reference/config.md"""
    from device_agent.settings import ROWS

    lines = [
        _MADE,
        "# Settings\n",
        "One TOML file per device; `gossipfl init` writes it with every key and its comment. "
        "Order: defaults, then files in the order given, then `GOSSIPFL_SECTION__KEY` of the "
        "environment, then flags. An unknown key is an error that names the file, the line and "
        "the nearest known name. What the *fleet* learns, and how, is in the signed policy, not "
        "here.\n",
    ]
    section = ""
    for row in ROWS:
        if row.section != section:
            section = row.section
            lines += [f"\n## [{section}]\n", "| key | default | meaning | the default is from |"]
            lines.append("|---|---|---|---|")
        cells = (f"`{row.key}`", _default(row.default), _cell(row.doc.help), _cell(row.doc.origin))
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "\n## Bounds of the protocol\n",
        "Every queue, cache, message and wait has one. They are constants of this version "
        "(`gossipfl/config.py`), not settings; each says where it comes from.\n",
        "| name | value | where from |",
        "|---|---|---|",
        *(f"| `{name}` | {value:,} | {_cell(why)} |" for name, value, why in _bounds()),
    ]
    return "\n".join(lines) + "\n"


def hub_config_page() -> str:
    """docs/reference/hub-config.md"""
    from gossipfl.hub.settings import ROWS

    lines = [
        _MADE,
        "# Settings of a hub\n",
        "One TOML file; `gossipfl hub init` writes it with every key and its comment, `--set "
        "SECTION.KEY=VALUE` overrules it. An unknown key is an error that names the file, the line "
        "and the nearest known name.\n",
    ]
    section = ""
    for row in ROWS:
        if row.section != section:
            section = row.section
            lines += [f"\n## [{section}]\n", "| key | default | meaning | the default is from |"]
            lines.append("|---|---|---|---|")
        cells = (f"`{row.key}`", _default(row.default), _cell(row.doc.help), _cell(row.doc.origin))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def compliance_schema_file() -> str:
    """docs/reference/compliance-report.schema.json"""
    from gossipfl.hub.reports.schema import compliance_schema

    return json.dumps(compliance_schema(), indent=1) + "\n"


def rest_page() -> str:
    """docs/reference/rest.md"""
    from gossipfl.hub.api import described
    from gossipfl.hub.rest.access import Role

    lines = [
        _MADE,
        "# The hub's API\n",
        "JSON over HTTP; `/openapi.json` of a running hub describes every type (OpenAPI 3.1). "
        "Errors are RFC 9457 problems whose `code` is in [errors.md](errors.md). A token goes "
        "into `Authorization: Bearer`; [run a hub](../how-to/hub.md) says how to get one. Who may "
        "call: o operator, a auditor, v viewer (of its labels, where it has some), d device or "
        "client, D the same for itself only, h another hub, * anybody.\n",
    ]
    tag = ""
    order = {route.tag: number for number, route in reversed([*enumerate(described())])}
    for route in sorted(described(), key=lambda r: order[r.tag]):
        if route.tag != tag:
            tag = route.tag
            lines += [f"\n## {tag}\n", "| request | who | body | what |", "|---|---|---|---|"]
        who = "*" if route.access.is_public else ""
        for role in Role:
            letter = role.value[0]
            if role in route.access.roles:
                who += letter.upper() if role is Role.DEVICE and route.access.own else letter
        body = ", ".join(route.kinds).replace("application/", "") if route.request else ""
        lines.append(f"| `{route.method} {route.path}` | {who} | {body} | {_cell(route.words)} |")
    return "\n".join(lines) + "\n"


def _default(value: object) -> str:
    """As one would write it in the file."""
    match value:
        case None | () | "":
            return ""
        case bool():
            return str(value).lower()
        case tuple():
            return ", ".join(str(part) for part in value)
    return str(value)


def _bounds() -> Iterator[tuple[str, float, str]]:
    """(name, value, the comment beside it) of each field of `Limits`."""
    text = inspect.getsource(Limits)
    for match in _FIELD.finditer(text):
        why = " ".join(part.strip() for part in match["why"].split("# ") if part.strip())
        yield match["name"], getattr(Limits(), match["name"]), why


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
