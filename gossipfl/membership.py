"""Who belongs to the fleet, until when, and who no longer does.

A member object proves itself from the root key (`[envelope, issuer's envelope]`). Expiry and
revocation gate live use; archived objects only need a valid chain. Dates are checked against fleet
time (`fleettime`).
"""

from __future__ import annotations

from collections.abc import Set
from contextlib import suppress
from dataclasses import dataclass

from gossipfl.config import Limits
from gossipfl.errors import Fault, PeerError
from gossipfl.fleettime import NEAR_S
from gossipfl.identity import device_of
from gossipfl.messages import Member, Revocation, Role
from gossipfl.objects import (
    Listing,
    digest,
    fleet_of,
    pack_list,
    unpack_list,
    unpack_member,
    unpack_vouched,
)
from gossipfl.pure import Pure, call
from gossipfl.wire import Envelope, check_signature, decode, open_envelope

MEMBERS_PER_KEY = 2  # the one in use, and the one before it, which older heads still name
FORGOTTEN_S = 30 * 86_400
"""A member object goes so long after its end: as long as heads and receipts are kept (protocol).
Evidence embeds its own, and who comes back brings it again."""
ROLES_BY_ROOT = frozenset({Role.ISSUER, Role.OPERATOR})


@dataclass(frozen=True, slots=True)
class Known:
    """A member whose chain was verified. `data` is the member object, `digest` its name."""

    member: Member
    digest: bytes
    data: bytes


class Roster:
    """Verified members by key, device, TLS key and digest; revocations as a grow-only set."""

    def __init__(self, root_key: bytes, limits: Limits, pure: Pure = call) -> None:
        self._pure = pure
        self.fleet = fleet_of(root_key)
        self._root = root_key
        self._limits = limits
        self._of_key: dict[bytes, list[Known]] = {}  # the newest last
        self._by_device: dict[bytes, Known] = {}
        self._by_tls: dict[bytes, bytes] = {}
        self._by_digest: dict[bytes, Known] = {}
        self._hubs: set[bytes] = set()
        self._gone: list[bytes] = []  # names of member objects dropped since `forget` was called
        self._replaced: dict[bytes, bytes] = {}  # old device -> the one that took its place
        self._revocations: dict[bytes, tuple[Revocation, bytes]] = {}
        self._revoked_tls: dict[bytes, bytes] = {}  # TLS key -> the device that was revoked

    def admit(self, data: bytes) -> Known:
        """Verify a member object and remember it. Raises PeerError; idempotent."""
        name = self._pure(digest, data)
        if name in self._by_digest:
            return self._by_digest[name]
        known = Known(self.verify_chain(data), name, data)
        if len(self._by_digest) >= self._limits.devices:
            raise PeerError(Fault.REFUSED, f"more than {self._limits.devices} members")
        self._by_digest[name] = known
        same = self._of_key.setdefault(known.member.key, [])
        same.append(known)
        same.sort(key=lambda k: (k.member.issued, k.digest))
        self._by_device[known.member.device] = same[-1]
        if same[-1].member.role is Role.HUB:
            self._hubs.add(known.member.device)
        else:
            self._hubs.discard(known.member.device)
        if known.member.replaces is not None:
            self._replaced[known.member.replaces] = known.member.device
        if known.member.tls is not None:
            self._by_tls[known.member.tls] = known.member.device
        if len(same) > MEMBERS_PER_KEY:
            self._drop(same[0])
        return known

    def forget(self, time: int, own: bytes) -> list[bytes]:
        """Let go of what ended long before fleet `time`, but of nothing of the device `own`: else
        the table would fill up over the years. Names of all objects that went since last time."""
        for known in list(self._by_digest.values()):
            if known.member.not_after + FORGOTTEN_S < time and known.member.device != own:
                self._drop(known)
        gone, self._gone = self._gone, []
        return gone

    def _drop(self, known: Known) -> None:
        member, left = known.member, self._of_key[known.member.key]
        left.remove(known)
        del self._by_digest[known.digest]
        self._gone.append(known.digest)
        if member.tls is not None and all(member.tls != other.member.tls for other in left):
            self._by_tls.pop(member.tls, None)
        if not left:
            del self._of_key[member.key]
            del self._by_device[member.device]
            self._hubs.discard(member.device)
            # What it was enrolled in place of was issued before it, for as long: it ended earlier.
            self._replaced.pop(member.replaces or b"", None)

    def verify_chain(self, data: bytes) -> Member:
        """The member that an object proves, or PeerError. Looks at no date and no revocation."""
        return self._pure(prove_member, data, self._root, self._limits)

    def require_live(self, known: Known, time: int) -> None:
        """Raises PeerError if the member is revoked or out of its dates at fleet `time`."""
        member = known.member
        revoked = self.revocation_of(member.device, member.tls or b"")
        if revoked is not None:
            raise PeerError(Fault.REVOKED_MEMBER, f"revoked: {revoked.reason}", member.device)
        if member.device in self._replaced:
            raise PeerError(Fault.REVOKED_MEMBER, "it was enrolled again", member.device)
        if time > member.not_after:
            raise PeerError(Fault.EXPIRED_MEMBER, "its membership has ended", member.device)
        # A lagging clock must not refuse a fresh member: its issuer's word on the time counts.
        if member.not_before > max(time, member.issued) + NEAR_S:
            raise PeerError(Fault.EXPIRED_MEMBER, "its membership has not begun", member.device)

    @property
    def size(self) -> int:
        return len(self._by_digest)

    def by_key(self, key_id: bytes) -> Known | None:
        held = self._of_key.get(key_id)
        return held[-1] if held else None

    def by_device(self, device: bytes) -> Known | None:
        return self._by_device.get(device)

    def is_hub(self, device: bytes) -> bool:
        """A member that listens, records and relays, and never publishes a model."""
        return device in self._hubs

    @property
    def hubs(self) -> Set[bytes]:
        """Devices of all hubs that are known."""
        return self._hubs

    def members(self) -> list[Known]:
        """All that are held, in the order in which they came."""
        return list(self._by_digest.values())

    def by_digest(self, name: bytes) -> Known | None:
        return self._by_digest.get(name)

    def device_of_tls(self, tls_key: bytes) -> bytes | None:
        return self._by_tls.get(tls_key)

    def is_over(self, device: bytes) -> bool:
        """Revoked, or enrolled again under another key."""
        return device in self._revocations or device in self._replaced

    def replaced(self) -> dict[bytes, bytes]:
        """Devices that were enrolled again: old id to new id."""
        return self._replaced

    def revocation(self, device: bytes) -> Revocation | None:
        entry = self._revocations.get(device)
        return entry[0] if entry else None

    def revocation_of_tls(self, tls_key: bytes) -> Revocation | None:
        """The revocation that names this TLS key, whether or not its member object is known."""
        return self.revocation(self._revoked_tls.get(tls_key, b""))

    def revocation_of(self, device: bytes | None, tls_key: bytes) -> Revocation | None:
        """The one that names this TLS key, or this device."""
        if not self._revocations:
            return None
        revoked = self.revocation_of_tls(tls_key)
        return revoked or (self.revocation(device) if device is not None else None)

    def revoke(self, data: bytes) -> Revocation | None:
        """Add a revocation object; None if it tells nothing new. Raises PeerError."""
        return self._add(self._verified(data), data)

    def _verified(self, data: bytes) -> Revocation:
        vouched = unpack_vouched(data, self._limits)
        envelope = open_envelope(vouched.envelope, "revocation", self._limits.entry_bytes)
        signer = self.verify_chain(vouched.member)
        if signer.role is not Role.ISSUER or signer.key != envelope.key_id:
            raise PeerError(Fault.WRONG_ROLE, "a revocation is signed by an issuer")
        check_signature(envelope)
        revocation = decode(envelope.payload, Revocation, self._limits.entry_bytes)
        if revocation.fleet != self.fleet:
            raise PeerError(Fault.WRONG_FLEET, "the revocation belongs to another fleet")
        return revocation

    def _add(self, revocation: Revocation, data: bytes) -> Revocation | None:
        device = revocation.device
        held = self._revocations.get(device)
        self._revoked_tls.update(dict.fromkeys(revocation.tls, device))
        # Two issuers may revoke one device: everybody must choose alike, or lists never agree.
        if held is not None and _preferred(revocation, data) <= _preferred(*held):
            return None
        self._revocations[device] = (revocation, data)
        return revocation

    def revoked(self) -> list[bytes]:
        return sorted(self._revocations)

    def revocations(self) -> bytes | None:
        """The whole set as one list in a fixed order, None while it is empty."""
        if not self._revocations:
            return None
        return pack_list([self._revocations[device][1] for device in sorted(self._revocations)])

    def listing(self) -> Listing | None:
        """The set as heads name it, None while it is empty."""
        if not self._revocations:
            return None
        entries = {device: data for device, (_, data) in self._revocations.items()}
        return Listing.of(entries, self._limits.list_bytes)

    def unite(self, items: list[bytes]) -> list[Revocation]:
        """Take over every revocation of a peer's list. Raises PeerError on a bad one.

        All of them or none: one that was added beside a bad one would be reported to nobody. What
        is held already is not verified again: a liar may send it with each of its heads.
        """
        held = {data for _, data in self._revocations.values()}
        verified = [(self._verified(item), item) for item in items if item not in held]
        return [revocation for revocation, item in verified if self._add(revocation, item)]

    def load_revocations(self, data: bytes) -> None:
        """Our own durable set: whatever its length, it must not keep us from starting."""
        self.unite(unpack_list(data, self._limits.devices * self._limits.entry_bytes))

    def dump(self) -> bytes:
        """All member objects, for the durable state."""
        return pack_list([known.data for known in self._by_digest.values()])

    def load(self, data: bytes) -> None:
        for item in unpack_list(data, self._limits.devices * self._limits.member_bytes):
            with suppress(PeerError):  # a full table must not keep us from starting
                self.admit(item)


def _preferred(revocation: Revocation, data: bytes) -> tuple[int, bytes]:
    """Greater wins: the one that names more TLS keys, else the lower digest."""
    return len(revocation.tls), bytes(255 - byte for byte in digest(data))


def prove_member(data: bytes, root_key: bytes, limits: Limits) -> Member:
    """The member that an object proves from the fleet's root key alone. Raises PeerError."""
    parts = unpack_member(data, limits)
    outer = open_envelope(parts.envelope, "member", limits.member_bytes)
    if parts.issuer is None:
        if outer.key_id != root_key:
            raise PeerError(Fault.UNKNOWN_MEMBER, "neither the root nor an issuer signed it")
        member = _signed_member(outer, root_key, limits)
        if member.role not in ROLES_BY_ROOT:
            raise PeerError(Fault.WRONG_ROLE, f"the root signs no {member.role.value}")
        return member
    above = open_envelope(parts.issuer, "member", limits.member_bytes)
    if above.key_id != root_key:
        raise PeerError(Fault.UNKNOWN_MEMBER, "its issuer is not signed by this fleet's root")
    issuer = _signed_member(above, root_key, limits)
    if issuer.role is not Role.ISSUER or issuer.key != outer.key_id:
        raise PeerError(Fault.WRONG_ROLE, "it is signed by a member that is no issuer")
    member = _signed_member(outer, root_key, limits)
    if member.role is Role.ISSUER:
        raise PeerError(Fault.WRONG_ROLE, "an issuer cannot make issuers")
    return member


def _signed_member(envelope: Envelope, root_key: bytes, limits: Limits) -> Member:
    check_signature(envelope)
    member = decode(envelope.payload, Member, limits.member_bytes)
    if member.fleet != fleet_of(root_key):
        raise PeerError(Fault.WRONG_FLEET, "the member belongs to another fleet")
    if member.device != device_of(member.key):
        raise PeerError(Fault.WRONG_DEVICE, "device id and signing key do not belong together")
    return member
