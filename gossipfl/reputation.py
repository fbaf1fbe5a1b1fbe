"""What a node thinks of each peer, from what it saw itself, and why.

Observations in (faults, updates beside their pulls, conduct), a clamped score per peer out, with
decay. It acts by sampling weight and quarantine only, never inside a rule. A score is at most 1,
the newcomer's level: nobody earns extra trust. Hard evidence condemns for good. Soft quarantine
follows from broken rules or from standing apart for long; it ends by itself, lasts longer each
time, and says why in words. Who is alike others is only asked less often: liars who copy an honest
device must not be able to have it shut out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gossipfl.aggregation.collapse import CLUSTER_MIN
from gossipfl.anomaly import Cause, Traits, apart, backward, named, opposed
from gossipfl.errors import Fault
from gossipfl.standing import (
    COST,
    SMOOTHING,
    Entry,
    Standing,
    Suspicion,
    broken,
    dump,
    is_spotless,
    load,
    reasons,
    remember,
    stood_apart,
)

RECOVERY_PER_ROUND = 0.02  # guess: a fault of 0.35 is forgotten after 18 good rounds
QUARANTINE_BELOW = 0.2  # guess
EVIDENCE_UP, EVIDENCE_DOWN = 1.0, 0.5  # design, for near copies; the same for outliers
EVIDENCE_IDLE = 0.01
"""Evidence fades by this in each merge without that peer: guess, so that nobody is forgotten at the
floor; at a hundredth, liars come back no faster than the floor lets them."""
EVIDENCE_MAX = 8.0  # two above what the floor means, so that recovery is never far: guess
QUARANTINE_AT = 4.0
"""Outlying evidence that quarantines: four merges in a row. Honest histories never had it (see
`anomaly.GAP_POWER`)."""
GRACE_MERGES = 3  # protocol w: a newcomer's first updates are not judged
COUNTED = 0.5
"""A peer counted in a merge if it had this part of an even share: guess. Who counted is no outlier
there, whatever it looks like: the rule has judged."""
QUARANTINE_ROUNDS = 40  # guess: 20 minutes in the lan preset
QUARANTINE_DOUBLINGS_MAX = 4
PROBATION = 2.0  # outlying evidence that a quarantine leaves behind: half of what began it
INFLUENCE_DECAY = 0.8  # guess: remembers about five merges


@dataclass(frozen=True, slots=True)
class Seen:
    """One peer's update in one merge of ours. `ratio`: its distance to us over the median one."""

    influence: float
    ratio: float | None = None
    traits: Traits | None = None


class Reputation:
    """Standings by device. `round_s` scales how long a quarantine lasts.

    `enabled` False: all is observed and said, but only evidence has an effect.
    """

    def __init__(self, round_s: float, *, enabled: bool = True) -> None:
        self._round_s = max(round_s, 1.0)
        self._enabled = enabled
        self._merges = 0
        self._standings: dict[bytes, Standing] = {}

    def devices(self) -> list[bytes]:
        return list(self._standings)

    def of(self, device: bytes) -> Standing:
        standing = self._standings.get(device)
        if standing is None:
            standing = self._standings[device] = Standing()
        return standing

    # --- observations ----------------------------------------------------------------------

    def fault(self, device: bytes, fault: Fault, now: float) -> str | None:
        """Charge a fault. Returns the reason if this puts the peer into quarantine."""
        standing = self.of(device)
        standing.faults[fault.value] = standing.faults.get(fault.value, 0) + 1
        standing.score = max(0.0, standing.score - COST[fault])
        if standing.score >= QUARANTINE_BELOW or self.is_quarantined(device, now):
            return None
        cause, words = broken(standing)
        return self._quarantine(standing, cause, words, now)

    def served(self, device: bytes, size: int) -> None:
        """The peer answered us with so many bytes."""
        self.of(device).served += size

    def suspect(self, device: bytes, suspicion: Suspicion | None) -> None:
        """What its conduct points to from now on; None: nothing."""
        if suspicion is not None or device in self._standings:
            self.of(device).suspicion = suspicion

    def merged(
        self,
        pull: Mapping[bytes, Seen],
        attackers: int,
        now: float,
        needed: int = 0,
        way: float = 0.0,
    ) -> list[tuple[bytes, str]]:
        """After a merge of ours: every peer that was in it. `attackers`: how many may stand apart,
        those assumed and not yet proven. Who is in quarantine still leaves room for others: it may
        be honest, and then the liars are all still there. `needed`: so many peers the rule needs,
        and as many are left. `way`: L2 distance of the merge from params0; 0 if it is unknown.
        Returns who goes into quarantine, and the reasons."""
        self._merges += 1
        for device, standing in self._standings.items():
            if (standing.outlying or standing.crowded) and device not in pull:
                standing.outlying = max(0.0, standing.outlying - EVIDENCE_IDLE)
                standing.crowded = max(0.0, standing.crowded - EVIDENCE_IDLE)
        distances = sorted(s.traits.distance for s in pull.values() if s.traits is not None)
        typical = distances[(len(distances) - 1) // 2] if distances else 0.0
        for device, seen in pull.items():
            self._take(self.of(device), seen, typical)
        relative = way / typical if typical > 0.0 else 0.0
        outliers, astray = self._outliers(attackers, now, relative)
        even = 1.0 / (len(pull) + 1)
        norms = [s.traits.norm for d, s in pull.items() if s.traits and d not in outliers]
        found = []
        for device, seen in pull.items():
            standing = self.of(device)
            if seen.traits is None or standing.merges <= GRACE_MERGES:
                continue
            cause = None
            if device in outliers and seen.influence < COUNTED * even:
                cause = named(seen.traits, max(norms, default=0.0))
                cause = Cause.DIRECTION if device in astray else cause
            _judge(standing, seen.traits, cause)
            if standing.outlying >= QUARANTINE_AT and self._has_room(device, now, needed):
                words = self._quarantine(standing, *stood_apart(standing), now)
                if words is not None:
                    found.append((device, words))
        return found

    @staticmethod
    def _take(standing: Standing, seen: Seen, typical: float) -> None:
        standing.merges += 1
        keep = INFLUENCE_DECAY if standing.merges > 1 else 0.0
        standing.influence = keep * standing.influence + (1 - keep) * seen.influence
        standing.score = min(1.0, standing.score + RECOVERY_PER_ROUND)
        if seen.ratio is not None:
            standing.ratio = seen.ratio
        traits = seen.traits
        if traits is None:
            return
        standing.contributed += traits.share
        remember(standing, traits, typical)

    def _has_room(self, device: bytes, now: float, needed: int) -> bool:
        """May it be shut out for standing apart? Never the majority: they may be right. Nor whom
        the rule cannot do without: it stands against the liars itself, a round lost does not."""
        if self.is_quarantined(device, now):
            return False
        known = [device for device, standing in self._standings.items() if standing.merges]
        out = 1 + sum(self.is_quarantined(device, now) for device in known)
        return 2 * out <= len(known) and len(known) - out >= needed

    def _outliers(self, attackers: int, now: float, way: float) -> tuple[set[bytes], set[bytes]]:
        """Who stands apart from all peers that we know, by what it was like over time: one pull is
        too small to know how far honest devices spread. Second, who of them goes the other way.
        `way`: the way come, over the typical distance."""
        if attackers < 1:
            return set(), set()
        known = [
            (device, standing)
            for device, standing in self._standings.items()
            if standing.spread is not None
            and standing.merges >= GRACE_MERGES
            and not self.is_quarantined(device, now)
        ]
        far = apart([math.exp(standing.spread or 0.0) for _, standing in known], attackers, way)
        astray = opposed([standing.alike for _, standing in known], attackers)
        astray |= backward([standing.towards for _, standing in known], attackers)
        return {known[i][0] for i in far | astray}, {known[i][0] for i in astray}

    # --- quarantine ------------------------------------------------------------------------

    def _quarantine(
        self, standing: Standing, cause: Cause | None, words: str, now: float
    ) -> str | None:
        if not self._enabled:
            return None
        factor = 2 ** min(standing.quarantines, QUARANTINE_DOUBLINGS_MAX)
        standing.quarantines += 1
        standing.quarantined_until = now + self._round_s * QUARANTINE_ROUNDS * factor
        standing.cause, standing.why = cause, words
        return words

    def inherit(self, old: bytes, new: bytes) -> None:
        """A device that was enrolled again: its standing comes with it, once."""
        if old in self._standings and new not in self._standings:
            self._standings[new] = self._standings.pop(old)

    def forget(self, device: bytes) -> None:
        """Nothing is known of it any more, if anything was."""
        self._standings.pop(device, None)

    def condemn(self, device: bytes, reason: str) -> None:
        """Hard evidence: for good."""
        standing = self.of(device)
        standing.condemned, standing.score, standing.why = True, 0.0, reason
        standing.cause = Cause.EQUIVOCATION

    def release(self, device: bytes) -> bool:
        """A person lifts a soft quarantine. False if there was none, or it is a hard one."""
        standing = self._standings.get(device)
        if standing is None or standing.condemned or not standing.quarantined_until:
            return False
        self._readmit(standing)
        standing.outlying = standing.crowded = 0.0  # somebody has looked: no probation
        return True

    @staticmethod
    def _readmit(standing: Standing) -> None:
        standing.quarantined_until = 0.0
        standing.score = max(standing.score, QUARANTINE_BELOW * 2)
        standing.outlying = min(standing.outlying, PROBATION)
        standing.spread, standing.alike = None, 1.0
        standing.merges = 0
        standing.cause, standing.why = None, ""

    def record(self, device: bytes, at: int, words: str = "") -> None:
        """A line of the peer's history: `words`, or why it is shut out now. `at`: fleet time."""
        standing = self.of(device)
        cause = standing.cause.value if standing.cause is not None else ""
        standing.entries.append(Entry(at, cause, words or standing.why))

    # --- answers ---------------------------------------------------------------------------

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

    def weight(self, device: bytes, now: float) -> float:
        """Sampling weight, 0 to 1: 0 in quarantine, 1 for newcomers and the faultless."""
        if self.is_quarantined(device, now):
            return 0.0
        return self.level(device) if self._enabled else 1.0

    def weights(self, devices: Iterable[bytes], now: float) -> dict[bytes, float]:
        """Of those with any: in the same order."""
        found = {}
        for device in devices:
            standing = self._standings.get(device)
            plain = standing is None or is_spotless(standing)
            weight = 1.0 if plain else self.weight(device, now)
            if weight > 0.0:
                found[device] = weight
        return found

    def level(self, device: bytes) -> float:
        """The clamped score, 0 to 1: what the worst of all observations leaves of a newcomer's."""
        standing = self._standings.get(device)
        if standing is None:
            return 1.0
        return min((weight for weight, _, _ in reasons(standing)), default=1.0)

    def suspected(self, device: bytes, now: float) -> tuple[Cause | None, str]:
        """Of what, and why in words; (None, "") if there is nothing worth a word."""
        standing = self._standings.get(device)
        if standing is None:
            return None, ""
        if self.is_quarantined(device, now):
            return standing.cause, standing.why
        found = [reason for reason in reasons(standing) if reason[1] is not None]
        _, cause, words = min(found, key=lambda reason: reason[0], default=(1.0, None, ""))
        return cause, words

    def suspects(self) -> list[bytes]:
        """Whose conduct points to something."""
        return [device for device, s in self._standings.items() if s.suspicion is not None]

    def contributions(self) -> dict[bytes, float]:
        """Each peer's part of what all peers gave us, 0 to 1: half by its leave-one-out share in
        our merges, half by the bytes that it served. For reports; nothing is paid by it."""
        shared = sum(max(0.0, s.contributed) for s in self._standings.values())
        bytes_served = sum(s.served for s in self._standings.values())
        return {
            device: _part(max(0.0, s.contributed), shared) / 2 + _part(s.served, bytes_served) / 2
            for device, s in self._standings.items()
        }

    def share(self, device: bytes) -> float:
        """Mean leave-one-out share over all our merges, those without it included."""
        standing = self._standings.get(device)
        return standing.contributed / self._merges if standing and self._merges else 0.0

    # --- restart ---------------------------------------------------------------------------

    def dump(self, now: float) -> bytes:
        """Durable form. What is left of a quarantine is kept, not its instant."""
        return dump(self._merges, self._standings, now)

    def load(self, data: bytes, now: float) -> None:
        self._merges, loaded = load(data, now)
        proven = {device: s for device, s in self._standings.items() if s.condemned}
        self._standings.update(loaded | proven)


def _judge(standing: Standing, traits: Traits, outlier: Cause | None) -> None:
    """One more piece of evidence for or against a peer."""
    standing.outlying = _moved(standing.outlying, up=outlier is not None)
    if outlier is not None:
        standing.causes = {cause: SMOOTHING * n for cause, n in standing.causes.items()}
        standing.causes[outlier] = standing.causes.get(outlier, 0.0) + 1.0
    if traits.crowd is not None:
        standing.crowded = _moved(standing.crowded, up=traits.crowd >= CLUSTER_MIN - 1)


def _moved(evidence: float, *, up: bool) -> float:
    return min(EVIDENCE_MAX, evidence + EVIDENCE_UP) if up else max(0.0, evidence - EVIDENCE_DOWN)


def _part(value: float, total: float) -> float:
    return value / total if total > 0.0 else 0.0
