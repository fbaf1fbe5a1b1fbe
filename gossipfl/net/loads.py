"""Objects read from the store to be served: one copy for all who send it at the same time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

Load = Callable[[bytes], Awaitable[bytes | None]]
"""An object from the store by its digest, read off the loop."""


class Loads:
    """Holds what is being sent and no longer. `bytes_max` is where new loads are refused."""

    def __init__(self, load: Load, bytes_max: int) -> None:
        self._load = load
        self._bytes_max = bytes_max
        self._held: dict[bytes, tuple[bytes, int]] = {}  # digest -> bytes, how many send them

    def full(self, digest: bytes) -> bool:
        """Whether there is no room to load this one."""
        held = sum(len(data) for data, _ in self._held.values())
        return held >= self._bytes_max and digest not in self._held

    async def hold(self, digest: bytes) -> bytes | None:
        """The object, to be given back by `release` after sending; None: we do not have it."""
        shared = self._held.get(digest)
        data = shared[0] if shared else await self._load(digest)
        if data is not None:
            # Another request may have loaded the same bytes meanwhile: keep one copy.
            data, count = self._held.get(digest, (data, 0))
            self._held[digest] = (data, count + 1)
        return data

    def release(self, digest: bytes) -> None:
        data, count = self._held.pop(digest)
        if count > 1:
            self._held[digest] = (data, count - 1)
