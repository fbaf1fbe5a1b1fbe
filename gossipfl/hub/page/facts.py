"""What the page is made from: the log's story, the hub's sightings, the log itself, the clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gossipfl.hub.page.chronicle import Chronicle
from gossipfl.hub.page.model import AlertLine, Check, CheckpointBox, Finding
from gossipfl.hub.reports.costs import Tariffs
from gossipfl.messages import Head


@dataclass(frozen=True, slots=True)
class Sighting:
    """One device as the hub's own node last saw it."""

    device: bytes
    role: str
    state: str  # of `view.PeerView`
    why: str
    round: int | None
    seen: int  # seconds since 1970; 0: never
    reputation: float | None
    head: Head | None
    address: str

    @property
    def update_bytes(self) -> int | None:
        return self.head.update.size if self.head is not None and self.head.update else None

    @property
    def releases(self) -> int:
        """Publications in its privacy ledger, at most: its first row opens it."""
        return self.head.ledger.number - 1 if self.head is not None and self.head.ledger else 0


@dataclass(frozen=True, slots=True)
class LogFacts:
    origin: str
    root: str  # of the newest checkpoint, hex
    checkpoints: tuple[CheckpointBox, ...]  # the oldest first
    waiting: int = 0
    check: Check | None = None
    waiting_since: int | None = None  # time of the oldest


@dataclass(frozen=True, slots=True)
class Measured:
    """The fleet's published models on a public holdout, at one instant. Shares of one."""

    time: int
    low: float  # 10th percentile over devices
    middle: float
    high: float
    merged: float | None = None  # of the merge of all of them
    disagreement: float | None = None  # mean distance to the mean model over the way come


@dataclass(frozen=True, slots=True)
class Facts:
    chronicle: Chronicle
    sightings: dict[bytes, Sighting]
    log: LogFacts | None
    now: int
    fleet: str
    insecure: str = ""
    reading: float | None = None
    live_s: int = 60  # a device not heard of for longer is away: preset lan
    tariffs: Tariffs = field(default_factory=Tariffs)
    measured: tuple[Measured, ...] = ()
    holdout: str = ""
    alone: float | None = None
    central: float | None = None
    local: tuple[Finding, ...] = ()  # of this instance of the hub: its disk, its tasks
    star_shut_out: Mapping[str, str] = field(default_factory=dict)  # client (hex), why
    alerts: tuple[AlertLine, ...] = ()
    proposals: int = 0  # of policies, that nobody has signed yet
