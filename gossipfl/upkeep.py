"""What goes on beside the rounds: contacts, polls, chains of others, receipts, own restored state.

Polling is apart from rounds: a few random live peers every interval, mostly answered "not
modified". Heads name policy, revocations, evidence and address lists by digest, so a change at one
device is fetched by those who see its head, and named by their own next heads in turn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from gossipfl.core import Core
from gossipfl.events import Address, CutOff, Topic
from gossipfl.identity import short_name
from gossipfl.membership import Known
from gossipfl.messages import Head, Merged, Receipt, Revocation
from gossipfl.objects import Kind, bytes_max
from gossipfl.peers import Peer
from gossipfl.pulls import Pending, Purpose
from gossipfl.wire import unpack

ADDRESS_LISTS_MAX = 4
"""Lists of addresses asked for at once: as `pulls_out`. While a fleet meets, each head names
another one, and what waits in a queue is replaced at its peer before its turn comes."""
KNOCKS_MAX = 8
"""Addresses tried at once that nobody has answered from: guess, a fleet of 64 is met in seconds."""


class Upkeep:
    def __init__(self, core: Core) -> None:
        self._core = core
        self.poll_at = math.inf
        self._receipts_left: dict[bytes, int] = {}  # receipts still to be read per peer, this round
        self._walks_left = 0
        self._doubts_left = 0
        self._lists_asked: dict[tuple[bytes, Purpose, bool], int] = {}  # in this round
        self._renewed_at = -math.inf

    # --- polls -----------------------------------------------------------------------------

    def start(self) -> None:
        core = self._core
        self.poll_at = core.now + core.pace.poll_interval_s * core.entropy.random()

    def advance(self) -> None:
        """Knock at due candidates, poll when it is time, look after what is still missing."""
        core = self._core
        for address in core.book.due(core.now):
            if core.pulls.out(Purpose.CONTACT) >= KNOCKS_MAX:
                break  # addresses that swallow requests must not use up those of the rounds
            self._knock(address)
        if core.now >= self.poll_at:
            self.poll_at = core.now + core.pace.poll_interval_s
            self._poll()
            if core.now - self._renewed_at > core.pace.round_interval_s:
                self._without_round()
            core.watch.look()
            core.inheritance.advance()
            core.steering.apply()
        if not core.restraint.reconciled:
            core.restorer.advance()
        core.steering.seek()

    def _without_round(self) -> None:
        """At rest, or without a policy, no round begins. Nor at a hub, which reads what others
        were shown all the same: forks hide there."""
        if self._core.settings.trains:
            self._renew_budget()
        else:
            self.new_round()

    def due(self) -> float:
        if self._core.pulls.out(Purpose.CONTACT) >= KNOCKS_MAX:
            return self.poll_at  # the answer to a knock wakes us
        return min(self.poll_at, self._core.book.next_due(self._core.now))

    def _knock(self, address: Address) -> None:
        core = self._core
        core.book.knocked(address, core.now)
        if not core.pulls.is_knocking(address):
            core.emit(*core.pulls.head(Pending(Purpose.CONTACT, address, None), etag=None))

    def _poll(self) -> None:
        core = self._core
        live = [p for p in core.book.live(core.now) if not core.is_barred(p.device)]
        chosen = core.entropy.sample(live, min(core.pace.poll_peers, len(live)))
        away = [p for p in core.book.away(core.now) if not core.is_barred(p.device)]
        if away:
            chosen.append(core.entropy.choice(away))
        # A hub's log is seen by everybody at every poll: a fork of it must not hide in between.
        chosen += [p for p in live if core.roster.is_hub(p.device) and p not in chosen]
        for peer in chosen:
            if not core.pulls.is_asked(peer.device, Purpose.POLL):
                pending = Pending(Purpose.POLL, peer.addresses[0], peer.device, seq=peer.seq)
                core.emit(*core.pulls.head(pending, etag=peer.head_digest))

    # --- what a new head names -------------------------------------------------------------

    def new_head(self, peer: Peer, head: Head, known: Known) -> None:
        """Fetch what this head names and we lack."""
        core = self._core
        if core.policies.object(head.policy or b"") is None:
            self._want(peer, Purpose.POLICY, Kind.POLICY, head.policy)
        mine = core.own.refs
        if head.revocations is not None and (mine is None or mine.revocations != head.revocations):
            self._want_list(peer.device, Purpose.REVOCATIONS, head.revocations)
        if head.evidence is not None and (mine is None or mine.evidence != head.evidence):
            self._want_list(peer.device, Purpose.EVIDENCE, head.evidence)
        lists = (None, peer.list_read, mine.peers if mine is not None else None)
        waiting = core.pulls.open(Purpose.PEERS)
        if head.peers not in lists and not core.book.is_full and waiting < ADDRESS_LISTS_MAX:
            self._want(peer, Purpose.PEERS, Kind.PEERS, head.peers)
        core.witnessing.new_head(peer, head)
        if head.member != known.digest:
            self._want(peer, Purpose.MEMBER, Kind.MEMBER, head.member)
        core.sums.new_head(peer.device, head.group)
        self._walk(peer)

    def _want_list(
        self, device: bytes, purpose: Purpose, name: bytes, is_page: bool = False
    ) -> None:
        """A list, or a page of one: so many per peer and round, however often it names others."""
        core = self._core
        peer, kind = core.book.peers.get(device), Kind(purpose.value)
        if peer is None or peer.address is None or core.shelf.object(name) is not None:
            return
        if core.parcels.is_bad(purpose, name, device):
            return
        limits = core.limits
        most = limits.pages_per_round if is_page else limits.evidence_fetches_per_round
        asked = self._lists_asked.get((device, purpose, is_page), 0)
        if asked < most:
            self._lists_asked[device, purpose, is_page] = asked + 1
            pending = Pending(purpose, peer.address, device, digest=name, page=is_page)
            core.emit(*core.pulls.object(pending, bytes_max(kind, limits)))

    def pages(self, pending: Pending, names: list[bytes]) -> None:
        """An index came: fetch the pages that we lack, in any order, since some may be withheld.
        What is over the budget comes with a later head."""
        if pending.device is not None:
            for name in self._core.entropy.sample(names, len(names)):
                self._want_list(pending.device, pending.purpose, name, is_page=True)

    def _want(self, peer: Peer, purpose: Purpose, kind: Kind, name: bytes | None) -> None:
        core = self._core
        if name is None or core.shelf.object(name) is not None:
            return
        if core.parcels.is_bad(purpose, name, peer.device) or peer.address is None:
            return
        pending = Pending(purpose, peer.address, peer.device, digest=name)
        core.emit(*core.pulls.object(pending, bytes_max(kind, core.limits)))

    def _walk(self, peer: Peer) -> None:
        """Link a peer's newest head to those we saw before: forks hide in gaps."""
        core = self._core
        name = core.chains.gap(peer.device)
        if name is None or self._walks_left <= 0:
            return
        if core.parcels.is_bad(Purpose.WALK, name, peer.device) or peer.address is None:
            return
        self._walks_left -= 1
        pending = Pending(Purpose.WALK, peer.address, peer.device, digest=name, about=peer.device)
        core.emit(*core.pulls.object(pending, core.limits.head_bytes))

    # --- receipts --------------------------------------------------------------------------

    def new_round(self) -> None:
        """Read the receipts of a few random peers: they show which heads others were shown."""
        core = self._core
        # Contradictions have a budget of their own: in a fleet of 30 gaps alone use up the other.
        self._walks_left = self._doubts_left = core.limits.chain_fetches_per_round
        self._renew_budget()
        live = list(core.book.live(core.now))
        has_gap = core.chains.open()
        gaps = [p for p in live if p.device in has_gap]
        while gaps and self._walks_left > 0:  # the budget does not suffice for all
            self._walk(gaps.pop(core.entropy.randrange(len(gaps))))
        readable = [
            p
            for p in live
            if p.head and p.head.receipts and p.head.receipts.number > p.receipts_read
        ]
        chosen = core.entropy.sample(
            readable, min(core.limits.receipt_peers_per_round, len(readable))
        )
        for peer in chosen:
            if peer.head is not None and peer.head.receipts is not None:
                self._receipts_left[peer.device] = core.limits.receipt_walk
                self._read(peer, peer.head.receipts.digest)

    def _renew_budget(self) -> None:
        self._lists_asked.clear()
        self._renewed_at = self._core.now

    def _read(self, peer: Peer, name: bytes) -> None:
        self._want(peer, Purpose.RECEIPT, Kind.RECEIPT, name)

    def receipt(self, pending: Pending, receipt: Receipt) -> None:
        """A verified receipt: compare the heads that it mentions with those we were shown."""
        core = self._core
        peer = core.book.peers.get(receipt.device)
        if peer is None:
            return
        for entry in receipt.merged:
            if entry.device == core.device:
                if entry.seq > core.own.seq and self._doubts_left > 0:
                    self._doubts_left -= 1
                    self._walk_to(peer, entry.head, core.device)
                continue
            if not core.is_barred(entry.device):
                core.watch.mentioned(entry.device, entry.seq, receipt.device)
                self._compare(peer, entry)
        left = self._receipts_left.get(receipt.device, 0) - 1
        self._receipts_left[receipt.device] = left
        if left > 0 and receipt.prev is not None and receipt.number > peer.receipts_read + 1:
            self._read(peer, receipt.prev)
        else:
            newest = peer.head.receipts.number if peer.head and peer.head.receipts else 0
            peer.receipts_read = max(peer.receipts_read, receipt.number, newest)

    def _compare(self, peer: Peer, entry: Merged) -> None:
        """Fetch the head that a receipt names if it may prove that its signer forked."""
        core = self._core
        if core.chains.contradicts(entry.device, entry.seq, entry.head):
            if self._doubts_left > 0:
                self._doubts_left -= 1
                self._walk_to(peer, entry.head, entry.device)
        elif self._walks_left > 0 and core.chains.follows(entry.device, entry.seq):
            self._walks_left -= 1
            self._walk_to(peer, entry.head, entry.device)

    def _walk_to(self, peer: Peer, name: bytes, about: bytes) -> None:
        core = self._core
        if core.parcels.is_bad(Purpose.WALK, name, peer.device) or peer.address is None:
            return
        pending = Pending(Purpose.WALK, peer.address, peer.device, digest=name, about=None)
        core.emit(*core.pulls.object(pending, core.limits.head_bytes))

    def restore_clock(self, data: bytes) -> None:
        floor = unpack(data, 16)
        if not isinstance(floor, int):
            raise TypeError("the floor of fleet time is a number")
        self._core.clock.raise_floor(floor)

    # --- revocation ------------------------------------------------------------------------

    def revoked(self, revocations: Sequence[Revocation]) -> None:
        """These are new. A newcomer gets all of a fleet's at once, and looks at policies once."""
        for revocation in revocations:
            self._revoked(revocation)
        if revocations:
            self._core.steering.apply()

    def _revoked(self, revocation: Revocation) -> None:
        core = self._core
        core.publisher.touch("revocations")
        core.publisher.want_head()
        core.notice(
            Topic.MEMBERSHIP,
            f"{short_name(revocation.device)} is revoked: {revocation.reason}",
            revocation.device,
            True,
        )
        if revocation.device == core.device:
            core.restraint.conflict = f"this device is revoked: {revocation.reason}"
            return
        core.expel(revocation.device)
        # Its member object may never have come here: then only the revocation knows its TLS key.
        core.emit(*(CutOff(revocation.device, key) for key in revocation.tls))
