"""The seam between whoever keeps a log and whoever reads it: one protocol for the hub's database,
for a hub behind a URL and for an export.

Async, because two of the three wait for something. Numbers of checkpoints begin at 1, indexes of
entries at 0; ranges are [first, end). Everything returned is bytes as they are stored: verifying
is the reader's business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from gossipfl.audit.entries import Payload
from gossipfl.audit.tiles import Tile


class LogReader(Protocol):
    """All methods raise AuditRefused for what the log does not hold."""

    async def newest(self) -> int:
        """The number of the newest published checkpoint; 0 for a log that has none."""
        ...

    async def checkpoint(self, number: int) -> bytes:
        """That checkpoint's signed note, with the cosignatures that have come in."""
        ...

    async def tile(self, tile: Tile) -> bytes:
        """The 32-byte hashes of a hash tile (level >= 0), exactly `tile.width` of them."""
        ...

    async def entries(self, first: int, end: int) -> Sequence[bytes]:
        """The 42-byte entries [first, end); at most 256 at once."""
        ...

    async def payloads(self, first: int, end: int) -> Sequence[Payload | None]:
        """Their side store; None where it was erased. At most 256 at once."""
        ...

    async def salts(self) -> Mapping[bytes, bytes]:
        """The salt of each subject that has not been erased."""
        ...
