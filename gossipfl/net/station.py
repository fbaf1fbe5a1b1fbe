"""mDNS on one link: our own record, and those of others (RFC 6762, RFC 6763).

A record says that somebody of some fleet is here, and nothing else (RFC 8882): random instance and
host labels, the port, and a tag that only members of the fleet can make or recognise. Whoever
answers at an address proves itself by TLS; a record is a hint.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import secrets
import socket
from collections.abc import Callable

from zeroconf import DNSQuestionType, Error, IPVersion, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from gossipfl.config import DISCOVERY_TYPE
from gossipfl.events import Address
from gossipfl.net.links import (
    ADDRESSES_PER_LINK,
    Link,
    is_believable,
    is_scoped,
    listens,
    plain,
)
from gossipfl.net.traffic import Bucket

log = logging.getLogger(__name__)

LABEL_BYTES = 16  # random, so that two of them never meet and need no probing for conflicts
TAG_BYTES = 8  # protocol
NAMES_MAX = 512  # as Limits.candidates
RESOLVING_MAX = 8  # records that came in pieces, asked for at once
QUEUED_MAX = 256
RESOLVE_MS = 3_000
RESOLVE_TRIES = 5  # guess: where one answer in five is lost, five in a row are one in 3,000
HINTS_PER_S = 50.0  # guess: 50 devices that start at one instant
HINTS_BURST = 200

Changed = Callable[[str, tuple[Address, ...]], None]
"""(instance, its addresses now): an empty tuple when it is gone."""


def tag(key: bytes, instance: str, port: int) -> str:
    """What a record of this fleet carries: a keyed hash of what it says, in hex."""
    message = instance.encode() + port.to_bytes(2, "big")
    return hmac.digest(key, message, hashlib.sha256)[:TAG_BYTES].hex()


class Station:
    """Speaks for `port` on `link` and tells `changed` of others of the same fleet."""

    def __init__(
        self, link: Link, hosts: tuple[str, ...], port: int, key: bytes, changed: Changed
    ) -> None:
        self.link = link
        self._hosts = hosts
        self._port = port
        self._key = key
        self._changed = changed
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._own: AsyncServiceInfo | None = None
        self._names: dict[str, tuple[Address, ...]] = {}  # instance -> what was reported
        self._queue: asyncio.Queue[tuple[str, int]] = asyncio.Queue(QUEUED_MAX)  # name, tries left
        self._resolving: list[asyncio.Task[None]] = []
        self._hints = Bucket(HINTS_PER_S, HINTS_BURST, asyncio.get_running_loop().time())
        self._mine: set[str] = set()

    async def start(self) -> None:
        """Raises OSError or zeroconf's errors if this link cannot do multicast."""
        v4 = [a for a in self.link.addresses if ":" not in a]
        _require_bindable((v4 or self.link.addresses)[0])
        self._zeroconf = AsyncZeroconf(
            interfaces=[v4[0]] if v4 else [self.link.index],
            ip_version=IPVersion.V4Only if v4 else IPVersion.V6Only,
        )
        await self._zeroconf.zeroconf.async_wait_for_start()
        await self._announce()
        # QM: answers by multicast. A unicast answer would reach any one of several daemons here.
        self._browser = AsyncServiceBrowser(
            self._zeroconf.zeroconf,
            DISCOVERY_TYPE,
            handlers=[self._on_change],
            question_type=DNSQuestionType.QM,
        )
        loop = asyncio.get_running_loop()
        self._resolving = [loop.create_task(self._resolve()) for _ in range(RESOLVING_MAX)]

    async def rotate(self) -> None:
        """New labels: who listens over days cannot link them. The old record goes afterwards."""
        old = self._own
        await self._announce()
        if old is not None and self._zeroconf is not None:
            await (await self._zeroconf.async_unregister_service(old))
            self._mine.discard(old.name.removesuffix(f".{DISCOVERY_TYPE}"))

    async def close(self) -> None:
        """Say goodbye and forget everybody."""
        for task in self._resolving:
            task.cancel()
        await asyncio.gather(*self._resolving, return_exceptions=True)
        if self._browser is not None:
            await self._browser.async_cancel()
        if self._zeroconf is not None:
            await self._zeroconf.async_close()
        for instance in list(self._names):
            self._report(instance, ())

    # --- our own record -------------------------------------------------------------------------

    async def _announce(self) -> None:
        if self._zeroconf is None:
            return
        instance, host = secrets.token_hex(LABEL_BYTES), secrets.token_hex(LABEL_BYTES)
        usable = [a for a in self.link.addresses if listens(self._hosts, a)]
        addresses = [a for a in usable if not is_scoped(a)] or [plain(a) for a in usable]
        info = AsyncServiceInfo(
            DISCOVERY_TYPE,
            f"{instance}.{DISCOVERY_TYPE}",
            port=self._port,
            properties={"v": "1", "f": tag(self._key, instance, self._port)},
            server=f"{host}.local.",
            parsed_addresses=addresses,
        )
        self._mine.add(instance)
        self._own = info
        # No probing for conflicts: it costs a second, and 128 random bits are nobody else's.
        await self._zeroconf.async_register_service(info, cooperating_responders=True)

    # --- others' records ------------------------------------------------------------------------

    def _on_change(
        self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange
    ) -> None:
        instance = name.removesuffix(f".{service_type}")
        if instance in self._mine:
            return
        if state_change is ServiceStateChange.Removed:
            self._report(instance, ())
            return
        if instance not in self._names and len(self._names) >= NAMES_MAX:
            return
        info = _info(name)
        if info is None:
            return
        now = asyncio.get_running_loop().time()
        if info.load_from_cache(zeroconf) and self._hints.take(now) == 0.0:
            self._consider(instance, info)
        else:
            self._ask_later(name, RESOLVE_TRIES)

    async def _resolve(self) -> None:
        """Records that came in pieces, or faster than we want to look at them."""
        loop = asyncio.get_running_loop()
        while True:
            name, tries = await self._queue.get()
            if (wait_s := self._hints.take(loop.time())) > 0.0:
                await asyncio.sleep(wait_s)
            info = _info(name)
            if info is None or self._zeroconf is None:
                continue
            engine = self._zeroconf.zeroconf
            if await info.async_request(engine, RESOLVE_MS, DNSQuestionType.QM):
                self._consider(name.removesuffix(f".{DISCOVERY_TYPE}"), info)
            else:
                self._ask_later(name, tries - 1)

    def _ask_later(self, name: str, tries: int) -> None:
        """Behind all others, so that names of nobody hold nobody up. The browser tells of a record
        once: without another try a peer whose answer was lost would stay unknown for an hour."""
        if tries > 0 and not self._queue.full():
            self._queue.put_nowait((name, tries))

    def _consider(self, instance: str, info: AsyncServiceInfo) -> None:
        """Report a complete record if it is of our fleet."""
        properties, port = info.properties, info.port or 0
        found = properties.get(b"f") or b""
        if properties.get(b"v") != b"1" or not 0 < port < 65_536 or len(instance) > 63:
            return
        if not hmac.compare_digest(found, tag(self._key, instance, port).encode()):
            return  # another fleet's, or nobody's
        addresses = [
            Address(f"{host}%{self.link.name}" if is_scoped(host) else host, port)
            for host in info.parsed_addresses()
            if is_believable(host, self.link.is_loopback)
        ]
        if len(self._names) < NAMES_MAX or instance in self._names:
            self._report(instance, tuple(addresses[:ADDRESSES_PER_LINK]))

    def _report(self, instance: str, addresses: tuple[Address, ...]) -> None:
        if addresses == self._names.get(instance, ()):
            return
        if addresses:
            self._names[instance] = addresses
        else:
            del self._names[instance]
        self._changed(instance, addresses)


def _require_bindable(address: str) -> None:
    """Raises OSError where zeroconf would go on without a way to send.

    A new IPv6 address is tentative for a second or two (RFC 4862 5.4) and cannot be used yet.
    """
    for family, kind, protocol, _, where in socket.getaddrinfo(
        address, 0, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST
    ):
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(where)


def _info(name: str) -> AsyncServiceInfo | None:
    """None for a name that is none: anybody on the network may announce what he likes, and an
    error raised in the browser's callback would come again with every packet."""
    try:
        return AsyncServiceInfo(DISCOVERY_TYPE, name)
    except Error:
        return None
