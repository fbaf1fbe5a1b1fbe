"""Random histories: every seed draws a fleet, a network, liars and a schedule of faults.

Safety first: the invariants of `checkers` hold all along. Then liveness: when the faults stop,
every honest device must soon finish rounds again. A seed that fails prints itself.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from gossipfl.config import PACES, NodeSettings
from gossipfl.events import Address
from gossipfl.memory import MemoryStore, StoreFault
from sim.adversaries import (
    Adversary,
    BitFlipper,
    Foe,
    NotANumber,
    Silent,
    StaleReplay,
)
from sim.device import SimDevice
from sim.forks import Fork, OddEven
from sim.network import Link
from sim.options import Options
from sim.scene import Every, Scene, Setup
from sim.world import PORT, WorldError

FAULTY_S = 45.0  # virtual seconds with faults: 15 demo rounds
RECOVERY_S = 120.0  # and after them at most this long until all merge again: breakers, stalls

LIARS: tuple[Callable[[int], Adversary], ...] = (
    lambda seed: Fork(),
    lambda seed: OddEven(withhold=True),
    lambda seed: OddEven(withhold=False),
    lambda seed: Foe(),
    lambda seed: NotANumber(),
    lambda seed: Silent(),
    lambda seed: Silent(selective=True),
    lambda seed: StaleReplay(),
    BitFlipper,
)


@dataclass(slots=True)
class Failure:
    seed: int
    cause: str
    report: str  # with options and the tail of the trace


@dataclass(slots=True)
class Summary:
    first_seed: int
    seeds: int = 0
    virtual_s: float = 0.0
    device_rounds: int = 0
    entries: int = 0  # events and effects
    faults: dict[str, int] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)


class History:
    """One seed's plan: what goes wrong when. Draws only from its own generator."""

    def __init__(self, seed: int, faults: dict[str, int]) -> None:
        self._random = random.Random(f"soak {seed}")
        self._faults = faults
        draw = self._random
        devices = draw.randint(4, 9)
        liars = draw.choice((0, 0, 1, 1, 2)) if devices >= 7 else draw.choice((0, 0, 1))
        setup = Setup(
            devices=devices,
            attackers=liars,
            alpha=draw.choice((None, 1.0, 0.3)),
            rule=draw.choice(("nna", "nna", "median", "trimmed_mean", "mean")),
        )
        self.scene = Scene(seed, setup, self._options())
        self.backups: list[tuple[SimDevice, MemoryStore]] = []
        for device in self.scene.devices[devices - liars :]:
            liar = draw.choice(LIARS)(seed)
            self._count(type(liar).__name__)
            self.scene.world.corrupt(device, liar)

    def _options(self) -> Options:
        draw = self._random
        lossy = draw.random() < 0.5
        link = Link(
            latency_s=draw.choice((0.001, 0.005, 0.05)),
            jitter_s=draw.choice((0.001, 0.02, 0.2)),
            loss=draw.uniform(0.0, 0.2) if lossy else 0.0,
            duplicate=draw.choice((0.0, 0.05)),
            reorder=draw.choice((0.0, 0.05)),
            bytes_per_s=draw.choice((12_500_000.0, 125_000.0)),
        )
        return Options(
            link=link,
            settings=NodeSettings(pace=PACES["demo"]),
            wall_skew_s=draw.choice((1.0, 300.0)),
            mdns=True,
        )

    def _count(self, what: str) -> None:
        self._faults[what] = self._faults.get(what, 0) + 1

    # --- faults -----------------------------------------------------------------------------

    def plan(self) -> None:
        """Puts a dozen faults into the schedule, a few of each kind."""
        kinds: list[Callable[[], None]] = [
            self._crash,
            self._crash,
            self._store_fault,
            self._store_fault,
            self._partition,
            self._one_way,
            self._sleep,
            self._clock_jump,
            self._backup,
            self._restore,
            self._move,
            self._stop,
        ]
        for _ in range(self._random.randint(0, 12)):
            self._at(self._random.uniform(2.0, FAULTY_S), self._random.choice(kinds))

    def _at(self, when: float, fault: Callable[[], None]) -> None:
        def run() -> None:
            self._count(fault.__name__.strip("_"))
            fault()

        self.scene.world.schedule(when, run)

    def _honest(self) -> SimDevice:
        return self._random.choice([d for d in self.scene.devices if d.honest])

    def _crash(self) -> None:
        draw = self._random
        world = self.scene.world
        world.crash(self._honest(), draw.uniform(0.2, 8.0), reboot=draw.random() < 0.5)

    def _store_fault(self) -> None:
        draw = self._random
        faults = [None] * draw.randint(0, 3) + [draw.choice(list(StoreFault))]
        self._honest().store.faults = [*faults]

    def _partition(self) -> None:
        world = self.scene.world
        indices = [d.index for d in self.scene.devices]
        self._random.shuffle(indices)
        cut = self._random.randint(1, len(indices) - 1)
        world.network.partition(indices[:cut], indices[cut:])
        world.schedule(world.now + self._random.uniform(2.0, 20.0), world.heal)

    def _one_way(self) -> None:
        world = self.scene.world
        world.network.block([self._honest().index], [self._honest().index])
        world.schedule(world.now + self._random.uniform(2.0, 20.0), world.heal)

    def _sleep(self) -> None:
        world, device = self.scene.world, self._honest()
        world.network.sleep(device.index)

        def wake() -> None:
            world.network.wake(device.index)
            world.discovery.announce(device)

        world.schedule(world.now + self._random.uniform(2.0, 20.0), wake)

    def _clock_jump(self) -> None:
        ten_years = 315_576_000.0
        jump = self._random.choice((-3_600.0, 3_600.0, ten_years, -ten_years))
        self._honest().clock.wall_offset_s += jump

    def _backup(self) -> None:
        """Of a disk with a head on it: who loses that too is a new device and must be enrolled."""
        device = self._honest()
        if device.store.load().head is None:
            return
        self.backups.append((device, device.store.copy()))

    def _restore(self) -> None:
        if not self.backups:
            return
        world = self.scene.world
        device, backup = self._random.choice(self.backups)
        world.crash(device, reboot=True)
        if not device.up:
            world.restore(device, backup)
            world.start(device, world.now + 1.0)

    def _move(self) -> None:
        device = self._honest()
        if device.up:
            self.scene.world.move(device, Address(f"10.9.{self._random.randint(0, 255)}.1", PORT))

    def _stop(self) -> None:
        world, device = self.scene.world, self._honest()
        world.stop(device)
        world.start(device, world.now + self._random.uniform(0.5, 10.0))

    # --- the run ----------------------------------------------------------------------------

    def run(self) -> None:
        scene = self.scene
        world = scene.world
        self.plan()
        scene.start()
        world.run_for(FAULTY_S + 25.0)
        self._settle()
        honest = scene.honest()
        able = [d for d in honest if d.up and not scene.view(d).listen_only]
        goals = [(d, scene.view(d).merges + 2) for d in able]
        if self.may_all_merge():
            world.run_until(
                Every(world, lambda: all(scene.view(d).merges >= goal for d, goal in goals)),
                RECOVERY_S,
            )
        world.finish()

    def _settle(self) -> None:
        """No more faults: links are good, disks work, everybody is up and told again."""
        scene = self.scene
        world = scene.world
        world.network.change_all(loss=0.0, duplicate=0.0, reorder=0.0)
        world.heal()
        for device in scene.devices:
            device.store.faults = []
            world.network.wake(device.index)
            world.start(device)
            scene.tell(device)
        world.run_for(2.0)

    def may_all_merge(self) -> bool:
        """A liar's share above what the rule can take is no failure of liveness."""
        liars = sum(not d.honest for d in self.scene.devices)
        return len(self.scene.devices) - liars >= 4


def soak(seeds: int, first_seed: int = 1, enough: Callable[[], bool] = lambda: False) -> Summary:
    """Plays up to `seeds` histories from `first_seed` on, about a second each, and none any more
    once `enough` says so."""
    summary = Summary(first_seed)
    for seed in range(first_seed, first_seed + seeds):
        if enough():
            break
        history = History(seed, summary.faults)
        try:
            history.run()
        except WorldError as error:
            summary.failures.append(Failure(seed, error.cause, str(error)))
        summary.seeds += 1
        summary.virtual_s += history.scene.world.now
        summary.device_rounds += history.scene.tally.ended
        summary.entries += history.scene.world.trace.entries
    return summary
