"""A fleet in a temporary folder, its desk, and a running service; all at one fixed instant."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fleetkit import NOW, Clock, Running

from gossipfl.fleet.desk import Desk
from gossipfl.fleet.folders import FleetFolder
from gossipfl.fleet.local import make_fleet
from gossipfl.fleet.service import Service
from gossipfl.fleet.tokens import Tokens


@pytest.fixture
def fleet(tmp_path: Path) -> FleetFolder:
    return make_fleet(tmp_path / "fleet", "lab", NOW)


@pytest.fixture
def desk(fleet: FleetFolder) -> Desk:
    folder = fleet.issuer()
    return Desk(folder.load(), Tokens(folder.tokens))


@pytest.fixture
async def running(fleet: FleetFolder) -> AsyncIterator[Running]:
    clock = Clock()
    # The throttles' clock runs a second per question: rates are tested on their own.
    ticks = itertools.count(step=1.0)
    service = Service(fleet.issuer(), clock, lambda: next(ticks))
    address = await service.start("127.0.0.1", 0)
    yield Running(service, address, clock)
    await service.close()
