"""Passwords: scrypt (RFC 7914) with a salt each, never a default one.

A hash says its own parameters, so that they can grow without anybody's password being lost.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets

from gossipfl.errors import UserError

LOG_N, BLOCK, PARALLEL = 15, 8, 3
"""OWASP Password Storage Cheat Sheet: N = 2^15, r = 8, p = 3, which takes 32 MiB and 0.2 s."""
SALT_BYTES = 16
HASH_BYTES = 32
LENGTH_MIN = 12  # NIST SP 800-63B asks for 8 at least, and 15 where it is the only factor
LENGTH_MAX = 256  # guess: a long sentence; what is longer only costs us time


def require_good(password: str, name: str) -> None:
    """Raises UserError GF831 if it is short, long, or the user's own name."""
    if not LENGTH_MIN <= len(password) <= LENGTH_MAX:
        raise UserError("GF831", f"it has {len(password)} characters")
    if name.lower() in password.lower() or len(set(password)) < 5:
        raise UserError("GF831", "it repeats the name or a few characters")


def make(password: str, log_n: int = LOG_N) -> str:
    """The hash of a password, as text. Takes a fifth of a second: not for the event loop."""
    salt = secrets.token_bytes(SALT_BYTES)
    digest = _scrypt(password, salt, log_n, BLOCK, PARALLEL)
    return f"scrypt${log_n}${BLOCK}${PARALLEL}${_text(salt)}${_text(digest)}"


def check(password: str, stored: str) -> bool:
    """Whether it is the password. "" matches nothing, and takes as long."""
    kind, log_n, block, parallel, salt, digest = (stored or _NOBODY).split("$")
    if kind != "scrypt" or len(password) > LENGTH_MAX:
        return False
    found = _scrypt(password, _bytes(salt), int(log_n), int(block), int(parallel))
    return hmac.compare_digest(found, _bytes(digest)) and bool(stored)


def _scrypt(password: str, salt: bytes, log_n: int, block: int, parallel: int) -> bytes:
    return hashlib.scrypt(
        password.encode(),
        salt=salt,
        n=1 << log_n,
        r=block,
        p=parallel,
        maxmem=(256 << log_n) * block + (1 << 20),
        dklen=HASH_BYTES,
    )


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


_NOBODY = f"scrypt${LOG_N}${BLOCK}${PARALLEL}${_text(bytes(SALT_BYTES))}${_text(bytes(HASH_BYTES))}"
