"""`gossipfl explain CODE`: what an error code means, offline, from the one registry."""

from __future__ import annotations

import difflib
from argparse import Namespace
from typing import Any

from gossipfl.cli.output import Result, palette
from gossipfl.errors import ERRORS, UserError


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser("explain", help="what an error code means")
    parser.add_argument("code", nargs="?", help="such as GF101; without one, all are listed")
    parser.set_defaults(handler=explain)


def explain(args: Namespace) -> Result:
    """One entry of the registry, or its list."""
    paint = palette(args).paint
    if args.code is None:
        rows = [f"{paint(code, 'bold')}  {entry.title}" for code, entry in sorted(ERRORS.items())]
        codes = {code: entry.title for code, entry in sorted(ERRORS.items())}
        return Result({"codes": codes}, "\n".join(rows))
    code = args.code.upper()
    entry = ERRORS.get(code)
    if entry is None:
        near = difflib.get_close_matches(code, ERRORS, n=1)
        hint = f"did you mean {near[0]}?" if near else "`gossipfl explain` lists all codes"
        raise UserError("GF100", f"there is no error code {args.code!r}", hint)
    text = (
        f"{paint(code, 'bold')}: {entry.title}\n"
        f"  next: {entry.hint}\n"
        f"  exit: {int(entry.exit)} ({entry.exit.name.lower()})"
    )
    data = {"code": code, "title": entry.title, "hint": entry.hint, "exit": int(entry.exit)}
    return Result(data, text)
