"""TOML files of settings: read within bounds, with the line of each key, for messages."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gossipfl.errors import UserError

FILE_BYTES_MAX = 256 * 1024  # guess: many times the commented template
_HEADER = re.compile(r"^\s*\[([^\[\]]+)\]\s*(#.*)?$")
_KEY = re.compile(r"""^\s*["']?([A-Za-z0-9_.-]+)["']?\s*=""")


def read_file(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """The document, and the lines of `section` and `section.key`. UserError GF103."""
    try:
        data = path.read_bytes()
        if len(data) > FILE_BYTES_MAX:
            raise UserError("GF103", f"{path} has more than {FILE_BYTES_MAX} bytes")
        text = data.decode()
        return tomllib.loads(text), _lines(text)
    except OSError as error:
        raise UserError("GF103", f"{path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError("GF103", f"{path}: not TOML: {error}") from error


def near(name: str, known: Iterable[str]) -> str:
    """` is not known`, with the nearest known name, or all of them."""
    from difflib import get_close_matches  # only when something is wrong already

    names = list(known)
    close = get_close_matches(name, names, n=1)
    if close:
        return f" is not known, did you mean {close[0]!r}?"
    return f" is not known; known: {', '.join(names)}"


def _lines(text: str) -> dict[str, int]:
    """Line numbers of headers and keys: tomllib gives none."""
    lines: dict[str, int] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            section = header[1].strip().strip("\"'")
            lines.setdefault(section, number)
        elif key := _KEY.match(line):
            lines.setdefault(f"{section}.{key[1]}" if section else key[1], number)
    return lines
