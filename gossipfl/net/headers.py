"""Header fields of the two routes, written and read. What does not parse is as if absent."""

from __future__ import annotations

import re

MEMBER = "Gossipfl-Member"  # digest of the head's member object, a hint
HEAD_BYTES = "Gossipfl-Head-Bytes"  # how much of the body is the head; the rest is its update
RIDE = "Gossipfl-Ride"  # the update may ride along up to this size

_HEX = re.compile(r"[0-9a-f]+")
_DIGITS = re.compile(r"[0-9]{1,12}")
_WAIT = re.compile(r"wait=([0-9]{1,6}(?:\.[0-9]{1,6})?)")
_RANGE = re.compile(r"bytes=(\d{1,12})-(\d{0,12})")
_CONTENT_RANGE = re.compile(r"bytes (\d{1,12})-(\d{1,12})/(\d{1,12})")


def from_hex(text: str | None, size: int) -> bytes | None:
    """Exactly `size` bytes in lower-case hex, or None."""
    if text is None or len(text) != 2 * size or not _HEX.fullmatch(text):
        return None
    return bytes.fromhex(text)


def etag(digest: bytes) -> str:
    """A strong entity tag (RFC 9110 8.8.3): the digest in hex."""
    return f'"{digest.hex()}"'


def from_etag(value: str | None) -> bytes | None:
    """The digest in an entity tag of ours, or None."""
    if value is None or len(value) != 66 or value[0] != '"' or value[-1] != '"':
        return None
    return from_hex(value[1:-1], 32)


def count(value: str | None) -> int | None:
    """A decimal number, or None."""
    return int(value) if value and _DIGITS.fullmatch(value) else None


def prefer(wait_s: float) -> str:
    """`Prefer: wait=seconds` (RFC 7240 4.3); fractions are ours, for paces below a second."""
    return f"wait={wait_s:.3f}"


def from_prefer(value: str | None) -> float:
    """Seconds asked for; 0.0 if none."""
    match = _WAIT.fullmatch(value) if value else None
    return float(match[1]) if match else 0.0


def from_range(value: str | None, size: int) -> tuple[int, int] | None:
    """First and last byte of a single range in `size` bytes; first > last: none of it is there."""
    match = _RANGE.fullmatch(value) if value else None
    if match is None:
        return None
    return int(match[1]), min(int(match[2] or size - 1), size - 1)


def from_content_range(value: str | None) -> tuple[int, int, int] | None:
    """First byte, last byte and size of the whole, or None."""
    match = _CONTENT_RANGE.fullmatch(value) if value else None
    return (int(match[1]), int(match[2]), int(match[3])) if match else None
