"""A report signed by the log's key, and the check of one, which needs nothing but that key.

The document is `{"report":BODY,"signature":NOTE}`. NOTE is a C2SP signed note over four lines: the
first says that it is a report, so that no signature of a checkpoint (which begins with the log's
name) or of a protocol object (which begins with "DSSEv1") is one of a report, or the other way
round; then the log's name, the size of the log, and the SHA-256 of BODY's bytes as they were sent.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from gossipfl.audit.checkpoints import open_checkpoint
from gossipfl.audit.entries import parse_entry
from gossipfl.audit.notes import Key, parse_note, sign_note
from gossipfl.audit.refused import AuditRefused
from gossipfl.audit.tree import leaf_hash, verify_inclusion
from gossipfl.hub.reports.claims import DUTIES
from gossipfl.hub.reports.compliance import Claim, ComplianceReport, ProvenEntry, body_of
from gossipfl.identity import Signer

DOMAIN = "gossipfl-compliance-report v1"
DOCUMENT_BYTES_MAX = 1_048_576  # guess; 64 proofs of 64 hashes have 300 kB
BEGIN = b'{"report":'
_BETWEEN = b',"signature":'
_KINDS = {(d.framework, d.article): frozenset(kind.word for kind in d.kinds) for d in DUTIES}


@dataclass(frozen=True, slots=True)
class Checked:
    """A report that the log's key signed, all of whose proofs hold."""

    report: ComplianceReport
    body: bytes
    proofs: int


def signed(body: bytes, size: int, key: Key, signer: Signer) -> bytes:
    """The document. Signing is deterministic (RFC 8032)."""
    note = sign_note(_text(body, size, key), key, signer).encode().decode()
    return BEGIN + body + _BETWEEN + json.dumps(note).encode() + b"}\n"


def _text(body: bytes, size: int, key: Key) -> bytes:
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    return f"{DOMAIN}\n{key.name}\n{size}\n{digest}\n".encode()


def check(document: bytes, key: Key) -> Checked:
    """Signature first, then the types, the checkpoint, and each proof. Raises AuditRefused."""
    if len(document) > DOCUMENT_BYTES_MAX:
        raise AuditRefused(f"a report has at most {DOCUMENT_BYTES_MAX} bytes")
    body, tail = _parts(document)
    try:
        told = json.loads(tail)
    except (ValueError, RecursionError) as error:
        raise AuditRefused("not a signed report") from error
    if not isinstance(told, str):
        raise AuditRefused("not a signed report")
    note = parse_note(told.encode())
    note.require(key)
    report = _typed(body)
    if note.text != _text(body, report.log.size, key):
        raise AuditRefused("what was signed is another report")
    if body_of(report) != body:
        raise AuditRefused("not the only spelling of that report")
    _prove(report, key)
    return Checked(report, body, len(report.entries))


def body_in(document: bytes) -> bytes | None:
    """The report's bytes in a document, of which nothing is checked; None if it is none."""
    try:
        return _parts(document)[0]
    except AuditRefused:
        return None


def _parts(document: bytes) -> tuple[bytes, bytes]:
    """Body and signature, as they were sent. Raises AuditRefused."""
    body, gap, tail = document.removeprefix(BEGIN).rpartition(_BETWEEN)
    if not document.startswith(BEGIN) or not gap or not tail.endswith(b"}\n"):
        raise AuditRefused("not a signed report")
    return body, tail[:-2]


def _typed(body: bytes) -> ComplianceReport:
    try:
        return msgspec.json.decode(body, type=ComplianceReport)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise AuditRefused(f"not a report of this format: {error}") from error


def _prove(report: ComplianceReport, key: Key) -> None:
    """The checkpoint is the log's, each entry is in its tree and is what the report says, and each
    claim names proven entries. Raises AuditRefused."""
    checkpoint = open_checkpoint(report.log.note.encode(), key).checkpoint
    state = (checkpoint.origin, checkpoint.size, checkpoint.root.hex(), checkpoint.number)
    said = (report.log.origin, report.log.size, report.log.root, report.log.number)
    if state != said or checkpoint.time != report.log.time:
        raise AuditRefused("its checkpoint is another one than it says")
    proven = {}
    for row in report.entries:
        data = bytes.fromhex(row.leaf)
        path = [bytes.fromhex(value) for value in row.proof]
        entry = parse_entry(data)
        verify_inclusion(row.entry, checkpoint.size, leaf_hash(data), path, checkpoint.root)
        if (entry.kind.word, entry.time) != (row.kind, row.time):
            raise AuditRefused(f"entry {row.entry} is not what the report says")
        proven[row.entry] = row
    for claim in report.claims:
        _prove_claim(claim, proven)


def _prove_claim(claim: Claim, proven: Mapping[int, ProvenEntry]) -> None:
    """Its entries are of kinds that support it, and no others than it counts. Raises
    AuditRefused."""
    where = f"{claim.framework} {claim.article}"
    kinds = _KINDS.get((claim.framework, claim.article))
    if kinds is None:
        raise AuditRefused(f"{where}: this version does not know which entries support that")
    rows = [proven[index] for index in claim.proven if index in proven]
    if len(rows) != len(claim.proven) or bool(claim.count) != bool(rows):
        raise AuditRefused(f"{where}: no proof of its entries")
    for row in rows:
        if row.kind not in kinds:
            raise AuditRefused(f"{where}: entry {row.entry} ({row.kind}) supports no such claim")
    times = [row.time for row in rows]
    if not rows:
        return
    if claim.first is None or claim.last is None or claim.count < len(rows):
        raise AuditRefused(f"{where}: its entries are not within what it counts")
    if min(times) < claim.first or max(times) > claim.last:
        raise AuditRefused(f"{where}: its entries are not within its times")
