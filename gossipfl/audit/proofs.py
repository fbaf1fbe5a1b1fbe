"""C2SP tlog-proofs (c2sp.org/tlog-proof): one entry, its inclusion proof and the signed checkpoint
in one small file, for whoever may see this entry and no other.

The extra line, which the format leaves to us, carries the entry's 42 bytes, and behind them the
salt and the payload if the holder may have them.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass

from gossipfl.audit.checkpoints import SignedCheckpoint, open_checkpoint
from gossipfl.audit.entries import (
    ENTRY_BYTES,
    PAYLOAD_BYTES_MAX,
    SALT_BYTES,
    Entry,
    parse_entry,
)
from gossipfl.audit.notes import NOTE_BYTES_MAX, Key
from gossipfl.audit.refused import AuditRefused
from gossipfl.audit.tree import PROOF_HASHES_MAX, leaf_hash, verify_inclusion

MAGIC = b"c2sp.org/tlog-proof@v1\n"
PROOF_BYTES_MAX = 2 * PAYLOAD_BYTES_MAX + NOTE_BYTES_MAX  # base64 adds a third

_INDEX = re.compile(rb"index (0|[1-9][0-9]{0,18})\n")


@dataclass(frozen=True, slots=True)
class EntryProof:
    """That this entry is at `index`. `checkpoint` is the signed note; nothing is verified yet."""

    index: int
    entry: bytes
    hashes: tuple[bytes, ...]
    checkpoint: bytes
    salt: bytes | None = None
    payload: bytes | None = None

    def encode(self) -> bytes:
        extra = self.entry
        if self.salt is not None and self.payload is not None:
            extra += self.salt + self.payload
        lines = [b"extra " + base64.b64encode(extra), b"index %d" % self.index]
        lines += [base64.b64encode(value) for value in self.hashes]
        return MAGIC + b"".join(line + b"\n" for line in lines) + b"\n" + self.checkpoint


@dataclass(frozen=True, slots=True)
class Proven:
    """What a proof was found to show."""

    index: int
    entry: Entry
    payload: bytes | None
    signed: SignedCheckpoint


def make_proof(
    index: int,
    entry: bytes,
    hashes: Sequence[bytes],
    checkpoint: bytes,
    opened: tuple[bytes, bytes] | None = None,
) -> EntryProof:
    """`opened`: salt and payload."""
    salt, payload = opened if opened is not None else (None, None)
    return EntryProof(index, entry, tuple(hashes), checkpoint, salt, payload)


def parse_proof(data: bytes) -> EntryProof:
    """The proof of a file of ours, in its only spelling. Verifies nothing. Raises AuditRefused."""
    if len(data) > PROOF_BYTES_MAX or not data.startswith(MAGIC + b"extra "):
        raise AuditRefused("not a proof of one entry")
    head, gap, checkpoint = data.removeprefix(MAGIC).partition(b"\n\n")
    extra_line, _, rest = (head + b"\n").partition(b"\n")
    match = _INDEX.match(rest)
    if not gap or match is None:
        raise AuditRefused("a proof has an index, hashes, an empty line and a checkpoint")
    hashes = tuple(_from_base64(line) for line in rest[match.end() :].splitlines())
    extra = _from_base64(extra_line.removeprefix(b"extra "))
    if len(hashes) > PROOF_HASHES_MAX or ENTRY_BYTES < len(extra) < ENTRY_BYTES + SALT_BYTES:
        raise AuditRefused("not a proof of one entry")
    opened = len(extra) > ENTRY_BYTES
    proof = EntryProof(
        int(match.group(1)),
        extra[:ENTRY_BYTES],
        hashes,
        checkpoint,
        extra[ENTRY_BYTES : ENTRY_BYTES + SALT_BYTES] if opened else None,
        extra[ENTRY_BYTES + SALT_BYTES :] if opened else None,
    )
    if proof.encode() != data:
        raise AuditRefused("not the only spelling of that proof")
    return proof


def verify_proof(proof: EntryProof, hub: Key) -> Proven:
    """Raises AuditRefused unless the entry is in the log that `hub` signed, and opens as told.
    Witnesses' lines are the caller's to check (`cosignatures.require_cosignature`)."""
    signed = open_checkpoint(proof.checkpoint, hub)
    entry = parse_entry(proof.entry)
    size, root = signed.checkpoint.size, signed.checkpoint.root
    verify_inclusion(proof.index, size, leaf_hash(proof.entry), proof.hashes, root)
    if proof.salt is not None and not entry.opens(proof.salt, proof.payload or b""):
        raise AuditRefused("the payload is not the one that the entry commits to")
    return Proven(proof.index, entry, proof.payload, signed)


def _from_base64(line: bytes) -> bytes:
    try:
        return base64.b64decode(line, validate=True)
    except (binascii.Error, ValueError) as error:
        raise AuditRefused("not base64") from error
