"""Whose signature on a bundle counts here: an operator's (or issuer's) of this fleet."""

from __future__ import annotations

from gossipfl.bundle.signing import VerifySigner
from gossipfl.errors import Fault, PeerError
from gossipfl.membership import Roster
from gossipfl.messages import Role

SIGNERS = frozenset({Role.OPERATOR, Role.ISSUER})  # those who may sign policies


def operator_of(roster: Roster) -> VerifySigner:
    """A check of (key id, member object) against the fleet root and the revocations known.

    Dates do not count: a bundle is an archived object, and the policy that names it is dated.
    """

    def verify(key_id: bytes, member_object: bytes) -> None:
        member = roster.verify_chain(member_object)
        if member.key != key_id:
            raise PeerError(Fault.UNKNOWN_MEMBER, "the member object is another key's")
        if member.role not in SIGNERS:
            raise PeerError(Fault.WRONG_ROLE, f"a {member.role.value} signs no bundles")
        if roster.revocation(member.device) is not None:
            raise PeerError(Fault.REVOKED_MEMBER, "its signer was revoked", member.device)

    return verify
