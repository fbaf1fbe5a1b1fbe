"""Ask for an erasure and see it through: by the hub that runs, or here if none does."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from gossipfl.audit.notes import log_key
from gossipfl.errors import UserError
from gossipfl.fleet.stored import DeviceIdentity
from gossipfl.hub.database import Database, Unavailable
from gossipfl.hub.erasing.asking import Stage, ask, stage
from gossipfl.hub.erasing.eraser import Eraser
from gossipfl.hub.hub import wall
from gossipfl.hub.leader import LEASE
from gossipfl.hub.log.log import HubLog
from gossipfl.hub.log.writer import LogWriter

LOOK_S = 0.2
TRIES = 20  # to empty the write-ahead log while somebody reads: each waits five seconds itself


@dataclass(frozen=True, slots=True)
class Hand:
    """What erases on a hub's machine: `identity` is the hub's."""

    database: Database
    identity: DeviceIdentity

    async def erase(self, subject: bytes, by: str, wait_s: float) -> Stage:
        """How far it is after `wait_s` at most. Raises UserError as `ask`, DatabaseError."""
        await ask(self.database, subject, self.identity.root_key, by)
        ends = time.monotonic() + wait_s
        while True:
            await self._lead()
            found = await stage(self.database, subject)
            if found is None or found is Stage.DONE or time.monotonic() >= ends:
                return found or Stage.DONE
            await asyncio.sleep(LOOK_S)

    async def _lead(self) -> None:
        """Do it here, unless a hub runs: that one does."""
        lease = await self.database.lease(LEASE)
        if lease is None:
            return
        try:
            signer = self.identity.signer
            hub_log = HubLog(self.database, log_key(signer.key_id))
            writer = LogWriter(self.database, hub_log, signer)
            eraser = Eraser(
                self.database, hub_log, writer, signer.device, self.identity.root_key, wall
            )
            await eraser.erase()
            for tries in range(1, TRIES + 1):
                try:
                    await eraser.compact()
                except Unavailable:
                    if tries == TRIES:
                        raise
                    await asyncio.sleep(LOOK_S)
                else:
                    break
        finally:
            await lease.release()


async def wait(database: Database, subject: bytes, wait_s: float) -> Stage:
    """How far the running hub is with it after so long at most."""
    ends = time.monotonic() + wait_s
    while True:
        found = await stage(database, subject)
        if found is None:
            raise UserError("GF850", "nobody has asked for that erasure")
        if found is Stage.DONE or time.monotonic() >= ends:
            return found
        await asyncio.sleep(LOOK_S)
