"""What mDNS would tell: who sees whom, when, and when a silent device is forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gossipfl.events import Address, PeerGone, PeerSeen, Source
from sim.device import SimDevice

if TYPE_CHECKING:
    from sim.world import World


class Discovery:
    def __init__(self, world: World) -> None:
        self._world = world

    def _others(self, device: SimDevice) -> list[SimDevice]:
        world = self._world
        return [
            other
            for other in world.devices
            if other is not device
            and other.up
            and world.network.reaches(device.index, other.index)
            and world.network.same_site(device.index, other.index)
        ]

    def announce(self, device: SimDevice) -> None:
        """It is seen by, and sees, all that it reaches, each after a delay of its own."""
        if not self._world.options.mdns:
            return
        for other in self._others(device):
            self._see(device, other)
            self._see(other, device)

    def _see(self, device: SimDevice, other: SimDevice) -> None:
        world = self._world
        delay = world.random.uniform(0.05, world.options.mdns_delay_s)

        def see() -> None:
            if other.up and world.network.reaches(device.index, other.index):
                world.deliver(device, PeerSeen(other.address, Source.MDNS))

        world.after(delay, device, see)

    def forget(self, device: SimDevice, delay: float) -> None:
        """After `delay`, whoever still runs loses the record, if it is still down."""
        world = self._world
        if not world.options.mdns:
            return
        incarnation, address = device.incarnation, device.address

        def gone() -> None:
            if device.incarnation == incarnation and not device.up:
                self.withdraw(device, address)

        world.schedule(world.now + delay, gone)

    def withdraw(self, device: SimDevice, address: Address) -> None:
        for other in self._others(device):
            self._world.deliver(other, PeerGone(address))
