"""A log on a database for tests: who signs, what is logged, and the check that an auditor makes."""

from __future__ import annotations

import hashlib

from gossipfl.audit.checkpoints import Checkpoint, open_checkpoint
from gossipfl.audit.entries import EntryKind, parse_entry
from gossipfl.audit.notes import log_key
from gossipfl.audit.tree import CompactRange, leaf_hash
from gossipfl.hub.database import Database
from gossipfl.hub.log.drafts import Draft
from gossipfl.hub.log.log import HubLog
from gossipfl.hub.log.writer import LogWriter
from gossipfl.identity import Signer

SIGNER = Signer(hashlib.sha256(b"the hub of the tests").digest())
NOON = 1_700_000_000


def draft(number: int, subject: int = 0, time: int = NOON) -> Draft:
    data = b"payload %d" % number
    return Draft(EntryKind.RECEIPT, bytes([subject] * 16), data, time, f"receipt/{number}")


def log_on(database: Database, batch_max: int = 4_096) -> tuple[HubLog, LogWriter]:
    log = HubLog(database, log_key(SIGNER.key_id))
    return log, LogWriter(database, log, SIGNER, clock=lambda: NOON, batch_max=batch_max)


async def audited(log: HubLog) -> list[bytes]:
    """Payloads in the order of the log, after the whole chain of checkpoints was verified."""
    payloads: list[bytes] = []
    tree = CompactRange()
    before: Checkpoint | None = None
    salts = await log.reader.salts()
    for number in range(1, await log.reader.newest() + 1):
        signed = open_checkpoint(await log.reader.checkpoint(number), log.key).checkpoint
        assert signed.number == number
        assert signed.previous == (before.digest if before is not None else None)
        while tree.size < signed.size:
            end = min(tree.size + 256, signed.size)
            entries = await log.reader.entries(tree.size, end)
            for data, payload in zip(
                entries, await log.reader.payloads(tree.size, end), strict=True
            ):
                if payload is not None:
                    assert parse_entry(data).opens(salts[payload.subject], payload.data)
                    payloads.append(payload.data)
            tree = tree.extended(leaf_hash(entry) for entry in entries)
        assert tree.root() == signed.root
        before = signed
    return payloads
