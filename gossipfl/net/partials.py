"""Transfers that broke off, kept so that the next one continues them by Range."""

from __future__ import annotations

from collections import OrderedDict

PARTIALS = 8  # guess: twice the object transfers out at once
WORTH_BYTES = 64 * 1024  # below, starting over is cheaper than remembering


class Partial:
    """The first bytes of an object, and who sent them.

    They are continued with bytes of that same TLS key only: when the digest is wrong in the end,
    one carrier has sent all of it.
    """

    __slots__ = ("carrier", "data", "size")

    def __init__(self) -> None:
        self.data = bytearray()
        self.carrier: bytes | None = None
        self.size: int | None = None  # of the whole, as the carrier declared it

    def restart(self) -> None:
        self.data.clear()
        self.carrier = None
        self.size = None


class Partials:
    """By digest, the oldest go first; `bytes_max` in all."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._partials: OrderedDict[bytes, Partial] = OrderedDict()

    def take(self, digest: bytes) -> Partial:
        """What there is of this object, to be given back by `keep`; empty if nothing."""
        return self._partials.pop(digest, None) or Partial()

    def keep(self, digest: bytes, partial: Partial) -> None:
        """Remember it if it is unfinished and worth it."""
        if partial.size is None or not WORTH_BYTES <= len(partial.data) < partial.size:
            return
        self._partials[digest] = partial
        while len(self._partials) > PARTIALS or self.held_bytes() > self._bytes_max:
            self._partials.popitem(last=False)

    def held_bytes(self) -> int:
        return sum(len(partial.data) for partial in self._partials.values())
