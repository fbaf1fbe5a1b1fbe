"""One peer's standing at one node: what was observed, what it means in words, its durable form."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from gossipfl.anomaly import OF_FAULT, Cause, Traits
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
    Fault.FALSE_SUM: 0.35,
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
SHOWN_BELOW = 0.85  # a score above is no suspicion worth a word: guess
SCORE_FLOOR = 0.05  # a peer in disfavour is still heard now and then, so that it can recover
EVIDENCE_FLOOR = 0.02  # design: the least sampling weight
NAMED_AT = 2.0  # evidence from which a peer is called suspect: the first that costs it weight
SMOOTHING = 0.7  # of a peer's distance and model over its merges: remembers about three
SMOOTHING_TOWARDS = 0.85
"""Of where its steps go: remembers about seven, because one step says little (the same fleets as
`anomaly.GAP_POWER`)."""
LOOKS = {
    Cause.DIRECTION: "its updates go the other way",
    Cause.NORM: "its updates are larger than all others'",
    Cause.FAR: "its updates lie apart from all others'",
}
ENTRIES_MAX = 8  # guess: what a person reads; the agent's log has all
BYTES_MAX = 64 * 1024 * 1024
FORM = 3  # of the durable form; others are dropped but form 1, which had no number


class Entry(NamedTuple):
    """One line of a peer's history: when (fleet time), why, in words."""

    at: int
    cause: str
    words: str


class Suspicion(NamedTuple):
    """What a peer's conduct points to right now, and the sampling weight that this leaves it."""

    cause: Cause
    words: str
    chance: float


@dataclass(slots=True)
class Standing:
    """One peer as we see it. `why` is the sentence a person reads."""

    score: float = 1.0
    faults: dict[str, int] = field(default_factory=dict)
    influence: float = 0.0  # decayed mean share in our merges
    contributed: float = 0.0  # sum of its leave-one-out shares in our merges
    served: int = 0  # bytes that it answered us with
    ratio: float | None = None  # last distance to us over the median distance of that pull
    merges: int = 0
    spread: float | None = None  # decayed mean of ln(distance to the merge / the pull's median)
    alike: float = 1.0  # decayed mean cosine of its models with the merge
    towards: float = 0.0  # decayed mean cosine of its steps with the merge's
    outlying: float = 0.0  # evidence: up with each merge in which it stood apart, else down
    crowded: float = 0.0  # evidence: up with each merge in which it had near copies, else down
    causes: dict[Cause, float] = field(default_factory=dict)  # what its outlying looked like
    quarantined_until: float = 0.0
    quarantines: int = 0
    condemned: bool = False
    cause: Cause | None = None
    why: str = ""
    entries: deque[Entry] = field(default_factory=lambda: deque(maxlen=ENTRIES_MAX))
    suspicion: Suspicion | None = None  # by conduct; not kept over a restart


def remember(standing: Standing, traits: Traits, typical: float) -> None:
    """One more merge of it. `typical`: the pull's median distance. Means begin as plain ones."""
    count = standing.merges if standing.spread is not None else 1
    plain = (count - 1) / count
    keep = min(SMOOTHING, plain)
    standing.alike = keep * standing.alike + (1 - keep) * traits.alike
    if typical > 0.0 and traits.distance > 0.0:
        spread = math.log(traits.distance / typical)
        standing.spread = keep * (standing.spread or 0.0) + (1 - keep) * spread
    keep = min(SMOOTHING_TOWARDS, plain)
    standing.towards = keep * standing.towards + (1 - keep) * traits.towards


def is_spotless(standing: Standing) -> bool:
    """Is there nothing against it at all, now or of late?"""
    return (
        standing.score == 1.0
        and standing.outlying <= 1.0
        and standing.crowded <= 1.0
        and standing.suspicion is None
        and not standing.quarantined_until
        and not standing.condemned
    )


Reason = tuple[float, Cause | None, str]
"""The weight that one kind of observation leaves; its cause and words where it is worth a word."""


def reasons(standing: Standing) -> list[Reason]:
    """What each kind of observation leaves of a newcomer's weight, where it takes or says any."""
    if standing.condemned:
        return [(0.0, standing.cause, standing.why)]
    reasons: list[Reason] = []
    if standing.score < 1.0 and standing.faults:
        shown = broken(standing) if standing.score < SHOWN_BELOW else (None, "")
        reasons.append((max(SCORE_FLOOR, standing.score), *shown))
    for evidence, tell in ((standing.outlying, stood_apart), (standing.crowded, _crowded)):
        if evidence > 1.0:
            shown = tell(standing) if evidence >= NAMED_AT else (None, "")
            reasons.append((max(EVIDENCE_FLOOR, 0.5 ** (evidence - 1.0)), *shown))
    if standing.suspicion is not None:
        reasons.append((standing.suspicion.chance, *standing.suspicion[:2]))
    return reasons


def broken(standing: Standing) -> tuple[Cause | None, str]:
    """What its faults point to: the kind that cost it most."""
    worst = max(standing.faults, key=lambda name: standing.faults[name] * COST[Fault(name)])
    count = standing.faults[worst]
    return OF_FAULT[Fault(worst)], f"broke the protocol: {worst}, {count} times"


def stood_apart(standing: Standing) -> tuple[Cause, str]:
    """What its outlying looked like, of late."""
    cause = max(standing.causes, key=lambda c: standing.causes[c], default=Cause.FAR)
    times = math.exp(standing.spread or 0.0)
    figures = f"{times:.1f}x as far from the merge as a typical one"
    if cause is Cause.DIRECTION:
        figures = f"a cosine of {standing.towards:+.2f} with the merges' steps, {figures}"
    return cause, f"{LOOKS[cause]}: {figures}, and without a part in it, merge after merge"


def _crowded(standing: Standing) -> tuple[Cause, str]:
    return Cause.COLLUSION, (
        "its updates are more alike those of two or more others than most are: they collude, or "
        "copy it, or have nearly the same data"
    )


class _Saved1(msgspec.Struct, array_like=True):
    """Form 1, of the first version. Its strikes by distance are not taken over."""

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


class _Saved(msgspec.Struct, array_like=True):
    """The form of now: what is left of a quarantine, not its instant; clocks begin anew."""

    device: bytes
    score: float
    faults: dict[str, int]
    influence: float
    contributed: float
    served: int
    merges: int
    spread: float | None
    alike: float
    towards: float
    outlying: float
    crowded: float
    causes: dict[Cause, float]
    left: float
    quarantines: int
    condemned: bool
    cause: Cause | None
    why: str
    entries: list[Entry]


_KEPT = (
    *("score", "faults", "influence", "contributed", "served", "merges", "spread", "alike"),
    "towards",
    *("outlying", "crowded", "causes", "quarantines", "condemned", "cause", "why"),
)


def dump(merges: int, standings: Mapping[bytes, Standing], now: float) -> bytes:
    """`merges`: all of ours so far."""
    rows = [
        _Saved(
            device=device,
            left=max(0.0, s.quarantined_until - now),
            entries=list(s.entries),
            **{name: getattr(s, name) for name in _KEPT},
        )
        for device, s in standings.items()
    ]
    return pack([FORM, merges, msgspec.to_builtins(rows, builtin_types=(bytes,))])


def load(data: bytes, now: float) -> tuple[int, dict[bytes, Standing]]:
    """Takes form 1 too; of an unknown form nothing: opinions come again, evidence is kept apart.

    Raises ValueError or msgspec.ValidationError on what is no dump.
    """
    found = unpack(data, BYTES_MAX)
    if isinstance(found, list) and found and isinstance(found[0], int):
        if found[0] != FORM:
            return 0, {}
        _, merges, saved = msgspec.convert(found, tuple[int, int, list[_Saved]])
        return merges, {row.device: _restored(row, now) for row in saved}
    first = msgspec.convert(found, list[_Saved1])
    return 0, {row.device: _restored1(row, now) for row in first}


def _restored(row: _Saved, now: float) -> Standing:
    standing = Standing(**{name: getattr(row, name) for name in _KEPT})
    standing.quarantined_until = now + row.left if row.left > 0 else 0.0
    standing.entries.extend(row.entries)
    return standing


def _restored1(row: _Saved1, now: float) -> Standing:
    return Standing(
        score=row.score,
        faults=row.faults,
        influence=row.influence,
        quarantined_until=now + row.left if row.left > 0 else 0.0,
        quarantines=row.quarantines,
        condemned=row.condemned,
        cause=Cause.EQUIVOCATION if row.condemned else None,
        why=row.why,
    )
