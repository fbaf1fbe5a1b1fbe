"""Puts the timeline of a scenario into the world's schedule."""

from __future__ import annotations

import random

from gossipfl.events import Address
from sim.device import SimDevice
from sim.scenarios.cast import Cast, chosen, link
from sim.scenarios.schema import (
    ClockJump,
    Crash,
    Duration,
    Fault,
    Heal,
    Join,
    Leave,
    Move,
    Partition,
    Sleep,
)
from sim.world import PORT

FIRST_MOVED_NET = 64  # 10.64.0.0 and up: no device begins there


class Timeline:
    def __init__(self, cast: Cast) -> None:
        self._cast = cast
        self._world = cast.scene.world
        self._draw = random.Random(f"timeline {cast.seed}")
        self._moves = 0
        self.happened: dict[str, int] = {}

    def schedule(self, ends: float) -> None:
        """Everything until virtual second `ends`."""
        for fault in self._cast.scenario.timeline:
            if isinstance(fault, Join):
                self._join(fault)
                continue
            last = min(fault.until or ends, ends)
            self._plan(fault, fault.at, last)

    def _plan(self, fault: Fault, when: float, last: float) -> None:
        if when > last:
            return

        def run() -> None:
            self._happen(fault)
            if fault.every:
                self._plan(fault, when + fault.every, last)

        self._world.schedule(when, run)

    def _join(self, fault: Join) -> None:
        for index in self._cast.absent:
            device = self._cast.scene.devices[index]
            self._world.schedule(fault.at, lambda device=device: self._boot(device))  # type: ignore[misc]

    def _boot(self, device: SimDevice) -> None:
        self._count("join")
        self._world.start(device)

    def _count(self, what: str) -> None:
        self.happened[what] = self.happened.get(what, 0) + 1

    def _victims(self, fault: Fault) -> list[SimDevice]:
        """Among those that are up and awake."""
        devices = self._cast.scene.devices
        able = [d.index for d in devices if d.up and not d.asleep]
        return [devices[index] for index in chosen(fault, able, self._draw)]

    def _time(self, lasts: Duration) -> float:
        if isinstance(lasts, list):
            return self._draw.uniform(*sorted(lasts))
        return lasts

    def _happen(self, fault: Fault) -> None:
        if isinstance(fault, Heal):
            self._count("heal")
            self._world.heal()
            return
        victims = self._victims(fault)
        if isinstance(fault, Partition):
            self._part(fault, victims)
            return
        for device in victims:
            match fault:
                case Crash():
                    self._count("crash")
                    self._world.crash(device, self._time(fault.lasts), reboot=fault.reboot)
                case Leave():
                    self._leave(device, self._time(fault.lasts))
                case Sleep():
                    self._count("sleep")
                    self._world.suspend(device, self._time(fault.lasts))
                case ClockJump():
                    self._count("clock jump")
                    self._world.act("clock", device.index, fault.by)
                    device.clock.wall_offset_s += fault.by
                case Move():
                    self._move(fault, device)

    def _leave(self, device: SimDevice, lasts: float) -> None:
        self._count("leave")
        self._world.stop(device)
        if lasts:
            self._world.start(device, self._world.now + max(lasts, 1.0))

    def _part(self, fault: Partition, victims: list[SimDevice]) -> None:
        self._count("partition")
        inside = [d.index for d in victims]
        outside = [d.index for d in self._cast.scene.devices if d.index not in inside]
        self._world.act("partition", *inside)
        self._world.network.partition(inside, outside)
        lasts = self._time(fault.lasts)
        if lasts:
            self._world.schedule(self._world.now + lasts, self._world.heal)

    def _move(self, fault: Move, device: SimDevice) -> None:
        self._count("move")
        self._moves += 1
        if fault.site:
            between = link(self._cast.scenario.network.between)
            self._world.network.place(device.index, fault.site, between)
            self._cast.site_of[device.index] = fault.site
        net, host = divmod(self._moves, 250)
        self._world.move(device, Address(f"10.{FIRST_MOVED_NET + net}.0.{host + 1}", PORT))
