"""C2SP signed notes (c2sp.org/signed-note), the format of Go's checksum database.

A note is text, an empty line, and a line per signature: `— NAME BASE64(key id(4) || signature)`.
A key is named and has an id of four bytes, SHA-256(name || "\\n" || type || key)[:4]; both must
agree before a signature counts. Only Ed25519 is made or believed here, with PyNaCl alone: plain
(type 0x01) as a log signs, and timestamped (type 0x04, c2sp.org/tlog-cosignature) as witnesses do.
Signatures of unknown keys are no fault: a note may carry any number of witnesses.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass

from gossipfl.audit.refused import AuditRefused
from gossipfl.identity import Signer, device_of, verify

NOTE_BYTES_MAX = 65_535  # 100 signatures of 150 bytes fit well; exports store it in two bytes
SIGNATURES_MAX = 100  # as Go's note.Open: a reader of more would refuse ours
NAME_CHARS_MAX = 128  # guess; `log_name` gives 41
ED25519 = 0x01
COSIGNATURE = 0x04
_DASH = "— "


@dataclass(frozen=True, slots=True)
class Key:
    """A public key as notes name it. Its text form is C2SP's vkey, `NAME+ID+BASE64`."""

    name: str
    public: bytes
    type: int = ED25519

    def __post_init__(self) -> None:
        if not _is_name(self.name):
            raise AuditRefused(f"not a key name: {self.name[:64]!r}")
        if len(self.public) != 32 or self.type not in (ED25519, COSIGNATURE):
            raise AuditRefused("a key is Ed25519 (type 1) or a timestamped cosigner's (type 4)")

    @property
    def id(self) -> bytes:
        """Four bytes: a hint, not a proof."""
        seen = self.name.encode() + b"\n" + bytes([self.type]) + self.public
        return hashlib.sha256(seen).digest()[:4]

    def __str__(self) -> str:
        key = base64.b64encode(bytes([self.type]) + self.public).decode()
        return f"{self.name}+{self.id.hex()}+{key}"


def parse_key(text: str) -> Key:
    """The key of a vkey line. Raises AuditRefused."""
    parts = text.strip().split("+", 2)
    if len(parts) != 3:
        raise AuditRefused("a key is NAME+ID+BASE64")
    raw = _from_base64(parts[2])
    if len(raw) != 33:
        raise AuditRefused("a key has a type and 32 bytes")
    key = Key(parts[0], raw[1:], raw[0])
    if key.id.hex() != parts[1]:
        raise AuditRefused("the key's id does not belong to it (a typo?)")
    return key


def log_name(device: bytes) -> str:
    """The name under which a device signs: a hub its checkpoints, a witness its cosignatures."""
    return f"gossipfl/{device.hex()}"


def device_of_log(name: str) -> bytes | None:
    """The inverse; None for a name that is not ours."""
    text = name.removeprefix("gossipfl/")
    try:
        device = bytes.fromhex(text)
    except ValueError:
        return None
    return device if len(device) == 16 and log_name(device) == name else None


def log_key(public: bytes) -> Key:
    """The key of the log that the hub with this signing key keeps; its name is the log's origin."""
    return Key(log_name(device_of(public)), public, ED25519)


def witness_key(public: bytes) -> Key:
    """The key with which the device of this signing key cosigns."""
    return Key(log_name(device_of(public)), public, COSIGNATURE)


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line. `blob` is what follows the key id: 64 bytes, or 8 of time and 64."""

    name: str
    key_id: bytes
    blob: bytes

    def by(self, key: Key) -> bool:
        """Does it say that it is this key's? (It need not be true.)"""
        return self.name == key.name and self.key_id == key.id

    def line(self) -> str:
        return f"{_DASH}{self.name} {base64.b64encode(self.key_id + self.blob).decode()}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """`text` ends in a newline. Nothing of it is verified yet."""

    text: bytes
    signatures: tuple[Signature, ...]

    def encode(self) -> bytes:
        return self.text + b"\n" + "".join(s.line() for s in self.signatures).encode()

    def of(self, key: Key) -> Signature | None:
        """The first signature that says it is this key's."""
        return next((s for s in self.signatures if s.by(key)), None)

    def require(self, key: Key) -> None:
        """Raises AuditRefused unless this plain Ed25519 key signed the text."""
        signature = self.of(key)
        if key.type != ED25519 or signature is None:
            raise AuditRefused(f"not signed by {key.name}")
        if not verify(key.public, self.text, signature.blob):
            raise AuditRefused(f"the signature of {key.name} is wrong")

    def with_signature(self, signature: Signature) -> Note:
        """With this line in place of an older one of the same key."""
        others = [
            s for s in self.signatures if (s.name, s.key_id) != (signature.name, signature.key_id)
        ]
        return Note(self.text, (*others, signature))


def parse_note(data: bytes) -> Note:
    """The note of these bytes, in its only spelling. Verifies no signature. Raises AuditRefused."""
    if len(data) > NOTE_BYTES_MAX:
        raise AuditRefused(f"a note of {len(data)} bytes, at most {NOTE_BYTES_MAX}")
    try:
        whole = data.decode()
    except UnicodeDecodeError as error:
        raise AuditRefused("a note is UTF-8") from error
    if any(ord(char) < 0x20 and char != "\n" for char in whole):
        raise AuditRefused("a note has no control characters")
    text, gap, lines = whole.rpartition("\n\n")
    if not gap or not text or not lines.endswith("\n"):
        raise AuditRefused("a note is text, an empty line and signature lines")
    parts = lines[:-1].split("\n")
    if len(parts) > SIGNATURES_MAX:
        raise AuditRefused(f"a note has at most {SIGNATURES_MAX} signatures")
    note = Note((text + "\n").encode(), tuple(_parse_signature(part) for part in parts))
    if note.encode() != data:
        raise AuditRefused("not the only spelling of that note")
    return note


def sign_note(text: bytes, key: Key, signer: Signer) -> Note:
    """The note of `text` with the one signature of `signer`, whose key `key` is."""
    if key.public != signer.key_id or key.type != ED25519 or not text.endswith(b"\n"):
        raise ValueError("a note ends in a newline and is signed by the key that it names")
    return Note(text, (Signature(key.name, key.id, signer.sign(text)),))


def _parse_signature(line: str) -> Signature:
    parts = line.removeprefix(_DASH).split(" ")
    if not line.startswith(_DASH) or len(parts) != 2 or not _is_name(parts[0]):
        raise AuditRefused("a signature line is a dash, a key name and base64")
    raw = _from_base64(parts[1])
    if len(raw) < 5:
        raise AuditRefused("a signature has a key id of four bytes and more")
    return Signature(parts[0], raw[:4], raw[4:])


def _from_base64(text: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise AuditRefused("not base64") from error
    if base64.b64encode(raw).decode() != text:
        raise AuditRefused("not the only base64 of these bytes")
    return raw


def _is_name(name: str) -> bool:
    plain = 0 < len(name) <= NAME_CHARS_MAX and "+" not in name
    return plain and not any(char.isspace() or ord(char) < 0x20 for char in name)
