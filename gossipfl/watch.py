"""Watching peers: what happens at this node becomes observations, and these become effects.

`anomaly` measures a merge, `conduct` remembers how peers behave, `reputation` draws the
consequences. This room feeds the three and keeps them apart.
"""

from __future__ import annotations

from collections.abc import Sequence

from gossipfl.aggregation import least
from gossipfl.anomaly import PEERS_MIN
from gossipfl.conduct import Conduct
from gossipfl.core import Core
from gossipfl.errors import Fault
from gossipfl.events import MergeFinished
from gossipfl.peers import Peer
from gossipfl.reputation import Seen
from gossipfl.rounds import Received


class Watch:
    def __init__(self, core: Core) -> None:
        self._core = core
        pace = core.pace
        self._round_s = pace.round_interval_s or pace.round_deadline_s
        self.conduct = Conduct(self._round_s, pace.stale_s)
        self._look_at = 0.0

    # --- observations ----------------------------------------------------------------------

    def answered(self, device: bytes | None, size: int) -> None:
        """A peer answered a request with so many bytes of body."""
        if device is None or device == self._core.device:
            return
        self.conduct.answered(device, self._core.now)
        if size:
            self._core.reputation.served(device, size)

    def failed(self, device: bytes | None, fault: Fault) -> None:
        if device is not None and device != self._core.device:
            self.conduct.failed(device, stalled=fault is Fault.STALLED)

    def first_seen(self, device: bytes, update: bytes | None, at: float) -> float:
        """The instant at which a peer first named this update; now it did so `at`."""
        if update is None:
            return at
        return self.conduct.first_seen(device, update, at)

    def mentioned(self, device: bytes, seq: int, by: bytes) -> None:
        """In a peer's receipt. Only members that we know: receipts name whom they like."""
        if self._core.roster.by_device(device) is not None:
            self.conduct.mentioned(device, seq, by, self._core.now)

    def collected(self) -> None:
        """A round's collection is over: who was in time? Tells nothing if hardly anybody was."""
        rounds = self._core.rounds
        if rounds.fresh() < rounds.quorum(len(rounds.sampled)):
            return
        for device in rounds.sampled:
            peer = self._core.book.peers.get(device)
            if peer is None or self.update_age_s(peer) is None:
                continue
            held = rounds.inbox.get(device)
            in_time = held is not None and rounds.is_current(device)
            latency_s = max(0.0, held.seen_at - rounds.published_at) if held and in_time else None
            self.conduct.round_over(device, latency_s)

    def merged(self, event: MergeFinished, entries: Sequence[Received]) -> None:
        """Scores all whose updates were in this merge."""
        core = self._core
        ordered = sorted(event.distances)
        typical = ordered[(len(ordered) - 1) // 2] if len(ordered) >= PEERS_MIN else 0.0
        pull = {}
        for place, entry in enumerate(entries):
            ratio = event.distances[place] / typical if typical > 0.0 else None
            traits = event.traits[place] if event.traits else None
            pull[entry.device] = Seen(event.merge.influence[place], ratio, traits)
            if entry.is_fresh and traits is not None and traits.step > 0.0:
                self._compare(entry, traits.twin, entries)
        policy = core.job.policy
        assumed = policy.attackers if policy is not None else 0
        attackers = max(0, assumed - core.condemned)
        needed = least(policy.rule, attackers) if policy is not None else 0
        way = event.seen.travelled if event.seen is not None else 0.0
        for device, reason in core.reputation.merged(pull, attackers, core.now, needed, way):
            core.quarantined(device, reason)

    def _compare(self, entry: Received, twin: int | None, entries: Sequence[Received]) -> None:
        """Was this update, or one nearly like it, another device's before?"""
        origin = self.conduct.origin(entry.update)
        other = origin if origin != entry.device else None
        if other is None and twin is not None and entries[twin].seen_at < entry.seen_at:
            other = entries[twin].device
        self.conduct.copied(entry.device, other)

    # --- consequences ----------------------------------------------------------------------

    def look(self) -> None:
        """What everybody's conduct points to now, twice a round. While we rest, so may they."""
        core = self._core
        if core.now < self._look_at:
            return
        self._look_at = core.now + self._round_s / 2
        resting = core.halt.cause is not None
        everybody = (*core.book.peers, *self.conduct.devices(), *core.reputation.suspects())
        for device in dict.fromkeys(everybody):  # in an order: it is that of what is saved
            if core.is_barred(device):
                self.conduct.forget(device)
                core.reputation.suspect(device, None)
                continue
            peer = core.book.peers.get(device)
            found = None
            if not resting:
                found = self.conduct.judge(
                    device,
                    core.now,
                    live=core.book.is_live(device, core.now),
                    update_age_s=self.update_age_s(peer) if peer is not None else None,
                )
            core.reputation.suspect(device, found)

    def update_age_s(self, peer: Peer) -> float | None:
        """Since its newest update of our job was first seen; None if it names none."""
        head = peer.head
        if head is None or head.update is None or head.lineage != self._core.job.lineage:
            return None
        return self._core.now - peer.update_seen_at
