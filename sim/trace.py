"""What happened, folded into one SHA-256: two runs are the same if and only if digests agree.

Every event delivered, effect issued and act of the world goes in, in order, with virtual time,
device and a stable encoding (msgpack of the dataclasses, arrays as dtype, shape and bytes).
"""

from __future__ import annotations

import hashlib
import struct
from collections import deque
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

KEPT = 60  # last lines shown with a failure


def _stable(value: Any) -> Any:
    """msgspec's hook for what it does not know."""
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.shape, np.ascontiguousarray(value).tobytes())
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"no stable encoding of {type(value).__name__}")


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_stable, order="deterministic")
_PREFIX = struct.Struct("<dhH")


def stable_bytes(value: Any) -> bytes:
    """A byte string that is equal for equal events or effects, whatever the hash seed."""
    return _ENCODER.encode(value)


class Trace:
    """`entries` counts what was folded in. `tail` shows the last of it, for failures."""

    def __init__(self) -> None:
        self._sum = hashlib.sha256()
        self._tail: deque[tuple[float, int, str, Any]] = deque(maxlen=KEPT)
        self.entries = 0

    def add(self, now: float, device: int, value: Any) -> None:
        """`value` happened at virtual second `now` at `device` (-1: the world itself)."""
        name = type(value).__name__
        data = _ENCODER.encode(value)
        self._sum.update(_PREFIX.pack(now, device, len(name)))
        self._sum.update(name.encode())
        self._sum.update(len(data).to_bytes(8, "little"))
        self._sum.update(data)
        self._tail.append((now, device, name, value))
        self.entries += 1

    def digest(self) -> str:
        return self._sum.copy().hexdigest()

    def tail(self) -> str:
        """The last entries, one a line, cut to 160 characters."""
        lines = []
        for now, device, name, value in self._tail:
            who = "world" if device < 0 else f"d{device}"
            lines.append(f"{now:10.4f} {who:>5} {name} {value!r}"[:160])
        return "\n".join(lines)
