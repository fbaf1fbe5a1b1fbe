"""A PostgreSQL of the tests' own: from Debian's package, on a socket in a temporary folder."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

START_S = 30.0
ACCOUNTS = ("postgres", "nobody")  # PostgreSQL refuses to run as root


def programs() -> Path | None:
    """Where initdb and postgres lie: on the PATH, or where Debian puts them."""
    found = shutil.which("initdb")
    if found is not None and shutil.which("postgres") is not None:
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=_version)
    return versions[-1].parent if versions else None


def _version(initdb: Path) -> float:
    name = initdb.parent.parent.name
    return float(name) if name.replace(".", "").isdigit() else 0.0


def account() -> pwd.struct_passwd | None:
    """Whom to become when we are root; None to stay who we are."""
    if os.geteuid() != 0:
        return None
    for name in ACCOUNTS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    pytest.skip("PostgreSQL does not run as root, and there is neither postgres nor nobody")


@contextmanager
def server() -> Iterator[str]:
    """A running server: its folder of sockets. Skips the test where there is no package."""
    folder_of_programs = programs()
    if folder_of_programs is None:
        pytest.skip("no PostgreSQL here: apt-get install postgresql")
    who = account()
    folder = Path(tempfile.mkdtemp(prefix="gfl-pg-", dir="/tmp"))  # socket paths must be short
    become = {} if who is None else {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": []}
    if who is not None:
        os.chown(folder, who.pw_uid, who.pw_gid)
    data = folder / "data"
    try:
        subprocess.run(
            [
                folder_of_programs / "initdb",
                "-D",
                data,
                "-U",
                "hub",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C",
                "--no-sync",
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=folder,
            **become,  # type: ignore[call-overload]
        )
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [
                    folder_of_programs / "postgres",
                    "-D",
                    data,
                    "-k",
                    folder,
                    "-h",
                    "",
                    "-c",
                    "shared_buffers=16MB",
                    "-c",
                    "max_connections=60",
                ],
                stdout=log,
                stderr=log,
                cwd=folder,
                **become,  # type: ignore[call-overload]
            )
        try:
            _wait(process, folder)
            yield str(folder)
        finally:
            process.send_signal(signal.SIGQUIT)  # at once: nobody needs the data
            process.wait(START_S)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait(process: subprocess.Popen[bytes], folder: Path) -> None:
    ends = time.monotonic() + START_S
    pidfile = folder / "data" / "postmaster.pid"
    while time.monotonic() < ends and process.poll() is None:
        if pidfile.exists() and "ready" in pidfile.read_text():
            return
        time.sleep(0.02)
    pytest.fail("PostgreSQL did not start:\n" + (folder / "log").read_text()[-2000:])
