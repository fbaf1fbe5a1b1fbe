"""C2SP tlog-cosignature (c2sp.org/tlog-cosignature), version 1: what a witness says.

"At this time this was the largest tree of this log that I have seen, and it contains all the
smaller ones that I have signed." The Ed25519 signature covers `cosignature/v1`, `time SECONDS` and
the checkpoint's text; its note line carries the time in eight bytes before the signature.
"""

from __future__ import annotations

from gossipfl.audit.notes import COSIGNATURE, Key, Note, Signature, witness_key
from gossipfl.audit.refused import AuditRefused
from gossipfl.identity import Signer, verify

TIME_MAX = 2**40  # as messages.Seconds


def signed_text(text: bytes, time: int) -> bytes:
    return b"cosignature/v1\ntime %d\n" % time + text


def cosign(text: bytes, time: int, signer: Signer) -> Signature:
    """The signature line of a witness over a checkpoint's text."""
    if not 0 <= time <= TIME_MAX:
        raise ValueError(f"a time is 0 to 2**40 seconds, not {time}")
    key = witness_key(signer.key_id)
    blob = time.to_bytes(8) + signer.sign(signed_text(text, time))
    return Signature(key.name, key.id, blob)


def check_cosignature(text: bytes, signature: Signature, key: Key) -> int:
    """The time at which this witness signed `text`. Raises AuditRefused if it did not."""
    if key.type != COSIGNATURE or not signature.by(key):
        raise AuditRefused(f"not a cosignature of {key.name}")
    if len(signature.blob) != 72:
        raise AuditRefused("a cosignature has 8 bytes of time and 64 of signature")
    time = int.from_bytes(signature.blob[:8])
    if time > TIME_MAX:
        raise AuditRefused(f"a time is 0 to 2**40 seconds, not {time}")
    if not verify(key.public, signed_text(text, time), signature.blob[8:]):
        raise AuditRefused(f"the cosignature of {key.name} is wrong")
    return time


def require_cosignature(note: Note, key: Key) -> int:
    """The time of this witness's signature on the note. Raises AuditRefused if there is none."""
    signature = note.of(key)
    if signature is None:
        raise AuditRefused(f"not cosigned by {key.name}")
    return check_cosignature(note.text, signature, key)
