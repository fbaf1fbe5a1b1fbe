"""Small logs and their exports for the tests of this folder."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import Callable

from gossipfl.audit.cosignatures import cosign
from gossipfl.audit.entries import EntryKind, account_subject
from gossipfl.audit.exports import Exporter
from gossipfl.audit.memory import MemoryLog
from gossipfl.audit.notes import log_key, witness_key
from gossipfl.audit.reader import LogReader
from gossipfl.audit.verification import Verdict, verify_export
from gossipfl.identity import Signer
from gossipfl.messages import Evidence, EvidenceKind, Head, Receipt
from gossipfl.objects import digest
from gossipfl.parameters import Layout, Tensor
from gossipfl.wire import encode, seal
from sim.fleet import Fleet, Job, Keys

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


def fleet_log(fleet: Fleet, entries: int, every: int = 50) -> MemoryLog:
    """A log as a hub of this fleet keeps it: admissions, a policy, receipts, a revocation, a proof,
    a login; all of them really signed."""
    log = MemoryLog(HUB, counter())
    devices = [fleet.admit() for _ in range(4)]
    job = fleet.job("audit", Layout((Tensor("w", (8,), 0),)))
    operator = fleet.operator
    for keys in (operator, *devices):
        log.append(EntryKind.MEMBER, START, keys.device, keys.member)
    log.append(EntryKind.POLICY, START + 1, operator.device, fleet.policy(job, n=4))
    liar = devices[3]
    member = digest(liar.member)
    heads = [Head(fleet.id, liar.device, 1, member, START + n) for n in range(2)]
    first, second = (seal("head", encode(head), liar.signer) for head in heads)
    evidence = encode(Evidence(EvidenceKind.EQUAL_SEQ, first, second, liar.member))
    log.append(EntryKind.EVIDENCE, START + 2, liar.device, evidence)
    revocation = fleet.revoke(liar.device, "two heads with one number")
    log.append(EntryKind.REVOCATION, START + 3, liar.device, revocation)
    login = b'{"outcome":"in","user":"ann"}'
    log.append(EntryKind.LOGIN, START + 4, account_subject("ann"), login)
    numbers = dict.fromkeys((keys.device for keys in devices), 0)
    while len(log._entries) < entries:
        keys = devices[len(log._entries) % 3]
        numbers[keys.device] += 1
        log.append(
            EntryKind.RECEIPT,
            START + 5,
            keys.device,
            receipt(fleet, keys, job, numbers[keys.device]),
        )
        if len(log._entries) % every == 0:
            note = log.publish(START + 5 + len(log._entries))
            log.cosigned(len(log.checkpoints), cosign(note.text, START + 10, WITNESS))
    note = log.publish(START + 10 + entries)
    log.cosigned(len(log.checkpoints), cosign(note.text, START + 20 + entries, WITNESS))
    return log


def receipt(fleet: Fleet, keys: Keys, job: Job, number: int) -> bytes:
    """A signed receipt that merged nothing."""
    value = Receipt(
        fleet.id, keys.device, number, number, job.lineage(), bytes(32), "nna", 0, START
    )
    return seal("receipt", encode(value), keys.signer)


def export(log: LogReader, payloads: bool = True, fleet: bytes = FLEET) -> bytes:
    async def collect() -> bytes:
        return b"".join([chunk async for chunk in Exporter(log, fleet, payloads).chunks()])

    return asyncio.run(collect())


def verify(data: bytes, witness: bool = True) -> Verdict:
    return verify_export(io.BytesIO(data), HUB_KEY, [WITNESS_KEY] if witness else [])
