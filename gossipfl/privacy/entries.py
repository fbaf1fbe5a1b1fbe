"""The entries of a privacy ledger, and their bytes. Nothing here holds a time: clocks may jump.

An entry is msgpack `[kind, fields]` in the one shortest form; its link is SHA-256(link before,
entry). So a link fixes everything that was ever entered, in order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from gossipfl.errors import LocalError, PeerError
from gossipfl.messages import Count, Device, Digest, Seq
from gossipfl.privacy.protection import (
    CLIP_MAX,
    CLIP_MIN,
    LOT_MAX,
    STEPS_MAX,
    Z_MAX,
    Z_MIN,
    DevicePrivacy,
    RecordPrivacy,
    Unit,
)
from gossipfl.wire import decode, encode, pack, unpack

ROW_BYTES_MAX = 512  # an entry has about 150
ROWS_MAX = 16_384  # guess: 45 years of a release a day; then the ledger is full and refuses
PACKED_BYTES_MAX = ROWS_MAX * (ROW_BYTES_MAX + 64)
START = hashlib.sha256(b"gossipfl privacy ledger 1\n").digest()
"""What stands for the link before the first entry."""


class LedgerError(LocalError):
    """These bytes are no ledger, or not the one that was committed to."""


class Mechanism(StrEnum):
    ROUNDED_GAUSSIAN = "rounded gaussian"
    DP_SGD = "dp-sgd"


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    pass


class Opened(_Entry, frozen=True):
    """The first entry. `unknown`: the ledger of `replaces` is lost, all of it counts as spent."""

    device: Device
    replaces: Device | None = None
    unknown: bool = False


class Enrolled(_Entry, frozen=True):
    """The same device under a new key: what is spent stays spent."""

    device: Device


class Released(_Entry, frozen=True):
    """One publication, entered before it can be seen."""

    number: Seq  # of the release: 1, 2, 3 ... over all enrolments
    unit: Unit
    mechanism: Mechanism
    z: Annotated[float, Meta(ge=Z_MIN, le=Z_MAX)]
    clip: Annotated[float, Meta(ge=CLIP_MIN, le=CLIP_MAX)]
    released: Digest  # of the update object
    sample_rate: Annotated[float, Meta(gt=0.0, le=1.0)] = 1.0
    steps: Annotated[int, Meta(ge=1, le=STEPS_MAX)] = 1
    lot: Annotated[int, Meta(ge=0, le=LOT_MAX)] = 0


Entry = Opened | Enrolled | Released
KINDS: dict[str, type[Entry]] = {"opened": Opened, "enrolled": Enrolled, "released": Released}
_NAMES = {shape: kind for kind, shape in KINDS.items()}


@dataclass(frozen=True, slots=True)
class Row:
    """One durable row: the entry's bytes and the link that they make."""

    number: Count  # of the entry, from 1
    data: bytes
    link: bytes


def released(number: int, spec: DevicePrivacy | RecordPrivacy, digest: bytes) -> Released:
    """The entry for one release under `spec`; `digest` names what goes out."""
    match spec:
        case DevicePrivacy():
            return Released(
                number, Unit.DEVICE, Mechanism.ROUNDED_GAUSSIAN, spec.z, spec.clip, digest
            )
        case RecordPrivacy():
            return Released(
                number,
                Unit.RECORD,
                Mechanism.DP_SGD,
                spec.z,
                spec.clip,
                digest,
                spec.sample_rate,
                spec.steps,
                spec.lot,
            )


def link_of(before: bytes, data: bytes) -> bytes:
    """SHA-256(link before, entry). Both lengths are known: a link has 32 bytes."""
    return hashlib.sha256(before + data).digest()


def require_next(newest: Row | None, rows: Iterable[Row]) -> None:
    """Stores ask this before they append `rows`. Raises LedgerError if they do not follow."""
    number, link = (newest.number, newest.link) if newest else (0, START)
    for row in rows:
        if row.number != number + 1 or row.link != link_of(link, row.data):
            raise LedgerError(f"ledger row {row.number} does not follow the durable {number}")
        number, link = row.number, row.link


def entry_bytes(entry: Entry) -> bytes:
    return pack([_NAMES[type(entry)], unpack(encode(entry), ROW_BYTES_MAX)])


def parse_entry(data: bytes) -> Entry:
    """Raises LedgerError unless these are an entry's bytes in their only form."""
    try:
        parts = unpack(data, ROW_BYTES_MAX)
        if not (isinstance(parts, list) and len(parts) == 2 and isinstance(parts[0], str)):
            raise LedgerError("an entry is [kind, fields]")
        shape = KINDS.get(parts[0])
        if shape is None:
            raise LedgerError(f"unknown kind of entry {parts[0][:20]!r}")
        entry: Entry = decode(pack(parts[1]), shape, ROW_BYTES_MAX)
    except PeerError as error:
        raise LedgerError(f"entry: {error.detail}") from error
    if entry_bytes(entry) != data:
        raise LedgerError("an entry has one form, and this is another")
    return entry


def line_of(rows: Iterable[Row], device: bytes) -> tuple[list[bytes], bool]:
    """The devices before `device`, in order, from the last on that has released anything: what was
    before it was confirmed then. And whether `device` itself has. Raises LedgerError."""
    line: list[bytes] = []
    owner, has_released = b"", False
    for entry in map(parse_entry, (row.data for row in rows)):
        if isinstance(entry, Released):
            has_released = has_released or owner == device
            line = [owner] if owner != device else []
            continue
        if isinstance(entry, Opened) and entry.replaces is not None:
            line.append(entry.replaces)
        owner = entry.device
        line += [owner] if owner != device else []
    return line, has_released


def pack_rows(rows: Iterable[Row]) -> bytes:
    """A whole ledger as one object, to be kept, carried over or handed in."""
    return pack([[row.data, row.link] for row in rows])


def unpack_rows(data: bytes) -> list[Row]:
    """The rows of `pack_rows`, bounded, their links not yet checked. Raises LedgerError."""
    try:
        parts = unpack(data, PACKED_BYTES_MAX)
    except PeerError as error:
        raise LedgerError(error.detail) from error
    if not (isinstance(parts, list) and all(_is_row(part) for part in parts)):
        raise LedgerError("a packed ledger is a list of [entry, link]")
    return [Row(number, part[0], part[1]) for number, part in enumerate(parts, 1)]


def _is_row(part: object) -> bool:
    return (
        isinstance(part, list)
        and len(part) == 2
        and all(isinstance(item, bytes) for item in part)
        and len(part[0]) <= ROW_BYTES_MAX
        and len(part[1]) == 32
    )
