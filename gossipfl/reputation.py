"""What a node thinks of each peer, from what it saw itself, and why.

Observations in (faults, reachability, influence in merges, distance of updates to the own one), a
clamped score per peer out, with decay. It acts by sampling weight and quarantine only, never
inside a rule. A score is at most 1, the newcomer's level: nobody earns extra trust. Hard evidence
condemns for good; soft quarantine ends by itself, lasts longer each time, and says why in words.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import msgspec

from gossipfl.errors import Fault
from gossipfl.wire import pack, unpack

# What one fault costs, in score. Guess: three forged signatures silence a peer. REFUSED,
# UNREACHABLE and STALLED say more about the network than about the peer: at 20 % loss any price on
# a stall puts a whole honest fleet into quarantine within half an hour (simulated). The breaker in
# `peers` deals with who does not answer.
COST: dict[Fault, float] = {
    Fault.BAD_SIGNATURE: 0.35,
    Fault.WRONG_DIGEST: 0.35,
    Fault.BAD_EVIDENCE: 0.35,
    Fault.NOT_FINITE: 0.35,
    Fault.WRONG_FLEET: 0.35,
    Fault.WRONG_DEVICE: 0.35,
    Fault.TLS_MISMATCH: 0.35,
    Fault.NORM_BOUND: 0.35,
    Fault.MALFORMED: 0.25,
    Fault.UNKNOWN_TYPE: 0.25,
    Fault.OVERSIZED: 0.25,
    Fault.WRONG_LENGTH: 0.25,
    Fault.WRONG_ROLE: 0.25,
    Fault.TRUNCATED: 0.1,
    Fault.WITHHELD_CHAIN: 0.1,
    Fault.REPLAYED_SEQ: 0.1,
    Fault.STALE: 0.02,
    Fault.STALLED: 0.0,
    Fault.UNREACHABLE: 0.0,
    Fault.REFUSED: 0.0,
    Fault.OTHER_LINEAGE: 0.0,
    Fault.UNKNOWN_MEMBER: 0.0,
    Fault.EXPIRED_MEMBER: 0.0,
    Fault.REVOKED_MEMBER: 0.0,
    Fault.EQUIVOCATION: 1.0,
}
RECOVERY_PER_ROUND = 0.02  # guess: a fault of 0.35 is forgotten after 18 good rounds
QUARANTINE_BELOW = 0.2  # guess
WEIGHT_FLOOR = 0.05  # a peer in disfavour is still heard now and then, so that it can recover
FAR_RATIO = 3.0
"""Farther than 3x the median distance of a pull counts as far. A lower multiple silences honest
outliers under strong skew (a probe at 2x fell from 86.8 to 75.4 %)."""
FAR_WINDOW = 6
FAR_STRIKES = 5  # of the last FAR_WINDOW merges, each without any influence
FAR_PEERS_MIN = 4  # below that a median distance means nothing
GRACE_MERGES = 3  # protocol w: a newcomer's first updates are not judged by distance
QUARANTINE_ROUNDS = 40  # guess: 20 minutes in the lan preset
QUARANTINE_DOUBLINGS_MAX = 4
INFLUENCE_DECAY = 0.8  # guess: remembers about five merges


@dataclass(slots=True)
class Standing:
    """One peer as we see it. `why` is the sentence a person reads."""

    score: float = 1.0
    faults: dict[str, int] = field(default_factory=dict)
    influence: float = 0.0  # decayed mean share in our merges
    ratio: float | None = None  # last distance to us over the median distance of that pull
    merges: int = 0
    far: deque[bool] = field(default_factory=lambda: deque(maxlen=FAR_WINDOW))
    quarantined_until: float = 0.0
    quarantines: int = 0
    condemned: bool = False
    why: str = ""


class Reputation:
    """Standings by device. `round_s` scales how long a quarantine lasts."""

    def __init__(self, round_s: float) -> None:
        self._round_s = max(round_s, 1.0)
        self._standings: dict[bytes, Standing] = {}

    def devices(self) -> list[bytes]:
        return list(self._standings)

    def of(self, device: bytes) -> Standing:
        return self._standings.setdefault(device, Standing())

    def fault(self, device: bytes, fault: Fault, now: float) -> str | None:
        """Charge a fault. Returns the reason if this puts the peer into quarantine."""
        standing = self.of(device)
        standing.faults[fault.value] = standing.faults.get(fault.value, 0) + 1
        standing.score = max(0.0, standing.score - COST[fault])
        if standing.score >= QUARANTINE_BELOW or self.is_quarantined(device, now):
            return None
        worst = max(standing.faults, key=lambda name: standing.faults[name] * COST[Fault(name)])
        count = standing.faults[worst]
        return self._quarantine(standing, f"broke the protocol: {worst}, {count} times", now)

    def merged(
        self, device: bytes, influence: float, ratio: float | None, now: float
    ) -> str | None:
        """After a merge: the peer's influence, and its distance over the pull's median distance.

        `ratio` is None where the pull was too small to tell. Returns the reason if the peer goes
        into quarantine.
        """
        standing = self.of(device)
        standing.merges += 1
        keep = INFLUENCE_DECAY if standing.merges > 1 else 0.0
        standing.influence = keep * standing.influence + (1 - keep) * influence
        standing.score = min(1.0, standing.score + RECOVERY_PER_ROUND)
        if ratio is None:
            return None
        standing.ratio = ratio
        if standing.merges <= GRACE_MERGES:
            return None
        standing.far.append(ratio >= FAR_RATIO and influence == 0.0)
        if sum(standing.far) < FAR_STRIKES or self.is_quarantined(device, now):
            return None
        reason = (
            f"its updates lay {ratio:.1f}x farther from ours than a typical peer's and counted "
            f"for nothing in {sum(standing.far)} of the last {len(standing.far)} merges"
        )
        standing.far.clear()
        return self._quarantine(standing, reason, now)

    def _quarantine(self, standing: Standing, reason: str, now: float) -> str:
        factor = 2 ** min(standing.quarantines, QUARANTINE_DOUBLINGS_MAX)
        standing.quarantines += 1
        standing.quarantined_until = now + self._round_s * QUARANTINE_ROUNDS * factor
        standing.why = reason
        return reason

    def inherit(self, old: bytes, new: bytes) -> None:
        """A device that was enrolled again: its standing comes with it, once."""
        if old in self._standings and new not in self._standings:
            self._standings[new] = self._standings.pop(old)

    def condemn(self, device: bytes, reason: str) -> None:
        """Hard evidence: for good."""
        standing = self.of(device)
        standing.condemned, standing.score, standing.why = True, 0.0, reason

    def release(self, device: bytes) -> bool:
        """A person lifts a soft quarantine. False if there was none, or it is a hard one."""
        standing = self.of(device)
        if standing.condemned or not standing.quarantined_until:
            return False
        self._readmit(standing)
        return True

    def _readmit(self, standing: Standing) -> None:
        standing.quarantined_until = 0.0
        standing.score = max(standing.score, QUARANTINE_BELOW * 2)
        standing.far.clear()
        standing.merges = 0
        standing.why = ""

    def is_condemned(self, device: bytes) -> bool:
        """By evidence. Asking leaves no trace: ids come from strangers' lists."""
        standing = self._standings.get(device)
        return standing is not None and standing.condemned

    def is_quarantined(self, device: bytes, now: float) -> bool:
        standing = self._standings.get(device)
        if standing is None:
            return False
        if standing.condemned:
            return True
        if standing.quarantined_until and now >= standing.quarantined_until:
            self._readmit(standing)
        return standing.quarantined_until > now

    def excluded(self, now: float) -> int:
        """How many peers are condemned or in quarantine."""
        return sum(self.is_quarantined(device, now) for device in self._standings)

    def weight(self, device: bytes, now: float) -> float:
        """Sampling weight, 0 to 1: 0 in quarantine, 1 for newcomers and the faultless."""
        if self.is_quarantined(device, now):
            return 0.0
        standing = self._standings.get(device)
        return max(WEIGHT_FLOOR, standing.score) if standing is not None else 1.0

    def dump(self, now: float) -> bytes:
        """Durable form. What is left of a quarantine is kept, not its instant."""
        return pack(
            [
                [
                    device,
                    s.score,
                    s.faults,
                    s.influence,
                    s.merges,
                    list(s.far),
                    max(0.0, s.quarantined_until - now),
                    s.quarantines,
                    s.condemned,
                    s.why,
                ]
                for device, s in self._standings.items()
            ]
        )

    def load(self, data: bytes, now: float) -> None:
        for saved in unpack(data, 64 * 1024 * 1024):
            row = msgspec.convert(saved, _Saved)
            self._standings[row.device] = Standing(
                score=row.score,
                faults=dict(row.faults),
                influence=row.influence,
                merges=row.merges,
                far=deque(row.far, maxlen=FAR_WINDOW),
                quarantined_until=now + row.left if row.left > 0 else 0.0,
                quarantines=row.quarantines,
                condemned=row.condemned,
                why=row.why,
            )


class _Saved(msgspec.Struct, array_like=True):
    device: bytes
    score: float
    faults: dict[str, int]
    influence: float
    merges: int
    far: list[bool]
    left: float
    quarantines: int
    condemned: bool
    why: str
