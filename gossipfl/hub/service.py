"""One process of a hub: the application, its listener, its background tasks, and a graceful end."""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
import ssl
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass

from aiohttp import web

from gossipfl.audit.notes import log_key
from gossipfl.config import Limits
from gossipfl.errors import UserError
from gossipfl.fleet import files
from gossipfl.fleet.device import load_identity
from gossipfl.fleet.folders import find_issuer
from gossipfl.fleet.service import Service as EnrolmentService
from gossipfl.fleet.stored import DeviceIdentity
from gossipfl.hub.alerts.channels import channels
from gossipfl.hub.api import Api
from gossipfl.hub.broadcast import Broadcast
from gossipfl.hub.database import Database, DatabaseError, open_database
from gossipfl.hub.hub import Hub, wall
from gossipfl.hub.leader import Leader
from gossipfl.hub.log.log import HubLog
from gossipfl.hub.rest.doors import SERVER_OPTIONS, Doors, room_for
from gossipfl.hub.rest.origins import is_loopback
from gossipfl.hub.settings import ApiSection, DeskSection, HubSettings
from gossipfl.hub.star.merging import Holdout
from gossipfl.hub.supervisor import Supervisor
from gossipfl.identity import short_name
from gossipfl.messages import Role
from gossipfl.net.notify import Notifier
from gossipfl.net.tls import NO_CHECK_TIME

log = logging.getLogger(__name__)

SPACE_S = 2.0  # fault table: it recovers in less than ten seconds after space returns
PROBE_BYTES = 64 * 1024  # guess: a few receipts
TURN_S = 10.0  # twice the longest that the node's loop sleeps (`net.driver.BEAT_S`)
END_S = 10.0  # requests under way get so long at the end; systemd gives 90 s


@dataclass(frozen=True, slots=True)
class Address:
    """Where the API answers."""

    host: str
    port: int
    is_tls: bool

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.is_tls else 'http'}://{host}:{self.port}"


class Service:
    """Start, live, stop. Made anew for each start of the process."""

    def __init__(
        self,
        settings: HubSettings,
        limits: Limits | None = None,
        holdout: Holdout | None = None,
    ) -> None:
        self._settings = settings
        self._holdout = holdout
        self._limits = limits or Limits()
        self._stop = asyncio.Event()
        self.address: Address | None = None
        self.ready = asyncio.Event()
        self._notifier = Notifier()
        self.hub: Hub | None = None

    def stop(self) -> None:
        self._stop.set()

    async def run(self, *, signals: bool = True) -> None:
        """Until SIGTERM, SIGINT or `stop`. Raises UserError if it cannot start or go on."""
        settings = self._settings
        if signals:
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, self._stop.set)
        _require_safe(settings.api)
        identity = hub_identity(settings)
        tls = _tls(settings, identity)
        async with AsyncExitStack() as parts:
            database = await open_database(settings.dsn, password=settings.password)
            parts.push_async_callback(database.close)
            hub_log = HubLog(database, log_key(identity.signer.key_id))
            events = Broadcast()
            leader = Leader(settings, identity, database, hub_log, events, wall, self._limits)
            supervisor = Supervisor(lambda name, problem: events.tell("task", name=name))
            hub = self.hub = Hub(settings, identity, database, hub_log, leader, events, supervisor)
            parts.push_async_callback(supervisor.close)
            api = Api(hub, self._holdout, channels(settings.alerts, wall))
            word = await api.require_operator()
            if word is not None:
                log.warning("%s", word)
            supervisor.start("leader", leader.run)
            if settings.desk.issuer is not None:
                desk = EnrolmentService(find_issuer(settings.desk.issuer))
                supervisor.start("desk", lambda: _let_in(desk, settings.desk))
            supervisor.start("space", lambda: _watch_space(database))
            supervisor.start("star", api.star.run, is_vital=False)
            supervisor.start("page", api.feed.run, is_vital=False)
            supervisor.start("alerts", api.alerter.run, is_vital=False)
            if api.measurer is not None:
                supervisor.start("measurer", api.measurer.run, is_vital=False)
            await self._serve(parts, hub, api, tls)
            self.ready.set()
            self._notifier.ready(f"answers at {self.address.url}" if self.address else "")
            await self._until_stopped(supervisor)
            self._notifier.stopping()
            log.info("stopping")

    async def _until_stopped(self, supervisor: Supervisor) -> None:
        stopping = asyncio.create_task(self._stop.wait())
        failing = asyncio.create_task(supervisor.failed())
        try:
            ends = {stopping, failing}
            while not any(task.done() for task in ends):
                self._feed()
                await asyncio.wait(ends, timeout=self._beat_s, return_when=asyncio.FIRST_COMPLETED)
            if failing.done():
                failing.result()
        finally:
            for task in (stopping, failing):
                task.cancel()
            await asyncio.gather(stopping, failing, return_exceptions=True)

    @property
    def _beat_s(self) -> float | None:
        watchdog_s = self._notifier.watchdog_s
        return None if watchdog_s is None else watchdog_s / 3

    def _feed(self) -> None:
        """The watchdog: from the loop that serves, while the node's own loop goes on as well."""
        watchdog_s = self._notifier.watchdog_s
        station = self.hub.leader.station if self.hub is not None else None
        if watchdog_s is None:
            return
        if station is None or time.monotonic() - station.turned_at < max(watchdog_s, TURN_S):
            self._notifier.alive()

    async def _serve(
        self, parts: AsyncExitStack, hub: Hub, api: Api, tls: ssl.SSLContext | None
    ) -> None:
        host, port = self._settings.api.host, self._settings.api.port
        runner = web.AppRunner(api.application(), shutdown_timeout=END_S, **SERVER_OPTIONS)
        await runner.setup()
        parts.push_async_callback(runner.cleanup)
        if runner.server is None:
            raise RuntimeError("the runner was set up, and has no server")
        doors = Doors(
            runner.server,
            tls,
            is_trusted=lambda origin: is_loopback(origin) or api.origins.trusts(origin),
            connections_max=room_for(),
            limits=self._limits,
        )
        parts.push_async_callback(doors.close)
        self.address = Address(host, await doors.open(host, port), tls is not None)
        name = short_name(hub.identity.signer.device)
        log.info("hub %s answers at %s", name, self.address.url)


async def _let_in(desk: EnrolmentService, where: DeskSection) -> None:
    """The issuer's desk, until cancelled. Raises UserError GF302."""
    try:
        address = await desk.start(where.host, where.port)
        desk.folder.remember_address(address)
        log.info("devices may join at %s", address)
        await asyncio.Event().wait()
    finally:
        await desk.close()


async def _watch_space(database: Database) -> None:
    """While the disk is full, try now and then to write: nobody else may have anything to write."""
    while True:
        await asyncio.sleep(SPACE_S)
        if database.is_full:
            with suppress(DatabaseError):
                await _probe(database)


async def _probe(database: Database) -> None:
    async with database.transaction() as transaction:
        await transaction.execute(
            "INSERT INTO hub_space (id, data) VALUES (1, ?) "
            "ON CONFLICT (id) DO UPDATE SET data = excluded.data",
            secrets.token_bytes(PROBE_BYTES),
        )
        await transaction.execute("DELETE FROM hub_space")


def hub_identity(settings: HubSettings) -> DeviceIdentity:
    """The identity of the state folder, which must be a hub's. UserError GF804 and those of
    `load_identity`."""
    identity = load_identity(settings.hub.state)
    if identity.member.role is not Role.HUB:
        what = f"{settings.hub.state} is enrolled as {identity.member.role.value}"
        raise UserError("GF804", what)
    return identity


def _require_safe(api: ApiSection) -> None:
    """Off loopback there is no API without TLS. UserError GF805."""
    given = (api.certificate is not None, api.key is not None)
    if given != (True, True) and (any(given) or not api.is_loopback):
        raise UserError("GF805", f"api.host = {api.host!r} without certificate and key")


def _tls(settings: HubSettings, identity: DeviceIdentity) -> ssl.SSLContext | None:
    """For the API. A device may show its fleet certificate, people have none. UserError GF301."""
    api = settings.api
    if api.guests and not api.is_loopback:
        raise UserError("GF102", f"api.guests = true, and api.host = {api.host!r} is not loopback")
    if api.certificate is None or api.key is None:
        return None
    files.require_private(api.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_cert_chain(api.certificate, api.key)
        context.verify_mode = ssl.CERT_OPTIONAL
        # Dates are checked against fleet time, by who asks what the certificate's member may do.
        context.verify_flags |= ssl.VerifyFlags(NO_CHECK_TIME)
        context.load_verify_locations(cafile=identity.root_certificate)
        context.num_tickets = 0  # as at the peer server: a resumed session shows no certificate
    except (OSError, ssl.SSLError) as error:
        raise UserError("GF301", f"{error} (files: {api.certificate}, {api.key})") from error
    return context
