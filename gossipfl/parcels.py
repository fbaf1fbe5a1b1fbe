"""Objects that arrive: digest first, then what they are, then what they mean.

A wrong digest is the carrier's fault; what a right digest hides is its signer's, or, for lists,
the lister's.
"""

from __future__ import annotations

from contextlib import suppress

from gossipfl.chains import LOG_KINDS, SeenHead, open_receipt, verify_evidence
from gossipfl.core import Core
from gossipfl.errors import Fault, PeerError, SignerError
from gossipfl.events import ObjectReceived, Topic
from gossipfl.groups import proofs
from gossipfl.identity import short_name
from gossipfl.messages import Evidence, Head
from gossipfl.objects import PAGE_BITS_MAX, Kind, bytes_max, digest, is_index, unpack_list
from gossipfl.pulls import Pending, Purpose
from gossipfl.wire import open_envelope, read_signed


class Parcels:
    def __init__(self, core: Core) -> None:
        self._core = core
        # Digests refused, for what, and by whom (None: for what was in it): not fetched again.
        self._bad: dict[tuple[Purpose, bytes, bytes | None], None] = {}

    def object(self, event: ObjectReceived) -> None:
        core = self._core
        pending, effects = core.pulls.answered(event.request)
        core.out.extend(effects)
        if pending is None:
            return
        if not core.intake.is_from(pending, event.tls_key):
            core.book.unbind(pending.address, core.now)
        elif pending.device is not None:
            core.book.reached(pending.device, core.now)
        if core.pure(digest, event.data) != pending.digest:
            what = f"a {pending.purpose.value} of other bytes"
            core.blame(
                core.carrier(pending.device, event.tls_key), PeerError(Fault.WRONG_DIGEST, what)
            )
            core.collector.fetch_failed(pending)
            core.sums.exchange.failed(pending)
            return
        core.watch.answered(core.carrier(pending.device, event.tls_key), len(event.data))
        try:
            self._dispatch(pending, event.data)
        except SignerError as error:
            self.refuse(pending.purpose, pending.digest)
            core.notice(Topic.REFUSED, f"a policy is refused: {error}", warning=True)
        except PeerError as error:
            # Another device's receipt, or an index as a page: wrong from whoever named it so, and
            # right from others. A liar must not make us refuse theirs.
            here = error.fault is Fault.WRONG_DEVICE or pending.page
            self.refuse(pending.purpose, pending.digest, pending.device if here else None)
            core.blame(pending.namer, error)
            core.collector.fetch_failed(pending)
            core.sums.exchange.failed(pending)

    def refuse(self, purpose: Purpose, name: bytes, by: bytes | None = None) -> None:
        """Not to be fetched again for this purpose, or only not `by` this peer, that has it not.

        For this purpose: a policy that a liar lists as evidence is still a policy. Bounded: what
        falls out is merely refused once more.
        """
        self._bad[purpose, name, by] = None
        while len(self._bad) > self._core.limits.devices:
            del self._bad[next(iter(self._bad))]

    @property
    def refused(self) -> int:
        return len(self._bad)

    def is_bad(self, purpose: Purpose, name: bytes, by: bytes | None = None) -> bool:
        """Was this refused, whoever has it, or by this peer?"""
        return (purpose, name, None) in self._bad or (purpose, name, by) in self._bad

    def _dispatch(self, pending: Pending, data: bytes) -> None:
        core = self._core
        match pending.purpose:
            case Purpose.MEMBER:
                self._member(pending, data)
            case Purpose.UPDATE:
                core.collector.update(pending, data)
            case Purpose.POLICY:
                self._policy(pending, data)
            case Purpose.REVOCATIONS | Purpose.EVIDENCE:
                self._list(pending, data)
            case Purpose.PEERS:
                core.addresses.peers(pending, data)
            case Purpose.RECEIPT:
                self._receipt(pending, data)
            case Purpose.WALK:
                self._walked(data)
            case Purpose.BUNDLE:
                core.steering.arrived(data)
            case Purpose.SUM_OBJECT | Purpose.SUM_VECTOR:
                core.sums.object(pending, data)
            case Purpose.CHECKPOINT:
                core.witnessing.arrived(pending, data)
            case _:
                raise PeerError(Fault.MALFORMED, f"no object answers a {pending.purpose.value}")

    def _list(self, pending: Pending, data: bytes) -> None:
        """Revocations or evidence: entries, or the digests of pages with entries."""
        core = self._core
        items = unpack_list(data, core.limits.list_bytes)
        if is_index(items):
            if pending.page or len(items) > 2**PAGE_BITS_MAX:
                raise PeerError(Fault.MALFORMED, "a list of pages of pages, or of too many")
            core.upkeep.pages(pending, items)
        elif pending.purpose is Purpose.EVIDENCE:
            self._evidence(items)
        else:
            core.upkeep.revoked(core.roster.unite(items))

    def _member(self, pending: Pending, data: bytes) -> None:
        core = self._core
        core.publisher.retire(*core.roster.forget(core.time(), core.device))
        known = core.roster.admit(data)
        core.shelf.put(known.digest, data)
        core.publisher.store(data)
        core.publisher.touch("members")
        if known.member.replaces is not None:
            core.reputation.inherit(known.member.replaces, known.member.device)
            core.expel(known.member.replaces)
        if known.member.device in core.blocked:
            core.steering.block()  # a hub's or an operator's cannot be, and now it is known whose
        if pending.parked is not None:
            core.intake.check_head(
                pending, pending.parked, known.digest, pending.update, pending.tls_key
            )
        elif pending.device is None and pending.tls_key is not None:
            core.intake.meet(pending.address, known, pending.tls_key)

    def _policy(self, pending: Pending, data: bytes) -> None:
        core = self._core
        missing = core.steering.receive(data)
        if missing is not None and not self.is_bad(Purpose.POLICY, missing):
            wanted = Pending(Purpose.POLICY, pending.address, pending.device, digest=missing)
            core.emit(*core.pulls.object(wanted, bytes_max(Kind.POLICY, core.limits)))

    def _walked(self, data: bytes) -> None:
        """A head below somebody's newest, by digest: only its place in the chain counts."""
        core = self._core
        envelope = core.pure(open_envelope, data, "head", core.limits.head_bytes)
        known = core.roster.by_key(envelope.key_id)
        if known is None or core.is_barred(known.member.device):
            return
        head = core.pure(read_signed, envelope, Head, core.limits.head_bytes)
        if head.device != known.member.device or head.fleet != core.fleet:
            raise PeerError(Fault.WRONG_DEVICE, "the head names another device than its key's")
        if head.device == core.device:
            core.restorer.own_head_elsewhere(SeenHead(head, core.pure(digest, data), data))
            return
        core.intake.observe(SeenHead(head, core.pure(digest, data), data), known)

    def _receipt(self, pending: Pending, data: bytes) -> None:
        core = self._core
        known = core.roster.by_device(pending.device or b"")
        if known is None:
            raise PeerError(Fault.WRONG_DEVICE, "a receipt of another device")
        core.upkeep.receipt(pending, open_receipt(data, known.member, core.limits, core.pure))

    # --- evidence --------------------------------------------------------------------------

    def _evidence(self, items: list[bytes]) -> None:
        core = self._core
        held = set(core.evidence.values())
        listed: set[tuple[bytes, str]] = set()
        for item in items:
            if item in held:
                continue
            evidence, accused = verify_evidence(item, core.roster.verify_chain, core.limits)
            key = accused, evidence.kind.value
            if key in listed:  # a liar can prove its own lie in many ways, to keep us busy
                raise PeerError(Fault.BAD_EVIDENCE, "one device's fault is listed twice")
            listed.add(key)
            if key in core.evidence:
                # Others met another proof: everybody must choose alike, or lists never agree.
                if item < core.evidence[key]:
                    core.evidence[key] = item
                    core.publisher.touch("evidence")
                    core.publisher.want_head()
                continue
            with suppress(PeerError):  # the table of members may be full
                core.roster.admit(evidence.member)  # so that its TLS key is refused here too
            self.condemn(evidence, accused, item)

    def restore_evidence(self, data: bytes) -> None:
        """At start: proofs are verified again, the disk is not believed."""
        limits = self._core.limits
        self._evidence(unpack_list(data, limits.devices * limits.entry_bytes))

    def condemn(self, evidence: Evidence, accused: bytes, packed: bytes) -> None:
        """Proven: quarantined for good, here and at everybody who pulls our evidence list."""
        core = self._core
        core.evidence[accused, evidence.kind.value] = packed
        core.publisher.touch("evidence", "reputation")
        core.publisher.want_head()
        if accused == core.device:
            core.restraint.conflict = (
                "two different heads are signed with this device's key: "
                "join with a new state folder"
            )
            core.notice(Topic.EVIDENCE, core.restraint.conflict, accused, True)
            return
        what = "two signed heads prove it"
        if evidence.kind in proofs.KINDS:
            what = "two signed objects of a group sum prove it"
        elif evidence.kind in LOG_KINDS:
            what = "two signatures over its log prove it"
        reason = f"equivocated ({evidence.kind.value}): {what}"
        core.reputation.condemn(accused, reason)
        core.refused[accused] = Fault.EQUIVOCATION
        core.notice(Topic.EVIDENCE, f"{short_name(accused)} {reason}", accused, True)
        core.expel(accused)
