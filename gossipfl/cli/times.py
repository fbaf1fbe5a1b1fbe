"""How verbs print and read a time."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from gossipfl.errors import UserError

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def stamp(seconds: int) -> str:
    """Seconds since 1970 as 2026-05-04T03:02:01Z; what no calendar has, as the number."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return str(seconds)


def seconds(text: str) -> int:
    """Of a length of time as 90s, 30m, 2h, 7d. Raises UserError GF100."""
    match = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    if match is None:
        raise UserError("GF100", f"{text[:20]!r} is not a time", "such as 90s, 30m, 2h, 7d")
    return int(match[1]) * _UNITS[match[2]]
