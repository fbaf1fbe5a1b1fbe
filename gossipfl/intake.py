"""Everything that arrives: heads and objects, checked in the protocol's order, then handed on.

Order for a signed thing: outer size, envelope shape, type, signer's member known and valid,
signature, inner limits, typed decode, meaning. A fault of the signer is charged to the signer, an
unasked-for or wrong-digest body to the carrier.
"""

from __future__ import annotations

from gossipfl.chains import SeenHead, pack_evidence, verify_evidence
from gossipfl.core import Core
from gossipfl.errors import Fault, PeerError
from gossipfl.events import FetchFailed, HeadReceived, ObjectReceived, Topic
from gossipfl.identity import short_name
from gossipfl.membership import Known
from gossipfl.messages import Evidence, Head, Receipt, Role
from gossipfl.objects import Kind, bytes_max, digest, unpack_list
from gossipfl.pulls import Pending, Purpose
from gossipfl.shelf import Served
from gossipfl.wire import Envelope, check_signature, decode, open_envelope

PUBLISHERS = frozenset({Role.DEVICE, Role.HUB})


class Intake:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._bad: set[bytes] = set()  # digests that were refused: not fetched again

    # --- answers ---------------------------------------------------------------------------

    def failed(self, event: FetchFailed) -> None:
        core = self._core
        pending, effects = core.pulls.answered(event.request)
        core.emit(*effects)
        if pending is None:
            return
        device = pending.device
        if event.absent:
            if device is not None:
                core.book.reached(device, core.now)
        else:
            bound = core.book.unreached(pending.address, core.now)
            if event.fault is not Fault.REFUSED:
                core.blame(bound, PeerError(event.fault, event.detail))
        if pending.purpose is Purpose.WALK and event.absent and device is not None:
            self._bad.add(pending.digest or b"")
            core.blame(pending.about, PeerError(Fault.WITHHELD_CHAIN, "a head below its newest"))
        core.collector.fetch_failed(pending)
        core.restorer.fetch_failed(pending, event)

    def head(self, event: HeadReceived) -> None:
        core = self._core
        pending, effects = core.pulls.answered(event.request)
        core.emit(*effects)
        if pending is None:
            return
        if event.head is None:
            if pending.device is not None:
                core.book.reached(pending.device, core.now)
            core.collector.not_modified(pending)
            core.restorer.not_modified(pending)
            return
        self._check_head(pending, event.head, event.member, event.update, event.tls_key)

    def _check_head(
        self,
        pending: Pending,
        data: bytes,
        member: bytes | None,
        update: bytes | None,
        tls_key: bytes | None,
    ) -> None:
        core = self._core
        carrier = core.roster.device_of_tls(tls_key) if tls_key else pending.device
        try:
            envelope = open_envelope(data, "head", core.limits.head_bytes)
        except PeerError as error:
            core.blame(carrier, error)
            core.collector.fetch_failed(pending)
            return
        known = core.roster.by_key(envelope.key_id)
        if known is None:
            self._park(pending, data, member, update, tls_key)
            return
        try:
            head = self._verified(envelope, known)
            self._expected(pending, head, known, tls_key)
        except PeerError as error:
            core.blame(_culprit(error, known.member.device, carrier), error)
            core.collector.fetch_failed(pending)
            core.restorer.refused(pending)
            return
        self._accept(pending, SeenHead(head, digest(data), data), known, update, carrier)

    def _park(
        self,
        pending: Pending,
        data: bytes,
        member: bytes | None,
        update: bytes | None,
        tls_key: bytes | None,
    ) -> None:
        """The signer is not known yet: its member object comes first, the head waits."""
        core = self._core
        if member is None or pending.parked is not None or member in self._bad:
            core.blame(pending.device, PeerError(Fault.UNKNOWN_MEMBER, "no member object"))
            core.collector.fetch_failed(pending)
            return
        wanted = Pending(
            Purpose.MEMBER,
            pending.address,
            pending.device,
            round=pending.round,
            digest=member,
            about=pending.about,
            parked=data,
            update=update,
            tls_key=tls_key,
        )
        core.emit(*core.pulls.object(wanted, core.limits.member_bytes))
        core.collector.fetch_failed(pending)

    def _verified(self, envelope: Envelope, known: Known) -> Head:
        """Checks 4 to 8 of a head. Raises PeerError."""
        core = self._core
        core.roster.require_live(known, core.time())
        if known.member.role not in PUBLISHERS:
            raise PeerError(Fault.WRONG_ROLE, f"{known.member.role.value}s publish no heads")
        if core.reputation.of(known.member.device).condemned:
            raise PeerError(Fault.EQUIVOCATION, "it is condemned by evidence")
        check_signature(envelope)
        head = decode(envelope.payload, Head, core.limits.head_bytes)
        if head.fleet != core.fleet:
            raise PeerError(Fault.WRONG_FLEET, "the head belongs to another fleet")
        if head.device != known.member.device:
            raise PeerError(Fault.WRONG_DEVICE, "the head names another device than its key's")
        if (head.seq == 1) != (head.prev is None):
            raise PeerError(Fault.MALFORMED, "only the first head has no prev")
        return head

    def _expected(self, pending: Pending, head: Head, known: Known, tls_key: bytes | None) -> None:
        """Is it the head that was asked for, from whom it was asked? Raises PeerError."""
        core = self._core
        asked = pending.about
        if asked is not None and head.device != asked:
            raise PeerError(Fault.WRONG_DIGEST, "a head of a device that was not asked for")
        if asked is None and tls_key is not None and known.member.tls not in (None, tls_key):
            by_tls = core.roster.device_of_tls(tls_key)
            if by_tls != head.device:
                raise PeerError(Fault.TLS_MISMATCH, "it serves another device's head as its own")
        newest = core.chains.newest(head.device)
        if newest is not None and head.seq < newest.head.seq and asked is None:
            raise PeerError(Fault.REPLAYED_SEQ, f"head {head.seq} after head {newest.head.seq}")

    def _accept(
        self,
        pending: Pending,
        seen: SeenHead,
        known: Known,
        update: bytes | None,
        carrier: bytes | None,
    ) -> None:
        core = self._core
        head = seen.head
        if head.device == core.device:
            core.restorer.own_head_seen(pending, seen)
            return
        core.clock.hear_issued(head.device, head.issued, core.now)
        if pending.about is None:
            peer = core.book.bind(pending.address, head.device, core.now)
        elif head.device in core.book.peers:
            peer = core.book.peers[head.device]
        else:
            return
        if self._observe(seen, known):
            return
        if peer.head_digest != seen.digest:
            if _update_digest(peer.head) != _update_digest(head):
                peer.update_seen_at = core.now
            peer.head, peer.head_digest = head, seen.digest
            core.upkeep.new_head(peer, head, known)
        held = core.shelf.head(head.device)
        core.shelf.set_head(
            head.device,
            Served(
                seen.envelope,
                seen.digest,
                known.digest,
                update if update else (held.update if held else None),
                _update_digest(head),
            ),
        )
        core.collector.head(pending, peer, update, carrier)

    def _observe(self, seen: SeenHead, known: Known) -> bool:
        """Remember the head in its chain; True if that proved its signer a liar."""
        evidence = self._core.chains.observe(seen, known.data)
        if evidence is None:
            return False
        self.condemn(evidence, seen.head.device, pack_evidence(evidence))
        return True

    # --- objects ---------------------------------------------------------------------------

    def object(self, event: ObjectReceived) -> None:
        core = self._core
        pending, effects = core.pulls.answered(event.request)
        core.emit(*effects)
        if pending is None:
            return
        if pending.device is not None:
            core.book.reached(pending.device, core.now)
        if digest(event.data) != pending.digest:
            what = f"a {pending.purpose.value} of other bytes"
            core.blame(pending.device, PeerError(Fault.WRONG_DIGEST, what))
            core.collector.fetch_failed(pending)
            return
        try:
            self._dispatch(pending, event.data)
        except PeerError as error:
            self._bad.add(pending.digest)
            while len(self._bad) > core.limits.devices:
                self._bad.pop()
            core.blame(pending.about or pending.device, error)
            core.collector.fetch_failed(pending)

    def is_bad(self, name: bytes) -> bool:
        return name in self._bad

    def _dispatch(self, pending: Pending, data: bytes) -> None:
        core = self._core
        match pending.purpose:
            case Purpose.MEMBER:
                self._member(pending, data)
            case Purpose.UPDATE:
                core.collector.update(pending, data)
            case Purpose.POLICY:
                self._policy(pending, data)
            case Purpose.REVOCATIONS:
                for revocation in core.roster.unite(data):
                    core.upkeep.revoked(revocation)
            case Purpose.EVIDENCE:
                self._evidence(data)
            case Purpose.PEERS:
                core.addresses.peers(pending, data)
            case Purpose.RECEIPT:
                self._receipt(pending, data)
            case Purpose.WALK:
                self._walked(data)
            case Purpose.BUNDLE:
                core.steering.arrived(data)
            case _:
                raise PeerError(Fault.MALFORMED, f"no object answers a {pending.purpose.value}")

    def _member(self, pending: Pending, data: bytes) -> None:
        core = self._core
        known = core.roster.admit(data)
        core.shelf.put(known.digest, data)
        core.publisher.store(data)
        core.publisher.touch("members")
        if pending.parked is not None:
            self._check_head(pending, pending.parked, known.digest, pending.update, pending.tls_key)

    def _policy(self, pending: Pending, data: bytes) -> None:
        core = self._core
        missing = core.steering.receive(data)
        if missing is not None and not self.is_bad(missing):
            wanted = Pending(Purpose.POLICY, pending.address, pending.device, digest=missing)
            core.emit(*core.pulls.object(wanted, bytes_max(Kind.POLICY, core.limits)))

    def _walked(self, data: bytes) -> None:
        """A head below somebody's newest, by digest: only its place in the chain counts."""
        core = self._core
        envelope = open_envelope(data, "head", core.limits.head_bytes)
        known = core.roster.by_key(envelope.key_id)
        if known is None or core.is_barred(known.member.device):
            return
        check_signature(envelope)
        head = decode(envelope.payload, Head, core.limits.head_bytes)
        if head.device != known.member.device or head.fleet != core.fleet:
            raise PeerError(Fault.WRONG_DEVICE, "the head names another device than its key's")
        if head.device == core.device:
            core.restorer.own_head_elsewhere(SeenHead(head, digest(data), data))
            return
        self._observe(SeenHead(head, digest(data), data), known)

    def _receipt(self, pending: Pending, data: bytes) -> None:
        core = self._core
        envelope = open_envelope(data, "receipt", core.limits.entry_bytes)
        known = core.roster.by_key(envelope.key_id)
        if known is None or known.member.device != pending.device:
            raise PeerError(Fault.WRONG_DEVICE, "a receipt of another device")
        check_signature(envelope)
        receipt = decode(envelope.payload, Receipt, core.limits.entry_bytes)
        if receipt.device != pending.device or receipt.fleet != core.fleet:
            raise PeerError(Fault.WRONG_DEVICE, "the receipt names another device")
        core.upkeep.receipt(pending, receipt)

    # --- evidence --------------------------------------------------------------------------

    def _evidence(self, data: bytes) -> None:
        core = self._core
        for item in unpack_list(data, core.limits.list_bytes):
            evidence, accused = verify_evidence(item, core.roster.verify_chain, core.limits)
            if (accused, evidence.kind.value) not in core.evidence:
                self.condemn(evidence, accused, item)

    def restore_evidence(self, data: bytes) -> None:
        """At start: proofs are verified again, the disk is not believed."""
        self._evidence(data)

    def condemn(self, evidence: Evidence, accused: bytes, packed: bytes) -> None:
        """Proven: quarantined for good, here and at everybody who pulls our evidence list."""
        core = self._core
        core.evidence[accused, evidence.kind.value] = packed
        core.publisher.touch("evidence", "reputation")
        core.publisher.want_head()
        if accused == core.device:
            core.restraint.conflict = (
                "two different heads are signed with this device's key: enrol it again"
            )
            core.notice(Topic.EVIDENCE, core.restraint.conflict, accused, True)
            return
        reason = f"equivocated ({evidence.kind.value}): two signed heads prove it"
        core.reputation.condemn(accused, reason)
        core.refused[accused] = Fault.EQUIVOCATION
        core.notice(Topic.EVIDENCE, f"{short_name(accused)} {reason}", accused, True)
        core.expel(accused)


def _culprit(error: PeerError, signer: bytes, carrier: bytes | None) -> bytes | None:
    """A forged or misplaced head says nothing about the device whose name it bears."""
    by_carrier = {Fault.BAD_SIGNATURE, Fault.TLS_MISMATCH, Fault.WRONG_DIGEST}
    return carrier if error.fault in by_carrier else signer


def _update_digest(head: Head | None) -> bytes | None:
    return head.update.digest if head is not None and head.update is not None else None
