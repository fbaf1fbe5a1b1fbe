"""Bodies that are on their way: so many in all, and of one sender.

Only who keeps us waiting needs a place. When all are taken, the one that was held longest by
whoever holds most is given to the newcomer, unless it was taken just now: slow senders hinder each
other, not those who send what they have.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gossipfl.hub.rest.problems import Problem, busy

PATIENCE_S = 1.0  # guess, as a handshake's: a body of 64 KiB at half a Mbit/s


class Uploads:
    """`in_all` places, of which one sender may hold `each`."""

    def __init__(self, in_all: int, each: int, patience_s: float = PATIENCE_S) -> None:
        self._in_all = in_all
        self._each = each
        self._patience_s = patience_s
        self._held: dict[str, dict[asyncio.Timeout, float]] = {}  # by sender, the longest first
        self.count = 0

    @asynccontextmanager
    async def place(self, sender: str) -> AsyncIterator[None]:
        """A place while a body is read. Raises Problem: 503 without one, 408 if it was lost."""
        now = asyncio.get_running_loop().time()
        if not self._make_way(sender, now):
            raise busy("too many uploads are under way")
        try:
            async with asyncio.timeout(None) as bound:
                self._held.setdefault(sender, {})[bound] = now
                self.count += 1
                try:
                    yield
                finally:
                    self._give_up(sender, bound)
        except TimeoutError:
            raise Problem(408, "GF824", "the body came slowly, and others wait") from None

    def _make_way(self, sender: str, now: float) -> bool:
        own = len(self._held.get(sender, ()))
        if own >= self._each:
            return self._end_oldest(sender, now)
        if self.count < self._in_all:
            return True
        most = max(self._held, key=lambda name: len(self._held[name]))
        # Only towards balance: else two senders could push each other out for ever.
        return own + 1 < len(self._held[most]) and self._end_oldest(most, now)

    def _end_oldest(self, sender: str, now: float) -> bool:
        bound, since = next(iter(self._held[sender].items()))
        if now - since < self._patience_s:
            return False
        self._give_up(sender, bound)
        bound.reschedule(now)
        return True

    def _give_up(self, sender: str, bound: asyncio.Timeout) -> None:
        own = self._held.get(sender, {})
        if own.pop(bound, None) is not None:
            self.count -= 1
        if not own:
            self._held.pop(sender, None)
