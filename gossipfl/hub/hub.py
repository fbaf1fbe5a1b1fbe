"""What the hub's handlers need, in one place. Made once per process by `service`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from gossipfl.fleet.stored import DeviceIdentity
from gossipfl.hub.broadcast import Broadcast
from gossipfl.hub.database import Database
from gossipfl.hub.leader import Leader
from gossipfl.hub.log.log import HubLog
from gossipfl.hub.settings import HubSettings
from gossipfl.hub.supervisor import Supervisor


def wall() -> int:
    """Whole seconds since 1970."""
    return int(time.time())


@dataclass(frozen=True, slots=True)
class Hub:
    """One instance of a hub. Several may share a database; one of them leads."""

    settings: HubSettings
    identity: DeviceIdentity
    database: Database
    log: HubLog
    leader: Leader
    events: Broadcast
    supervisor: Supervisor
    clock: Callable[[], int] = wall
    started: float = field(default_factory=time.monotonic)

    @property
    def fleet(self) -> bytes:
        """The fleet's id."""
        return self.identity.member.fleet
