"""What a log entry is: a kind, a time, and a salted commitment to a payload that lies elsewhere.

An entry has 42 bytes: version (1), kind (1), time (8, big-endian seconds), and HMAC-SHA256 keyed
with the subject's salt over these ten bytes and the payload (32). The payload, and who the subject
is, lie in a side store. Whoever holds salt and payload can show that they belong to the entry; once
a subject's salt and payloads are deleted (GDPR article 17), nothing links the entry to anybody, and
every proof over the log holds as before. What was erased is itself an entry, so an export cannot
pass off what it withholds as erased.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from gossipfl.audit.refused import AuditRefused

VERSION = 1
HEADER_BYTES = 10
ENTRY_BYTES = HEADER_BYTES + 32
SALT_BYTES = 32
SUBJECT_BYTES = 16
PAYLOAD_BYTES_MAX = 131_072  # guess: a receipt of 64 KiB with the member object of its signer fits
TIME_MAX = 2**40  # as messages.Seconds


class EntryKind(IntEnum):
    """What happened. The number is in the entry, so it only ever grows.

    The payload of the first six is the signed object as devices hold it; the subject is the device
    that signed or joined. The others are JSON of the hub, with keys sorted.
    """

    MEMBER = 1  # member object: an admission
    RECEIPT = 2  # receipt envelope
    POLICY = 3  # policy object
    REVOCATION = 4  # revocation object
    EVIDENCE = 5  # evidence object
    MARKER = 6  # marker envelope: what a device's retention let go
    LOGIN = 16  # a person came in, or was refused
    ACCOUNT = 17  # a person's account was made or changed
    EXPORT = 18  # somebody took an export of this log
    ERASURE = 19  # `pack_erasure`: salts and payloads were deleted
    UPDATE = 20  # an update of a star client
    MODEL = 21  # a version of the global model
    DECISION = 22  # an operator's action: strategy, block, release, checkpoint, restore
    REPORT = 23  # a report was made
    ALARM = 24  # the hub noticed something: fork, silence, disk

    @property
    def word(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Entry:
    """One leaf. `time` in whole seconds since 1970; entries are in the order of their times."""

    kind: EntryKind
    time: int
    commitment: bytes

    def encode(self) -> bytes:
        """42 bytes: the leaf."""
        return _header(self.kind, self.time) + self.commitment

    def opens(self, salt: bytes, payload: bytes) -> bool:
        """Is this the payload that the entry commits to?"""
        made = commit(self.kind, self.time, salt, payload)
        return hmac.compare_digest(made, self.commitment)


@dataclass(frozen=True, slots=True)
class Payload:
    """The side store's part of one entry: 16 bytes of whom it is about, and what it says."""

    subject: bytes
    data: bytes

    def __post_init__(self) -> None:
        if len(self.subject) != SUBJECT_BYTES or len(self.data) > PAYLOAD_BYTES_MAX:
            raise AuditRefused(f"a payload has 16 bytes of subject and at most {PAYLOAD_BYTES_MAX}")


def make_entry(kind: EntryKind, time: int, salt: bytes, payload: bytes) -> Entry:
    """The entry of a payload; `salt` is its subject's, 32 secret random bytes."""
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise AuditRefused(f"a payload has at most {PAYLOAD_BYTES_MAX} bytes, not {len(payload)}")
    return Entry(kind, time, commit(kind, time, salt, payload))


def commit(kind: EntryKind, time: int, salt: bytes, payload: bytes) -> bytes:
    """HMAC-SHA256(salt, header || payload)."""
    if len(salt) != SALT_BYTES:
        raise AuditRefused(f"a salt has {SALT_BYTES} bytes")
    return hmac.digest(salt, _header(kind, time) + payload, hashlib.sha256)


def parse_entry(data: bytes) -> Entry:
    """The entry of 42 bytes. Raises AuditRefused for another version, kind or length."""
    if len(data) != ENTRY_BYTES or data[0] != VERSION:
        raise AuditRefused(f"an entry has {ENTRY_BYTES} bytes and begins with {VERSION}")
    try:
        kind = EntryKind(data[1])
    except ValueError as error:
        raise AuditRefused(f"there is no kind {data[1]} of entry") from error
    time = int.from_bytes(data[2:HEADER_BYTES])
    if time > TIME_MAX:
        raise AuditRefused("an entry's time is at most 2**40 seconds")
    return Entry(kind, time, data[HEADER_BYTES:])


def account_subject(name: str) -> bytes:
    """The subject that stands for a person's account, as device ids stand for devices."""
    return hashlib.sha256(b"gossipfl account\n" + name.encode()).digest()[:SUBJECT_BYTES]


def pack_erasure(indexes: Iterable[int]) -> bytes:
    """The payload of an ERASURE entry: `FIRST-END` lines of the entries whose payloads are gone."""
    lines: list[list[int]] = []
    for index in sorted(set(indexes)):
        if lines and lines[-1][1] == index:
            lines[-1][1] = index + 1
        else:
            lines.append([index, index + 1])
    data = "".join(f"{first}-{end}\n" for first, end in lines).encode()
    if not lines or len(data) > PAYLOAD_BYTES_MAX:
        raise AuditRefused("an erasure names 1 to some thousand ranges: write several entries")
    return data


def unpack_erasure(data: bytes) -> list[tuple[int, int]]:
    """The [first, end) ranges, rising. Raises AuditRefused unless in the only spelling."""
    ranges: list[tuple[int, int]] = []
    for line in data.decode("ascii", "replace").splitlines():
        first, _, end = line.partition("-")
        if not (first.isascii() and first.isdigit() and end.isascii() and end.isdigit()):
            raise AuditRefused("an erasure is lines of FIRST-END")
        if len(line) > 40 or int(first) >= int(end) or (ranges and ranges[-1][1] >= int(first)):
            raise AuditRefused("the ranges of an erasure rise and do not touch")
        ranges.append((int(first), int(end)))
    if "".join(f"{first}-{end}\n" for first, end in ranges).encode() != data or not ranges:
        raise AuditRefused("not the only spelling of that erasure")
    return ranges


def _header(kind: EntryKind, time: int) -> bytes:
    if not 0 <= time <= TIME_MAX:
        raise AuditRefused("an entry's time is 0 to 2**40 seconds")
    return bytes([VERSION, kind]) + time.to_bytes(8)
