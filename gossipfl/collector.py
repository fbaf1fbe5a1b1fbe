"""Collecting: which peers a round asks, how many of them may lie, and what they bring."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

from gossipfl.aggregation import fits, plan
from gossipfl.aggregation.guard import require_mergeable
from gossipfl.codecs import Assembly, decode_update, named_parts, require_size, update_bytes
from gossipfl.core import Core
from gossipfl.errors import Fault, PeerError
from gossipfl.messages import Head, Lineage, UpdateRef
from gossipfl.objects import digest
from gossipfl.parameters import Vector
from gossipfl.peers import Peer
from gossipfl.policies import Accepted
from gossipfl.pulls import Pending, Purpose, weighted_sample
from gossipfl.rounds import Phase, Received

REASK_S = 0.02
"""A peer that had nothing new is asked again at once if the server held the request; this keeps a
server that does not hold it from being asked in a tight loop."""
COLLECTING = frozenset({Purpose.COLLECT, Purpose.JOIN, Purpose.UPDATE})


class Collector:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._assembly = Assembly()
        self.sample = 0
        self.f = 0
        self.rule = ""  # sample and f fit this one: a policy that comes in between is the next's
        self._unasked: deque[tuple[bytes, Purpose]] = deque()  # until a head request is free

    def eligible(self) -> dict[bytes, float]:
        """Live peers that may be asked, in a fixed order, and the weight of each. No hubs."""
        core = self._core
        hubs, is_apart = core.roster.hubs, self._apart()
        live = (
            p.device
            for p in core.book.live(core.now)
            if p.device not in hubs and p.device not in core.blocked and not is_apart(p)
        )
        return core.reputation.weights(live, core.now)

    def _apart(self) -> Callable[[Peer], bool]:
        """Whoever learns something else: canaries, while a policy names some for another job."""
        core, time = self._core, self._core.time()
        mine, whole, latest = core.in_force, core.policies.for_all(time), core.policies.latest(time)
        if mine is not None and mine.policy.canary and _job(mine) != _job(whole):
            chosen = frozenset(mine.policy.canary)
            return lambda peer: peer.device not in chosen
        if latest is not None and latest.policy.canary and _job(latest) != _job(mine):
            others = frozenset(latest.policy.canary)
            return lambda peer: (
                peer.device in others
                and (peer.head is None or peer.head.lineage != core.job.lineage)
            )
        return lambda _: False

    def collect(self, peers: dict[bytes, float], purpose: Purpose) -> None:
        """`peers`: who may be sampled, and with what weight."""
        core = self._core
        self._plan(len(peers))
        sampled = weighted_sample(list(peers), list(peers.values()), self.sample, core.entropy)
        core.rounds.collect(sampled, core.now)
        self._unasked.clear()
        for device in sampled:
            if device in core.rounds.open:
                self._ask(core.book.peers[device], purpose)
        if purpose is Purpose.COLLECT:
            core.upkeep.new_round()

    def ask_waiting(self) -> None:
        """Asks those for whom there was no free head request before, as far as there is now."""
        core = self._core
        while self._unasked and core.pulls.has_free_head:
            device, purpose = self._unasked.popleft()
            peer = core.book.peers.get(device)
            if peer is not None and device in core.rounds.open:
                self._ask(peer, purpose)

    def would_suffice(self, live: int) -> bool:
        """Would a merge be possible if all these peers answered?"""
        policy = self._core.job.policy
        if policy is None or live == 0:
            return False
        self._plan(live)
        return self._is_enough(policy.rule)

    def _plan(self, live: int) -> None:
        """s and f from the exact bound: all assumed attackers are taken to be among the live."""
        core, policy = self._core, self._core.job.policy
        if policy is None or live == 0:
            self.sample = self.f = 0
            if policy is not None and core.sums.is_on:
                self.rule = policy.rule
            return
        self.rule = policy.rule
        # Who is condemned by proof was one of the assumed attackers. Not so who is in quarantine:
        # an honest outlier may be, and then the rule would stand against too few.
        attackers = min(max(0, policy.attackers - core.condemned), live)
        if core.sums.is_on:
            self.sample, self.f = core.sums.pull(attackers, live)
            return
        # From the live, not from the policy's n: with fewer honest ones the same attackers are a
        # greater share, and a sample drawn for all of them is too small for its f.
        self.sample, self.f = plan(
            live + 1, attackers, partial(fits, policy.rule), policy.sample, policy.f
        )

    def _is_enough(self, rule_name: str) -> bool:
        return fits(rule_name, self.sample, self.f)

    def _ask(self, peer: Peer, purpose: Purpose) -> None:
        """Ask for the peer's head and update; the server may hold a "nothing new" for a while."""
        core = self._core
        asked = core.rounds.asked.get(peer.device, 0)
        if asked >= core.rounds.asks_max or peer.address is None:
            core.rounds.settle(peer.device, core.now)
            return
        if not core.pulls.has_free_head:
            self._unasked.append((peer.device, purpose))
            return
        core.rounds.asked[peer.device] = asked + 1
        ref = peer.head.update if peer.head is not None else None
        held = core.rounds.inbox.get(peer.device)
        has_it = peer.head is not None and (
            ref is None or (held is not None and held.update == ref.digest)
        )
        wait = max(0.0, min(core.rounds.deadline - core.now, core.limits.head_wait_s))
        etag = peer.head_digest if has_it else None
        number = core.rounds.number
        effects = core.pulls.head(
            Pending(purpose, peer.address, peer.device, number, etag=etag, seq=peer.seq),
            etag=etag,
            wait_s=wait if purpose is Purpose.COLLECT else 0.0,
            update_bytes=min(core.limits.ride_bytes, self._update_bytes()),
        )
        core.emit(*effects)

    def _update_bytes(self) -> int:
        job = self._core.job
        if job.lineage is None or job.layout is None or job.policy is None:
            return 0
        return update_bytes(job.lineage, job.policy.codec, job.layout.count)

    def _is_current(self, pending: Pending) -> bool:
        rounds = self._core.rounds
        return (
            pending.purpose in COLLECTING
            and pending.round == rounds.number
            and rounds.phase in (Phase.COLLECTING, Phase.JOINING)
        )

    def head(
        self, pending: Pending, peer: Peer, update: bytes | None, carrier: bytes | None
    ) -> None:
        """A verified head came in; take its update if it is one of ours and new."""
        core, job = self._core, self._core.job
        head = peer.head
        if head is None or job.lineage is None:
            return
        collecting = pending.purpose in COLLECTING or pending.purpose is Purpose.MEMBER
        if head.update is None or head.lineage != job.lineage or peer.device in core.blocked:
            self._nothing_new(pending, peer)
            return
        held = core.rounds.inbox.get(peer.device)
        if held is not None and held.update == head.update.digest:
            self._nothing_new(pending, peer)
            return
        if update:
            if core.pure(digest, update) != head.update.digest:
                core.blame(carrier, PeerError(Fault.WRONG_DIGEST, "an update of other bytes"))
                core.rounds.settle(peer.device, core.now)
                return
            try:
                settled = self._take(peer, update)
            except PeerError as error:
                core.blame(peer.device, error)
                core.rounds.settle(peer.device, core.now)
                return
            if not settled:
                self._nothing_new(pending, peer)
            return
        if collecting:
            self._fetch_update(pending, peer)

    def _fetch_update(self, pending: Pending, peer: Peer) -> None:
        core = self._core
        ref = peer.head.update if peer.head is not None else None
        if ref is None:
            return
        here = core.shelf.object(ref.digest) if core.sums.is_on else None
        try:
            self._check_size(ref)
            if here is not None:  # another of its group brought the same
                if not self._take(peer, here):
                    self._nothing_new(pending, peer)
                return
        except PeerError as error:
            core.blame(peer.device, error)
            core.rounds.settle(peer.device, core.now)
            return
        wanted = Pending(
            Purpose.UPDATE,
            pending.address,
            peer.device,
            round=pending.round,
            digest=ref.digest,
        )
        core.emit(*core.pulls.object(wanted, ref.size))
        if not core.pulls.is_wanted(wanted):
            core.rounds.settle(peer.device, core.now)  # no room: the round does not wait for it

    def _check_size(self, ref: UpdateRef) -> None:
        """The size a head declares must be the one its lineage has, before anything is read."""
        job = self._core.job
        if job.lineage is None or job.layout is None:
            raise PeerError(Fault.OTHER_LINEAGE, "no lineage is loaded here")
        require_size(ref.size, job.lineage, ref.codec, job.layout.count)

    def _take(self, peer: Peer, data: bytes) -> bool:
        """Into the inbox. False if the peer may have something newer. Raises PeerError.

        Of a partial update the parts that we lack come first: it is taken once they are here.
        """
        core, job = self._core, self._core.job
        head = peer.head
        if head is None or head.update is None or job.lineage is None or job.layout is None:
            return True
        ref, lineage, count = head.update, job.lineage, job.layout.count
        self._check_size(ref)
        if len(data) != ref.size:
            raise PeerError(Fault.WRONG_LENGTH, f"{len(data)} bytes, its head says {ref.size}")
        vector = core.pure(read_whole, data, lineage, ref.codec, count, core.limits.norm_max)
        if vector is not None:
            self._assembly.forget(peer.device)
            return self._received(peer, head, ref, data, vector)
        missing = self._assembly.offer(peer.device, data, lineage, ref.codec, count)
        if missing:
            self._fetch_parts(peer, missing, update_bytes(lineage, ref.codec, count))
            return True
        vector = self._assembly.decode(peer.device, data, lineage, ref.codec, count)
        require_mergeable(vector, count, core.limits.norm_max)
        return self._received(peer, head, ref, data, vector)

    def _received(
        self, peer: Peer, head: Head, ref: UpdateRef, data: bytes, vector: Vector
    ) -> bool:
        core = self._core
        core.shelf.put(ref.digest, data)
        core.halt.pulled(len(data))
        return core.rounds.take(
            Received(
                peer.device,
                head.seq,
                peer.head_digest or b"",
                ref.digest,
                vector,
                peer.update_seen_at,
                label=ref.round,
            ),
            core.now,
        )

    def _fetch_parts(self, peer: Peer, names: list[bytes], size_max: int) -> None:
        core = self._core
        if peer.address is None:
            core.rounds.settle(peer.device, core.now)
            return
        for name in names:
            wanted = Pending(Purpose.UPDATE, peer.address, peer.device, core.rounds.number, name)
            core.emit(*core.pulls.object(wanted, size_max))
            if not core.pulls.is_wanted(wanted):
                core.rounds.settle(peer.device, core.now)  # no room: it is complete in a later one

    def update(self, pending: Pending, data: bytes) -> None:
        """An update object came in by digest. Raises PeerError, charged to its signer."""
        core = self._core
        peer = core.book.peers.get(pending.device or b"")
        if peer is None or peer.head is None or peer.head.update is None:
            return
        name = peer.head.update.digest
        if pending.digest is not None and pending.digest != name:
            known = self._assembly.awaits(peer.device, name)
            whole = self._assembly.part(peer.device, pending.digest, data)
            if whole is None and known:
                return  # the other parts are on their way
            if whole is None or not known:
                # A newer head came in between, by a poll that takes no updates.
                if self._is_current(pending):
                    self.head(pending, peer, None, None)
                return
            data = whole
        if not self._take(peer, data):
            self._nothing_new(pending, peer)

    def _nothing_new(self, pending: Pending, peer: Peer) -> None:
        """Ask once more while there is time, if this peer trains; otherwise it is done with."""
        core = self._core
        if not self._is_current(pending):
            return
        left = core.rounds.deadline - core.now
        if (
            core.rounds.phase is Phase.COLLECTING
            and left > REASK_S
            and peer.device in core.rounds.open
        ):
            self._ask(peer, Purpose.COLLECT)
            return
        core.rounds.settle(peer.device, core.now)

    def not_modified(self, pending: Pending) -> None:
        """The server held the request as long as we asked: nothing new from this peer."""
        peer = self._core.book.peers.get(pending.device or b"")
        if peer is not None and self._core.rounds.label is not None:
            self._nothing_new(pending, peer)  # a window may be longer than a server waits
        elif self._is_current(pending) and pending.device is not None:
            self._core.rounds.settle(pending.device, self._core.now)

    def fetch_failed(self, pending: Pending) -> None:
        if self._is_current(pending) and pending.device is not None:
            self._core.rounds.settle(pending.device, self._core.now)


def _job(accepted: Accepted | None) -> tuple[bytes, int] | None:
    return (accepted.policy.bundle, accepted.policy.run) if accepted is not None else None


def read_whole(
    data: bytes, lineage: Lineage, codec: str, count: int, norm_max: float
) -> Vector | None:
    """As `read_update`; None if the update names other parts. Raises PeerError."""
    if named_parts(data, lineage, codec, count):
        return None
    return read_update(data, lineage, codec, count, norm_max)


def read_update(data: bytes, lineage: Lineage, codec: str, count: int, norm_max: float) -> Vector:
    """float32[count] of an update that stands alone, fit to enter a merge. Raises PeerError."""
    vector = decode_update(data, lineage, codec, count)
    require_mergeable(vector, count, norm_max)
    return vector
