"""One node's round: train, publish, collect, merge. Rounds of different nodes are not synchronised.

The table below is the whole machine. Collecting ends when every sampled peer has answered with
something new or failed, when a quorum of new updates is in and the grace is over, or at the
deadline, so a round always ends. Updates that were merged before still count as their peer's
newest while they are not stale, at most once a round.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from gossipfl.config import Pace
from gossipfl.errors import LocalError
from gossipfl.parameters import Vector

ALIGN = 0.5
"""Share of the median offset that is made up per round: guess, a few rounds to settle."""

INBOX_MAX = 256
"""Updates held, one per peer: guess, the largest pull that the sampling bound asks for is 213."""
ASKS_MAX = 8
"""Head requests to one peer in one round: guess, so that one who issues heads without end cannot
keep us busy."""
ASKS_SUMMING_MAX = 64
"""The same under group sums, where an honest member issues six heads in an attempt, and each ends
the wait of a request."""


class Phase(StrEnum):
    IDLE = "idle"
    JOINING = "joining"  # looking for models to start from
    TRAINING = "training"
    SUMMING = "summing"  # group sums: the own group is at it, or its time has not come
    PUBLISHING = "publishing"
    COLLECTING = "collecting"
    MERGING = "merging"


class Step(StrEnum):
    BEGIN_JOIN = "begin join"
    BEGIN_TRAIN = "begin training"
    LISTEN = "listen"  # collect without having trained
    TRAINED = "trained"
    HIDDEN = "hidden"  # trained, and what came of it leaves in a sum only
    WAIT = "wait"  # for others' sums, without having trained
    SUMMED = "summed"
    AGAIN = "again"  # what was trained went out masked in vain
    NO_SUM = "no sum"
    PUBLISHED = "published"
    COLLECTED = "collected"
    DONE = "done"


TABLE: dict[tuple[Phase, Step], Phase] = {
    (Phase.IDLE, Step.BEGIN_JOIN): Phase.JOINING,
    (Phase.IDLE, Step.BEGIN_TRAIN): Phase.TRAINING,
    (Phase.IDLE, Step.LISTEN): Phase.COLLECTING,
    (Phase.IDLE, Step.WAIT): Phase.SUMMING,
    (Phase.TRAINING, Step.TRAINED): Phase.PUBLISHING,
    (Phase.TRAINING, Step.HIDDEN): Phase.SUMMING,
    (Phase.SUMMING, Step.AGAIN): Phase.TRAINING,
    (Phase.SUMMING, Step.SUMMED): Phase.PUBLISHING,
    (Phase.SUMMING, Step.NO_SUM): Phase.COLLECTING,
    (Phase.PUBLISHING, Step.PUBLISHED): Phase.COLLECTING,
    (Phase.JOINING, Step.COLLECTED): Phase.MERGING,
    (Phase.COLLECTING, Step.COLLECTED): Phase.MERGING,
    # A round may end anywhere: too few updates, a failed step, another lineage.
    **{(phase, Step.DONE): Phase.IDLE for phase in Phase},
}


@dataclass(slots=True)
class Received:
    """A peer's newest verified update of our lineage."""

    device: bytes
    seq: int
    head: bytes
    update: bytes
    vector: Vector
    seen_at: float  # own monotonic time at which its digest was first seen
    merged_in: int = 0  # own round that used it last, 0 for none
    label: int = 0  # the round that its publisher names

    @property
    def is_fresh(self) -> bool:
        return self.merged_in == 0


class Rounds:
    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self.phase = Phase.IDLE
        self.number = 0
        self.next_at = math.inf
        self.published_at = 0.0
        self.deadline = math.inf
        self.grace_at = math.inf
        self.sampled: list[bytes] = []
        self.open: set[bytes] = set()  # sampled and not yet done with
        self.asked: dict[bytes, int] = {}  # head requests per peer in this round
        self.inbox: dict[bytes, Received] = {}
        self.job = 0  # number of the training or merge under way
        self.below_quorum = 0
        self.merges = 0
        self.label: int | None = None  # group sums: the window whose means this round collects

    def step(self, step: Step) -> None:
        """Take one row of the table. A missing row is our own bug."""
        try:
            self.phase = TABLE[self.phase, step]
        except KeyError:
            raise LocalError(f"no step {step.value!r} in phase {self.phase.value!r}") from None

    def begin(self, step: Step, now: float, jitter: float) -> None:
        """Start a round. `jitter` is uniform in [-1, 1]."""
        self.step(step)
        self.number += 1
        self.published_at = now
        self.deadline = now + self._pace.round_deadline_s
        self.grace_at = math.inf
        interval = self._pace.round_interval_s * (1 + self._pace.round_jitter * jitter)
        self.next_at = now + interval
        self.sampled, self.open = [], set()
        self.label = None

    def collect(self, sampled: list[bytes], now: float) -> None:
        """These peers take part. Those whose new update is already here are done with."""
        self.sampled = sampled
        self.asked.clear()
        self.open = {d for d in sampled if not self.is_current(d)}
        # Long training must not eat the time to listen: a round still ends, a little later.
        self.deadline = max(self.deadline, now + self._pace.round_deadline_s / 2)

    def is_current(self, device: bytes) -> bool:
        """Is this peer's update here, not merged before, and of about the time of our own?

        What appeared long before our own publication is the last round's: its successor is near.
        """
        received = self.inbox.get(device)
        if received is None or not received.is_fresh:
            return False
        if self.label is not None:
            return received.label == self.label
        interval = self._pace.round_interval_s
        return interval == 0.0 or received.seen_at >= self.published_at - interval / 2

    @property
    def asks_max(self) -> int:
        return ASKS_MAX if self.label is None else ASKS_SUMMING_MAX

    def take(self, received: Received, now: float) -> bool:
        """A verified update came in; replaces that peer's older one. True if none newer is due."""
        self.inbox[received.device] = received
        while len(self.inbox) > INBOX_MAX:
            loose = [d for d in self.inbox if d not in self.sampled] or list(self.inbox)
            del self.inbox[min(loose, key=lambda d: self.inbox[d].seen_at)]
        if not self.is_current(received.device):
            return False
        self.settle(received.device, now)
        return True

    def settle(self, device: bytes, now: float) -> None:
        """This peer will bring nothing more in this round (it has, or it failed)."""
        self.open.discard(device)
        if self.grace_at != math.inf or self.label is not None:
            return  # a window gives everybody the same time
        quorum, done = self.quorum(len(self.sampled)), len(self.sampled) - len(self.open)
        if done >= quorum and self.fresh() >= quorum:  # counted only where it can be enough
            self.grace_at = now + self._pace.grace_s

    def fresh(self) -> int:
        return sum(self.is_current(d) for d in self.sampled if d not in self.open)

    @staticmethod
    def quorum(sample: int) -> int:
        """protocol: max(2, s/2), and never more than were asked."""
        return min(sample, max(2, math.ceil(sample / 2)))

    def is_collected(self, now: float) -> bool:
        """Time to merge?"""
        return not self.open or now >= min(self.deadline, self.grace_at)

    def gathered(self, now: float) -> list[Received]:
        """What this round merges: newest updates of sampled peers that are not stale."""
        return [
            self.inbox[d]
            for d in self.sampled
            if d in self.inbox and now - self.inbox[d].seen_at <= self._pace.stale_s
        ]

    def stale(self, now: float) -> list[bytes]:
        """Sampled peers whose newest update is too old to be merged."""
        return [
            d
            for d in self.sampled
            if d in self.inbox and now - self.inbox[d].seen_at > self._pace.stale_s
        ]

    def align(self, received: list[Received]) -> None:
        """Move the next round towards when the others publish: the sooner a model is merged after
        it was trained, the more a round teaches (half of all progress is lost otherwise).

        Pulse coupling (Mirollo and Strogatz 1990) with the median offset, so that a minority
        cannot drag a fleet's rhythm; at most a quarter of an interval per round.
        """
        interval = self._pace.round_interval_s
        offsets = sorted(
            (r.seen_at - self.published_at + interval / 2) % interval - interval / 2
            for r in received
            if r.is_fresh and interval > 0.0
        )
        if offsets:
            median = offsets[(len(offsets) - 1) // 2]
            self.next_at += min(max(ALIGN * median, -interval / 4), interval / 4)

    def merged(self, received: list[Received]) -> None:
        for entry in received:
            entry.merged_in = self.number
        self.merges += 1

    def end(self) -> None:
        self.step(Step.DONE)
        self.deadline = self.grace_at = math.inf
        self.open = set()

    def wake_at(self) -> float:
        """The next instant at which this machine wants to be looked at."""
        match self.phase:
            case Phase.IDLE:
                return self.next_at
            case Phase.JOINING | Phase.COLLECTING:
                return min(self.deadline, self.grace_at)
            case Phase.PUBLISHING:
                return self.deadline
            case _:
                return math.inf

    def reset(self) -> None:
        """Another lineage: nothing of the old one is valid."""
        if self.phase is not Phase.IDLE:
            self.end()
        self.inbox.clear()
        self.sampled, self.job = [], self.job + 1
