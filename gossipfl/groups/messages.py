"""The signed objects of group sums, and the way from bytes to one of them.

Lists go by place in the group; an empty entry means that there is none. All are at most 4 KiB; the
masked vector itself is a plain object of 4 bytes a parameter that `SumVector` names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta

from gossipfl.config import KIB
from gossipfl.errors import Fault, PeerError
from gossipfl.groups.plan import GROUP_MAX, Plan
from gossipfl.groups.sealing import SEALED_BYTES, require_usable
from gossipfl.identity import Signer
from gossipfl.messages import Device, Digest, Key
from gossipfl.objects import digest
from gossipfl.wire import check_signature, decode, encode, open_envelope, pack, seal, unpack

SIGNED_BYTES_MAX = 4 * KIB  # the largest, SumShares of 16, has about 3 KiB

_Name = Annotated[bytes, Meta(max_length=32)]
_Names = Annotated[list[_Name], Meta(max_length=GROUP_MAX)]


class _Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    attempt: Digest  # Plan.id
    device: Device


class SumKeys(_Message, frozen=True):
    """Step 1: fresh public keys, and a commitment to the seed of the own mask."""

    mask_key: Key
    seal_key: Key
    commitment: Digest


class SumShares(_Message, frozen=True):
    """Step 2: shares of the mask key and of the seed, sealed for each whose keys were seen."""

    keys: _Names  # digests of the SumKeys that were used, the own among them
    sealed: Annotated[
        list[Annotated[bytes, Meta(max_length=SEALED_BYTES)]], Meta(max_length=GROUP_MAX)
    ]  # empty for the own place: its shares stay at home
    marks: Annotated[list[Annotated[bytes, Meta(max_length=64)]], Meta(max_length=GROUP_MAX)]


class SumRoster(_Message, frozen=True):
    """Whose masks there will be: the proposer names their SumShares."""

    shares: _Names


class SumVector(_Message, frozen=True):
    """Step 3: the masked vector, for one roster."""

    roster: Digest
    vector: Digest  # the object: uint32 little-endian, exactly as many as the plan says


class SumSet(_Message, frozen=True):
    """Step 4: the SumVectors to be summed. The proposer's is the proposal, others sign the same."""

    roster: Digest
    vectors: _Names

    @property
    def name(self) -> bytes:
        """What t members must agree on: everything but who signs."""
        return digest(pack(["gossipfl sum set 1", self.attempt, self.roster, self.vectors]))


class SumReveal(_Message, frozen=True):
    """Step 5: of each in the roster one share: of the seed if its vector is summed, of the mask key
    if not. `seed`: the own one, of who is summed."""

    set: Digest
    shares: _Names
    seed: _Name = b""


Message = SumKeys | SumShares | SumRoster | SumVector | SumSet | SumReveal

TYPES: dict[str, type[Message]] = {
    "sum-keys": SumKeys,
    "sum-shares": SumShares,
    "sum-roster": SumRoster,
    "sum-vector": SumVector,
    "sum-set": SumSet,
    "sum-reveal": SumReveal,
}
"""The registry: envelope type -> payload."""
NAMES: dict[type[Message], str] = {shape: name for name, shape in TYPES.items()}


@dataclass(frozen=True, slots=True)
class Signed:
    """A verified object of the member at `place`; `digest` names `data`, the envelope."""

    place: int
    digest: bytes
    message: Message
    data: bytes


def sign(message: Message, plan: Plan, signer: Signer) -> Signed:
    """The own object, as others will read it."""
    data = seal(NAMES[type(message)], encode(message), signer)
    return Signed(plan.members.index(signer.device), digest(data), message, data)


def kind_of(data: bytes) -> str:
    """What a signed object of a sum says it is. Raises PeerError if it is none."""
    parts = unpack(data, SIGNED_BYTES_MAX)
    kind = parts[0] if isinstance(parts, list) and parts else None
    if not isinstance(kind, str) or kind not in TYPES:
        raise PeerError(Fault.UNKNOWN_TYPE, "no object of a group sum")
    return kind


def read(data: bytes, expected: str, plan: Plan) -> Signed:
    """A member's object of this attempt: signature, type, lengths. Raises PeerError."""
    envelope = open_envelope(data, expected, SIGNED_BYTES_MAX)
    if envelope.device not in plan.members:
        raise PeerError(Fault.UNKNOWN_MEMBER, f"{expected}: not of this group", envelope.device)
    check_signature(envelope)
    message = decode(envelope.payload, TYPES[expected], SIGNED_BYTES_MAX)
    if message.device != envelope.device:
        raise PeerError(Fault.WRONG_DEVICE, f"{expected}: signed by another", envelope.device)
    if message.attempt != plan.id:
        raise PeerError(Fault.STALE, f"{expected}: of another attempt", envelope.device)
    if not _well_formed(message, plan):
        raise PeerError(Fault.MALFORMED, f"{expected}: wrong lengths", envelope.device)
    return Signed(plan.members.index(envelope.device), digest(data), message, data)


def _well_formed(message: Message, plan: Plan) -> bool:
    place = plan.members.index(message.device)
    match message:
        case SumKeys():
            if message.mask_key == message.seal_key:
                return False
            try:
                require_usable(message.mask_key)
                require_usable(message.seal_key)
            except ValueError:
                return False
            return True
        case SumShares():
            named = _full(message.keys, plan)
            return (
                named is not None
                and place in named
                and _full(message.marks, plan, 64) == named
                and _full(message.sealed, plan, SEALED_BYTES) == named - {place}
            )
        case SumRoster():
            return _full(message.shares, plan) is not None
        case SumVector():
            return True
        case SumSet():
            return _full(message.vectors, plan) is not None
        case SumReveal():
            return _full(message.shares, plan) is not None and len(message.seed) in (0, 32)


def _full(items: list[bytes], plan: Plan, length: int = 32) -> set[int] | None:
    """The places with an entry, or None if an entry has another length or one is missing."""
    if len(items) != plan.size or any(len(item) not in (0, length) for item in items):
        return None
    return places(items)


def places(items: list[bytes]) -> set[int]:
    """Where a list by place has entries."""
    return {place for place, item in enumerate(items) if item}
