"""Small logs and their exports for the tests of this folder."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import Callable

from gossipfl.audit.cosignatures import cosign
from gossipfl.audit.entries import EntryKind
from gossipfl.audit.exports import Exporter
from gossipfl.audit.memory import MemoryLog
from gossipfl.audit.notes import log_key, witness_key
from gossipfl.audit.reader import LogReader
from gossipfl.audit.verification import Verdict, verify_export
from gossipfl.identity import Signer

HUB = Signer(b"h" * 32)
WITNESS = Signer(b"w" * 32)
HUB_KEY = log_key(HUB.key_id)
WITNESS_KEY = witness_key(WITNESS.key_id)
FLEET = b"f" * 32
START = 1_700_000_000


def counter() -> Callable[[], bytes]:
    """Salts of a test: 1, 2, 3, ... in 32 bytes."""
    made = iter(range(1, 10**9))
    return lambda: next(made).to_bytes(32, "big")


def subject(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()[:16]


def make_log(entries: int, every: int = 10, subjects: int = 3, cosigned: bool = True) -> MemoryLog:
    """A log of so many entries with a checkpoint each `every`, the last ones cosigned."""
    log = MemoryLog(HUB, counter())
    kinds = list(EntryKind)
    kinds.remove(EntryKind.ERASURE)
    log.publish(START)
    for number in range(entries):
        kind = kinds[number % len(kinds)]
        about = subject(number % subjects)
        log.append(kind, START + number, about, b"payload %d." % number)
        if number % every == every - 1:
            log.publish(START + number)
    note = log.publish(START + entries)
    if cosigned:
        line = cosign(note.text, START + entries + 5, WITNESS)
        log.cosigned(len(log.checkpoints), line)
    return log


def export(log: LogReader, payloads: bool = True) -> bytes:
    async def collect() -> bytes:
        return b"".join([chunk async for chunk in Exporter(log, FLEET, payloads).chunks()])

    return asyncio.run(collect())


def verify(data: bytes, witness: bool = True) -> Verdict:
    return verify_export(io.BytesIO(data), HUB_KEY, [WITNESS_KEY] if witness else [])
