"""How figures are written for people."""

from __future__ import annotations

from datetime import UTC, datetime


def size(count: float) -> str:
    """Bytes: 999 B, 38.4 kB, 1.2 MB (powers of 1000)."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def age(seconds: float) -> str:
    """ "12 s", "5 min", "3 h", "2 d"."""
    if seconds < 60:
        return f"{max(0, seconds):.0f} s"
    if seconds < 3_600:
        return f"{seconds / 60:.0f} min"
    if seconds < 2 * 86_400:
        return f"{seconds / 3_600:.0f} h"
    return f"{seconds / 86_400:.0f} d"


def count(number: int, one: str, many: str = "") -> str:
    """ "1 device", "3 devices"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def when(time: int) -> str:
    """ "2026-11-24 15:04:05", in UTC."""
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S")


def clock(time: int) -> str:
    """ "15:04:05", in UTC."""
    return datetime.fromtimestamp(time, UTC).strftime("%H:%M:%S")


def percent(share: float | None, digits: int = 0) -> str:
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def figure(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
