"""The export of a log: one tar with all that an auditor needs, byte for byte in
docs/reference/audit-log.md.

Unpacked it is a static C2SP tlog-tiles log (`checkpoint`, `tile/...`), with all earlier checkpoints
beside it, the payloads, their salts, and a `sums` file that `sha256sum -c` reads.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from gossipfl.audit.archive import END, member
from gossipfl.audit.checkpoints import parse_checkpoint
from gossipfl.audit.entries import (
    PAYLOAD_BYTES_MAX,
    SALT_BYTES,
    SUBJECT_BYTES,
    EntryKind,
    Payload,
    parse_entry,
    unpack_erasure,
)
from gossipfl.audit.notes import parse_note
from gossipfl.audit.reader import LogReader
from gossipfl.audit.refused import AuditRefused
from gossipfl.audit.tiles import (
    BUNDLE,
    WIDTH,
    Tile,
    levels_of,
    number_path,
    pack_bundle,
    tiles_of,
)

ABOUT = "about"
CHECKPOINT = "checkpoint"
SALTS = "salts"
SUMS = "sums"
SUBJECTS_MAX = 1_000_000  # guess: ten times the devices of the largest fleet, with its people

_ABOUT = re.compile(
    r"gossipfl audit export v1\norigin ([^\n]{1,128})\nfleet ([0-9a-f]{64})\n"
    r"entries (0|[1-9][0-9]{0,18})\ncheckpoints ([1-9][0-9]{0,15})\npayloads (yes|no)\n",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class About:
    """The first file of an export. `fleet` is the fleet id, 32 bytes."""

    origin: str
    fleet: bytes
    entries: int
    checkpoints: int
    payloads: bool

    def encode(self) -> bytes:
        lines = ["gossipfl audit export v1", f"origin {self.origin}", f"fleet {self.fleet.hex()}"]
        lines += [f"entries {self.entries}", f"checkpoints {self.checkpoints}"]
        lines.append(f"payloads {'yes' if self.payloads else 'no'}")
        return "".join(f"{line}\n" for line in lines).encode()


def parse_about(data: bytes) -> About:
    """Raises AuditRefused."""
    match = _ABOUT.fullmatch(data.decode("utf-8", "replace"))
    if match is None:
        raise AuditRefused("not an audit export of version 1")
    origin, fleet, entries, checkpoints, payloads = match.groups()
    about = About(origin, bytes.fromhex(fleet), int(entries), int(checkpoints), payloads == "yes")
    if about.encode() != data:
        raise AuditRefused("not the only spelling of an export's first file")
    return about


def place_name(kind: str, tile: Tile) -> str:
    """The name of a file beside an entry bundle: `payloads/x001/067`, `checkpoints/000.p/12`."""
    partial = f".p/{tile.width}" if tile.width < WIDTH else ""
    return f"{kind}/{number_path(tile.index)}{partial}"


def pack_payloads(payloads: Sequence[Payload | None]) -> bytes:
    """For each entry of a bundle: four bytes of length, big-endian, then subject and data. A length
    of 0: erased."""
    return b"".join(
        bytes(4) if p is None else (SUBJECT_BYTES + len(p.data)).to_bytes(4) + p.subject + p.data
        for p in payloads
    )


PAYLOADS_FILE_MAX = WIDTH * (4 + SUBJECT_BYTES + PAYLOAD_BYTES_MAX)


def unpack_payloads(data: bytes, width: int) -> list[Payload | None]:
    """The inverse. Raises AuditRefused unless there are exactly `width`."""
    payloads: list[Payload | None] = []
    place = 0
    for _ in range(width):
        length = int.from_bytes(data[place : place + 4])
        body = data[place + 4 : place + 4 + length]
        if len(data) < place + 4 or len(body) != length or 0 < length < SUBJECT_BYTES:
            raise AuditRefused("the payloads end within one")
        payloads.append(Payload(body[:SUBJECT_BYTES], body[SUBJECT_BYTES:]) if length else None)
        place += 4 + length
    if place != len(data):
        raise AuditRefused("the payloads go on behind the last one")
    return payloads


def pack_salts(salts: Mapping[bytes, bytes]) -> bytes:
    """48 bytes each, subject and salt, in the order of subjects."""
    return b"".join(subject + salts[subject] for subject in sorted(salts))


def unpack_salts(data: bytes) -> dict[bytes, bytes]:
    row = SUBJECT_BYTES + SALT_BYTES
    if len(data) % row:
        raise AuditRefused(f"the salts are rows of {row} bytes")
    rows = [data[i : i + row] for i in range(0, len(data), row)]
    salts = {r[:SUBJECT_BYTES]: r[SUBJECT_BYTES:] for r in rows}
    if len(salts) != len(rows) or list(salts) != sorted(salts):
        raise AuditRefused("the salts are in the order of their subjects, none twice")
    return salts


def pack_sums(sums: Sequence[tuple[str, str]]) -> bytes:
    """As `sha256sum` prints them."""
    return "".join(f"{value}  {name}\n" for name, value in sums).encode()


class Exporter:
    """Writes one export of what the log holds when it is begun."""

    def __init__(self, reader: LogReader, fleet: bytes, payloads: bool = True) -> None:
        self._reader = reader
        self._fleet = fleet
        self._payloads = payloads
        self._sums: list[tuple[str, str]] = []
        self._gone: list[int] = []
        self._erased: list[tuple[int, int]] = []

    def _file(self, name: str, data: bytes) -> bytes:
        self._sums.append((name, hashlib.sha256(data).hexdigest()))
        return member(name, data)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes of the tar. Raises AuditRefused if the log is empty or payloads are missing
        that no entry says were erased (then the export is no use, and nothing tells the end)."""
        count = await self._reader.newest()
        if count == 0:
            raise AuditRefused("the log has no checkpoint yet")
        newest = await self._reader.checkpoint(count)
        last = parse_checkpoint(parse_note(newest).text)
        about = About(last.origin, self._fleet, last.size, count, self._payloads)
        yield self._file(ABOUT, about.encode())
        yield self._file(CHECKPOINT, newest)
        for tile in tiles_of(count, BUNDLE):
            first = tile.index * WIDTH + 1
            notes = [await self._reader.checkpoint(n) for n in range(first, first + tile.width)]
            if first + tile.width > count:
                notes[-1] = newest  # a cosignature may have come in since
            yield self._file(place_name("checkpoints", tile), pack_bundle(notes))
        if self._payloads:
            yield self._file(SALTS, pack_salts(await self._reader.salts()))
        for tile in tiles_of(last.size, BUNDLE):
            async for chunk in self._bundle(tile):
                yield chunk
        for level in range(1, levels_of(last.size)):
            for tile in tiles_of(last.size, level):
                yield self._file(tile.path, await self._reader.tile(tile))
        missing = unexplained(self._gone, self._erased)
        if missing is not None:
            raise AuditRefused(f"the payload of entry {missing} went while this was written")
        yield member(SUMS, pack_sums(self._sums))
        yield END

    async def _bundle(self, tile: Tile) -> AsyncIterator[bytes]:
        """One bundle's entries, their payloads and their hashes."""
        first = tile.index * WIDTH
        entries = await self._reader.entries(first, first + tile.width)
        yield self._file(tile.path, pack_bundle(entries))
        if self._payloads:
            payloads = await self._reader.payloads(first, first + tile.width)
            for index, (entry, payload) in enumerate(zip(entries, payloads, strict=True), first):
                if payload is None:
                    self._gone.append(index)
                elif parse_entry(entry).kind is EntryKind.ERASURE:
                    self._erased += erased_by(index, payload.data)
            yield self._file(place_name("payloads", tile), pack_payloads(payloads))
        hashes = Tile(0, tile.index, tile.width)
        yield self._file(hashes.path, await self._reader.tile(hashes))


def erased_by(index: int, payload: bytes) -> list[tuple[int, int]]:
    """What the ERASURE entry at `index` explains: only what was in the log before it."""
    return [pair for pair in unpack_erasure(payload) if pair[1] <= index]


def unexplained(gone: Sequence[int], erased: Sequence[tuple[int, int]]) -> int | None:
    """The first of the entries without payload (rising) that no range names."""
    ranges = sorted(erased)
    place, reach = 0, 0
    for index in gone:
        while place < len(ranges) and ranges[place][0] <= index:
            reach = max(reach, ranges[place][1])
            place += 1
        if index >= reach:
            return index
    return None
