"""How long our own history is served: 30 days or a bound on its length, then a signed marker.

Links leave by whole chapters, oldest first. The marker says below which number nothing is left, so
that a reader who finds a gap knows retention from withholding.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from gossipfl.wire import pack, unpack

HISTORY_S = 30 * 24 * 3600  # protocol: at most 30 days
HISTORY_LINKS = 250_000  # protocol: or 1 GB, at the 4 KiB that a head may have
STATEMENTS_MAX = 1_024  # guess: 1 MiB; a release makes one, and a budget that bears more is none
STATEMENTS_BYTES = 128 * STATEMENTS_MAX


@dataclass(frozen=True, slots=True)
class Closed:
    """A finished chapter: numbers `first` to `last`, when it was finished (fleet time)."""

    chain: str
    first: int
    last: int
    digest: bytes
    at: int


@dataclass(frozen=True, slots=True)
class Pruned:
    """What leaves now: every link of `chain` below `below`, and these chapters."""

    chain: str
    below: int
    chapters: tuple[bytes, ...]


class Retention:
    def __init__(self, history_s: int = HISTORY_S, history_links: int = HISTORY_LINKS) -> None:
        self._history_s = history_s
        self._history_links = history_links
        self._closed: list[Closed] = []

    def close(self, chapter: Closed) -> None:
        self._closed.append(chapter)

    def expired(self, chain: str, time: int) -> Pruned | None:
        """Chapters of this chain that are too old or too many. The newest one always stays."""
        rows = [c for c in self._closed if c.chain == chain]
        old = [
            c
            for c in rows[:-1]
            if time - c.at > self._history_s or rows[-1].last - c.last >= self._history_links
        ]
        if not old:
            return None
        self._closed = [c for c in self._closed if c not in old]
        return Pruned(chain, old[-1].last + 1, tuple(c.digest for c in old))

    def dump(self) -> bytes:
        return pack([[c.chain, c.first, c.last, c.digest, c.at] for c in self._closed])

    def load(self, data: bytes) -> None:
        self._closed = [Closed(*row) for row in unpack(data, 16 * 1024 * 1024)]


class Statements:
    """Own statements on privacy: each stays as long as a receipt that names it, or until there are
    `most` newer ones. The newest always stays."""

    def __init__(self, most: int = STATEMENTS_MAX) -> None:
        self._most = most
        self._first: dict[bytes, int] = {}  # digest -> the first receipt that names it, in order

    def named(self, name: bytes, receipt: int) -> list[bytes] | None:
        """The next receipt names this one. Those that leave for it; None if nothing has changed."""
        if name == next(reversed(self._first), None):
            return None
        self._first.pop(name, None)
        self._first[name] = receipt
        return self._leave(list(self._first)[: -self._most])

    def pruned(self, below: int) -> list[bytes]:
        """Receipts below this number have left. The statements that none but those named."""
        old = [a for a, b in pairwise(self._first) if self._first[b] <= below]
        return self._leave(old)

    def _leave(self, names: list[bytes]) -> list[bytes]:
        for name in names:
            del self._first[name]
        return names

    def dump(self) -> bytes:
        return pack([[name, number] for name, number in self._first.items()])

    def load(self, data: bytes) -> None:
        self._first = {name: number for name, number in unpack(data, STATEMENTS_BYTES)}
