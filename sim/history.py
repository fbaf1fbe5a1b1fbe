"""Plays a plan: faults first, then repair, then everybody must get on.

Safety: the invariants of `checkers` hold all along. Liveness: when the faults have stopped, every
honest device that may sign must soon merge again, as well as its rule promises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from gossipfl.aggregation.rules import fits
from gossipfl.config import PACES, NodeSettings
from gossipfl.events import Address, PolicyReceived, RevocationReceived
from gossipfl.identity import device_name
from gossipfl.memory import MemoryStore, StoreFault
from gossipfl.objects import digest
from gossipfl.rounds import Rounds
from sim.adversaries import Adversary, BitFlipper, Foe, Silent, StaleReplay
from sim.budgets import carried, privacy_of
from sim.checkers import AssumesEnough, BudgetKept, Checker, Pulled, all_checkers
from sim.checkers.learning import ComesTogether
from sim.device import SimDevice
from sim.fleet import Keys
from sim.forks import Fork, OddEven
from sim.network import Link
from sim.options import Options
from sim.plan import (
    ClockJump,
    Crash,
    Disk,
    Fault,
    Move,
    NewRun,
    OneWay,
    Partition,
    Plan,
    Quit,
    Reinstall,
    Restore,
    Revoke,
    Sleep,
    kind_of,
)
from sim.scene import Every, Grouping, Scene, Setup
from sim.slander import Flooder, Forger, Framer, Frozen, NotANumber, Slanderer, Tamperer
from sim.world import PORT

SETTLING_S = 25.0  # the last fault may last 20 s
RECOVERY_S = 120.0  # and after that at most this long until all merge again: breakers, stalls
MERGES = 2  # that each must do then
ABLE_MIN = 4  # honest devices that it takes for every rule to merge
RESTART_S = 1.0
FLOOR_EVEN, FLOOR_SKEWED = 0.8, 0.5
"""Accuracy that every honest base must have in the end, chance being 0.25: 250 seeds had at least
0.95 where data are even (Dirichlet 1 or IID), 0.81 where they are not (0.3)."""
SPREAD_MAX = 0.2  # 250 seeds: at most 0.11 in the end, wherever it did not shrink

LIARS: dict[str, Callable[[int], Adversary]] = {
    "fork": lambda seed: Fork(),
    "odd_even_withheld": lambda seed: OddEven(withhold=True),
    "odd_even": lambda seed: OddEven(withhold=False),
    "foe": lambda seed: Foe(),
    "not_a_number": lambda seed: NotANumber(),
    "silent": lambda seed: Silent(),
    "half_silent": lambda seed: Silent(selective=True),
    "stale_replay": lambda seed: StaleReplay(),
    "bit_flipper": BitFlipper,
    "forger": lambda seed: Forger(),
    "framer": lambda seed: Framer(),
    "slanderer": lambda seed: Slanderer(),
    "flooder": lambda seed: Flooder(),
    "frozen": lambda seed: Frozen(),
    "tamperer": Tamperer,
}


GROUPING = Grouping(size=4, train_s=4, step_s=2, attempts=2)
WINDOWS = 2  # that a history with group sums goes on after its faults
FORKERS = frozenset({"fork", "odd_even", "odd_even_withheld"})


def scene_of(plan: Plan, extra: Sequence[Checker] = ()) -> Scene:
    """The world that a plan describes, before anything happens. `extra` checkers watch too."""
    privacy = privacy_of(plan)
    wire = plan.wire
    link = Link(
        latency_s=wire.latency_s,
        jitter_s=wire.jitter_s,
        loss=wire.loss,
        duplicate=wire.duplicate,
        reorder=wire.reorder,
        bytes_per_s=wire.bytes_per_s,
    )
    options = Options(
        link=link,
        settings=NodeSettings(pace=PACES["demo"]),
        wall_skew_s=plan.wall_skew_s,
        mdns=True,
    )
    setup = Setup(
        devices=plan.devices,
        attackers=len(plan.liars),
        alpha=plan.alpha,
        rule=plan.rule,
        policy={"privacy": privacy} if privacy is not None else {},
        sums=replace(GROUPING, size=plan.sums) if plan.sums else None,
    )
    checkers = all_checkers()
    pulled = next(checker for checker in checkers if isinstance(checker, Pulled))
    watching = [*checkers, AssumesEnough(pulled), *extra]
    if plan.budget:
        watching.append(BudgetKept(plan.budget))
    scene = Scene(plan.seed, setup, options, watching)
    for device, name in zip(scene.devices[plan.honest :], plan.liars, strict=True):
        scene.world.corrupt(device, LIARS[name](plan.seed))
    return scene


class History:
    """One plan being played. `counts` gets how often each kind of fault happened.

    Under a budget nothing is asked of what is learned: noise may drown it.
    """

    def __init__(self, plan: Plan, counts: dict[str, int] | None = None) -> None:
        self.plan = plan
        even = plan.alpha is None or plan.alpha >= 1.0
        self.learning = ComesTogether(FLOOR_EVEN if even else FLOOR_SKEWED, SPREAD_MAX)
        self.scene = scene_of(plan, [self.learning])
        self.counts = counts if counts is not None else {}
        self._runs = 0
        for name in plan.liars:
            self._count(name)

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    # --- faults -----------------------------------------------------------------------------

    def _schedule(self) -> None:
        world = self.scene.world
        for fault in self.plan.faults:
            match fault:
                case Restore():
                    action = self._restoring(fault)
                case Reinstall(copied_at=float(copied_at)):
                    action = self._carrying(fault, copied_at)
                case _:
                    action = self._action(fault)
            world.schedule(fault.at, action)

    def _action(self, fault: Fault) -> Callable[[], None]:
        def run() -> None:
            self._count(kind_of(fault))
            self._strike(fault)

        return run

    def _strike(self, fault: Fault) -> None:
        world, devices = self.scene.world, self.scene.devices
        match fault:
            case Crash():
                world.crash(devices[fault.device], fault.down_s, reboot=fault.reboot)
            case Disk():
                store = devices[fault.device].store
                store.faults = [*([None] * fault.after), StoreFault[fault.how]]
            case Partition():
                rest = [d.index for d in devices if d.index not in fault.group]
                world.network.partition(fault.group, rest)
                world.schedule(world.now + fault.for_s, world.heal)
            case OneWay():
                world.network.block([fault.sender], [fault.receiver])
                world.schedule(world.now + fault.for_s, world.heal)
            case Sleep():
                self._sleep(devices[fault.device], fault.for_s)
            case ClockJump():
                devices[fault.device].clock.wall_offset_s += fault.by_s
            case Reinstall():
                self._reinstall(devices[fault.device], fault.down_s)
            case Move():
                self._move(devices[fault.device], fault.net)
            case Quit():
                world.stop(devices[fault.device])
                world.start(devices[fault.device], world.now + fault.down_s)
            case NewRun():
                self._new_run(devices[fault.told])
            case Revoke():
                told = devices[fault.told]
                data = self.scene.fleet.revoke(devices[fault.device].device, "lost")
                world.deliver(told, RevocationReceived(data))

    def _sleep(self, device: SimDevice, for_s: float) -> None:
        world = self.scene.world
        world.network.sleep(device.index)

        def wake() -> None:
            world.network.wake(device.index)
            world.discovery.announce(device)

        world.schedule(world.now + for_s, wake)

    def _restoring(self, fault: Restore) -> Callable[[], None]:
        """Schedules the copy; returns what puts it back.

        Of a disk with a head on it: who loses that too is a new device and must be enrolled."""
        world, device = self.scene.world, self.scene.devices[fault.device]
        copies: list[tuple[Keys, MemoryStore]] = []

        def copy() -> None:
            if device.store.load().head is not None:
                copies.append((device.keys, device.store.copy()))

        def put_back() -> None:
            if not copies or copies[0][0] is not device.keys:
                return
            self._count(kind_of(fault))
            world.crash(device, reboot=True)
            world.restore(device, copies[0][1])
            world.start(device, world.now + RESTART_S)

        world.schedule(fault.copied_at, copy)
        return put_back

    def _carrying(self, fault: Reinstall, copied_at: float) -> Callable[[], None]:
        """Schedules the copy of the disk; returns what enrols the device again beside it."""
        world, device = self.scene.world, self.scene.devices[fault.device]
        copies: list[MemoryStore] = []
        world.schedule(copied_at, lambda: copies.append(device.store.copy()))

        def enrol() -> None:
            self._count(kind_of(fault))
            self._reinstall(device, fault.down_s, copies[0])

        return enrol

    def _reinstall(self, device: SimDevice, down_s: float, disk: MemoryStore | None = None) -> None:
        """`disk` is what is left of its old one. Its keys may be old too: then an issuer names the
        newest of their line all the same."""
        world = self.scene.world
        world.crash(device, reboot=True)
        device.keys = self.scene.fleet.admit(replaces=device.device)
        world.restore(device, carried(disk))
        world.start(device, world.now + down_s)
        # A person who installs it hands over policy and bundle too.
        world.schedule(world.now + down_s, lambda: self.scene.tell(device))

    def _move(self, device: SimDevice, net: int) -> None:
        world = self.scene.world
        address = Address(f"10.9.{net}.1", PORT)
        if device.up and world.find(address) is None:
            world.move(device, address)

    def _new_run(self, told: SimDevice) -> None:
        scene, setup = self.scene, self.scene.setup
        self._runs += 1
        scene.policy = scene.fleet.policy(
            scene.job,
            n=setup.devices,
            attackers=setup.attackers,
            rule=setup.rule,
            training=setup.training,
            version=1 + self._runs,
            run=self._runs,
            prev=digest(scene.policy),
            **setup.policy,
        )
        scene.world.deliver(told, PolicyReceived(scene.policy))

    # --- the run ----------------------------------------------------------------------------

    def run(self) -> None:
        """Raises WorldError when an invariant breaks or somebody is stuck."""
        scene = self.scene
        world = scene.world
        self._schedule()
        scene.start()
        world.run_for(self.plan.faulty_s + SETTLING_S)
        self._repair()
        if self.plan.sums:  # one group below t may last; what is asked is that nothing leaks
            world.run_for(WINDOWS * GROUPING.window_s)
            world.finish()
            return
        able = self.able()
        goals = [(d, scene.view(d).merges + MERGES) for d in able]
        if self._is_enough(len(able)):
            # A mean stands against nobody.
            if not self.plan.budget and (self.plan.rule != "mean" or not self.plan.liars):
                self.learning.settled(scene, able)
            world.run_until(
                Every(world, lambda: all(scene.view(d).merges >= goal for d, goal in goals)),
                RECOVERY_S,
            )
        world.finish()

    def _is_enough(self, able: int) -> bool:
        """May it be asked that all of them merge? Below a rule's minimum nobody does, by design."""
        if self.plan.budget and able - 1 < Rounds.quorum(self.plan.devices - 1):
            return False  # who has spent its budget is asked too, and has nothing new
        return able >= ABLE_MIN and fits(self.plan.rule, able - 1, len(self.plan.liars))

    def forkers(self) -> tuple[int, int]:
        """Devices that signed two chains and were not revoked, and how many of them every honest
        device that is able has proof against, at the end."""
        scene = self.scene
        liars = zip(scene.devices[self.plan.honest :], self.plan.liars, strict=True)
        forkers = [
            device_name(device.device)
            for device, name in liars
            if name in FORKERS and device.device not in scene.fleet.revoked
        ]
        condemned = [
            {peer.device for peer in scene.view(d).peers if peer.state == "condemned"}
            for d in self.able()
        ]
        return len(forkers), sum(all(name in seen for seen in condemned) for name in forkers)

    def able(self) -> list[SimDevice]:
        """Honest devices from which progress may be asked."""
        scene = self.scene
        return [
            d
            for d in scene.honest()
            if d.up and d.device not in scene.fleet.revoked and not scene.view(d).listen_only
        ]

    def _repair(self) -> None:
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
