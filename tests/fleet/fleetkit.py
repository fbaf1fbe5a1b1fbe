"""What the tests of the fleet share: one fixed instant, a clock to move, a running service."""

from __future__ import annotations

from dataclasses import dataclass

from gossipfl.events import Address
from gossipfl.fleet.invitation import Invitation
from gossipfl.fleet.service import Service
from gossipfl.messages import Role

NOW = 1_800_000_000  # 2027-01-15, whenever the tests run
SERVER = b"s" * 32  # stands for the digest of the server's certificate, where there is no server
NOWHERE = Address("127.0.0.1", 0)


@dataclass
class Clock:
    """The wall clock of a service, moved by the test."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now


@dataclass
class Running:
    service: Service
    address: Address
    clock: Clock

    def invite(
        self, uses: int = 1, ttl_s: int = 3_600, replaces: bytes | None = None
    ) -> Invitation:
        at = int(self.clock.now)
        return self.service.desk.invite(self.address, at, Role.DEVICE, uses, ttl_s, replaces)
