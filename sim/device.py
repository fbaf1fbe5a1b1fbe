"""One simulated device: keys, clock, disk, trainer and, while it is up, a node."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from gossipfl.config import NodeSettings
from gossipfl.events import Address, Effect, Event
from gossipfl.interfaces import Trainer
from gossipfl.memory import MemoryStore
from gossipfl.objects import digest
from gossipfl.parameters import Vector
from gossipfl.pure import Pure, call
from gossipfl.shelf import Shelf
from gossipfl.view import Pulse, View
from sim.fleet import EPOCH, Fleet, Job, Keys

if TYPE_CHECKING:
    from sim.adversaries import Adversary
    from sim.transport import Exchange


class NodeLike(Protocol):
    """What the world needs of a node. The second one is the scripted node of the tests."""

    @property
    def deadline(self) -> float: ...

    @property
    def shelf(self) -> Shelf: ...

    @property
    def base(self) -> Vector | None: ...

    @property
    def base_round(self) -> int: ...

    def handle(self, event: Event, now: float) -> list[Effect]: ...

    def refused(self, tls_key: bytes) -> str | None: ...

    def view(self) -> View: ...

    def pulse(self) -> Pulse: ...


@dataclass(slots=True)
class Clock:
    """How this device's clocks differ from virtual time. A reboot moves the monotonic one."""

    monotonic_offset_s: float = 0.0
    wall_offset_s: float = 0.0
    rate: float = 1.0  # quartz drifts by some 50 ppm

    def monotonic(self, now: float) -> float:
        return self.monotonic_offset_s + now * self.rate

    def virtual(self, monotonic: float) -> float:
        return (monotonic - self.monotonic_offset_s) / self.rate

    def wall(self, now: float) -> float:
        return EPOCH + now + self.wall_offset_s


@dataclass(slots=True, eq=False, repr=False)
class SimDevice:
    """State that outlives the process is the store, the keys and the counters; the rest is reset
    when the device goes down."""

    index: int
    fleet: Fleet
    keys: Keys
    job: Job
    trainer: Trainer
    settings: NodeSettings
    address: Address
    clock: Clock
    random: random.Random
    store: MemoryStore = field(default_factory=MemoryStore)
    adversary: Adversary | None = None
    slowness: float = 1.0  # multiplies training and merging time
    examples: int = 100  # what one epoch of its training costs, in examples
    pure: Pure = call

    node: NodeLike | None = None
    incarnation: int = 0
    now: float = 0.0  # the last monotonic time given to the node
    inbox: deque[Event] = field(default_factory=deque)
    answers: deque[Event] = field(default_factory=deque)  # outcomes of own commits: come first
    pending: deque[Effect] = field(default_factory=deque)
    busy: bool = False  # a commit is under way
    pumping: bool = False
    wake_at: float | None = None  # virtual time of the deadline entry in the heap
    instant: float = -1.0  # last deadline handled, and how often: a spinning node shows here
    spins: int = 0
    asleep: bool = False  # the machine is suspended: its process stands still
    frozen: list[Callable[[], None]] = field(default_factory=list)  # what waits for it to wake
    exchanges: dict[int, Exchange] = field(default_factory=dict)
    waiters: list[Exchange] = field(default_factory=list)
    shelf_version: int = -1
    cut: set[bytes] = field(default_factory=set)
    last_step: tuple[Vector, Vector] | None = None  # base and trained model, for omniscient liars
    durable: set[bytes] = field(default_factory=set)  # digests of all that was ever durable

    def __repr__(self) -> str:
        return f"SimDevice({self.index}, {'up' if self.up else 'down'})"

    @property
    def device(self) -> bytes:
        return self.keys.device

    @property
    def honest(self) -> bool:
        return self.adversary is None

    @property
    def up(self) -> bool:
        return self.node is not None

    def reset(self) -> None:
        """The process is gone: what was in memory is lost."""
        self.node = None
        self.incarnation += 1
        self.inbox.clear()
        self.answers.clear()
        self.pending.clear()
        self.busy = False
        self.wake_at = None
        self.instant, self.spins = -1.0, 0
        self.asleep = False
        self.frozen.clear()
        self.exchanges.clear()
        self.waiters.clear()
        self.shelf_version = -1
        self.cut.clear()

    def remember_durable(self) -> None:
        """Notes the newest head and receipt of the store as having been durable."""
        snapshot = self.store.load()
        for envelope in (snapshot.head, snapshot.receipt):
            if envelope is not None:
                self.durable.add(digest(envelope))
