"""Both stores of the hub for every test that asks for one."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(params=["sqlite", "postgresql"])
def dsn(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh, empty database on either store: the test runs once on each."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'hub.db'}"
    found: str = request.getfixturevalue("postgres_dsn")
    return found
