"""Shared fixtures. Nothing here may slow down a test that does not ask for it."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# In CI the same examples every time: a new one found there would fail a change that is not at
# fault. At home new ones are drawn. How long an example takes says nothing where others share the
# two cores: no example has a deadline.
ANY_SPEED = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
hypothesis.settings.register_profile("home", **ANY_SPEED)
hypothesis.settings.register_profile("ci", derandomize=True, **ANY_SPEED)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "home")

# onnxruntime's Linux builds carry telemetry; it must be off before the first import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# Small matrices: threads of the linear algebra library would only wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent


# Fleets of real processes, and those who listen to multicast: one after the other, in one worker.
# Beside another fleet a device of the demo missed merges, and was behind when its rounds were over.
ONE_AFTER_THE_OTHER = (
    "tests/e2e/",
    "tests/fleet/test_fleet_cli.py",
    "tests/hub/test_complete_aggregation_server.py",
    "tests/hub/test_erasing_hub.py",
    "tests/hub/test_openapi.py",
    "tests/hub/test_report_process.py",
    "tests/hub/test_two_instances.py",
    "tests/net/test_avahi.py",
    "tests/net/test_discovery.py",
)


class Scheduler(LoadScopeScheduling):  # type: ignore[misc]
    """One test at a time to whichever worker is free; ONE_AFTER_THE_OTHER whole to one of them.

    By path: the marks of pytest-xdist's own `loadgroup` are lost under pytest 9 (it writes them
    into `Item._nodeid`, from which pytest no longer reads).
    """

    def _split_scope(self, nodeid: str) -> str:
        return "processes" if nodeid.startswith(ONE_AFTER_THE_OTHER) else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduler:
    return Scheduler(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("e2e") and not item.nodeid.startswith(ONE_AFTER_THE_OTHER):
            raise pytest.UsageError(f"{item.nodeid} starts processes: name its file in conftest.py")


@pytest.fixture
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture
def gossipfl(
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., tuple[int, str, str]]:
    """Run the command in this process: (exit code, stdout, stderr)."""
    from gossipfl.cli.main import run

    def call(*argv: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(argv)
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def python() -> str:
    """The interpreter that runs the tests."""
    return sys.executable


@pytest.fixture(scope="session")
def postgres_folder() -> Iterator[str]:
    """The folder of sockets of a running PostgreSQL; skips where the package is missing."""
    import pgkit

    with pgkit.server() as folder:
        yield folder


_databases = itertools.count(1)


@pytest.fixture
def postgres_dsn(postgres_folder: str) -> str:
    """A fresh, empty PostgreSQL database."""
    import pgkit

    name = f"hub_{next(_databases)}"
    programs = pgkit.programs()
    assert programs is not None
    subprocess.run([programs / "createdb", "-h", postgres_folder, "-U", "hub", name], check=True)
    return f"postgresql://hub@/{name}?host={postgres_folder}"
