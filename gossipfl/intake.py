"""Heads that arrive: checked in the protocol's order, then handed on.

Order for a signed thing: outer size, envelope shape, type, signer's member known and valid,
signature, inner limits, typed decode, meaning. A fault of the signer is charged to the signer, an
unasked-for or wrong-digest body to the carrier.
"""

from __future__ import annotations

from gossipfl.chains import SeenHead, pack_evidence
from gossipfl.core import Core
from gossipfl.errors import Fault, PeerError
from gossipfl.events import Address, FetchFailed, HeadReceived
from gossipfl.identity import device_of
from gossipfl.membership import Known
from gossipfl.messages import Head, Role
from gossipfl.objects import digest, unpack_list
from gossipfl.pulls import Pending, Purpose
from gossipfl.shelf import Served
from gossipfl.wire import Envelope, check_signature, decode, open_envelope, read_signed

HEADS_BYTES_MAX = 64 * 1024 * 1024
PUBLISHERS = frozenset({Role.DEVICE, Role.HUB})


class Intake:
    def __init__(self, core: Core) -> None:
        self._core = core

    # --- answers ---------------------------------------------------------------------------

    def failed(self, event: FetchFailed) -> None:
        core = self._core
        pending, effects = core.pulls.answered(event.request)
        core.out.extend(effects)
        if pending is None:
            return
        device = pending.device
        if event.absent and not self.is_from(pending, event.tls_key):
            self._somebody_else(pending)
            return
        if event.absent:
            if device is not None:
                core.book.reached(device, core.now)
        else:
            bound = core.book.unreached(pending.address, core.now)
            core.watch.failed(bound, event.fault)
            carrier = core.carrier(bound, event.tls_key)
            # What is too big may be what was named: nobody has seen its digest.
            named_so = event.fault is Fault.OVERSIZED and pending.namer not in (device, carrier)
            if event.fault is not Fault.REFUSED and not named_so:
                core.blame(carrier, PeerError(event.fault, event.detail))
        if pending.purpose is Purpose.WALK and event.absent and device is not None:
            core.parcels.refuse(Purpose.WALK, pending.digest or b"", device)
            if pending.about is not None:
                withheld = PeerError(Fault.WITHHELD_CHAIN, "a head below its newest one")
                core.blame(pending.about, withheld)
        core.collector.fetch_failed(pending)
        core.restorer.fetch_failed(pending, event)
        core.inheritance.failed(pending, event)
        core.sums.exchange.failed(pending)
        core.witnessing.failed(pending, event)

    def head(self, event: HeadReceived) -> None:
        core = self._core
        pending, effects = core.pulls.answered(event.request)
        core.out.extend(effects)
        if pending is None:
            return
        name = core.pure(digest, event.head) if event.head is not None else None
        if event.head is None or name == pending.etag:
            if not self.is_from(pending, event.tls_key):
                self._somebody_else(pending)
                return
            if pending.device is not None:
                core.book.reached(pending.device, core.now)
                core.watch.answered(pending.device, 0)
            elif event.member is not None and event.tls_key is not None:
                self._introduced(pending, event.member, event.tls_key)
            core.collector.not_modified(pending)
            core.restorer.not_modified(pending)
            return
        size = len(event.head) + len(event.update or b"")
        core.watch.answered(core.carrier(pending.device, event.tls_key), size)
        self.check_head(pending, event.head, event.member, event.update, event.tls_key)

    def is_from(self, pending: Pending, tls_key: bytes | None) -> bool:
        """Did the peer that was asked answer itself? TLS proves which member did.

        A key that nobody here knows is not the asked peer's either: it may be a member's that was
        never met. A peer that has renewed its key is met anew at its address."""
        if pending.device is None or tls_key is None:
            return True
        return self._core.roster.device_of_tls(tls_key) == pending.device

    def _somebody_else(self, pending: Pending) -> None:
        """Another member answers at that address: what it says is not the asked one's word."""
        core = self._core
        core.book.unbind(pending.address, core.now)
        core.collector.fetch_failed(pending)
        core.restorer.refused(pending)

    def _introduced(self, pending: Pending, member: bytes, tls_key: bytes) -> None:
        """A device that has published nothing yet says who it is; its TLS key proves it."""
        core = self._core
        known = core.roster.by_digest(member)
        if known is not None:
            self.meet(pending.address, known, tls_key)
        elif not core.parcels.is_bad(Purpose.MEMBER, member):
            wanted = Pending(Purpose.MEMBER, pending.address, None, digest=member, tls_key=tls_key)
            core.emit(*core.pulls.object(wanted, core.limits.member_bytes))

    def meet(self, address: Address, known: Known, tls_key: bytes) -> None:
        """The TLS key at this address belongs to a known member: bind it, if it is live."""
        core = self._core
        if known.member.tls != tls_key:
            return
        if known.member.device == core.device:
            core.book.is_self(address)
            return
        try:
            core.roster.require_live(known, core.time())
        except PeerError as error:
            core.blame(known.member.device, error)
            return
        core.book.bind(address, known.member.device, core.now)

    def check_head(
        self,
        pending: Pending,
        data: bytes,
        member: bytes | None,
        update: bytes | None,
        tls_key: bytes | None,
    ) -> None:
        core = self._core
        carrier = core.carrier(pending.device, tls_key)
        try:
            envelope = core.pure(open_envelope, data, "head", core.limits.head_bytes)
        except PeerError as error:
            core.blame(carrier, error)
            core.collector.fetch_failed(pending)
            core.restorer.refused(pending)
            return
        known = core.roster.by_key(envelope.key_id)
        if known is None and pending.purpose is Purpose.RECONCILE:
            core.blame(carrier, PeerError(Fault.WRONG_DIGEST, "not our own head, which was asked"))
            core.restorer.refused(pending)
            return
        if (
            known is None
            and core.is_barred(device_of(envelope.key_id))
            and not core.inheritance.is_about(pending.about)
        ):
            core.collector.fetch_failed(pending)  # it has no business here, nor its member object
            return
        if known is None:
            self._park(pending, data, member, update, tls_key)
            return
        try:
            if core.inheritance.is_about(pending.about):
                core.inheritance.head(pending, envelope, known)
                return
            head = self._verified(envelope, known)
            self._expected(pending, head, known, tls_key)
        except PeerError as error:
            core.blame(_culprit(error, known.member.device, carrier), error)
            core.collector.fetch_failed(pending)
            core.restorer.refused(pending)
            return
        seen = SeenHead(head, core.pure(digest, data), data)
        if not self._older(pending, seen, known):
            self._accept(pending, seen, known, update, carrier)

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
        bad = member is not None and core.parcels.is_bad(Purpose.MEMBER, member)
        if member is None or bad or pending.parked is not None:
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
            parked_at=core.now,
            update=update,
            tls_key=tls_key,
        )
        core.emit(*core.pulls.object(wanted, core.limits.member_bytes))
        core.collector.fetch_failed(pending)

    def _verified(self, envelope: Envelope, known: Known) -> Head:
        """Checks 4 to 8 of a head. Raises PeerError."""
        core = self._core
        try:
            core.roster.require_live(known, core.time())
        except PeerError as error:
            if error.fault is Fault.EXPIRED_MEMBER:
                self._hear_expired(envelope, known)
            raise
        if known.member.role not in PUBLISHERS:
            raise PeerError(Fault.WRONG_ROLE, f"{known.member.role.value}s publish no heads")
        if core.reputation.is_condemned(known.member.device):
            raise PeerError(Fault.EQUIVOCATION, "it is condemned by evidence")
        head = core.pure(read_signed, envelope, Head, core.limits.head_bytes)
        if head.fleet != core.fleet:
            raise PeerError(Fault.WRONG_FLEET, "the head belongs to another fleet")
        if head.device != known.member.device:
            raise PeerError(Fault.WRONG_DEVICE, "the head names another device than its key's")
        if (head.seq == 1) != (head.prev is None):
            raise PeerError(Fault.MALFORMED, "only the first head has no prev")
        return head

    def _hear_expired(self, envelope: Envelope, known: Known) -> None:
        """If everybody looks expired, our clock is the one that is wrong: count the voice."""
        check_signature(envelope)
        head = decode(envelope.payload, Head, self._core.limits.head_bytes)
        self._core.clock.hear_issued(known.member.device, head.seq, head.issued, self._core.now)

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

    def _older(self, pending: Pending, seen: SeenHead, known: Known) -> bool:
        """Is it below a head that we hold? It may still prove a fork. It is a replay if we said
        when we asked that we have a newer one; else another answer only overtook this one."""
        core, seq = self._core, seen.head.seq
        newest = core.chains.newest(seen.head.device)
        if newest is None or seq >= newest.head.seq or pending.about is not None:
            return False
        core.book.reached(seen.head.device, core.now)
        if not self.observe(seen, known) and seq < pending.seq:
            what = f"head {seq} after head {newest.head.seq}"
            core.blame(seen.head.device, PeerError(Fault.REPLAYED_SEQ, what))
        core.collector.fetch_failed(pending)
        return True

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
        core.clock.hear_issued(head.device, head.seq, head.issued, core.now)
        silent_s = self._silent_s(head.device)
        if pending.about is None:
            peer = core.book.bind(pending.address, head.device, core.now)
            if pending.device is not None and pending.device != head.device:
                core.collector.fetch_failed(pending)  # who lived there before brings nothing now
        elif head.device in core.book.peers:
            peer = core.book.peers[head.device]
        else:
            return
        if self.observe(seen, known):
            return
        # Whoever reads our receipts may ask us for the heads that we merged.
        core.shelf.put(seen.digest, seen.envelope)
        core.publisher.touch_later("heads")
        if peer.head_digest != seen.digest:
            if _update_digest(peer.head) != _update_digest(head):
                # What waited for its signer's member object was seen when it came.
                at = core.now if pending.parked is None else pending.parked_at
                peer.update_seen_at = core.watch.first_seen(head.device, _update_digest(head), at)
                if head.update is not None and head.lineage == core.job.lineage:
                    core.halt.peer_published(head.device, silent_s)
            peer.head, peer.head_digest = head, seen.digest
            core.upkeep.new_head(peer, head, known)
        self._serve(seen, known, update)
        core.collector.head(pending, peer, update, carrier)

    def _silent_s(self, device: bytes) -> float:
        """For how long its update is known to have been its newest: till the last answer."""
        peer = self._core.book.peers.get(device)
        if peer is None or peer.head is None or peer.head.update is None:
            return 0.0
        return peer.live_at - peer.update_seen_at

    def _serve(self, seen: SeenHead, known: Known, update: bytes | None) -> None:
        """Pass the head on, and an update beside it only if it is the one that the head names."""
        name = _update_digest(seen.head)
        held = self._core.shelf.head(seen.head.device)
        if update is None or self._core.pure(digest, update) != name:
            update = held.update if held is not None and held.update_digest == name else None
        self._core.shelf.set_head(
            seen.head.device, Served(seen.envelope, seen.digest, known.digest, update, name)
        )

    def restore_heads(self, data: bytes) -> None:
        """At start: the newest heads that we held, so that a restart forgets nobody's number."""
        core = self._core
        for item in unpack_list(data, HEADS_BYTES_MAX):
            envelope = open_envelope(item, "head", core.limits.head_bytes)
            known = core.roster.by_key(envelope.key_id)
            if known is None:
                continue
            check_signature(envelope)
            head = decode(envelope.payload, Head, core.limits.head_bytes)
            seen = SeenHead(head, digest(item), item)
            served = Served(item, seen.digest, known.digest, None, _update_digest(head))
            if core.is_barred(known.member.device):
                core.shelf.retire_head(head.device, served)
                continue
            self.observe(seen, known)
            core.shelf.set_head(head.device, served)

    def observe(self, seen: SeenHead, known: Known) -> bool:
        """Remember the head in its chain; True if that proved its signer a liar."""
        evidence = self._core.chains.observe(seen, known.data)
        if evidence is None:
            return False
        self._core.parcels.condemn(evidence, seen.head.device, pack_evidence(evidence))
        return True


def _culprit(error: PeerError, signer: bytes, carrier: bytes | None) -> bytes | None:
    """A forged or misplaced head says nothing about the device whose name it bears."""
    by_carrier = {Fault.BAD_SIGNATURE, Fault.TLS_MISMATCH, Fault.WRONG_DIGEST}
    return carrier if error.fault in by_carrier else signer


def _update_digest(head: Head | None) -> bytes | None:
    return head.update.digest if head is not None and head.update is not None else None
