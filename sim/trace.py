"""What happened, folded into one SHA-256: two runs are the same if and only if digests agree.

Every event delivered, effect issued and act of the world goes in, in order, with virtual time,
device and a stable encoding (msgpack of the dataclasses). Long byte strings and arrays go in by
their own SHA-256, which is taken once per object however many devices are handed it.
"""

from __future__ import annotations

import hashlib
import struct
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np

from gossipfl.events import Batch, Commit, HeadReceived, ObjectReceived, Reckon, Reckoned
from gossipfl.privacy.ledger import Account
from sim.brief import brief

KEPT = 60  # last lines shown with a failure
LONG_BYTES = 512  # from here on a digest is shorter to fold in
KNOWN_MAX = 4_096
"""Digests of immutable objects remembered in one generation: guess, a few rounds of updates."""
FOLD_BYTES = 1 << 16  # folded into the sum at a time


class Known:
    """Digests of objects that nobody can change, by identity. Holds them, so that an identity
    cannot pass to another object while it is here."""

    def __init__(self) -> None:
        self._young: dict[int, tuple[Any, bytes]] = {}
        self._old: dict[int, tuple[Any, bytes]] = {}

    def of(self, value: Any) -> bytes | None:
        """Its digest, if it is known."""
        found = self._young.get(id(value)) or self._old.get(id(value))
        return found[1] if found is not None else None

    def digest(self, value: Any, data: Callable[[], bytes]) -> bytes:
        """`data` gives the bytes that stand for it, where they were not hashed before."""
        known = self.of(value)
        if known is not None:
            return known
        found = self._young[id(value)] = (value, hashlib.sha256(data()).digest())
        if len(self._young) > KNOWN_MAX:
            self._old, self._young = self._young, {}
        return found[1]


def is_fixed(array: np.ndarray[Any, Any]) -> bool:
    """Can nobody write to it? A read-only view of something writable does not count."""
    if array.flags.writeable:
        return False
    base = array.base
    return base is None or isinstance(base, bytes) or _is_fixed_view(base)


def _is_fixed_view(base: Any) -> bool:
    return isinstance(base, memoryview) and base.readonly and isinstance(base.obj, bytes)


class _Stable:
    """msgspec's hooks: equal bytes for equal events or effects, whatever the hash seed."""

    def __init__(self) -> None:
        self._known = Known()
        self._encoder = msgspec.msgpack.Encoder(enc_hook=self._unknown, order="deterministic")
        self.encode = self._encoder.encode
        self.short: dict[type, Callable[[Any], Any]] = {
            HeadReceived: self._head,
            ObjectReceived: lambda e: (e.request, self._bytes(e.data)),
            Commit: self._commit,
            Reckon: lambda e: (e.ledger.ref, e.spec, e.terms),
            Reckoned: lambda e: self._account(e.account),
        }

    def _bytes(self, data: bytes | None) -> bytes | None:
        if data is None or len(data) < LONG_BYTES:
            return data
        return self._known.of(data) or self._known.digest(data, lambda: data)

    def _head(self, event: HeadReceived) -> Any:
        head, update = self._bytes(event.head), self._bytes(event.update)
        return (event.request, head, event.member, update, event.tls_key)

    def _commit(self, effect: Commit) -> Any:
        """Objects are named by their digests already."""
        batch: Batch = effect.batch
        names = [name for name, _ in batch.objects]
        documents = {name: self._bytes(data) for name, data in batch.documents.items()}
        return (
            *(effect.commit, batch.seq, batch.head, batch.receipt, names, documents),
            *(batch.retire, batch.links, batch.prune, batch.adopt, batch.ledger),
        )

    @staticmethod
    def _account(account: Account) -> Any:
        """A ledger is what its newest link says."""
        costs = (account.spent, account.after, account.affordable, account.refusal)
        return (account.ledger.ref, account.spec, account.terms, *costs)

    def _unknown(self, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return (value.dtype.str, value.shape, self._array(value))
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, Mapping):
            return dict(value)
        raise TypeError(f"no stable encoding of {type(value).__name__}")

    def _array(self, value: np.ndarray[Any, Any]) -> bytes:
        def data() -> bytes:
            return np.ascontiguousarray(value).tobytes()

        return (
            self._known.digest(value, data) if is_fixed(value) else hashlib.sha256(data()).digest()
        )


_PREFIX = struct.Struct("<dhHI")


class Trace:
    """`entries` counts what was folded in. `tail` shows the last of it, for failures."""

    def __init__(self) -> None:
        self._sum = hashlib.sha256()
        self._stable = _Stable()
        self._open: list[bytes] = []
        self._open_bytes = 0
        self._tail: deque[tuple[float, int, Any]] = deque(maxlen=KEPT)
        self._names: dict[type, bytes] = {}
        self.entries = 0

    def add(self, now: float, device: int, value: Any) -> None:
        """`value` happened at virtual second `now` at `device` (-1: the world itself)."""
        kind = type(value)
        name = self._names.get(kind)
        if name is None:
            name = self._names[kind] = kind.__name__.encode()
        short = self._stable.short.get(kind)
        data = self._stable.encode(value if short is None else short(value))
        self._open += (_PREFIX.pack(now, device, len(name), len(data)), name, data)
        self._open_bytes += len(data)
        if self._open_bytes > FOLD_BYTES:
            self._fold()
        self._tail.append((now, device, value))
        self.entries += 1

    def _fold(self) -> None:
        self._sum.update(b"".join(self._open))
        self._open.clear()
        self._open_bytes = 0

    def digest(self) -> str:
        self._fold()
        return self._sum.copy().hexdigest()

    def tail(self) -> str:
        """The last entries, one a line, cut to 160 characters."""
        lines = []
        for now, device, value in self._tail:
            who = "world" if device < 0 else f"d{device}"
            lines.append(f"{now:10.4f} {who:>5} {brief(value)}"[:160])
        return "\n".join(lines)
