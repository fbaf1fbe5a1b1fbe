"""What the payload of a log entry must be: the same checks for the hub that appends and for the
auditor who reads an export years later.

Everything that a device or an operator signed proves itself from the fleet id alone: the root key
stands in the member objects, and its digest is the fleet id. A receipt names its signer only, so
the signer's admission must stand in the log before it.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from gossipfl.audit.entries import EntryKind, Payload, unpack_erasure
from gossipfl.audit.refused import AuditRefused
from gossipfl.chains import verify_evidence
from gossipfl.config import Limits
from gossipfl.errors import PeerError
from gossipfl.identity import device_of
from gossipfl.membership import Roster, prove_member
from gossipfl.messages import Marker, Member, Receipt
from gossipfl.objects import fleet_of, unpack_member, unpack_vouched
from gossipfl.policies import Policies
from gossipfl.wire import check_signature, decode, open_envelope


class Contents:
    """Checks payloads in the order of the log. `fleet` is the fleet id, 32 bytes."""

    def __init__(self, fleet: bytes, limits: Limits | None = None) -> None:
        self._fleet = fleet
        self._limits = limits or Limits()
        self._keys: dict[bytes, bytes] = {}  # device -> signing key, as admitted in the log
        self._policies = Policies(fleet, self._limits, self._member, lambda device: False)
        self._checks: dict[EntryKind, Callable[[Payload], bytes | None]] = {
            EntryKind.MEMBER: self._admission,
            EntryKind.RECEIPT: lambda p: self._chained(p.data, "receipt", Receipt),
            EntryKind.MARKER: lambda p: self._chained(p.data, "marker", Marker),
            EntryKind.POLICY: lambda p: self._policies.verify(p.data).signer,
            EntryKind.REVOCATION: self._revocation,
            EntryKind.EVIDENCE: self._evidence,
            EntryKind.ERASURE: self._erasure,
        }

    def check(self, kind: EntryKind, payload: Payload) -> None:
        """Raises AuditRefused unless the payload is what its kind says, signed, and about whom the
        log says it is."""
        try:
            about = self._checks.get(kind, _json)(payload)
        except PeerError as error:
            raise AuditRefused(f"it is no valid {kind.word}: {error}") from error
        if about is not None and about != payload.subject:
            raise AuditRefused(f"the {kind.word} is about another device than the log says")

    def _root(self, member: bytes) -> bytes:
        """The fleet's root key, which stands in every member object."""
        parts = unpack_member(member, self._limits)
        above = parts.issuer if parts.issuer is not None else parts.envelope
        root = open_envelope(above, "member", self._limits.member_bytes).key_id
        if fleet_of(root) != self._fleet:
            raise AuditRefused("its root key is not that of this fleet")
        return root

    def _member(self, data: bytes) -> Member:
        return prove_member(data, self._root(data), self._limits)

    def _admission(self, payload: Payload) -> bytes:
        member = self._member(payload.data)
        self._keys[member.device] = member.key
        return member.device

    def _chained(self, data: bytes, kind: str, shape: type[Receipt] | type[Marker]) -> bytes:
        envelope = open_envelope(data, kind, self._limits.entry_bytes)
        if self._keys.get(device_of(envelope.key_id)) != envelope.key_id:
            raise AuditRefused(f"no entry before it admits the signer of this {kind}")
        check_signature(envelope)
        value = decode(envelope.payload, shape, self._limits.entry_bytes)
        if value.fleet != self._fleet or value.device != envelope.device:
            raise AuditRefused(f"the {kind} is not of its signer and this fleet")
        return value.device

    def _revocation(self, payload: Payload) -> bytes | None:
        root = self._root(unpack_vouched(payload.data, self._limits).member)
        revocation = Roster(root, self._limits).revoke(payload.data)
        return revocation.device if revocation is not None else None

    def _evidence(self, payload: Payload) -> bytes:
        _, device = verify_evidence(payload.data, self._member, self._limits)
        return device

    def _erasure(self, payload: Payload) -> None:
        unpack_erasure(payload.data)


def _json(payload: Payload) -> None:
    """The hub's own entries: an object in JSON."""
    try:
        value = json.loads(payload.data)
    except (ValueError, RecursionError) as error:
        raise AuditRefused("it is not JSON") from error
    if not isinstance(value, dict):
        raise AuditRefused("it is not a JSON object")
