"""How verbs print a time."""

from __future__ import annotations

from datetime import UTC, datetime


def stamp(seconds: int) -> str:
    """Seconds since 1970 as 2026-05-04T03:02:01Z; what no calendar has, as the number."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return str(seconds)
