"""The world: many nodes, one heap, virtual time.

The nodes are the very ones that ship; only what surrounds them is pretended. A heap of
(time, counter, action) is the whole schedule, so one seed gives one history, and the trace digest
proves it. A crash loses everything but what the store made durable. Time never comes from the
machine.
"""

from __future__ import annotations

import gc
import heapq
import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVarTuple

from gossipfl.config import NodeSettings
from gossipfl.events import Address, Notice, OwnAddresses, PeerSeen, Source, Start, Stop
from gossipfl.interfaces import Trainer
from gossipfl.memory import MemoryStore
from sim.adversaries import Adversary
from sim.checkers import Checker, Hooks, Violation
from sim.device import Clock, NodeLike, SimDevice
from sim.discovery import Discovery
from sim.fleet import Fleet, Job, Keys
from sim.interpreter import Interpreter
from sim.network import Network
from sim.options import Options, describe
from sim.recall import Recall
from sim.trace import Trace
from sim.transport import Transport

Args = TypeVarTuple("Args")
PORT = 7_700
HOSTS_PER_NET = 250
STOP_S = 0.2  # a clean end has this long to save what is left: guess


class WorldError(AssertionError):
    """An invariant broke or a condition was not met; carries what is needed to run it again.

    `checker` names the invariant: a checker's class, "liveness", or an exception of the node."""

    def __init__(self, cause: str, world: World, checker: str) -> None:
        self.seed = world.seed
        self.checker = checker
        self.options = world.options
        self.cause = cause
        self.virtual_s = world.now
        super().__init__(
            f"{cause}\n  seed {world.seed}, virtual second {world.now:.4f}, "
            f"{world.trace.entries} trace entries, digest {world.trace.digest()[:16]}\n"
            f"  options {describe(world.options)}\n{world.trace.tail()}"
        )


@contextmanager
def patient_collector() -> Iterator[None]:
    """Python looks for cycles less often: a world makes millions of objects that are none, and
    walking through them took half of the time."""
    before = gc.get_threshold()
    gc.set_threshold(200_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)


MakeNode = Callable[[SimDevice, int], NodeLike]


def real_node(device: SimDevice, seed: int) -> NodeLike:
    """The node that ships."""
    from gossipfl.node import Node

    identity, secret = device.fleet.identity(device.keys), device.random.randbytes
    return Node(identity, device.settings, seed, device.pure, secret=secret)


class World:
    """`seed` and `options` decide everything; `checkers` watch it."""

    def __init__(
        self,
        seed: int,
        options: Options | None = None,
        checkers: Sequence[Checker] = (),
        make_node: MakeNode = real_node,
    ) -> None:
        self.seed = seed
        self.options = options or Options()
        self.random = random.Random(f"world {seed}")
        self.network = Network(seed, self.options.link)
        self.trace = Trace()
        self.recall = Recall()
        self.checkers = list(checkers)
        self.devices: list[SimDevice] = []
        self.notices: list[tuple[float, SimDevice, Notice]] = []
        self.now = 0.0
        self.hooks = Hooks(self.checkers)
        self._make_node = make_node
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._counter = 0
        self._addresses: dict[Address, SimDevice] = {}
        self.transport = Transport(self)
        self.discovery = Discovery(self)
        self._interpreter = Interpreter(self)
        self.deliver = self._interpreter.deliver
        for checker in self.checkers:
            checker.bind(self)

    # --- schedule ---------------------------------------------------------------------------

    def schedule(self, when: float, action: Callable[[*Args], None], *args: *Args) -> None:
        """At this virtual second, after everything scheduled for it before."""
        self._counter += 1
        now = self.now
        heapq.heappush(self._heap, (when if when > now else now, self._counter, action, args))

    def after(
        self, delay: float, device: SimDevice, action: Callable[[*Args], None], *args: *Args
    ) -> None:
        """`delay` seconds from now, unless that device's process has ended by then."""
        when = self.now + delay
        self.schedule(when, self._if_up, device, device.incarnation, action, args)

    @staticmethod
    def _if_up(
        device: SimDevice, incarnation: int, action: Callable[..., None], args: tuple[Any, ...]
    ) -> None:
        if device.incarnation == incarnation and device.node is not None:
            action(*args)

    def _run(self, is_over: Callable[[], bool], end: float) -> bool:
        """Runs what is due up to virtual second `end`, until `is_over` says so; False if it never
        did."""
        heap, pop = self._heap, heapq.heappop
        try:
            while not is_over():
                if not heap or heap[0][0] > end:
                    return False
                self.now, _, action, args = pop(heap)
                action(*args)
        except WorldError:
            raise
        except Violation as broken:
            raise WorldError(str(broken), self, broken.checker) from broken
        except Exception as error:  # the node must never raise: the seed finds it again
            kind = type(error).__name__
            raise WorldError(f"{kind}: {error}", self, kind) from error
        return True

    def run_until(self, condition: Callable[[], bool], limit_s: float) -> float:
        """Runs until the condition holds; returns the virtual seconds that it took.

        Raises WorldError after `limit_s` virtual seconds, or when nothing more can happen."""
        started = self.now
        with patient_collector():
            if not self._run(condition, started + limit_s):
                what = f"not reached within {limit_s} virtual seconds"
                raise WorldError(what, self, "liveness")
        return self.now - started

    def run_for(self, seconds: float) -> None:
        end = self.now + seconds
        with patient_collector():
            self._run(lambda: False, end)
        self.now = end

    def finish(self) -> None:
        """The checks that need the whole history."""
        for checker in self.checkers:
            try:
                checker.at_end()
            except Violation as broken:
                raise WorldError(str(broken), self, broken.checker) from broken

    def act(self, *what: object) -> None:
        """Something that the world itself does goes into the trace."""
        self.trace.add(self.now, -1, what)

    # --- devices ----------------------------------------------------------------------------

    def add(
        self,
        fleet: Fleet,
        keys: Keys,
        job: Job,
        trainer: Trainer,
        *,
        examples: int = 100,
        settings: NodeSettings | None = None,
    ) -> SimDevice:
        """A device that is down until `start`. `examples` sets what its training costs."""
        index = len(self.devices)
        draw = random.Random(f"device {self.seed} {index}")
        options = self.options
        device = SimDevice(
            index=index,
            fleet=fleet,
            keys=keys,
            job=job,
            trainer=trainer,
            settings=settings or options.settings,
            address=Address(f"10.0.{index // HOSTS_PER_NET}.{index % HOSTS_PER_NET + 1}", PORT),
            clock=Clock(
                draw.uniform(0.0, 1e6),
                draw.uniform(-options.wall_skew_s, options.wall_skew_s),
                1.0 + draw.uniform(-options.drift, options.drift),
            ),
            random=draw,
            slowness=draw.uniform(1.0, options.slowness_max),
            examples=examples,
            pure=self.recall,
        )
        self.devices.append(device)
        self._addresses[device.address] = device
        return device

    def corrupt(self, device: SimDevice, adversary: Adversary) -> None:
        """From now on this device lies."""
        adversary.bind(self)
        device.adversary = adversary

    def find(self, address: Address) -> SimDevice | None:
        return self._addresses.get(address)

    def start(self, device: SimDevice, at: float | None = None) -> None:
        """Boots it, now or at a virtual second, from what its store holds."""
        if at is not None and at > self.now:
            self.schedule(at, lambda: self.start(device))
            return
        if device.up:
            return
        device.remember_durable()
        device.node = self._make_node(device, device.random.getrandbits(63))
        device.now = -math.inf
        self.act("start", device.index)
        self.deliver(device, Start(device.store.load(), device.clock.wall(self.now)))
        self.deliver(device, OwnAddresses((device.address,)))
        self.discovery.announce(device)

    def _down(self, device: SimDevice, detail: str, forgotten_s: float) -> None:
        self.transport.close(device, None, detail)
        device.reset()
        self.discovery.forget(device, forgotten_s)

    def crash(
        self, device: SimDevice, restart_s: float | None = None, *, reboot: bool = False
    ) -> None:
        """The process dies now. `restart_s` None: it stays down. A reboot moves its clock."""
        if not device.up:
            return
        self.act("crash", device.index)
        self.network.wake(device.index)
        self._down(device, "connection reset", self.options.mdns_ttl_s)
        if reboot:
            device.clock.monotonic_offset_s = device.random.uniform(0.0, 1e3) - self.now
        if restart_s is not None:
            self.start(device, self.now + restart_s)

    def stop(self, device: SimDevice) -> None:
        """A clean end: the node is told and its record is withdrawn."""
        if not device.up:
            return
        self.act("stop", device.index)
        self.deliver(device, Stop())
        self.after(STOP_S, device, lambda: self._down(device, "connection closed", 0.1))

    def restore(self, device: SimDevice, backup: MemoryStore) -> None:
        """Replaces a device's disk by an older copy while it is down."""
        if device.up:
            raise ValueError("a device is restored while it is down")
        self.act("restore", device.index)
        device.store = backup.copy()
        for checker in self.checkers:
            checker.on_restore(device)

    def move(self, device: SimDevice, address: Address) -> None:
        """The device changes networks: a new address, the old one answers nobody."""
        old = device.address
        self._addresses.pop(old, None)
        device.address = address
        self._addresses[address] = device
        self.act("move", device.index, str(address))
        self.transport.close(device, None, "connection reset")
        self.deliver(device, OwnAddresses((address,)))
        self.discovery.withdraw(device, old)
        self.discovery.announce(device)

    def suspend(self, device: SimDevice, seconds: float) -> None:
        """The machine sleeps: nothing in, nothing out, its process stands still, and so does its
        monotonic clock (CLOCK_MONOTONIC does not count a suspend). Its wall clock goes on."""
        if not device.up or device.asleep:
            return
        self.act("sleep", device.index)
        device.asleep = True
        self.network.sleep(device.index)
        self.after(seconds, device, lambda: self._wake(device, seconds))

    def _wake(self, device: SimDevice, slept_s: float) -> None:
        self.act("wake", device.index)
        device.clock.monotonic_offset_s -= slept_s * device.clock.rate
        device.asleep = False
        self.network.wake(device.index)
        self._interpreter.wake(device)
        self.discovery.announce(device)

    def heal(self) -> None:
        """Ends every partition; who meets again is announced again."""
        self.act("heal")
        self.network.heal()
        for device in self.devices:
            if device.up:
                self.discovery.announce(device)

    def introduce(self, device: SimDevice, other: SimDevice) -> None:
        """A static peer in its settings."""
        self.deliver(device, PeerSeen(other.address, Source.STATIC))
