"""How peers behave over time: do they answer, bring new updates, and their own? Pure bookkeeping.

Each detector names its cause and says how much of the peer's sampling chance it leaves. None of
them shuts anybody out: a bad link, a slow board or a sleeping one look the same as ill will, and
what they do is harmless once nobody waits for it.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from gossipfl.anomaly import Cause
from gossipfl.standing import Suspicion

AVAILABILITY_DECAY = 0.9  # guess: remembers about ten requests
LATENCY_DECAY = 0.7  # guess: remembers about three rounds
WINDOW = 6  # rounds in which lateness and copies are counted: guess
LATE_STRIKES = 5
COPY_STRIKES = 3  # guess: honest devices that train never publish equal bytes
STALLS_MIN = 6  # in a row; at 20 % loss each way a healthy peer has them once in 460 times
QUIET_ROUNDS = 3.0  # and no answer for so long
WITNESSES_MIN = 2  # one peer's word is not enough to call another silent
WITNESS_ROUNDS = 5.0  # how long their word counts
WITNESSES_MAX = 8
DIGESTS_MAX = 16  # updates remembered per peer, so that an old one is no news again: guess
ORIGINS_MAX = 4_096  # updates remembered of all, to know who had one first: guess
STALE_CHANCE = 0.05  # what it has is not merged any more: asked now and then. Guess
COPY_CHANCE = 0.5  # two devices that say the same share one chance


@dataclass(slots=True)
class Manner:
    """One peer's conduct as we saw it. Seconds are own monotonic time."""

    available: float = 1.0  # decayed share of our requests that it answered
    answered_at: float | None = None
    noticed_at: float | None = None  # first mention of it by others
    stalls: int = 0  # requests in a row that it took and did not answer
    latency_s: float | None = None  # decayed mean: its update after our own was out
    late: deque[bool] = field(default_factory=lambda: deque(maxlen=WINDOW))
    copies: deque[bytes | None] = field(default_factory=lambda: deque(maxlen=WINDOW))
    digests: OrderedDict[bytes, float] = field(default_factory=OrderedDict)
    witnesses: dict[bytes, float] = field(default_factory=dict)  # who merged news of it, and when
    newest: int = 0  # greatest head number that a witness named


class Conduct:
    """`round_s`: how long a round is; `stale_s`: when an update is too old to be merged."""

    def __init__(self, round_s: float, stale_s: float) -> None:
        self._round_s = round_s
        self._stale_s = stale_s
        self._manners: dict[bytes, Manner] = {}
        self._origins: OrderedDict[bytes, bytes] = OrderedDict()

    def of(self, device: bytes) -> Manner:
        manner = self._manners.get(device)
        if manner is None:
            manner = self._manners[device] = Manner()
        return manner

    def known(self, device: bytes) -> Manner | None:
        return self._manners.get(device)

    def devices(self) -> list[bytes]:
        return list(self._manners)

    def forget(self, device: bytes) -> None:
        self._manners.pop(device, None)

    # --- observations ----------------------------------------------------------------------

    def answered(self, device: bytes, now: float) -> None:
        manner = self.of(device)
        manner.available = 1.0 - AVAILABILITY_DECAY * (1.0 - manner.available)
        manner.answered_at, manner.stalls = now, 0
        manner.witnesses.clear()

    def failed(self, device: bytes, *, stalled: bool) -> None:
        """`stalled`: it took the request and did not answer; else nobody was there at all."""
        manner = self.of(device)
        manner.available *= AVAILABILITY_DECAY
        manner.stalls = manner.stalls + 1 if stalled else 0

    def first_seen(self, device: bytes, update: bytes, now: float) -> float:
        """When this peer first named this update: an old one that comes again is still old."""
        digests = self.of(device).digests
        at = digests.setdefault(update, now)
        while len(digests) > DIGESTS_MAX:
            digests.popitem(last=False)
        self._origins.setdefault(update, device)
        while len(self._origins) > ORIGINS_MAX:
            self._origins.popitem(last=False)
        return at

    def origin(self, update: bytes) -> bytes | None:
        """Who named this update first, as far as we saw."""
        return self._origins.get(update)

    def round_over(self, device: bytes, latency_s: float | None) -> None:
        """A round with enough new updates is collected. None: this peer's new one was not there."""
        manner = self.of(device)
        manner.late.append(latency_s is None)
        if latency_s is None:
            return
        keep = LATENCY_DECAY if manner.latency_s is not None else 0.0
        manner.latency_s = keep * (manner.latency_s or 0.0) + (1 - keep) * latency_s

    def copied(self, device: bytes, other: bytes | None) -> None:
        """Its update was `other`'s before; None: it was its own."""
        self.of(device).copies.append(other)

    def mentioned(self, device: bytes, seq: int, by: bytes, now: float) -> None:
        """A peer's receipt says that it merged head `seq` of this device."""
        manner = self.of(device)
        if seq < manner.newest:
            return
        manner.newest = seq
        manner.noticed_at = now if manner.noticed_at is None else manner.noticed_at
        manner.witnesses[by] = now
        while len(manner.witnesses) > WITNESSES_MAX:
            del manner.witnesses[next(iter(manner.witnesses))]

    # --- judgement -------------------------------------------------------------------------

    def judge(
        self, device: bytes, now: float, *, live: bool, update_age_s: float | None
    ) -> Suspicion | None:
        """What its conduct points to. `update_age_s` None: it publishes no updates of our job."""
        manner = self._manners.get(device)
        if manner is None:
            return None
        if not live:
            return self._silent(manner, now)
        if update_age_s is None:
            return None
        if update_age_s > self._stale_s:
            words = f"it has brought no new update for {update_age_s:.0f} s"
            return Suspicion(Cause.STALE, words, STALE_CHANCE)
        return _copying(manner.copies) or _slow(manner.late)

    def _silent(self, manner: Manner, now: float) -> Suspicion | None:
        since = manner.answered_at if manner.answered_at is not None else manner.noticed_at
        if since is None or now - since < QUIET_ROUNDS * self._round_s:
            return None
        quiet = f"here it has not answered for {now - since:.0f} s"
        recent = [at for at in manner.witnesses.values() if now - at <= self._witness_s]
        if len(recent) >= WITNESSES_MIN:
            words = f"{len(recent)} others merge new updates of it, {quiet}"
            return Suspicion(Cause.SILENT, words, 1.0)
        if manner.stalls >= STALLS_MIN:
            words = f"{manner.stalls} requests in a row came to nothing, {quiet}"
            return Suspicion(Cause.SILENT, words, 1.0)
        return None

    @property
    def _witness_s(self) -> float:
        return WITNESS_ROUNDS * self._round_s


def _copying(copies: Sequence[bytes | None]) -> Suspicion | None:
    others = [other for other in copies if other is not None]
    if len(others) < COPY_STRIKES:
        return None
    words = f"{len(others)} of its last {len(copies)} updates were another device's before"
    return Suspicion(Cause.COPIES, words, COPY_CHANCE)


def _slow(late: Sequence[bool]) -> Suspicion | None:
    if sum(late) < LATE_STRIKES:
        return None
    words = f"its update came too late for {sum(late)} of the last {len(late)} rounds"
    return Suspicion(Cause.SLOW, words, 1.0)
