"""The composition root of a device: everything is made here, started, watched and stopped in order.

Nothing else builds parts of the agent, so this file is also the map of the process: one node, its
driver, the peer server and client, discovery, the store, the trainer, the local socket.
"""

from __future__ import annotations

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before anything can import onnxruntime

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from device_agent import logs, memory, status
from device_agent.first_head import FirstHeadStore
from device_agent.job import JobLoader
from device_agent.local_server import LocalServer
from device_agent.onlooker import Onlooker, Said
from device_agent.own_node import own_node
from device_agent.progress import Progress
from device_agent.reach import fixed_addresses, listening_hosts, parse
from device_agent.settings import Settings
from device_agent.store import DeviceStore
from device_agent.verbs import read_bounded, verbs
from gossipfl.config import Limits
from gossipfl.errors import Exit, StoreError, UserError
from gossipfl.events import (
    Address,
    BundleGiven,
    DataChanged,
    Event,
    Notice,
    OwnAddresses,
    PeerSeen,
    PolicyReceived,
    ResourcesChanged,
    Source,
)
from gossipfl.fleet.stored import load_identity
from gossipfl.identity import short_name
from gossipfl.interfaces import Trainer
from gossipfl.net.client import Client
from gossipfl.net.driver import Driver
from gossipfl.net.notify import Notifier
from gossipfl.net.ports import NodeLike, Ports
from gossipfl.net.server import Server
from gossipfl.net.tls import TlsFiles, client_context, server_context
from gossipfl.net.traffic import Traffic
from gossipfl.net.worker import ThreadWorker

if TYPE_CHECKING:
    from device_agent.local_training import LocalTrainer
    from gossipfl.net.local import Health

DATA_LOOK_S = 10.0  # guess: a device without examples, or at rest, looks for new ones this often
GIVE_BACK_S = 60.0  # guess: a few milliseconds a minute
PROBLEMS = ("store_problem", "data_problem")
HEALTH_FACTS = ("round", "waiting_for", "listen_only")
FIGURES = ("round", "base_round", "merges", "below_quorum", "accuracy", "alone_accuracy", "rss_mb")

log = logging.getLogger(__name__)
Wrap = Callable[[Trainer], Trainer]


def run(settings: Settings, wrap: Wrap | None = None, limits: Limits | None = None) -> int:
    """The agent until SIGTERM or SIGINT: an exit code. Raises UserError if it cannot start.

    `wrap` goes around the trainer, for another kind of learner; `limits` are for measuring others.
    """
    logs.set_up(settings.logging.level, settings.logging.format)
    try:
        return asyncio.run(Agent(settings, wrap, limits).run())
    except UserError:
        raise
    except StoreError as error:
        raise UserError("GF504", f"{settings.device.state}: {error}") from error
    finally:
        logging.shutdown()


class Agent:
    """One device's service. Made anew for each start of the process."""

    def __init__(
        self, settings: Settings, wrap: Wrap | None = None, limits: Limits | None = None
    ) -> None:
        memory.shrink_tls_buffers()
        self._settings = settings
        self._identity = load_identity(settings.device.state)
        self._store = DeviceStore(settings.device.state)
        self._limits = limits or Limits()
        self._traffic = Traffic()
        self._progress = Progress()
        self._notifier = Notifier()
        self._heavy = ThreadWorker("gossipfl-work")
        self._reader = ThreadWorker("gossipfl-read")
        self._loader = JobLoader(settings, self._identity.root_key, self._progress, wrap)
        self._first = FirstHeadStore(self._store, settings.device.state)
        self.node = own_node(settings, self._identity, self._limits, self._first.first_start)
        self.device: bytes = self._identity.signer.device
        own = self._identity
        files = TlsFiles(own.root_certificate, own.tls_chain, own.tls_key)
        self._client = Client(client_context(files), self._limits, self._traffic)
        self._server = self._make_server(files)
        name = f"device {short_name(self.device)}"
        self._onlooker = Onlooker(name, self._progress, self._notifier)
        self._driver = Driver(self._driven(), self._ports(), self._onlooker.hooks)
        self._local = LocalServer(settings.socket, verbs(self))
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._addresses: list[Address] = []
        self._fixed = False  # whether the settings say all of them

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
            keeping = self._loop.create_task(self._keep_small())
            stopping = self._loop.create_task(self._stop.wait())
            try:
                await asyncio.wait({driver, stopping}, return_when=asyncio.FIRST_COMPLETED)
                self._notifier.stopping()
                log.info("stopping")
            finally:
                for task in (data, keeping, stopping):
                    task.cancel()
                await self._driver.stop()
                await self._reader.close(1.0)
            return _exit_code(driver)

    # --- parts ----------------------------------------------------------------------------------

    def _make_server(self, files: TlsFiles) -> Server:
        return Server(
            self.node.shelf,
            self._load_object,
            server_context(files),
            self.node.refused,
            self._limits,
            self._traffic,
        )

    def _driven(self) -> NodeLike:
        return self.node

    def _ports(self) -> Ports:
        return Ports(
            fetcher=self._client,
            store=self._first,
            load_job=self._load_job,
            notice=_logged_already,
            cut_off=self._server.cut_off,
            head_changed=self._server.head_changed,
            heavy=self._heavy,
        )

    @asynccontextmanager
    async def _served(self) -> AsyncIterator[None]:
        """Every door open: peers', the local ones, and the signs that lead to them."""
        network = self._settings.network
        hosts = listening_hosts(network.hosts)
        async with AsyncExitStack() as parts:
            parts.push_async_callback(self._server.close)
            port = self._server.start(hosts, network.port)
            self._client.start()
            parts.push_async_callback(self._client.close)
            await self._local.start()
            parts.push_async_callback(self._local.close)
            await self._open_health(parts)
            self._addresses = fixed_addresses(hosts, port, network.advertise)
            self._fixed = bool(self._addresses)
            self._open_discovery(parts, hosts, port)
            log.info("device %s listens on port %d", short_name(self.device), port)
            yield

    async def _open_health(self, parts: AsyncExitStack) -> None:
        port = self._settings.local.health_port
        if not port:
            return
        from gossipfl.net.local import LocalListener  # brings prometheus_client

        listener = LocalListener(self._health, self._traffic, self._figures)
        await listener.start(port)
        parts.push_async_callback(listener.close)

    def _open_discovery(self, parts: AsyncExitStack, hosts: list[str], port: int) -> None:
        """Not needed where the settings say both how to find and how to be found."""
        settings = self._settings.discovery
        if self._addresses and not settings.enabled:
            return
        from gossipfl.net.discovery import Discovery  # brings zeroconf

        discovery = Discovery(
            self._identity.discovery_key,
            port,
            self._found,
            interfaces=settings.interfaces,
            hosts=hosts,
            mdns=settings.enabled,
        )
        discovery.start()
        parts.push_async_callback(discovery.close)

    def _found(self, event: Event) -> None:
        """What discovery reports. Addresses that the settings name are not overruled."""
        if isinstance(event, OwnAddresses):
            if self._fixed:
                return
            self._addresses = list(event.addresses)
            log.info("reachable at %s", ", ".join(map(str, event.addresses)) or "no address")
        self._driver.offer(event)

    def _tell_the_node(self) -> None:
        """What the settings know: it waits in the inbox behind Start. UserError GF403."""
        settings = self._settings
        events: list[Event] = [OwnAddresses(tuple(self._addresses))] if self._fixed else []
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
            ready = ResourcesChanged(local.is_ready, local.problem, of_data=True)
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
        """A device whose data are missing at start begins to train when they come, and one at
        rest is told of new ones. While it trains, the trainer looks by itself."""
        watched: LocalTrainer | None = None
        told = 0
        while True:
            await asyncio.sleep(DATA_LOOK_S)
            local = self._loader.local
            if local is None:
                continue
            if local is not watched:
                watched, told = local, 1  # a job begins with its first data
            if not local.is_ready or self.node.is_at_rest:
                was_ready = local.is_ready
                await self._heavy.call(local.refresh)
                if local.is_ready and not was_ready:
                    await self._driver.submit(ResourcesChanged(True, of_data=True))
            if local.version > told:
                told = local.version
                await self._driver.submit(DataChanged())

    async def _keep_small(self) -> None:
        """After the first round nothing of the start is needed; later, now and then."""
        await self._onlooker.first_round.wait()
        while True:
            memory.give_back()
            await asyncio.sleep(GIVE_BACK_S)

    # --- for the local socket -------------------------------------------------------------------

    async def hand(self, event: Event) -> Said:
        """See `verbs.House`."""
        return await self._onlooker.hand(event, self._driver.submit)

    async def bundle(self) -> bytes | None:
        model = self.node.serving
        if model is not None and model.bundle:
            return model.bundle
        digest = self._loader.bundle_object
        if digest is None:
            return None
        return self.node.shelf.object(digest) or await self._load_object(digest)

    def _health(self) -> Health:
        from gossipfl.net.local import Health

        found = self.status()
        problems = tuple(found[key] for key in PROBLEMS if found[key])
        return Health(problems, {key: found[key] for key in HEALTH_FACTS})

    def _figures(self) -> dict[str, float]:
        found = self.status()
        return {key: float(found[key]) for key in FIGURES if found[key] is not None}

    def status(self) -> dict[str, Any]:
        more = {
            "addresses": [str(address) for address in self._addresses],
            "pace": self._settings.pace.preset,
            "state_folder": str(self._settings.device.state),
            "pid": os.getpid(),
            "store_problem": self._onlooker.store_problem,
        }
        view, traffic = self.node.view(), dict(self._traffic.items())
        return status.build(view, traffic, self._progress, self._loader.local, more)


def _logged_already(_: Notice) -> None:
    """The onlooker sees every effect, notices among them."""


def _exit_code(driver: asyncio.Task[None]) -> int:
    error = driver.exception()
    if error is None:
        return int(Exit.OK)
    if isinstance(error, (UserError, StoreError)):
        raise error
    log.error("the agent ends because of a bug", exc_info=error)
    return int(Exit.BUG)
