"""The hub's own node: it listens to the fleet, trains nothing, and relays what it holds.

The same node, driver, peer server and client as a device's agent. So the hub verifies as devices
do, is found as they are, and serves heads and objects on the two routes that they pull from.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from gossipfl.config import PACES, Limits, NodeSettings
from gossipfl.errors import LocalError
from gossipfl.events import (
    Address,
    Effect,
    Event,
    Notice,
    OwnAddresses,
    PeerSeen,
    ResourcesChanged,
    Source,
)
from gossipfl.fleet.stored import DeviceIdentity
from gossipfl.hub.database import DatabaseError
from gossipfl.hub.fleet.store import NodeStore
from gossipfl.hub.settings import HubSettings
from gossipfl.net.client import Client
from gossipfl.net.driver import Driver
from gossipfl.net.ports import Hooks, Ports
from gossipfl.net.server import Server
from gossipfl.net.tls import TlsFiles, client_context, server_context
from gossipfl.net.traffic import Traffic
from gossipfl.node import Identity, Node

log = logging.getLogger(__name__)

FIRST_START = "first-start"  # as in a device's folder: its keys have signed no head yet
POLL_PEERS = 16
"""Devices asked for their heads at each poll: guess; a fleet of 64 is seen every fourth poll, and
answers are mostly "not modified"."""


class FleetStation:
    """One life of the node: made, run and thrown away by the process that holds the lease."""

    def __init__(
        self,
        settings: HubSettings,
        identity: DeviceIdentity,
        store: NodeStore,
        notice: Callable[[Notice], None],
        limits: Limits,
    ) -> None:
        self._settings = settings
        self._store = store
        self._notice = notice
        self.limits = limits
        self.traffic = Traffic()
        self._first = settings.hub.state / FIRST_START
        pace = PACES[settings.pace.preset]
        self.node = Node(
            Identity(identity.signer, identity.member_object, identity.root_key),
            NodeSettings(
                pace=replace(pace, poll_peers=POLL_PEERS),
                limits=limits,
                capability="hub",
                trains=False,
                first_start=self._first.exists(),
            ),
            secrets.randbits(64),
        )
        files = TlsFiles(identity.root_certificate, identity.tls_chain, identity.tls_key)
        self.client = Client(client_context(files), limits, self.traffic)
        self._server = Server(
            self.node.shelf,
            self._load,
            server_context(files),
            self.node.refused,
            limits,
            self.traffic,
        )
        self._discovery_key = identity.discovery_key
        self._driver = Driver(self.node, self._ports(), self._hooks())
        self.addresses: list[Address] = []
        self.turned_at = time.monotonic()
        """When the node's loop was last seen to go on."""
        self._fixed = False

    async def run(self) -> None:
        """Until cancelled. Raises UserError GF302 if it cannot listen, and what ends the node."""
        async with AsyncExitStack() as parts:
            parts.push_async_callback(self._server.close)
            network = self._settings.network
            hosts = [host for host in network.hosts if host != "::" or _has_ipv6()]
            port = self._server.start(hosts, network.port)
            self.client.start()
            parts.push_async_callback(self.client.close)
            self.addresses = [parse(text) for text in network.advertise] or [
                Address(host, port) for host in hosts if host not in ("0.0.0.0", "::")
            ]
            self._fixed = bool(self.addresses)
            self._open_discovery(parts, hosts, port)
            self._tell()
            log.info("the hub listens to the fleet on port %d", port)
            parts.push_async_callback(self._driver.stop)
            await self._driver.run()

    def give(self, event: Event) -> bool:
        """A policy, a revocation or a bundle from the hub's own API: see `Driver.offer`."""
        return self._driver.offer(event)

    def _ports(self) -> Ports:
        return Ports(
            fetcher=self.client,
            store=self._store,
            load_job=_no_job,
            notice=self._notice,
            cut_off=self._server.cut_off,
            head_changed=self._head_changed,
        )

    def _hooks(self) -> Hooks:
        return Hooks(on_effect=self._on_effect, on_turn=self._turned, on_wait=self._turned)

    def _turned(self) -> None:
        self.turned_at = time.monotonic()

    def _on_effect(self, effect: Effect) -> None:
        if isinstance(effect, Notice):
            log.log(logging.WARNING if effect.warning else logging.INFO, "%s", effect.text)

    def _head_changed(self) -> None:
        self._server.head_changed()
        if self._first.exists():
            self._first.unlink(missing_ok=True)

    def _open_discovery(self, parts: AsyncExitStack, hosts: list[str], port: int) -> None:
        settings = self._settings.discovery
        if self._fixed and not settings.enabled:
            return
        from gossipfl.net.discovery import Discovery  # brings zeroconf

        discovery = Discovery(
            self._discovery_key,
            port,
            self._found,
            interfaces=settings.interfaces,
            hosts=hosts,
            mdns=settings.enabled,
        )
        discovery.start()
        parts.push_async_callback(discovery.close)

    def _found(self, event: Event) -> None:
        if isinstance(event, OwnAddresses):
            if self._fixed:
                return
            self.addresses = list(event.addresses)
        self._driver.offer(event)

    def _tell(self) -> None:
        events: list[Event] = [ResourcesChanged(False, "a hub trains nothing")]
        if self._fixed:
            events.append(OwnAddresses(tuple(self.addresses)))
        events += [PeerSeen(parse(t), Source.STATIC) for t in self._settings.network.peers]
        for event in events:
            self._driver.offer(event)

    async def _load(self, digest: bytes) -> bytes | None:
        try:
            return await self._store.object(digest)
        except DatabaseError as error:
            log.warning("an object cannot be served: %s", error)
            return None


def _no_job(_: bytes, __: bytes) -> NoReturn:
    raise LocalError("a hub's node asks for no trainer")


def parse(text: str) -> Address:
    """`host:port` or `[IPv6]:port`, checked by the settings already."""
    host, _, port = text.rpartition(":")
    return Address(host.strip("[]"), int(port))


def _has_ipv6() -> bool:
    return Path("/proc/net/if_inet6").exists()
