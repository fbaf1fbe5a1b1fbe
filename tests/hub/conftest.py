"""Both stores of the hub for every test that asks for one."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pgkit
import pytest

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres_folder() -> Iterator[str]:
    """The folder of sockets of a running PostgreSQL."""
    with pgkit.server() as folder:
        yield folder


@pytest.fixture
def postgres_dsn(postgres_folder: str) -> str:
    """A fresh, empty PostgreSQL database."""
    name = f"hub_{next(_numbers)}"
    programs = pgkit.programs()
    assert programs is not None
    subprocess.run([programs / "createdb", "-h", postgres_folder, "-U", "hub", name], check=True)
    return f"postgresql://hub@/{name}?host={postgres_folder}"


@pytest.fixture(params=["sqlite", "postgresql"])
def dsn(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh, empty database on either store: the test runs once on each."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'hub.db'}"
    found: str = request.getfixturevalue("postgres_dsn")
    return found
