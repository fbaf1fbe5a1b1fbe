"""Operator-signed settings: which policy is in force here, and which may replace it.

Higher (term, version) wins, ties go to the lower digest. Only an issuer opens a new term, so that
a stolen operator key can be outvoted by the fleet's owner. A revoked operator's policies no longer
count: the newest one that it did not sign is in force again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gossipfl.config import Limits
from gossipfl.errors import Fault, PeerError, SignerError
from gossipfl.groups.schedule import require_sense
from gossipfl.messages import Member, Policy, Role
from gossipfl.objects import digest, pack_list, unpack_list, unpack_vouched
from gossipfl.privacy.agreed import agreed
from gossipfl.wire import check_signature, decode, open_envelope

HISTORY_MAX = 16
SIGNERS = frozenset({Role.OPERATOR, Role.ISSUER})


@dataclass(frozen=True, slots=True)
class Accepted:
    """A verified policy, its object and the object's digest, and who signed it."""

    policy: Policy
    digest: bytes
    data: bytes
    signer: bytes
    by_issuer: bool

    @property
    def rank(self) -> tuple[int, int, bytes]:
        """Greater wins: term, version, then the lower digest."""
        inverted = bytes(255 - byte for byte in self.digest)
        return (self.policy.term, self.policy.version, inverted)


def read_policy(data: bytes, limits: Limits) -> Policy:
    """What a policy object says that was verified before it was written down. Raises PeerError."""
    envelope = open_envelope(unpack_vouched(data, limits).envelope, "policy", limits.entry_bytes)
    return decode(envelope.payload, Policy, limits.entry_bytes)


class Policies:
    def __init__(
        self,
        fleet: bytes,
        limits: Limits,
        verify_member: Callable[[bytes], Member],
        is_revoked: Callable[[bytes], bool],
    ) -> None:
        self._fleet = fleet
        self._limits = limits
        self._verify_member = verify_member
        self._is_revoked = is_revoked
        self._history: dict[bytes, Accepted] = {}

    def verify(self, data: bytes) -> Accepted:
        """A policy object whose signature and signer hold. Raises PeerError; remembers nothing."""
        vouched = unpack_vouched(data, self._limits)
        envelope = open_envelope(vouched.envelope, "policy", self._limits.entry_bytes)
        signer = self._verify_member(vouched.member)
        if signer.role not in SIGNERS or signer.key != envelope.key_id:
            raise PeerError(Fault.WRONG_ROLE, "a policy is signed by an operator")
        if self._is_revoked(signer.device):
            raise PeerError(Fault.REVOKED_MEMBER, "the policy's operator is revoked")
        check_signature(envelope)
        policy = decode(envelope.payload, Policy, self._limits.entry_bytes)
        if policy.fleet != self._fleet:
            raise PeerError(Fault.WRONG_FLEET, "the policy belongs to another fleet")
        if policy.version > 1 and policy.prev is None:
            raise PeerError(Fault.MALFORMED, "a policy after the first names the one before")
        if policy.attackers >= policy.n:
            raise PeerError(
                Fault.MALFORMED, f"{policy.attackers} attackers among {policy.n} devices"
            )
        try:
            agreed(policy.privacy)
            require_sense(policy.privacy, policy.codec)
        except ValueError as error:
            raise PeerError(Fault.MALFORMED, f"privacy: {error}") from error
        return Accepted(
            policy, digest(data), data, signer.device, by_issuer=signer.role is Role.ISSUER
        )

    def missing(self, accepted: Accepted) -> bytes | None:
        """The digest of the policy that must be seen first, or None if this one may count.

        An operator may not open a term: its policy needs the one before, in the same term.
        """
        newest = self.newest()
        # A device that knows no policy stands in term 0, like the first policy of a fleet.
        opens = accepted.policy.term > (newest.policy.term if newest else 0)
        if not opens or accepted.by_issuer:
            return None
        prev = accepted.policy.prev
        if prev is None:
            raise SignerError(Fault.WRONG_ROLE, "only an issuer opens a new term")
        before = self._history.get(prev)
        if before is None:
            return prev
        if before.policy.term != accepted.policy.term:
            raise SignerError(Fault.WRONG_ROLE, "only an issuer opens a new term")
        return None

    def add(self, accepted: Accepted) -> None:
        before = self._history.get(accepted.policy.prev or b"")
        if before is not None and accepted.policy.version != before.policy.version + 1:
            raise SignerError(Fault.MALFORMED, "the policy's version does not follow its prev")
        self._history[accepted.digest] = accepted
        while len(self._history) > HISTORY_MAX:
            del self._history[self._least().digest]

    def _least(self) -> Accepted:
        """The lowest policy that may go. A signer's newest stays while another has two: a flood by
        one operator must not push out what revoking it falls back to. So does its newest that is
        for all: canaries must be able to go back to it."""
        held: dict[tuple[bytes, bool], list[Accepted]] = {}
        for accepted in sorted(self._history.values(), key=lambda a: a.rank):
            held.setdefault((accepted.signer, not accepted.policy.canary), []).append(accepted)
        loose = [a for rows in held.values() for a in rows[:-1]] or list(self._history.values())
        return min(loose, key=lambda a: a.rank)

    def newest(self) -> Accepted | None:
        """What heads name, whether or not it applies to this device."""
        valid = [a for a in self._history.values() if not self._is_revoked(a.signer)]
        return max(valid, key=lambda a: a.rank, default=None)

    def _begun(self, time: int) -> list[Accepted]:
        return [
            a
            for a in self._history.values()
            if not self._is_revoked(a.signer) and a.policy.not_before <= time
        ]

    def in_force(
        self, device: bytes, time: int, declines: Callable[[Policy], bool] = lambda _: False
    ) -> Accepted | None:
        """The newest policy that has begun, that this device is meant by (canaries), and that it
        has not declined."""
        meant = [
            a
            for a in self._begun(time)
            if (not a.policy.canary or device in a.policy.canary) and not declines(a.policy)
        ]
        return max(meant, key=lambda a: a.rank, default=None)

    def for_all(self, time: int) -> Accepted | None:
        """The newest that has begun and is for everybody: what canaries differ from."""
        whole = [a for a in self._begun(time) if not a.policy.canary]
        return max(whole, key=lambda a: a.rank, default=None)

    def latest(self, time: int) -> Accepted | None:
        """The newest that has begun, whoever it is for: whom it blocks is everybody's affair."""
        return max(self._begun(time), key=lambda a: a.rank, default=None)

    def since(self, name: bytes) -> frozenset[bytes]:
        """Digests of this policy and of all that are held and outrank it."""
        known = self._history.get(name)
        later = [a.digest for a in self._history.values() if known and a.rank >= known.rank]
        return frozenset([name, *later])

    def bundles(self) -> frozenset[bytes]:
        """Digests of the bundle files that the policies held here name."""
        return frozenset(a.policy.bundle_object for a in self._history.values())

    @property
    def size(self) -> int:
        return len(self._history)

    def knows(self, name: bytes) -> bool:
        return name in self._history

    def find(self, name: bytes | None) -> Accepted | None:
        """The one whose object has this digest."""
        return self._history.get(name or b"")

    def object(self, name: bytes) -> bytes | None:
        found = self._history.get(name)
        return found.data if found else None

    def accepted(self) -> list[Accepted]:
        """All that are held, the lowest first."""
        return sorted(self._history.values(), key=lambda a: a.rank)

    def dump(self) -> bytes:
        return pack_list([a.data for a in self.accepted()])

    def load(self, data: bytes) -> None:
        for item in unpack_list(data, HISTORY_MAX * self._limits.entry_bytes):
            try:
                self.add(self.verify(item))
            except PeerError:
                continue  # its operator was revoked since
