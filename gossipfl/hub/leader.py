"""What only one process of a hub may do: follow the fleet with the hub's key, and write the log.

The lease makes it one; when its holder dies the database gives the lease up, and the next process
takes over where the database says that things stand. Were two ever to believe that they lead, the
compare-and-swaps of node and log let only one of them go on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from gossipfl.config import PACES, Limits
from gossipfl.fleet.stored import DeviceIdentity
from gossipfl.holdings import Holdings
from gossipfl.hub import pseudonyms
from gossipfl.hub.broadcast import Broadcast
from gossipfl.hub.database import Database, DatabaseError, Lease, Unavailable
from gossipfl.hub.erasing.eraser import Eraser
from gossipfl.hub.fleet.census import Census
from gossipfl.hub.fleet.recorder import Recorder
from gossipfl.hub.fleet.shown import Cosigners, ShownLog
from gossipfl.hub.fleet.station import FleetStation
from gossipfl.hub.fleet.store import NodeStore
from gossipfl.hub.log.log import HubLog
from gossipfl.hub.log.writer import LogWriter
from gossipfl.hub.policy.courier import Courier
from gossipfl.hub.settings import HubSettings
from gossipfl.hub.supervisor import Supervisor
from gossipfl.notices import Notice

log = logging.getLogger(__name__)

LEASE = "hub"
TRY_S = 1.0  # how often a process that does not lead tries to: take-over in less than ten seconds
CHECK_S = 2.0  # how often the one that leads asks whether it still does
CENSUS_S = 2.0
ASK_S = 0.5  # how soon the node is stopped for an erasure
ERASE_AGAIN_S = (
    600.0  # guess: what failed for a reason fails again, and the fleet is to be followed
)
LOOK_S = 0.5  # how often what was issued at another instance is looked for


class Leader:
    """Tries to lead, for as long as the process lives."""

    def __init__(
        self,
        settings: HubSettings,
        identity: DeviceIdentity,
        database: Database,
        hub_log: HubLog,
        events: Broadcast,
        clock: Callable[[], int],
        limits: Limits | None = None,
    ) -> None:
        self.station: FleetStation | None = None
        """The hub's node, while this process leads."""
        self.recorder: Recorder | None = None
        self.supervisor = Supervisor(self._failed)
        self._settings = settings
        self._identity = identity
        self._database = database
        self._log = hub_log
        self._events = events
        self._clock = clock
        self._limits = limits or Limits()

    @property
    def leads(self) -> bool:
        return self.station is not None

    def device_of_tls(self, tls_key: bytes) -> bytes | None:
        """The member that this TLS key belongs to, if it may connect now; None while another
        process leads."""
        node = self.station.node if self.station is not None else None
        if node is None or node.refused(tls_key) is not None:
            return None
        return node.device_of_tls(tls_key)

    async def run(self) -> None:
        """Until cancelled. Raises UserError for what no restart can mend, DatabaseError."""
        while True:
            lease = await self._database.lease(LEASE)
            if lease is None:
                await asyncio.sleep(TRY_S)
                continue
            try:
                await self._lead(lease)
            finally:
                await lease.release()

    async def _lead(self, lease: Lease) -> None:
        log.info("this process follows the fleet and writes the log")
        store = NodeStore(self._database)
        station = FleetStation(self._settings, self._identity, store, self._notice, self._limits)
        writer = LogWriter(self._database, self._log, self._identity.signer, self._clock)
        await writer.start()
        eraser = self._eraser(writer)
        # Before the node reads what it had stored.
        pause_s = 0.0 if await self._erased(eraser) else ERASE_AGAIN_S
        marks = await pseudonyms.marks(self._database)

        def holdings() -> Holdings:
            return station.node.holdings().without(lambda d: pseudonyms.mark_of(d) in marks)

        recorder = Recorder(
            self._database, self._log, station.client, holdings, self._clock, self._limits
        )
        shown = ShownLog(
            self._database,
            self._log,
            station.give,
            store.object,
            lambda: not station.node.holdings().neighbours,
        )
        cosigners = Cosigners(self._database, self._log, holdings, recorder.fetch, self._limits)
        census = Census(self._database, holdings, station.node.view, self._clock)
        pace = PACES[self._settings.pace.preset]
        running = asyncio.create_task(station.run(), name="hub-node")
        self.station, self.recorder = station, recorder
        parts = self.supervisor = Supervisor(self._failed)
        parts.start("log writer", lambda: writer.run(self._settings.checkpoint_s))
        parts.start("recorder", lambda: recorder.run(max(0.2, pace.poll_interval_s / 2)))
        look_s = max(0.2, pace.poll_interval_s / 2)
        parts.start("checkpoints", lambda: shown.run(look_s))
        parts.start("cosignatures", lambda: _every(look_s, cosigners.look))
        courier = Courier(self._database, station.give)
        parts.start("policies", lambda: _every(LOOK_S, courier.look))
        parts.start("census", lambda: _every(CENSUS_S, census.write))
        parts.start("erasures", lambda: _every(CENSUS_S, eraser.compact))
        asked = asyncio.create_task(_until(eraser.is_asked, pause_s), name="hub-erasures")
        watching = asyncio.create_task(self._watch(lease), name="hub-lease")
        failing = asyncio.create_task(parts.failed(), name="hub-failed")
        try:
            done, _ = await asyncio.wait(
                {running, watching, failing, asked}, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                task.result()
        finally:
            self.station = self.recorder = None
            await parts.close()
            for task in (running, watching, failing, asked):
                task.cancel()
            await asyncio.gather(running, watching, failing, asked, return_exceptions=True)

    async def _erased(self, eraser: Eraser) -> bool:
        """Whether nothing is left to be erased. What fails stays asked for, and is tried again
        later: until then the fleet is followed."""
        try:
            await eraser.erase()
        except DatabaseError as error:
            log.warning("an erasure failed and is tried again in %g s: %s", ERASE_AGAIN_S, error)
            self._failed("erasure", f"{type(error).__name__}: {error}")
            return False
        return True

    def _eraser(self, writer: LogWriter) -> Eraser:
        identity = self._identity
        device, root_key = identity.signer.device, identity.root_key
        return Eraser(self._database, self._log, writer, device, root_key, self._clock)

    async def _watch(self, lease: Lease) -> None:
        while True:
            await asyncio.sleep(CHECK_S)
            if not await lease.check():
                break
        raise Unavailable("the lease was lost: another process leads, or the database was away")

    def _notice(self, notice: Notice) -> None:
        device = notice.device.hex() if notice.device is not None else None
        told = {"topic": notice.topic.value, "text": notice.text, "warning": notice.warning}
        self._events.tell("notice", device=device, **told)

    def _failed(self, name: str, problem: str) -> None:
        self._events.tell("task", name=name, problem=problem)


async def _until(asked: Callable[[], Awaitable[bool]], pause_s: float) -> None:
    """After a pause return once it says yes. A database that does not answer is for others to
    tell."""
    await asyncio.sleep(pause_s)
    while True:
        with suppress(DatabaseError):
            if await asked():
                return
        await asyncio.sleep(ASK_S)


async def _every(seconds: float, work: Callable[[], Awaitable[object]]) -> None:
    while True:
        await work()
        await asyncio.sleep(seconds)
