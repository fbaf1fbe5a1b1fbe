"""The live table: redrawn in place on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TextIO

Paint = Callable[..., str]
"""`paint(text, *styles)`: the text in the named styles, or as it is."""


@dataclass(frozen=True, slots=True)
class Row:
    """One device as the person who watches sees it."""

    device: str  # short name
    state: str
    round: int
    accuracy: float | None
    alone: float | None
    reputation: float | None  # mean over what the others think of it, 0 to 1
    peers: int
    sent: int  # bytes
    note: str
    is_liar: bool
    is_quarantined: bool


COLUMNS = {
    "device": 9,
    "state": 10,
    "round": 5,
    "accuracy": 8,
    "alone": 5,
    "reputation": 10,
    "peers": 5,
    "sent": 8,
}
"""Widths; behind them comes the note."""
DROPPED_FIRST = ("sent", "peers", "alone", "state")
"""Where the screen is too narrow for the longest note, the next of these goes."""
NOTE_MAX = 40  # a longer note is cut off: an error's whole text is in the log
GAP = "  "


def size(count: float) -> str:
    """Bytes for people: 999 B, 38.4 kB, 1.2 MB (powers of 1000)."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def share(value: float | None) -> str:
    """A share of one with three digits, or a dash."""
    return "-" if value is None else f"{value:.3f}"


def lines(rows: Sequence[Row], paint: Paint, width: int = 100) -> list[str]:
    """The table as text, one line per device below its title line."""
    longest = max((len(row.note) for row in rows), default=0)
    shown = _columns(width, min(longest, NOTE_MAX))
    title = GAP.join(f"{name:<{w}}" for name, w in shown.items()) + f"{GAP}note"
    return [paint(title[:width].rstrip(), "bold"), *(_line(r, paint, width, shown) for r in rows)]


def _columns(width: int, note: int) -> dict[str, int]:
    """Those that leave room for a note of this length."""
    shown = dict(COLUMNS)
    for name in DROPPED_FIRST:
        if sum(shown.values()) + len(GAP) * len(shown) + note <= width:
            break
        del shown[name]
    return shown


def _line(row: Row, paint: Paint, width: int, shown: dict[str, int]) -> str:
    cells = {
        "device": row.device,
        "state": row.state,
        "round": str(row.round),
        "accuracy": share(row.accuracy),
        "alone": share(row.alone),
        "reputation": "-" if row.reputation is None else f"{row.reputation:.2f}",
        "peers": str(row.peers),
        "sent": size(row.sent),
    }
    head = GAP.join(f"{cells[name]:<{w}}" for name, w in shown.items())
    text = f"{head}{GAP}{row.note}"[:width].rstrip()
    if row.is_quarantined:
        return paint(text, "red")
    if row.is_liar:
        return paint(text, "yellow")
    return text


class Screen:
    """Draws the newest table over the last one, or prints what changed, one line each."""

    def __init__(self, stream: TextIO, paint: Paint) -> None:
        self._stream = stream
        self._paint = paint
        self._live = stream.isatty()
        self._drawn = 0
        self._said: dict[str, str] = {}

    def say(self, text: str) -> None:
        """A line that stays, above the table."""
        self._erase()
        print(text, file=self._stream, flush=True)

    def draw(self, rows: Sequence[Row], heading: str = "") -> None:
        """The newest rows, under a line that says when they were seen."""
        if self._live:
            self._erase()
            width = shutil.get_terminal_size().columns
            table = [heading, *lines(rows, self._paint, width)]
            print("\n".join(table), file=self._stream, flush=True)
            self._drawn = len(table)
            return
        for row in rows:
            # Plain lines: one when a device ends a round, one when what is said of it changes.
            told = f"{row.round} {row.note if row.is_quarantined else ''}"
            if row.accuracy is not None and self._said.get(row.device) != told:
                self._said[row.device] = told
                print(
                    f"  {row.device} round {row.round}: accuracy {share(row.accuracy)}, "
                    f"{row.peers} peers, {size(row.sent)} sent"
                    + (f"; {row.note}" if row.note else ""),
                    file=self._stream,
                    flush=True,
                )

    def keep(self) -> None:
        """What was drawn last stays on the screen."""
        self._drawn = 0

    def _erase(self) -> None:
        if self._drawn:
            print(f"\x1b[{self._drawn}F\x1b[J", end="", file=self._stream)
            self._drawn = 0
