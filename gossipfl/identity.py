"""Keys and names of devices.

A device has two keys: a TLS key (in its certificate) and a signing key (bound to it by a signed
`member` object). Everything here is about the signing key. Protocol signatures are made and
verified with PyNaCl (libsodium) and nothing else: OpenSSL and libsodium disagree on part of the
edge cases of Ed25519, and evidence must verify the same everywhere.
"""

from __future__ import annotations

import base64
import hashlib
from typing import NewType

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

KeyId = NewType("KeyId", bytes)
"""The 32 bytes of an Ed25519 public signing key."""

DeviceId = NewType("DeviceId", bytes)
"""16 bytes: SHA-256 of the signing key, truncated (128 bits: no second device by chance)."""

DEVICE_ID_BYTES = 16
_CHECK_BYTES = 2


class Signer:
    """Holds one Ed25519 signing key; `seed` is 32 secret bytes."""

    def __init__(self, seed: bytes) -> None:
        if len(seed) != 32:
            raise ValueError(f"a signing key has 32 bytes, not {len(seed)}")
        self._key = SigningKey(seed)
        self.key_id = KeyId(bytes(self._key.verify_key))
        self.device = device_of(self.key_id)

    def sign(self, message: bytes) -> bytes:
        """The 64-byte Ed25519 signature (RFC 8032) of `message`."""
        return bytes(self._key.sign(message).signature)


def device_of(key_id: bytes) -> DeviceId:
    """The device id that a signing key has by definition."""
    return DeviceId(hashlib.sha256(key_id).digest()[:DEVICE_ID_BYTES])


def verify(key_id: bytes, message: bytes, signature: bytes) -> bool:
    """True if `signature` is this key's over `message`; never raises for hostile input."""
    if len(key_id) != 32 or len(signature) != 64:
        return False
    try:
        VerifyKey(key_id).verify(message, signature)
    except (BadSignatureError, ValueError, TypeError, RuntimeError):
        return False
    return True


def device_name(device: bytes) -> str:
    """How people see a device id: base32 in groups of four with two check bytes at the end."""
    check = hashlib.sha256(b"gossipfl device" + device).digest()[:_CHECK_BYTES]
    text = base64.b32encode(device + check).decode().rstrip("=").lower()
    return "-".join(text[i : i + 4] for i in range(0, len(text), 4))


def parse_device_name(text: str) -> DeviceId:
    """The inverse of `device_name`. Raises ValueError that says what is wrong with it."""
    plain = text.strip().replace("-", "").upper()
    try:
        raw = base64.b32decode(plain + "=" * (-len(plain) % 8))
    except ValueError as error:
        raise ValueError(f"{text!r} is not a device id: letters a-z and digits 2-7") from error
    if len(raw) != DEVICE_ID_BYTES + _CHECK_BYTES:
        raise ValueError(f"{text!r} is not a device id: it has {len(plain)} characters, not 29")
    device = raw[:DEVICE_ID_BYTES]
    if device_name(device).replace("-", "").upper() != plain:
        raise ValueError(f"{text!r} is not a device id: its check digits do not match (a typo?)")
    return DeviceId(device)


def short_name(device: bytes) -> str:
    """The first two groups of `device_name`: for tables and logs, never for identity."""
    return device_name(device)[:9]
