"""A member's secrets in one attempt: two X25519 keys, a self-mask seed, shares sealed and marked.

There are two keys, because one of them may have to be given away: the mask key of a member that
drops out is put together by the others, and whoever holds it could open everything that was sealed
with it, the shares of that member's self-mask among it. The seal key is never shared.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from nacl.bindings import crypto_scalarmult, crypto_scalarmult_base
from nacl.exceptions import CryptoError
from nacl.public import Box, PrivateKey, PublicKey

from gossipfl.groups.shamir import Entropy

KEY_BYTES = 32
SEALED_BYTES = 2 * KEY_BYTES + 16  # two shares and the Poly1305 tag


@dataclass(frozen=True, slots=True)
class Secrets:
    """Drawn anew for each attempt, kept in memory only, dropped when it ends."""

    mask_key: bytes
    seal_key: bytes
    seed: bytes  # b, of the self-mask

    @classmethod
    def draw(cls, entropy: Entropy) -> Secrets:
        return cls(entropy(KEY_BYTES), entropy(KEY_BYTES), entropy(KEY_BYTES))

    def __repr__(self) -> str:
        return "Secrets(...)"


@dataclass(frozen=True, slots=True)
class Shares:
    """What one member holds of another: a share of its mask key and one of its seed."""

    key: bytes
    seed: bytes

    def __repr__(self) -> str:
        return "Shares(...)"


def public(secret: bytes) -> bytes:
    """The X25519 public key (RFC 7748)."""
    return bytes(crypto_scalarmult_base(secret))


def agree(secret: bytes, other: bytes) -> bytes:
    """X25519. Raises ValueError where the other key is one of the few that agree with everybody."""
    try:
        return bytes(crypto_scalarmult(secret, other))
    except (CryptoError, RuntimeError) as error:
        raise ValueError("a key of low order") from error


def require_usable(key: bytes) -> None:
    """Raises ValueError if no secret key agrees on anything with this public key."""
    agree(bytes(31) + b"\x40", key)


def pair_key(
    secret: bytes, other: bytes, attempt: bytes, roster: bytes, low: int, up: int
) -> bytes:
    """The key of the mask that places low < up share, in this attempt and under this roster only:
    HKDF-SHA-256 (RFC 5869) over the X25519 agreement."""
    info = b"gossipfl pair mask 1" + roster + bytes([low, up])
    return _derive(agree(secret, other), attempt, info)


def self_key(seed: bytes, attempt: bytes, roster: bytes) -> bytes:
    """The key of a member's own mask, which its seed gives away."""
    info = b"gossipfl self mask 1" + roster
    return _derive(seed, attempt, info)


def _derive(key: bytes, salt: bytes, info: bytes) -> bytes:
    # Who never sums does not load the cipher.
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=salt, info=info).derive(key)


def commitment(attempt: bytes, device: bytes, seed: bytes) -> bytes:
    """Binds a member to its seed; hides it, since it is 32 uniform bytes."""
    return hashlib.sha256(b"gossipfl seed 1" + attempt + device + seed).digest()


def mark(attempt: bytes, dealer: int, place: int, what: bytes, share: bytes) -> bytes:
    """Binds a dealer to the share of `what` (key or seed) that it gave to a place: a wrong share
    shows, and whose it is."""
    tag = b"gossipfl share 1 " + what + bytes([dealer, place])
    return hashlib.sha256(tag + attempt + share).digest()


def marks(attempt: bytes, dealer: int, place: int, shares: Shares) -> bytes:
    """64 bytes: the marks of both shares."""
    key = mark(attempt, dealer, place, b"key ", shares.key)
    return key + mark(attempt, dealer, place, b"seed", shares.seed)


def seal(
    secret: bytes, other: bytes, attempt: bytes, dealer: int, to: int, shares: Shares
) -> bytes:
    """80 bytes that the receiver alone can open (NaCl Box). Raises ValueError on a useless key."""
    box, nonce = _box(secret, other), _nonce(attempt, dealer, to)
    return bytes(box.encrypt(shares.key + shares.seed, nonce).ciphertext)


def unseal(
    secret: bytes, other: bytes, attempt: bytes, dealer: int, to: int, sealed: bytes
) -> Shares | None:
    """The shares, or None if they were not sealed by that key for this place and attempt."""
    try:
        plain = _box(secret, other).decrypt(sealed, _nonce(attempt, dealer, to))
    except (CryptoError, ValueError):
        return None
    return Shares(plain[:KEY_BYTES], plain[KEY_BYTES:]) if len(plain) == 2 * KEY_BYTES else None


def _box(secret: bytes, other: bytes) -> Box:
    try:
        return Box(PrivateKey(secret), PublicKey(other))
    except (CryptoError, RuntimeError) as error:
        raise ValueError("a key of low order") from error


def _nonce(attempt: bytes, dealer: int, to: int) -> bytes:
    """Used once: seal keys live for one attempt, and a pair seals once in each direction."""
    return hashlib.sha256(b"gossipfl seal 1" + attempt + bytes([dealer, to])).digest()[:24]
