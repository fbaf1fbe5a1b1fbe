"""Lies in group sums that prove themselves: two signed objects that no honest device signs both of.

The other lies need what they name, which the members alone hold: those are judged by each of them.
"""

from __future__ import annotations

from gossipfl.errors import Fault, PeerError
from gossipfl.groups.messages import SIGNED_BYTES_MAX, TYPES, Message, SumKeys, kind_of
from gossipfl.messages import EvidenceKind, Member
from gossipfl.wire import check_signature, decode, open_envelope

KINDS = frozenset({EvidenceKind.SUM_EQUIVOCATION, EvidenceKind.SUM_KEY})


def proves(kind: EvidenceKind, first: bytes, second: bytes, member: Member) -> bool:
    """Do these two envelopes show this lie of this member? Raises PeerError if they are not its."""
    one, other = _read(first, member), _read(second, member)
    if kind is EvidenceKind.SUM_EQUIVOCATION:
        same_step = type(one) is type(other) and one.attempt == other.attempt
        return same_step and first != second
    if kind is EvidenceKind.SUM_KEY and isinstance(one, SumKeys) and isinstance(other, SumKeys):
        return one.attempt != other.attempt and bool(_keys(one) & _keys(other))
    return False


def _keys(message: SumKeys) -> set[bytes]:
    return {message.mask_key, message.seal_key}


def _read(data: bytes, member: Member) -> Message:
    kind = kind_of(data)
    envelope = open_envelope(data, kind, SIGNED_BYTES_MAX)
    if envelope.key_id != member.key:
        raise PeerError(Fault.WRONG_DEVICE, "an object of another device")
    check_signature(envelope)
    message = decode(envelope.payload, TYPES[kind], SIGNED_BYTES_MAX)
    if message.device != member.device:
        raise PeerError(Fault.WRONG_DEVICE, "object and member do not belong together")
    return message
