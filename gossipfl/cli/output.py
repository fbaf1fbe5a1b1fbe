"""How every verb speaks: one result type, one JSON envelope, colours only where they are wanted.

A handler returns a `Result`; it never prints its answer itself. A verb that streams prints with
`line`, and its `Result` closes the stream. Progress for people goes to stderr, so that the last
line of stdout is the answer.
"""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TextIO

from gossipfl.errors import Exit, UserError

SCHEMA = 1
"""Version of the envelope. Grows only if a reader of today's would misread it."""

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


@dataclass(frozen=True, slots=True)
class Result:
    """A verb's answer: `data` for programs (JSON types only), `text` for people."""

    data: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""
    exit: Exit = Exit.OK


@dataclass(frozen=True, slots=True)
class Palette:
    """ANSI colours, or none. Colour never carries a meaning that the words do not."""

    enabled: bool

    def paint(self, text: str, *styles: str) -> str:
        """`text` in the named styles: bold dim red green yellow cyan."""
        if not self.enabled or not styles:
            return text
        return f"\x1b[{';'.join(_CODES[style] for style in styles)}m{text}\x1b[0m"


def palette(args: Namespace, stream: TextIO | None = None) -> Palette:
    """Colours for `stream` (default stdout): not with --no-color, NO_COLOR, or when piped.

    NO_COLOR counts when present and not empty (no-color.org); so does TERM=dumb.
    """
    stream = stream or sys.stdout
    wanted = (
        not getattr(args, "no_color", False)
        and not getattr(args, "json", False)
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM") != "dumb"
        and stream.isatty()
    )
    return Palette(wanted)


def success(data: Mapping[str, Any]) -> str:
    """The envelope of an answer, on one line."""
    return _dump({"schema": SCHEMA, "status": "ok", "data": data})


def failure(code: str, title: str, cause: str, hint: str) -> str:
    """The envelope of an error, on one line."""
    error = {"code": code, "title": title, "cause": cause, "hint": hint}
    return _dump({"schema": SCHEMA, "status": "error", "error": error})


def line(record: Mapping[str, Any]) -> None:
    """One JSON line of a verb that streams; flushed, because a reader waits for it."""
    print(_dump(record), flush=True)


def progress(args: Namespace, text: str) -> None:
    """A word to the person who waits: stderr, and silent with -q."""
    if not getattr(args, "quiet", False):
        print(text, file=sys.stderr, flush=True)


def show(result: Result, args: Namespace) -> None:
    """Print an answer as this call asked for it."""
    if args.json:
        print(success(result.data), flush=True)
    elif result.text and not args.quiet:
        print(result.text, flush=True)


def show_error(error: UserError, args: Namespace) -> None:
    """Code, what happened, why, what to do next. With --json the envelope goes to stdout."""
    if args.json:
        print(failure(error.code, error.title, error.cause, error.hint), flush=True)
        return
    paint = palette(args, sys.stderr).paint
    print(
        f"{paint(f'error {error.code}', 'red', 'bold')}: {error.title}\n"
        f"  why:  {error.cause}\n"
        f"  next: {error.hint}\n"
        f"  more: gossipfl explain {error.code}",
        file=sys.stderr,
        flush=True,
    )


def _dump(value: Mapping[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
