"""What is to be logged, and how it is staged: durable before anybody is told that it is logged."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from gossipfl.audit.entries import PAYLOAD_BYTES_MAX, SUBJECT_BYTES, EntryKind
from gossipfl.audit.refused import AuditRefused
from gossipfl.hub.database import Transaction

DEDUPE_BYTES = 16

_INSERT = (
    "INSERT INTO log_entries (dedupe, kind, time, subject, data) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (dedupe) DO NOTHING"
)


@dataclass(frozen=True, slots=True)
class Draft:
    """An entry before it has its place.

    subject: 16 bytes of whom it is about (a device id, `audit.entries.account_subject`).
    time: whole seconds since 1970; raised to the last entry's if it is lower.
    key: what is logged at most once under this name ("receipt/<device>/<number>"); None: always.
    """

    kind: EntryKind
    subject: bytes
    data: bytes
    time: int
    key: str | None = None

    def __post_init__(self) -> None:
        if len(self.subject) != SUBJECT_BYTES or len(self.data) > PAYLOAD_BYTES_MAX:
            raise AuditRefused(f"an entry has 16 bytes of subject and at most {PAYLOAD_BYTES_MAX}")

    @property
    def dedupe(self) -> bytes:
        return secrets.token_bytes(DEDUPE_BYTES) if self.key is None else dedupe(self.key)


def dedupe(key: str) -> bytes:
    """What stands for a draft's key in the store."""
    return hashlib.sha256(b"gossipfl log\n" + key.encode()).digest()[:DEDUPE_BYTES]


async def stage(transaction: Transaction, drafts: Iterable[Draft]) -> None:
    """Write them down in order, in the caller's transaction. What is there already stays."""
    rows = [(d.dedupe, int(d.kind), d.time, d.subject, d.data) for d in drafts]
    if rows:
        await transaction.many(_INSERT, rows)
