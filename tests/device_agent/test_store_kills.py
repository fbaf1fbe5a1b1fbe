"""kill -9 at every write point of the device's store.

Three layers of points: each step of the file layer, each instruction of SQLite's virtual machine,
and (where strace is installed) each writing system call. After each kill the store is opened as at
a restart: it must be readable, hold every acknowledged commit, and never half of one.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from store_workloads import SIZES, problems, run

from device_agent.object_files import Files
from device_agent.store import DeviceStore

COMMITS = 4  # enough for retiring (from the third on) and for a replaced large document


class Countdown:
    """Kills its own process at the given point; 0 only counts."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.seen = 0

    def point(self) -> None:
        self.seen += 1
        if self.seen == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


class DyingFiles(Files):
    def __init__(self, countdown: Countdown) -> None:
        self.point = countdown.point

    def write(self, path: Path, data: bytes) -> None:
        self.point()
        path.write_bytes(data[: len(data) // 2])
        self.point()
        super().write(path, data)
        self.point()

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        self.point()

    def make_folder(self, path: Path) -> None:
        super().make_folder(path)
        self.point()

    def sync_folder(self, path: Path) -> None:
        super().sync_folder(path)
        self.point()

    def remove(self, path: Path) -> None:
        self.point()
        super().remove(path)
        self.point()


class DyingSql(DeviceStore):
    countdown: Countdown

    def _connect(self) -> sqlite3.Connection:
        connection = super()._connect()
        connection.set_progress_handler(self.countdown.point, 1)
        return connection


def by_files(name: str, folder: Path, at: int) -> int:
    countdown = Countdown(at)
    run(name, folder, COMMITS, DeviceStore(folder, DyingFiles(countdown)))
    return countdown.seen


def by_sql(name: str, folder: Path, at: int) -> int:
    DyingSql.countdown = Countdown(at)
    run(name, folder, COMMITS, DyingSql(folder))
    return DyingSql.countdown.seen


def victim(work: Callable[[], int]) -> tuple[int, int]:
    """Runs `work` in a forked child: (last commit that it acknowledged, its exit status)."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writing, 1)
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as lines:
        told = lines.read().split()
    _, status = os.waitpid(child, 0)
    return (int(told[-1]) if told else 0), os.waitstatus_to_exitcode(status)


def total_points(workload: Callable[[str, Path, int], int], name: str, folder: Path) -> int:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.write(writing, b"%d" % workload(name, folder, 0))
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as count:
        return int(count.read())


@pytest.mark.parametrize("name", sorted(SIZES))
@pytest.mark.parametrize(("workload", "stride"), [(by_files, 1), (by_sql, 7)])
def test_kill_at_every_point(
    tmp_path: Path, name: str, workload: Callable[[str, Path, int], int], stride: int
) -> None:
    points = total_points(workload, name, tmp_path / "counted")
    assert problems(name, tmp_path / "counted", COMMITS) == []
    wrong: dict[int, list[str]] = {}
    for at in range(1, points + 1, stride):
        folder = tmp_path / str(at)
        acknowledged, status = victim(partial(workload, name, folder, at))
        if status != -signal.SIGKILL:
            wrong[at] = [f"was not killed: exit {status}"]
        elif found := problems(name, folder, acknowledged):
            wrong[at] = found
        shutil.rmtree(folder)
    assert wrong == {}
    print(f"{workload.__name__} {name}: {points} points, every {stride}, 0 wrong")  # noqa: T201


CALLS = "pwrite64,write,fsync,fdatasync,rename,unlink,ftruncate"


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed here")
@pytest.mark.parametrize("at", [*range(1, 13), *range(13, 70, 4)])
def test_kill_at_a_system_call(tmp_path: Path, at: int) -> None:
    script = Path(__file__).with_name("store_workloads.py")
    inject = [f"-einject={call}:signal=SIGKILL:when={at}" for call in CALLS.split(",")]
    command = ["strace", "-f", "-o", os.devnull, f"-etrace={CALLS}", *inject]
    done = subprocess.run(
        [*command, sys.executable, str(script), "mixed", str(tmp_path), str(COMMITS)],
        capture_output=True,
        timeout=60,
    )
    if b"ptrace" in done.stderr.lower():
        pytest.skip("tracing is not allowed here")
    assert done.returncode == -signal.SIGKILL
    told = done.stdout.split()
    assert problems("mixed", tmp_path, int(told[-1]) if told else 0) == []
