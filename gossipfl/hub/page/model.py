"""What the page shows, as plain frozen values: no HTML, no bytes, so all of it is JSON too."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from gossipfl.hub.page.finding import AlertLine as AlertLine
from gossipfl.hub.page.finding import Finding as Finding
from gossipfl.hub.page.finding import Kind as Kind
from gossipfl.hub.page.finding import Level as Level
from gossipfl.hub.page.finding import Need as Need
from gossipfl.hub.reports.costs import Tariffs


class State(StrEnum):
    """What a device is to its fleet, as the page draws it."""

    LIVE = "live"
    AWAY = "away"
    LEFT_OUT = "left out"  # it publishes, and nobody merges it
    SHUT_OUT = "shut out"  # quarantined or condemned by the hub's own node
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Mark:
    """Live or stale: how old the newest thing is that the hub heard of its fleet."""

    is_live: bool
    age_s: int | None  # None: nothing was heard yet
    reading: float | None  # share of the log that was read, while that is not all


@dataclass(frozen=True, slots=True)
class Verdict:
    level: Level
    text: str


@dataclass(frozen=True, slots=True)
class Tile:
    name: str
    value: str
    words: str  # what the value is made of, or what is missing
    level: Level = Level.GOOD
    spark: tuple[float | None, ...] = ()
    link: str = ""


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """A row of the fleet table."""

    name: str  # full name: the link
    short: str
    state: State
    note: str
    round: int | None
    behind: int | None  # rounds behind the fleet's median
    receipts: int  # in the log
    merged_of: int  # devices that merged it in their recent rounds
    judged_by: int  # devices that could have
    weight: float | None  # mean share in others' recent merges, over an equal share
    reputation: float | None  # by the hub's own node
    seen_s: int | None
    sent_bytes: int | None  # of its updates that others merged
    spark: tuple[float | None, ...] = ()  # weight by round, the oldest first


@dataclass(frozen=True, slots=True)
class Edge:
    """`of` was merged by `by`. Indexes into the graph's devices."""

    of: int
    by: int
    merges: int
    share: float  # mean influence


@dataclass(frozen=True, slots=True)
class Graph:
    """Who merged whom over the recent rounds."""

    names: tuple[str, ...]
    shorts: tuple[str, ...]
    states: tuple[State, ...]
    weights: tuple[float | None, ...]
    edges: tuple[Edge, ...]
    rounds: int


@dataclass(frozen=True, slots=True)
class Point:
    """One instant of a figure over devices: median and the middle 80 %."""

    time: int
    low: float
    middle: float
    high: float


@dataclass(frozen=True, slots=True)
class Learning:
    rule: str
    rounds: tuple[Point, ...]  # round of the devices, over time
    round_s: float | None  # median seconds between a device's receipts
    merge_size: float | None  # mean models in a recent merge, the own one included
    agreement: float | None  # share of the pulled that were merged
    staleness: tuple[tuple[str, str, int], ...]  # full name, short name, rounds behind
    accuracy: tuple[Point, ...] = ()
    is_merged: bool = (
        False  # the accuracy's line is the merge's; the band is the devices' either way
    )
    disagreement: tuple[Point, ...] = ()
    alone: float | None = None  # references for the accuracy
    central: float | None = None
    holdout: str = ""  # what the accuracy was measured on


@dataclass(frozen=True, slots=True)
class BudgetBar:
    name: str
    short: str
    spent: float | None  # epsilon, at most; None: without a bound
    releases: int
    is_near: bool  # it has spent the share of its budget from which on it needs a person


@dataclass(frozen=True, slots=True)
class Privacy:
    mode: str  # "off", "local", ...
    words: str
    epsilon_max: float | None = None
    delta: float | None = None
    bars: tuple[BudgetBar, ...] = ()
    promise: tuple[tuple[str, str], ...] = ()  # name, value: the policy's terms


@dataclass(frozen=True, slots=True)
class WeightLine:
    """One device's weight in others' merges, and why it is what it is."""

    name: str
    short: str
    state: State
    values: tuple[float | None, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Out:
    """A device that is left or shut out, and since when."""

    name: str
    short: str
    state: State
    why: str
    since: int | None
    may_end: bool = False  # an operator may end it at the hub: it is the hub's own opinion


@dataclass(frozen=True, slots=True)
class Security:
    lines: tuple[WeightLine, ...]
    faults: tuple[tuple[str, int], ...]  # cause, how often; the most frequent first
    out: tuple[Out, ...]
    alarms: tuple[tuple[int, str], ...]  # time, words


@dataclass(frozen=True, slots=True)
class CheckpointBox:
    number: int
    size: int
    time: int
    witnesses: int
    is_verified: bool


@dataclass(frozen=True, slots=True)
class LogLine:
    index: int
    time: int
    kind: str
    words: str
    device: str = ""  # full name, where the entry is about a device


@dataclass(frozen=True, slots=True)
class Check:
    """The last "Verify now"."""

    is_good: bool
    time: int
    words: str


@dataclass(frozen=True, slots=True)
class Evidence:
    origin: str
    size: int
    waiting: int  # durable, and not under a checkpoint yet
    root: str
    checkpoints: tuple[CheckpointBox, ...]
    lines: tuple[LogLine, ...]
    check: Check | None = None


@dataclass(frozen=True, slots=True)
class Formula:
    name: str
    value: str
    formula: str


@dataclass(frozen=True, slots=True)
class Cost:
    tariffs: Tariffs
    lines: tuple[Formula, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """All of it. `blocks` that are None are left out."""

    fleet: str
    now: int
    version: str  # changes whenever anything but the clock did
    mark: Mark
    insecure: str  # why what is shown could be read or forged on its way; "" if it cannot
    verdict: Verdict
    tiles: tuple[Tile, ...]
    needs: tuple[Need, ...]
    findings: tuple[Finding, ...]  # what the needs, and alerts, are made of
    alerts: tuple[AlertLine, ...]
    devices: tuple[DeviceRow, ...]
    names_shown: bool  # False: the viewer is limited, nothing that names a device is shown
    graph: Graph | None
    learning: Learning | None
    privacy: Privacy | None
    security: Security | None
    evidence: Evidence | None
    cost: Cost | None


@dataclass(frozen=True, slots=True)
class Exchange:
    name: str
    short: str
    state: State
    merged: int  # by the page's device, of it
    was_merged: int  # by it, of the page's device
    share: float | None


@dataclass(frozen=True, slots=True)
class ReceiptLine:
    number: int
    round: int
    time: int
    rule: str
    merged: tuple[tuple[str, float], ...]  # short name, influence
    refused: tuple[tuple[str, str], ...]  # short name, fault


@dataclass(frozen=True, slots=True)
class DevicePage:
    row: DeviceRow
    role: str
    joined: int | None
    address: str
    head: int | None
    replaces: str
    reasons: tuple[str, ...]
    exchanges: tuple[Exchange, ...]
    receipts: tuple[ReceiptLine, ...]
