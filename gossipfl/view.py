"""What a person or program may see of a node: plain data, no behaviour, no private figures sent."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Pulse:
    """Where a node stands in its rounds: what costs nothing to ask, however many peers it has."""

    round: int
    phase: str
    rests: bool  # it waits for something before it can train, or has finished


@dataclass(frozen=True, slots=True)
class PeerView:
    device: str  # full name, base32 groups
    addresses: tuple[str, ...]
    state: str  # "live", "away", "quarantined", "condemned", "revoked"
    why: str
    reputation: float  # 0 to 1, 1 is a newcomer's level
    influence: float  # decayed mean share in our merges
    distance: float | None  # to us, over the median of the last pull
    last_seen_s: float | None
    seq: int
    round: int | None
    sampled: bool
    faults: dict[str, int]
    cause: str = ""  # what it is suspected or convicted of, as `anomaly.Cause`
    weight: float = 1.0  # chance to be asked beside a newcomer's
    available: float = 1.0  # decayed share of our requests that it answered
    latency_s: float | None = None  # its updates after ours, decayed mean
    update_age_s: float | None = None  # since its newest update of our job was first seen
    share: float = 0.0  # mean leave-one-out share in our merges
    served_bytes: int = 0
    contribution: float = 0.0  # 0 to 1, over all peers 1: reported, not paid
    quarantines: int = 0  # how often so far
    quarantine_left_s: float | None = None  # None: it is not in soft quarantine
    evidence: dict[str, float] = field(default_factory=dict)  # for standing apart, and near copies
    history: tuple[tuple[int, str, str], ...] = ()  # fleet time, cause, words; the newest last
    is_hub: bool = False


@dataclass(frozen=True, slots=True)
class View:
    device: str
    fleet: str
    phase: str
    round: int
    seq: int
    merges: int
    below_quorum: int
    listen_only: str  # why this node does not publish; "" if it does
    waiting_for: str  # what it needs before it can train; "" if nothing
    finished: bool
    policy: dict[str, object] | None
    bundle: str | None
    base: str | None  # digest of the base
    base_round: int
    accuracy: float | None
    loss: float | None
    sample: int
    f: int
    peers: tuple[PeerView, ...]
    candidates: int
    revoked: tuple[str, ...]
    evidence: int
    fleet_time: int
    requests: int
    finished_why: str = ""
    convergence: dict[str, float | None] = field(default_factory=dict)  # of published models only
    stopping: dict[str, object] = field(default_factory=dict)  # towards the policy's conditions
    sums: dict[str, object] | None = None  # of group sums, where the policy asks for them
    trial: dict[str, object] | None = None  # of a canary, or while another job takes over
    blocked: tuple[str, ...] = ()  # devices that the policy blocks
    releases: int = 0  # entries of the privacy ledger: what was, or may have been, published
