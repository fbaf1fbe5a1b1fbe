"""Transfers that broke off, kept so that the next one continues them by Range."""

from __future__ import annotations

from collections import OrderedDict

PARTIALS = 8  # guess: twice the object transfers out at once
KEPT_S = 600.0  # guess: a device that sleeps, or carries its phone to another room
WORTH_BYTES = 64 * 1024  # below, starting over is cheaper than remembering


class Partial:
    """The first bytes of an object, and who sent them.

    They are continued with bytes of that same TLS key only: when the digest is wrong in the end,
    one carrier has sent all of it.
    """

    __slots__ = ("carrier", "data", "kept_at", "size")

    def __init__(self) -> None:
        self.data = bytearray()
        self.carrier: bytes | None = None
        self.size: int | None = None  # of the whole, as the carrier declared it
        self.kept_at = 0.0

    def restart(self) -> None:
        self.data.clear()
        self.carrier = None
        self.size = None


class Partials:
    """By digest, the oldest go first; `bytes_max` in all."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._partials: OrderedDict[bytes, Partial] = OrderedDict()

    def take(self, digest: bytes, now: float) -> Partial:
        """What there is of this object, to be given back by `keep`; empty if nothing."""
        self._forget(now)
        return self._partials.pop(digest, None) or Partial()

    def keep(self, digest: bytes, partial: Partial, now: float) -> None:
        """Remember it if it is unfinished and worth it."""
        if partial.size is None or not WORTH_BYTES <= len(partial.data) < partial.size:
            return
        partial.kept_at = now
        self._partials[digest] = partial
        while len(self._partials) > PARTIALS or self.held_bytes() > self._bytes_max:
            self._partials.popitem(last=False)

    def _forget(self, now: float) -> None:
        """What nobody continued in time: memory is worth more."""
        for digest in [d for d, p in self._partials.items() if now - p.kept_at > KEPT_S]:
            del self._partials[digest]

    def held_bytes(self) -> int:
        return sum(len(partial.data) for partial in self._partials.values())
