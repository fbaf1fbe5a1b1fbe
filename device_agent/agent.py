"""The composition root of a device: everything is made here, started, watched and stopped in order.

Nothing else builds parts of the agent, so this file is also the map of the process: one node, its
driver, the peer server and client, discovery, the store, the trainer, the local socket.
"""

from __future__ import annotations

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before anything can import onnxruntime

import asyncio
import logging
import secrets
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Any

from device_agent import logs, status
from device_agent.health import HealthServer
from device_agent.job import JobLoader
from device_agent.local_server import LocalServer
from device_agent.notify import Notifier
from device_agent.progress import Progress, seconds_since_start
from device_agent.reach import listening_hosts, own_addresses, parse
from device_agent.settings import Settings
from device_agent.store import DeviceStore
from device_agent.verbs import read_bounded, verbs
from gossipfl.config import PACES, Limits, NodeSettings
from gossipfl.errors import Exit, StoreError, UserError
from gossipfl.events import (
    Address,
    BundleGiven,
    Effect,
    Event,
    Notice,
    OwnAddresses,
    PeerSeen,
    PolicyReceived,
    ResourcesChanged,
    Source,
    Start,
    Stored,
    StoreFailed,
    Topic,
)
from gossipfl.fleet.device import DeviceIdentity, load_identity
from gossipfl.identity import short_name
from gossipfl.interfaces import Trainer
from gossipfl.net.client import Client
from gossipfl.net.driver import Driver
from gossipfl.net.ports import Hooks, Ports
from gossipfl.net.server import Server
from gossipfl.net.tls import TlsFiles, client_context, server_context
from gossipfl.net.traffic import Traffic
from gossipfl.net.worker import ThreadWorker
from gossipfl.node import Identity, Node

DATA_LOOK_S = 10.0  # guess: a device without examples looks for its first ones this often
HAND_S = 5.0  # how long a local request waits for the node to have handled it

log = logging.getLogger(__name__)
Wrap = Callable[[Trainer], Trainer]


def run(settings: Settings, wrap: Wrap | None = None) -> int:
    """The agent until SIGTERM or SIGINT: an exit code. Raises UserError if it cannot start.

    `wrap` goes around the trainer, for another kind of learner.
    """
    logs.set_up(settings.logging.level, settings.logging.format)
    try:
        return asyncio.run(Agent(settings, wrap).run())
    except UserError:
        raise
    except StoreError as error:
        raise UserError("GF504", f"{settings.device.state}: {error}") from error
    finally:
        logging.shutdown()


class Agent:
    """One device's service. Made anew for each start of the process."""

    def __init__(self, settings: Settings, wrap: Wrap | None = None) -> None:
        self._settings = settings
        self._identity = load_identity(settings.device.state)
        self._store = DeviceStore(settings.device.state)
        self._limits = Limits()
        self._traffic = Traffic()
        self._progress = Progress()
        self._notifier = Notifier()
        self._heavy = ThreadWorker("gossipfl-work")
        self._reader = ThreadWorker("gossipfl-read")
        self._loader = JobLoader(settings, self._identity.root_key, self._progress, wrap)
        self.node = _node(settings, self._identity)
        self.device: bytes = self._identity.signer.device
        files = _tls_files(self._identity)
        self._client = Client(client_context(files), self._limits, self._traffic)
        self._server = Server(
            self.node.shelf,
            self._load_object,
            server_context(files),
            self.node.refused,
            self._limits,
            self._traffic,
        )
        self._driver = Driver(
            self.node, self._ports(), Hooks(self._event, self._effect, self._turn)
        )
        self._local = LocalServer(settings.socket, verbs(self))
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handed: dict[int, tuple[asyncio.Future[None], list[tuple[str, bool]]]] = {}
        self._current: Event | None = None
        self._fed_at = 0.0
        self._store_problem = ""
        self._addresses: list[Address] = []

    async def run(self) -> int:
        """Start, live, stop: an exit code."""
        self._loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop.set)
        async with AsyncExitStack() as parts:
            parts.callback(self._store.close)
            await parts.enter_async_context(self._served())
            self._tell_the_node()
            driver = self._loop.create_task(self._driver.run())
            data = self._loop.create_task(self._watch_data())
            stopping = self._loop.create_task(self._stop.wait())
            try:
                await asyncio.wait({driver, stopping}, return_when=asyncio.FIRST_COMPLETED)
                self._notifier.stopping()
                log.info("stopping")
            finally:
                data.cancel()
                stopping.cancel()
                await self._driver.stop()
                await self._reader.close(1.0)
            return _exit_code(driver)

    # --- parts ----------------------------------------------------------------------------------

    def _ports(self) -> Ports:
        return Ports(
            fetcher=self._client,
            store=self._store,
            load_job=self._load_job,
            notice=_log_notice,
            cut_off=self._server.cut_off,
            head_changed=self._server.head_changed,
            heavy=self._heavy,
        )

    @asynccontextmanager
    async def _served(self) -> AsyncIterator[None]:
        """Both doors open: peers' and the local one."""
        network = self._settings.network
        hosts = listening_hosts(network.hosts)
        health = HealthServer(self._settings.local.health_port, self.status)
        async with AsyncExitStack() as parts:
            parts.push_async_callback(self._server.close)
            port = self._server.start(hosts, network.port)
            self._addresses = own_addresses(hosts, port, network.advertise)
            self._client.start()
            parts.push_async_callback(self._client.close)
            await self._local.start()
            parts.push_async_callback(self._local.close)
            await health.start()
            parts.push_async_callback(health.close)
            log.info(
                "device %s listens on port %d, reachable at %s",
                short_name(self.device),
                port,
                ", ".join(map(str, self._addresses)),
            )
            yield

    def _tell_the_node(self) -> None:
        """What the settings know: it waits in the inbox behind Start. UserError GF403."""
        settings = self._settings
        events: list[Event] = [OwnAddresses(tuple(self._addresses))]
        events += [PeerSeen(parse(text), Source.STATIC) for text in settings.network.peers]
        if not settings.data.source:
            events.append(ResourcesChanged(False, "no data: set data.source"))
        if settings.job.bundle is not None:
            events.append(BundleGiven(read_bounded(settings.job.bundle)))
        if settings.job.policy is not None:
            policy = read_bounded(settings.job.policy, self._limits.entry_bytes)
            events.append(PolicyReceived(policy))
        for event in events:
            self._driver.offer(event)

    # --- what the driver asks for ---------------------------------------------------------------

    def _load_job(self, bundle_id: bytes, data: bytes) -> Trainer:
        """In the heavy thread. Whether there are examples is told before the job is ready."""
        trainer = self._loader.load(bundle_id, data)
        local = self._loader.local
        if local is not None and self._loop is not None:
            ready = ResourcesChanged(local.is_ready, local.problem)
            self._loop.call_soon_threadsafe(self._driver.offer, ready)
        return trainer

    async def _load_object(self, digest: bytes) -> bytes | None:
        """For the server: from the disk, off the loop."""
        try:
            return await self._reader.call(partial(self._store.get, digest))
        except StoreError as error:
            log.warning("an object cannot be served: %s", error)
            return None

    async def _watch_data(self) -> None:
        """A device whose data are missing at start begins to train when they come."""
        while True:
            await asyncio.sleep(DATA_LOOK_S)
            local = self._loader.local
            if local is not None and not local.is_ready:
                await self._heavy.call(local.refresh)
                if local.is_ready:
                    await self._driver.submit(ResourcesChanged(True))

    # --- hooks ----------------------------------------------------------------------------------

    def _event(self, event: Event) -> None:
        self._current = event
        match event:
            case Start():
                self._progress.ready()
                self._notifier.ready(f"device {short_name(self.device)}")
            case StoreFailed(_, reason):
                self._store_problem = reason
            case Stored():
                self._store_problem = ""

    def _effect(self, effect: Effect) -> None:
        if not isinstance(effect, Notice):
            return
        if effect.topic is Topic.MERGE:
            self._progress.merged()
            self._notifier.status(effect.text)
        handed = self._handed.get(id(self._current))
        if handed is not None:
            handed[1].append((effect.text, effect.topic is Topic.REFUSED))

    def _turn(self) -> None:
        handed = self._handed.get(id(self._current))
        if handed is not None and not handed[0].done():
            handed[0].set_result(None)
        self._current = None
        watchdog_s = self._notifier.watchdog_s
        if watchdog_s is not None and seconds_since_start() - self._fed_at > watchdog_s / 4:
            self._fed_at = seconds_since_start()
            self._notifier.alive()

    # --- for the local socket -------------------------------------------------------------------

    async def hand(self, event: Event) -> list[tuple[str, bool]]:
        """See `verbs.House`."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        said: list[tuple[str, bool]] = []
        self._handed[id(event)] = (future, said)  # `event` is alive until it is handled: we hold it
        try:
            await self._driver.submit(event)
            with suppress(TimeoutError):
                async with asyncio.timeout(HAND_S):
                    await future
            return said
        finally:
            del self._handed[id(event)]

    async def bundle(self) -> bytes | None:
        digest = self._loader.bundle_object
        if digest is None:
            return None
        return self.node.shelf.object(digest) or await self._load_object(digest)

    def status(self) -> dict[str, Any]:
        more = {
            "addresses": [str(address) for address in self._addresses],
            "pace": self._settings.pace.preset,
            "state_folder": str(self._settings.device.state),
            "pid": os.getpid(),
            "store_problem": self._store_problem,
        }
        traffic = dict(self._traffic.items())
        return status.build(self.node.view(), traffic, self._progress, self._loader.local, more)


def _node(settings: Settings, identity: DeviceIdentity) -> Node:
    node_settings = NodeSettings(
        pace=PACES[settings.pace.preset], capability=settings.device.capability
    )
    own = Identity(identity.signer, identity.member_object, identity.root_key)
    return Node(own, node_settings, secrets.randbits(64))


def _tls_files(identity: DeviceIdentity) -> TlsFiles:
    return TlsFiles(identity.root_certificate, identity.tls_chain, identity.tls_key)


def _log_notice(notice: Notice) -> None:
    log.log(logging.WARNING if notice.warning else logging.INFO, "%s", notice.text)


def _exit_code(driver: asyncio.Task[None]) -> int:
    error = driver.exception()
    if error is None:
        return int(Exit.OK)
    if isinstance(error, (UserError, StoreError)):
        raise error
    log.error("the agent ends because of a bug", exc_info=error)
    return int(Exit.BUG)
