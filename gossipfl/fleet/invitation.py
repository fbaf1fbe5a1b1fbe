"""The one line that lets devices in: `gfl1:<pin>:<token id>:<secret>:<host hint>`.

The pin is SHA-256 of the root's SubjectPublicKeyInfo, which is also the fleet id; base32 without
padding, as the other parts, so that the line survives a terminal, a label and a phone call.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from dataclasses import dataclass, field

from gossipfl.errors import UserError
from gossipfl.events import Address

PREFIX = "gfl1"
PIN_BYTES = 32
TOKEN_BYTES = 8
SECRET_BYTES = 16  # 128 bits: nobody guesses it, so throttling only saves CPU
LINE_MAX = 512
PORT = 7443  # of the issuer's service; a guess that clashes with nothing well known
HOST_MAX = 253
# RFC 1123 labels, and underscores, which some networks use. Name look-ups refuse other shapes.
_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")


@dataclass(frozen=True, slots=True)
class Invitation:
    """`secret` is never sent and never shown, except in the line itself."""

    pin: bytes
    token: bytes
    secret: bytes = field(repr=False)
    address: Address

    def line(self) -> str:
        parts = (self.pin, self.token, self.secret)
        return ":".join((PREFIX, *(_base32(part) for part in parts), str(self.address)))


def parse(line: str) -> Invitation:
    """Raises UserError GF204, which says which part is wrong but never shows the line."""
    text = line.strip()
    if len(text) > LINE_MAX:
        raise UserError("GF204", f"it has {len(text)} characters, at most {LINE_MAX}")
    parts = text.split(":", 4)
    if parts[0] != PREFIX:
        raise UserError("GF204", f"an invitation begins with {PREFIX}:")
    if len(parts) != 5:
        raise UserError("GF204", f"it has {len(parts)} parts, not 5: was it cut off?")
    sizes = (("fingerprint", PIN_BYTES), ("token", TOKEN_BYTES), ("secret", SECRET_BYTES))
    pin, token, secret = (
        _from_base32(part, name, size) for part, (name, size) in zip(parts[1:4], sizes, strict=True)
    )
    return Invitation(pin, token, secret, parse_address(parts[4], "GF204"))


def parse_address(text: str, code: str = "GF100") -> Address:
    """`HOST`, `HOST:PORT` or `[IPv6]:PORT`. Raises UserError with `code`."""
    bracket = re.fullmatch(r"\[([^\]]+)\](?::(\d{1,5}))?", text)
    plain = re.fullmatch(r"([^:\[\]]+)(?::(\d{1,5}))?", text)
    found = bracket or plain
    port = int(found[2]) if found and found[2] else PORT
    if found is None or not 0 <= port <= 65_535:
        raise UserError(code, "an address is HOST:PORT, or [IPv6]:PORT", "such as 192.0.2.7:7443")
    host = found[1]
    is_host = _is_ipv6(host) if bracket else len(host) <= HOST_MAX and _NAME.fullmatch(host)
    if not is_host:
        shown = "".join(c if c.isprintable() else "?" for c in host[:40])
        raise UserError(
            code, f"{shown} is no host name and no IP address", "such as 192.0.2.7:7443"
        )
    return Address(host, port)


def _is_ipv6(text: str) -> bool:
    address, _, scope = text.partition("%")
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return False
    return not scope or _NAME.fullmatch(scope) is not None


def token_name(token: bytes) -> str:
    """A token id as people see it. It is no secret."""
    return _base32(token)


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=").lower()


def _from_base32(text: str, name: str, size: int) -> bytes:
    try:
        data = base64.b32decode(text.upper() + "=" * (-len(text) % 8))
    except (binascii.Error, ValueError):
        raise UserError("GF204", f"its {name} is not base32 (a-z, 2-7)") from None
    if len(data) != size or _base32(data) != text.lower():
        raise UserError("GF204", f"its {name} has a wrong length or a typo at its end")
    return data
