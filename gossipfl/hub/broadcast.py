"""What happens at the hub, told to whoever listens now: the page's events, alerts.

Nobody can hold up the hub: who does not read loses his place, and asks anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

QUEUE_MAX = 256  # events that a slow reader may be behind: guess, a minute of a busy fleet
READERS_MAX = 256  # guess: as many as requests under way


@dataclass(frozen=True, slots=True)
class Happened:
    """`kind` names the event for readers ("notice", "checkpoint", "task"); `data` is JSON types."""

    kind: str
    data: Mapping[str, object] = field(default_factory=dict)


class Broadcast:
    """One sender, many readers, each with a bounded queue."""

    def __init__(self) -> None:
        self._readers: set[asyncio.Queue[Happened | None]] = set()

    @property
    def readers(self) -> int:
        return len(self._readers)

    def tell(self, kind: str, **data: object) -> None:
        """Never waits. A reader that is too far behind is cut off."""
        for queue in list(self._readers):
            if queue.full():
                self._readers.discard(queue)
                queue.get_nowait()
                queue.put_nowait(None)
            else:
                queue.put_nowait(Happened(kind, data))

    @contextmanager
    def listen(self) -> Iterator[AsyncIterator[Happened]]:
        """Everything from now on; ends when the reader was cut off. ValueError: too many."""
        if len(self._readers) >= READERS_MAX:
            raise ValueError(f"{READERS_MAX} readers listen already")
        queue: asyncio.Queue[Happened | None] = asyncio.Queue(QUEUE_MAX)
        self._readers.add(queue)
        try:
            yield _read(queue)
        finally:
            self._readers.discard(queue)


async def _read(queue: asyncio.Queue[Happened | None]) -> AsyncIterator[Happened]:
    while (happened := await queue.get()) is not None:
        yield happened
