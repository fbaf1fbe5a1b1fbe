"""Finding peers on the networks that this machine is in, and saying where it can be found itself.

One mDNS station per link; a link that fails is tried again and harms no other. What is found is
reported as hints (`PeerSeen`, `PeerGone`), and `OwnAddresses` whenever the machine's own change.
mDNS is never the only way: routers drop multicast, so static peers and gossiped address records
stand beside it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress

import zeroconf

from gossipfl.events import Address, Event, OwnAddresses, PeerGone, PeerSeen, Source
from gossipfl.net.links import Link, choose, own_addresses
from gossipfl.net.station import Station

log = logging.getLogger(__name__)

EVERYWHERE = ("0.0.0.0", "::")
SLOW_START_S = 1.0  # guess: a fleet that gets power at one instant, thrice the time of an answer
RESCAN_S = 10.0  # how soon a moved device has new addresses: guess
RETRY_S = 2.0  # a new IPv6 address is usable after about this long
ROTATE_S = 86_400.0  # protocol: labels change daily
ROTATE_JITTER = 0.1

Report = Callable[[Event], object]


class Discovery:
    """Looks and speaks for a server on `hosts` and `port`. Everything runs in one loop.

    `interfaces` are names or addresses; empty: those with the default route. `slow_start_s`
    spreads the starts of many devices that get power at one instant. With `mdns` off only
    `OwnAddresses` is reported: `advertise` where it is given, else those of the interfaces.
    """

    def __init__(
        self,
        key: bytes,
        port: int,
        report: Report,
        *,
        interfaces: Sequence[str] = (),
        hosts: Sequence[str] = EVERYWHERE,
        advertise: Sequence[Address] = (),
        slow_start_s: float = SLOW_START_S,
        rotate_s: float = ROTATE_S,
        mdns: bool = True,
    ) -> None:
        self._key = key
        self._port = port
        self._report = report
        self._interfaces = tuple(interfaces)
        self._hosts = tuple(hosts)
        self._advertise = tuple(advertise)
        self._slow_start_s = slow_start_s
        self._rotate_s = rotate_s
        self._mdns = mdns
        self._chance = random.SystemRandom()
        self._stations: dict[str, Station] = {}
        self._seen: Counter[Address] = Counter()  # by how many records
        self._by_record: dict[tuple[str, str], tuple[Address, ...]] = {}
        self._own: tuple[Address, ...] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.failures: dict[str, str] = {}  # link -> why it has no mDNS now, for `doctor`

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._watch()), loop.create_task(self._rotate())]

    async def close(self) -> None:
        """Say goodbye on every link. Those who were seen are reported gone."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(self._drop(name) for name in list(self._stations)))

    @property
    def own(self) -> tuple[Address, ...]:
        """Where this machine can be reached, as last reported."""
        return self._own or ()

    # --- links ----------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Follow the machine through networks: addresses change, cables are pulled."""
        started = False
        while True:
            links = self._chosen()
            own = self._advertise or own_addresses(links, self._hosts, self._port)
            if own != self._own:
                self._own = own
                self._report(OwnAddresses(own))
            if self._mdns:
                if not started:
                    await asyncio.sleep(self._chance.uniform(0.0, self._slow_start_s))
                    started = True
                await self._reconcile({link.name: link for link in links})
            await asyncio.sleep(RETRY_S if self.failures else RESCAN_S)

    def _chosen(self) -> list[Link]:
        try:
            return choose(self._interfaces)
        except OSError as error:
            log.warning("cannot list interfaces: %s", error)
            return []

    async def _reconcile(self, links: dict[str, Link]) -> None:
        for name, station in list(self._stations.items()):
            if links.get(name) != station.link:
                await self._drop(name)
        self.failures = {name: why for name, why in self.failures.items() if name in links}
        for name, link in links.items():
            if name not in self._stations:
                await self._add(link)

    async def _add(self, link: Link) -> None:
        """A link that cannot do it is left out until the next look at the interfaces."""

        def changed(instance: str, addresses: tuple[Address, ...]) -> None:
            self._on_record((link.name, instance), addresses)

        station = Station(link, self._hosts, self._port, self._key, changed)
        try:
            await station.start()
        except (OSError, RuntimeError, zeroconf.Error) as error:
            if self.failures.get(link.name) != str(error):
                log.warning("no mDNS on %s: %s", link.name, error)
            self.failures[link.name] = str(error)
            await self._close(station)
        else:
            self.failures.pop(link.name, None)
            self._stations[link.name] = station

    async def _drop(self, name: str) -> None:
        await self._close(self._stations.pop(name))

    async def _close(self, station: Station) -> None:
        with suppress(OSError, RuntimeError, zeroconf.Error):  # the link may be gone already
            await station.close()

    async def _rotate(self) -> None:
        while True:
            spread = self._chance.uniform(1.0 - ROTATE_JITTER, 1.0 + ROTATE_JITTER)
            await asyncio.sleep(self._rotate_s * spread)
            for station in list(self._stations.values()):
                with suppress(OSError, RuntimeError, zeroconf.Error):
                    await station.rotate()

    # --- records --------------------------------------------------------------------------------

    def _on_record(self, record: tuple[str, str], addresses: tuple[Address, ...]) -> None:
        """An address is gone when no record names it any more, so a rotation is no departure."""
        before = self._by_record.pop(record, ())
        if addresses:
            self._by_record[record] = addresses
        for address in addresses:
            self._seen[address] += 1
            if self._seen[address] == 1 and address not in self.own:
                self._report(PeerSeen(address, Source.MDNS))
        for address in before:
            self._seen[address] -= 1
            if not self._seen[address]:
                del self._seen[address]
                self._report(PeerGone(address))
