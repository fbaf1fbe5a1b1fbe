"""The tar of an export, in one spelling only: POSIX ustar, no field left to chance.

Every reader of tar reads it. This one, besides, refuses any byte that the writer would not have
written, because a byte that nothing checks is a byte that can be changed unseen.
"""

from __future__ import annotations

import hashlib
from typing import Protocol

from gossipfl.audit.refused import AuditRefused

BLOCK = 512
NAME_BYTES_MAX = 100
SIZE_MAX = 8**11 - 1  # eleven octal digits
END = bytes(2 * BLOCK)


class Source(Protocol):
    """What an archive is read from: an open binary file."""

    def read(self, size: int, /) -> bytes: ...


def header(name: str, size: int) -> bytes:
    """The 512 bytes before a file: mode 0444, owner 0, time 0."""
    raw = name.encode("ascii")
    if not 1 <= len(raw) <= NAME_BYTES_MAX or not 0 <= size <= SIZE_MAX:
        raise ValueError(f"{name} of {size} bytes does not fit a ustar header")
    block = bytearray(BLOCK)
    block[0 : len(raw)] = raw
    block[100:108] = b"0000444\0"
    block[108:124] = b"0000000\0" * 2
    block[124:136] = b"%011o\0" % size
    block[136:148] = b"00000000000\0"
    block[148:156] = b" " * 8
    block[156:157] = b"0"
    block[257:265] = b"ustar\x0000"
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def member(name: str, data: bytes) -> bytes:
    """A whole file: header, data, zeros up to the next block."""
    return header(name, len(data)) + data + bytes(-len(data) % BLOCK)


class ArchiveReader:
    """Reads files in the order in which they are asked for, and keeps their sums."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.sums: list[tuple[str, str]] = []  # (name, SHA-256 in hex)

    def read(self, name: str, size_max: int) -> bytes:
        """The next file, which must have this name. Raises AuditRefused."""
        block = self._exactly(BLOCK, name)
        digits = block[124:135]
        if not all(0x30 <= digit <= 0x37 for digit in digits):
            raise AuditRefused(f"the header of {name} is damaged")
        size = int(digits, 8)
        if block != header(name, size):
            raise AuditRefused(f"the header of {name} is damaged, or another file is in its place")
        if size > size_max:
            raise AuditRefused(f"{name} has {size} bytes, at most {size_max}")
        data = self._exactly(size, name)
        if any(self._exactly(-size % BLOCK, name)):
            raise AuditRefused(f"there is something between {name} and the next file")
        self.sums.append((name, hashlib.sha256(data).hexdigest()))
        return data

    def end(self) -> None:
        """Raises AuditRefused unless nothing follows but the end of the archive."""
        if self._exactly(len(END), "the end") != END or self._source.read(1):
            raise AuditRefused("something follows the last file")

    def _exactly(self, size: int, name: str) -> bytes:
        data = self._source.read(size) if size else b""
        while len(data) < size:
            more = self._source.read(size - len(data))
            if not more:
                raise AuditRefused(f"the export ends before or within {name}")
            data += more
        return data
