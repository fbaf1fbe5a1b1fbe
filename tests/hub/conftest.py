"""Both stores of the hub for every test that asks for one, and who comes in there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from authkit import Clock, make_auth

from gossipfl.hub.auth.service import Auth
from gossipfl.hub.database import Database, open_database


@pytest.fixture(params=["sqlite", "postgresql"])
def dsn(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh, empty database on either store: the test runs once on each."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'hub.db'}"
    found: str = request.getfixturevalue("postgres_dsn")
    return found


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    """The hub's own tables, open."""
    opened = await open_database(dsn)
    yield opened
    await opened.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def auth(database: Database, clock: Clock) -> Auth:
    return make_auth(database, clock)
