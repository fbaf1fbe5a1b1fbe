"""systemd is told what it needs, and its absence costs nothing."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from gossipfl.net.notify import Notifier


def test_messages_reach_the_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        notifier.ready("0 peers")
        notifier.alive()
        notifier.stopping()
        told = [systemd.recv(200) for _ in range(3)]
    assert told == [b"READY=1\nSTATUS=0 peers", b"WATCHDOG=1", b"STOPPING=1"]


def test_an_abstract_address_is_understood() -> None:
    name = f"gossipfl-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(f"\0{name}")
        Notifier({"NOTIFY_SOCKET": f"@{name}"}).status("busy")
        assert systemd.recv(100) == b"STATUS=busy"


def test_without_systemd_nothing_happens(tmp_path: Path) -> None:
    Notifier({}).ready("")
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready("")


def test_the_watchdog_is_ours_only_if_it_names_us() -> None:
    assert Notifier({}).watchdog_s is None
    assert Notifier({"WATCHDOG_USEC": "30000000"}).watchdog_s == 30.0
    ours = {"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid())}
    assert Notifier(ours).watchdog_s == 2.0
    assert Notifier({**ours, "WATCHDOG_PID": "1"}).watchdog_s is None


def test_a_blocked_loop_is_not_fed_and_a_slow_disk_is(tmp_path: Path) -> None:
    """Onlooker and driver as the agent has them; systemd's end is a real socket."""
    import asyncio
    import time

    from device_agent.onlooker import Onlooker
    from device_agent.progress import Progress

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.setblocking(False)
        given = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        onlooker = Onlooker("device", Progress(), Notifier(given))

        def fed() -> int:
            count = 0
            while True:
                try:
                    count += systemd.recv(200) == b"WATCHDOG=1"
                except BlockingIOError:
                    return count

        async def turns(seconds: float) -> None:
            ends = time.monotonic() + seconds
            while time.monotonic() < ends:
                onlooker.hooks.on_turn()
                await asyncio.sleep(0.01)

        asyncio.run(turns(0.3))
        assert fed() >= 2

        async def blocked() -> None:
            turning = asyncio.create_task(turns(0.3))
            await asyncio.sleep(0)
            time.sleep(0.4)  # noqa: ASYNC251 - the fault: something blocks the loop
            turning.cancel()

        asyncio.run(blocked())
        assert fed() <= 1  # the turn before it
        time.sleep(0.06)
        onlooker.hooks.on_wait()
        assert fed() == 1
