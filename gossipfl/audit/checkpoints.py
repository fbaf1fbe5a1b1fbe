"""C2SP tlog-checkpoints (c2sp.org/tlog-checkpoint), numbered and chained.

A checkpoint is a signed note: origin, tree size, root, and three extension lines of our own,

    number N                    from 1, without gaps
    time SECONDS                Unix time at which it was signed, never before the last one's
    previous BASE64             SHA-256 of the text of checkpoint N - 1; left out for number 1

so that a hub that shows two histories leaves proof: see `forks`.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass

from gossipfl.audit.notes import Key, Note, log_key, parse_note, sign_note
from gossipfl.audit.refused import AuditRefused
from gossipfl.audit.tree import HASH_BYTES, SIZE_MAX
from gossipfl.identity import Signer

TEXT = re.compile(
    r"([^\n]{1,128})\n(0|[1-9][0-9]{0,18})\n([0-9A-Za-z+/]{43}=)\n"
    r"number ([1-9][0-9]{0,15})\ntime (0|[1-9][0-9]{0,11})\n(?:previous ([0-9A-Za-z+/]{43}=)\n)?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One state of a log. `time` in whole seconds since 1970."""

    origin: str
    size: int
    root: bytes
    number: int
    time: int
    previous: bytes | None = None  # digest of the checkpoint before; None for number 1

    def __post_init__(self) -> None:
        if not (0 <= self.size <= SIZE_MAX and len(self.root) == HASH_BYTES):
            raise AuditRefused(
                "a checkpoint has a size of at most 2**63 - 1 and a root of 32 bytes"
            )
        if self.number < 1 or self.time < 0:
            raise AuditRefused("checkpoints are numbered from 1, and their time is not before 1970")
        if (self.previous is None) != (self.number == 1):
            raise AuditRefused("all checkpoints but number 1 name the one before")

    def text(self) -> bytes:
        """What is signed."""
        lines = [self.origin, str(self.size), base64.b64encode(self.root).decode()]
        lines += [f"number {self.number}", f"time {self.time}"]
        if self.previous is not None:
            lines.append(f"previous {base64.b64encode(self.previous).decode()}")
        return "".join(f"{line}\n" for line in lines).encode()

    @property
    def digest(self) -> bytes:
        """SHA-256 of the text: what the next one names. Cosignatures do not change it."""
        return hashlib.sha256(self.text()).digest()

    def next(self, size: int, root: bytes, time: int) -> Checkpoint:
        """The one that follows this one; `time` is raised to this one's if it is lower."""
        if size < self.size:
            raise ValueError("a log does not shrink")
        return Checkpoint(
            self.origin, size, root, self.number + 1, max(time, self.time), self.digest
        )


def parse_checkpoint(text: bytes) -> Checkpoint:
    """The checkpoint of a note's text, in its only spelling. Raises AuditRefused."""
    try:
        match = TEXT.fullmatch(text.decode())
    except UnicodeDecodeError as error:
        raise AuditRefused("a checkpoint is UTF-8") from error
    if match is None:
        raise AuditRefused("not a checkpoint: origin, size, root, number, time, previous")
    origin, size, root, number, time, previous = match.groups()
    checkpoint = Checkpoint(
        origin,
        int(size),
        base64.b64decode(root),
        int(number),
        int(time),
        base64.b64decode(previous) if previous else None,
    )
    if checkpoint.text() != text:
        raise AuditRefused("not the only spelling of that checkpoint")
    return checkpoint


def sign_checkpoint(checkpoint: Checkpoint, signer: Signer) -> Note:
    """Signed by the hub; the signer's log key must be the origin."""
    key = log_key(signer.key_id)
    if checkpoint.origin != key.name:
        raise ValueError("a hub signs checkpoints of its own log only")
    return sign_note(checkpoint.text(), key, signer)


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint whose log signature was verified, and the note that it came in."""

    checkpoint: Checkpoint
    note: Note


def open_checkpoint(data: bytes, key: Key) -> SignedCheckpoint:
    """A checkpoint that this log signed; cosignatures are not looked at. Raises AuditRefused."""
    note = parse_note(data)
    note.require(key)
    checkpoint = parse_checkpoint(note.text)
    if checkpoint.origin != key.name:
        raise AuditRefused(f"a checkpoint of {checkpoint.origin}, not of {key.name}")
    return SignedCheckpoint(checkpoint, note)
