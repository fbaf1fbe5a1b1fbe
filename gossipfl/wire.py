"""Envelopes and bounded msgpack: the only way from bytes to something we believe.

A signed thing is a DSSE-style envelope in msgpack, `[type, payload, key_id(32), signature(64)]`.
The Ed25519 signature covers the DSSE pre-authentication encoding (secure-systems-lab/dsse,
protocol.md v1.0.2) of `"application/vnd.gossipfl.v1." + type` and the payload as sent: there is no
canonical form to disagree about. Nothing in a payload is decoded before its signature is checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import msgpack
import msgspec

from gossipfl.errors import Fault, PeerError
from gossipfl.identity import Signer, device_of, verify

CONTENT_TYPE = "application/vnd.gossipfl.v1."
# The types of protocol v1. "record" is an address record, "bundle" signs a bundle's manifest, the
# "sum-" types are the steps of a group sum (gossipfl.groups.messages), the "star-" types are what
# clients of a hub's star mode sign (gossipfl.hub.star.wire).
TYPES = frozenset(
    {
        *("member", "head", "receipt", "policy", "revocation", "record", "bundle", "marker"),
        *("star-join", "star-model"),
        *("sum-keys", "sum-shares", "sum-roster", "sum-vector", "sum-set", "sum-reveal"),
    }
)
ENVELOPE_OVERHEAD_MAX = 160  # type (<= 10), key 32, signature 64, msgpack framing

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Envelope:
    """A well-formed but not yet verified envelope; `payload` is opaque until it is."""

    type: str
    payload: bytes
    key_id: bytes
    signature: bytes

    @property
    def device(self) -> bytes:
        return device_of(self.key_id)


def pre_authentication_encoding(kind: str, payload: bytes) -> bytes:
    """DSSE PAE of (content type, payload): what the signature covers."""
    content_type = (CONTENT_TYPE + kind).encode()
    return b"DSSEv1 %d %b %d %b" % (len(content_type), content_type, len(payload), payload)


def seal(kind: str, payload: bytes, signer: Signer) -> bytes:
    """The envelope bytes of `payload`, signed. Signing is deterministic (RFC 8032)."""
    if kind not in TYPES:
        raise ValueError(f"{kind!r} is not a type of this protocol")
    signature = signer.sign(pre_authentication_encoding(kind, payload))
    return pack([kind, payload, signer.key_id, signature])


def open_envelope(data: bytes, expected: str, bytes_max: int) -> Envelope:
    """Size, shape and type of an envelope (checks 1 to 3). Raises PeerError; verifies nothing."""
    if len(data) > bytes_max:
        raise PeerError(Fault.OVERSIZED, f"{expected} of {len(data)} bytes, at most {bytes_max}")
    parts = unpack(data, bytes_max=bytes_max)
    if not (isinstance(parts, list) and len(parts) == 4):
        raise PeerError(Fault.MALFORMED, f"{expected}: an envelope is an array of four")
    kind, payload, key_id, signature = parts
    if not (isinstance(kind, str) and all(isinstance(p, bytes) for p in parts[1:])):
        raise PeerError(Fault.MALFORMED, f"{expected}: an envelope is [str, bin, bin, bin]")
    if kind != expected or kind not in TYPES:
        raise PeerError(Fault.UNKNOWN_TYPE, f"expected a {expected}, found {kind[:20]!r}")
    if len(key_id) != 32 or len(signature) != 64:
        raise PeerError(Fault.MALFORMED, f"{expected}: wrong key or signature length")
    if pack(parts) != data:
        # One meaning, one byte string: otherwise a carrier could mint new digests for one head.
        raise PeerError(Fault.MALFORMED, f"{expected}: not in shortest msgpack form")
    return Envelope(kind, payload, key_id, signature)


def check_signature(envelope: Envelope) -> None:
    """Raises PeerError(BAD_SIGNATURE) unless the envelope's own key signed its payload."""
    message = pre_authentication_encoding(envelope.type, envelope.payload)
    if not verify(envelope.key_id, message, envelope.signature):
        raise PeerError(Fault.BAD_SIGNATURE, f"{envelope.type} is not signed by its key")


def decode(payload: bytes, shape: type[T], bytes_max: int = 65_536) -> T:
    """A verified payload as its type (checks 6 and 7). Unknown fields and wrong lengths fail."""
    value = unpack(payload, bytes_max=bytes_max)
    try:
        return msgspec.convert(value, shape, strict=True)
    except (msgspec.ValidationError, OverflowError) as error:
        raise PeerError(Fault.MALFORMED, f"{shape.__name__.lower()}: {error}") from error


def read_signed(envelope: Envelope, shape: type[T], bytes_max: int = 65_536) -> T:
    """What the envelope's own key signed: verified, then decoded. Raises PeerError."""
    check_signature(envelope)
    return decode(envelope.payload, shape, bytes_max)


def encode(value: msgspec.Struct) -> bytes:
    """The msgpack payload of a typed message."""
    return pack(msgspec.to_builtins(value, builtin_types=(bytes,)))


def pack(value: Any) -> bytes:
    """msgpack with bin and str kept apart."""
    return bytes(msgpack.packb(value, use_bin_type=True))


def unpack(data: bytes, bytes_max: int) -> Any:
    """Bounded msgpack: no extension types, string keys only, no length above `bytes_max`."""
    if len(data) > bytes_max:
        raise PeerError(Fault.OVERSIZED, f"{len(data)} bytes, at most {bytes_max}")
    try:
        return msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            use_list=True,
            max_str_len=min(bytes_max, 4_096),
            max_bin_len=bytes_max,
            max_array_len=min(bytes_max, 16_384),
            max_map_len=256,
            max_ext_len=0,
        )
    except (ValueError, TypeError, msgpack.exceptions.UnpackException, RecursionError) as error:
        raise PeerError(Fault.MALFORMED, f"not msgpack within limits: {error}") from error
