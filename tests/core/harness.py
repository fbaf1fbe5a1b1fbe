"""Real nodes and hand-driven peers on one table: no latency, one clock, every answer in reach.

`Table` interprets effects as the driver does (in order; a failed commit drops the rest). Requests
are answered at once by whoever lives at the address, unless the test holds or changes the answer.
A `Device` runs a real Node; a `Puppet` is a member that says whatever the test lets it sign.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from gossipfl.codecs import encode_update
from gossipfl.config import PACES, Limits, NodeSettings, Pace
from gossipfl.errors import Fault, PeerError, StoreError
from gossipfl.events import (
    Address,
    BundleGiven,
    Cancel,
    Commit,
    CutOff,
    DeadlineReached,
    Effect,
    Event,
    FetchFailed,
    FetchHead,
    FetchObject,
    HeadReceived,
    JobReady,
    Loaded,
    LoadJob,
    Measure,
    Notice,
    ObjectReceived,
    PeerSeen,
    PolicyReceived,
    Reckon,
    Reload,
    Source,
    Start,
    StartMerge,
    StartTraining,
    Stored,
    StoreFailed,
    SumMask,
    SumUncover,
)
from gossipfl.groups.heavy import sum_step
from gossipfl.identity import device_name
from gossipfl.interfaces import Evaluation
from gossipfl.memory import MemoryStore
from gossipfl.messages import Head, Lineage, Role, Training, UpdateRef
from gossipfl.node import Node
from gossipfl.objects import digest
from gossipfl.parameters import Layout, Tensor, Vector
from gossipfl.privacy import Noised, Off, Publishable, RecordPrivacy, unprotected
from gossipfl.privacy.agreed import NO_FLOORS
from gossipfl.privacy.record_unit import Descent
from gossipfl.privacy.record_unit import train as dp_sgd
from gossipfl.view import PeerView
from gossipfl.wire import encode, seal
from gossipfl.work import local_step, measure, merge, reckon
from sim.fleet import EPOCH, Fleet, Job, Keys

Fetch = FetchHead | FetchObject
Answer = HeadReceived | ObjectReceived | FetchFailed
STEPS_MAX = 100_000  # events in one call of the table: more is a loop


def plain(vector: Vector) -> Publishable:
    """What training without a privacy policy gives."""
    return unprotected(Off(), vector)


class Toy:
    """A trainer whose training is plain to see: it moves the base towards the device's own goal."""

    def __init__(self, count: int, goal: int) -> None:
        self.layout = Layout((Tensor("w", (count,), 0),))
        self.initial: Vector = np.zeros(count, np.float32)
        self.goal: Vector = np.full(count, 1.0, np.float32) + np.float32(0.01) * goal

    def train(self, base: Vector, training: Training, seed: int) -> Vector:
        return base + np.float32(0.5) * (self.goal - base)

    def train_private(
        self, base: Vector, training: Training, mode: RecordPrivacy, key: bytes
    ) -> Noised:
        def one(parameters: Vector, chosen: Any, clip: float) -> Any:
            gradient = (parameters - self.goal).astype(np.float64)
            length = max(float(np.linalg.norm(gradient)), 1e-30)
            return len(chosen) * gradient * min(1.0, clip / length)

        return dp_sgd(mode, base, 1, one, Descent(training.learning_rate), key)

    def evaluate(self, parameters: Vector) -> Evaluation:
        return Evaluation(self.loss(parameters), 0.5, 10)

    def loss(self, parameters: Vector) -> float:
        return float(np.mean((parameters - self.goal) ** 2))


@dataclass(eq=False)
class Device:
    """A member with a real node. `open` are the requests that the test holds."""

    keys: Keys
    address: Address
    node: Node
    store: MemoryStore
    trainer: Toy
    inbox: deque[Event] = field(default_factory=deque)
    open: dict[int, Fetch] = field(default_factory=dict)
    waiting: dict[int, tuple[FetchHead, float]] = field(default_factory=dict)  # until when
    notices: list[Notice] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)  # all of them, in order
    down: bool = False

    @property
    def id(self) -> bytes:
        return self.keys.device

    def peer(self, other: Device | Puppet) -> PeerView | None:
        """What this node says of another, or None if it has nothing to say."""
        name = device_name(other.id)
        return next((p for p in self.node.view().peers if p.device == name), None)

    def faults(self, other: Device | Puppet) -> dict[str, int]:
        view = self.peer(other)
        return dict(view.faults) if view else {}

    def sent(self, kind: type[Any]) -> list[Any]:
        return [effect for effect in self.effects if isinstance(effect, kind)]

    def serve(self, effect: Fetch) -> Answer:
        if isinstance(effect, FetchObject):
            data = self.node.shelf.object(effect.digest) or self.store.get(effect.digest)
            return _object(effect, data, self.keys.tls_key)
        served = self.node.shelf.head(effect.device)
        if served is None and effect.device is None:
            member = self.node.shelf.member
            return HeadReceived(effect.request, None, member, tls_key=self.keys.tls_key)
        if served is None:
            return absent(effect)
        if served.digest == effect.etag:
            return HeadReceived(effect.request, None, tls_key=self.keys.tls_key)
        update = served.update if served.update and effect.update_bytes else None
        return HeadReceived(
            effect.request, served.envelope, served.member, update, self.keys.tls_key
        )


class Puppet:
    """A member driven by hand. It serves `current` as its head and `objects` by digest."""

    def __init__(self, fleet: Fleet, keys: Keys, address: Address) -> None:
        self.fleet = fleet
        self.keys = keys
        self.address = address
        self.seq = 0
        self.prev: bytes | None = None
        self.current: bytes | None = None
        self.update: bytes | None = None  # rides along
        self.objects: dict[bytes, bytes] = {}
        self.heads: dict[bytes, bytes] = {}  # what it answers for others' heads
        self.asked: list[Fetch] = []
        self.hold(keys.member)

    @property
    def id(self) -> bytes:
        return self.keys.device

    def hold(self, data: bytes) -> bytes:
        """Serve this object from now on."""
        self.objects[digest(data)] = data
        return digest(data)

    def compose(self, **fields: Any) -> Head:
        """The head that would come next, with these fields changed."""
        values: dict[str, Any] = {
            "fleet": self.fleet.id,
            "device": self.id,
            "seq": self.seq + 1,
            "prev": self.prev,
            "member": digest(self.keys.member),
            "issued": int(EPOCH),
        }
        return Head(**{**values, **fields})

    def sign(self, head: Head) -> bytes:
        return seal("head", encode(head), self.keys.signer)

    def publish(self, **fields: Any) -> bytes:
        """Sign the next head and serve it."""
        head = self.compose(**fields)
        self.current = self.sign(head)
        self.seq, self.prev = head.seq, digest(self.current)
        self.hold(self.current)
        return self.current

    def publish_update(self, lineage: Lineage, vector: Vector, ride: bool = False) -> UpdateRef:
        """Sign a head that names this model as an update."""
        data = encode_update(lineage, "f32", vector)
        ref = UpdateRef(self.hold(data), len(data), "f32", 1)
        self.publish(lineage=lineage, update=ref)
        self.update = data if ride else None
        return ref

    def serve(self, effect: Fetch) -> Answer:
        self.asked.append(effect)
        if isinstance(effect, FetchObject):
            return _object(effect, self.objects.get(effect.digest), self.keys.tls_key)
        if effect.device is not None and effect.device != self.id:
            data = self.heads.get(effect.device)
            return self.says(effect, data) if data else absent(effect)
        if self.current is None:
            member = digest(self.keys.member)
            return HeadReceived(effect.request, None, member, tls_key=self.keys.tls_key)
        if digest(self.current) == effect.etag:
            return HeadReceived(effect.request, None, tls_key=self.keys.tls_key)
        return self.says(effect, self.current, self.update if effect.update_bytes else None)

    def says(
        self, effect: FetchHead, head: bytes | None, update: bytes | None = None
    ) -> HeadReceived:
        member = digest(self.keys.member)
        return HeadReceived(effect.request, head, member, update, self.keys.tls_key)


def absent(effect: Fetch) -> FetchFailed:
    return FetchFailed(effect.request, Fault.REFUSED, "404", absent=True)


def _object(effect: FetchObject, data: bytes | None, tls_key: bytes) -> Answer:
    if data is None:
        return absent(effect)
    if len(data) > effect.bytes_max:
        return FetchFailed(effect.request, Fault.OVERSIZED, f"{len(data)} bytes", tls_key=tls_key)
    return ObjectReceived(effect.request, data, tls_key)


class Table:
    """Everybody at one table, and the only clock."""

    def __init__(
        self,
        seed: int = 1,
        *,
        count: int = 4,
        pace: str | Pace = "lan",
        limits: Limits | None = None,
        n: int = 4,
        attackers: int = 0,
        **policy: Any,
    ) -> None:
        self.now = 0.0
        self.wall_offset = 0.0
        self.fleet = Fleet(seed)
        self.limits = limits or Limits()
        self.pace = PACES[pace] if isinstance(pace, str) else pace
        self.count = count
        self.job: Job = self.fleet.job("toy", Toy(count, 0).layout)
        self.lineage = self.job.lineage()
        settings: dict[str, Any] = {"rule": "mean", **policy}
        self.policy = self.fleet.policy(self.job, n=n, attackers=attackers, **settings)
        self.devices: list[Device] = []
        self.puppets: list[Puppet] = []
        self.hold: Callable[[Device, Fetch], bool] = lambda device, effect: False
        self.tamper: Callable[[Device, Fetch, Answer], Answer] = lambda d, e, answer: answer
        self.first_start = True  # of nodes that are made from now on
        self.floors = NO_FLOORS  # of their owners
        self._ports = 1
        self._bytes = random.Random(seed).randbytes

    # --- who sits here -----------------------------------------------------------------------

    def _address(self) -> Address:
        self._ports += 1
        return Address("10.0.0.1", self._ports)

    def device(self, *, store: MemoryStore | None = None, keys: Keys | None = None) -> Device:
        """A real node, started; with the store and keys of an earlier one it is a restart."""
        keys = keys or self.fleet.admit()
        number = len(self.devices)
        store = store or MemoryStore()
        device = Device(
            keys, self._address(), self._node(keys, number), store, Toy(self.count, number)
        )
        self.devices.append(device)
        self.send(device, Start(store.load(), self.wall))
        return device

    def _node(self, keys: Keys, seed: int) -> Node:
        settings = NodeSettings(pace=self.pace, limits=self.limits, first_start=self.first_start)
        identity = self.fleet.identity(keys)
        return Node(identity, settings, seed, floors=self.floors, secret=self._bytes)

    def restart(self, device: Device, store: MemoryStore | None = None) -> None:
        """The process ended and starts again on what is durable (or on another disk)."""
        device.store = store or device.store
        for pending in (device.inbox, device.open, device.waiting):
            pending.clear()
        device.node = self._node(device.keys, len(device.effects))
        self.send(device, Start(device.store.load(), self.wall))

    def puppet(self, role: Role = Role.DEVICE, **admit: Any) -> Puppet:
        puppet = Puppet(self.fleet, self.fleet.admit(role, **admit), self._address())
        self.puppets.append(puppet)
        return puppet

    def introduce(self, *others: Device | Puppet) -> None:
        """Every device learns the addresses of these (of all, without arguments)."""
        for device in self.devices:
            for other in others or (*self.devices, *self.puppets):
                if other is not device and not device.down:
                    self.send(device, PeerSeen(other.address, Source.STATIC))

    def employ(self, *devices: Device) -> None:
        """Hand policy and bundle to these devices (to all, without arguments)."""
        for device in devices or tuple(self.devices):
            self.send(device, PolicyReceived(self.policy))
            self.send(device, BundleGiven(self.job.data))

    # --- time --------------------------------------------------------------------------------

    @property
    def wall(self) -> float:
        return EPOCH + self.now + self.wall_offset

    def advance(self, seconds: float) -> None:
        """Let time pass; everything that is due happens on the way."""
        self.until(lambda: False, seconds, must=False)

    def until(self, condition: Callable[[], object], limit_s: float, must: bool = True) -> None:
        """Let time pass until the condition holds; fails after `limit_s`."""
        end = self.now + limit_s
        for _ in range(STEPS_MAX):
            if condition():
                return
            at = min((instant for instant, _ in self._due()), default=end)
            if at > end:
                self.now = end
                assert not must, f"did not happen within {limit_s} s"
                return
            self.now = max(self.now, at)
            for instant, act in list(self._due()):
                if instant <= self.now:
                    act()
                    break
        raise AssertionError(f"more than {STEPS_MAX} steps: a deadline does not move")

    def _due(self) -> Iterator[tuple[float, Callable[[], None]]]:
        for device in self.devices:
            if device.down:
                continue
            for request, (effect, until) in list(device.waiting.items()):
                yield until, partial(self._expire, device, request, effect)
            yield device.node.deadline, partial(self._ring, device)

    def _ring(self, device: Device) -> None:
        self.send(device, DeadlineReached(self.wall))

    def _expire(self, device: Device, request: int, effect: FetchHead) -> None:
        if device.waiting.pop(request, None) is not None:
            self._answer(device, replace(effect, wait_s=0.0))

    # --- events and effects ------------------------------------------------------------------

    def send(self, device: Device, event: Event) -> list[Effect]:
        """One event and all that follows from it at this instant. Returns the event's effects."""
        first = self._handle(device, event)
        for _ in range(STEPS_MAX):
            busy = next((d for d in self.devices if d.inbox and not d.down), None)
            if busy is None:
                self._wake_waiting()
                if not any(d.inbox for d in self.devices if not d.down):
                    return first
                continue
            self._handle(busy, busy.inbox.popleft())
        raise AssertionError(f"more than {STEPS_MAX} events at one instant")

    def _wake_waiting(self) -> None:
        for device in self.devices:
            for request, (effect, _) in list(device.waiting.items()):
                other = self._at(effect.address)
                answer = other.serve(effect) if other else absent(effect)
                if not (isinstance(answer, HeadReceived) and answer.head is None):
                    del device.waiting[request]
                    device.inbox.append(self.tamper(device, effect, answer))

    def _handle(self, device: Device, event: Event) -> list[Effect]:
        effects = device.node.handle(event, self.now)
        device.effects.extend(effects)
        for effect in effects:
            if not self._execute(device, effect):
                break  # a failed commit drops the rest
        return effects

    def _execute(self, device: Device, effect: Effect) -> bool:
        match effect:
            case FetchHead() | FetchObject() if self.hold(device, effect):
                device.open[effect.request] = effect
            case FetchHead() | FetchObject():
                self._answer(device, effect)
            case Cancel(request):
                device.open.pop(request, None)
                device.waiting.pop(request, None)
            case StartTraining():
                device.inbox.append(local_step(effect, device.trainer, self._bytes))
            case StartMerge():
                device.inbox.append(merge(effect, device.trainer))
            case SumMask() | SumUncover():
                device.inbox.append(sum_step(effect))
            case Measure():
                device.inbox.append(measure(effect, device.trainer))
            case Reckon():
                device.inbox.append(reckon(effect))
            case LoadJob():
                trainer = device.trainer
                device.inbox.append(JobReady(effect.bundle, trainer.layout, trainer.initial))
            case Commit():
                return self._commit(device, effect)
            case Reload():
                device.inbox.appendleft(Loaded(device.store.load()))
            case Notice():
                device.notices.append(effect)
            case CutOff():
                pass
        return True

    def _commit(self, device: Device, effect: Commit) -> bool:
        try:
            device.store.commit(effect.batch)
        except StoreError as error:
            device.inbox.appendleft(StoreFailed(effect.commit, str(error)))
            return False
        device.inbox.appendleft(Stored(effect.commit))
        return True

    def _at(self, address: Address) -> Device | Puppet | None:
        everybody: list[Device | Puppet] = [*self.devices, *self.puppets]
        return next((o for o in everybody if o.address == address), None)

    def _answer(self, device: Device, effect: Fetch) -> None:
        other = self._at(effect.address)
        if other is None or (isinstance(other, Device) and other.down):
            answer: Answer = FetchFailed(effect.request, Fault.UNREACHABLE, "nobody there")
        else:
            answer = other.serve(effect)
        nothing = isinstance(answer, HeadReceived) and answer.head is None
        if nothing and isinstance(effect, FetchHead) and effect.wait_s > 0.0:
            device.waiting[effect.request] = (effect, self.now + effect.wait_s)
            return
        device.inbox.append(self.tamper(device, effect, answer))


def ask_again(device: Device, effect: Fetch, pending: Any) -> None:
    """Put a request back on the node's table, as if it had just sent it again.

    For exhaustive tests only: a node asks a few times a second at most, these need 10^5 answers.
    """
    pulls = device.node._core.pulls
    if effect.request not in pulls._pending:
        pulls._pending[effect.request] = pending
        pulls._counts.change(pending, 1)


def pending_of(device: Device, effect: Fetch) -> Any:
    """What the node remembers of a request under way."""
    return device.node._core.pulls._pending[effect.request]


def flip(data: bytes, bit: int) -> bytes:
    """The same bytes with one bit changed."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << (bit % 8)
    return bytes(changed)


def fault_of(call: Callable[..., Any], *arguments: Any) -> Fault | None:
    """The typed fault that a call ends in, or None if it went well. Anything else is a bug."""
    try:
        call(*arguments)
    except PeerError as error:
        return error.fault
    return None


def opened(
    table: Table, device: Device, kind: type[Any], other: Puppet, limit_s: float = 60.0
) -> Any:
    """Time passes until the node sends `other` a request of this kind, which is then held open."""
    table.hold = lambda d, e: d is device and isinstance(e, kind) and e.address == other.address
    table.until(lambda: device.open, limit_s)
    table.hold = lambda d, e: False
    [(_, effect)] = device.open.items()
    device.open.clear()
    return effect


def base_of(device: Device) -> bytes | None:
    return None if device.node.base is None else device.node.base.tobytes()
