"""A foreign mDNS stack sees the agents on a network of its own, and learns nothing about them.

Namespaces stand for machines: one bridge, one machine with avahi, three with an agent each. Needs
root, `ip netns`, avahi and dbus; nothing leaves the namespaces.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

TOOLS = ("ip", "unshare", "dbus-daemon", "avahi-daemon", "avahi-browse")
PORTS = (7001, 7002, 7003)
BOUND_S = 60.0

AGENT = """
    import asyncio, sys
    from gossipfl.events import PeerSeen
    from gossipfl.net.discovery import Discovery

    def report(event):
        if isinstance(event, PeerSeen):
            print(event.address, flush=True)

    async def main():
        discovery = Discovery(bytes.fromhex(sys.argv[1]), int(sys.argv[2]), report)
        discovery.start()
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        await discovery.close()

    asyncio.run(main())
"""

AVAHI_CONFIG = """
    [server]
    host-name=watcher
    use-ipv4=yes
    use-ipv6=no
    enable-dbus=yes
    allow-interfaces=eth0
    [publish]
    publish-workstation=no
    [wide-area]
    enable-wide-area=no
"""

# A private /run, so that a system bus and an avahi of the real machine are not touched.
WATCHER = """
    mount -t tmpfs tmpfs /run
    mkdir -p /run/dbus /run/avahi-daemon
    dbus-daemon --system --nofork --nopidfile & bus=$!
    until [ -S /run/dbus/system_bus_socket ]; do read -rt 0.1 <> <(:) || true; done
    avahi-daemon --no-drop-root --no-chroot --no-rlimits -f "$1" & avahi=$!
    trap 'kill $avahi $bus; wait' EXIT
    while kill -0 $avahi && [ ! -e "$2" ]; do
        timeout 5 avahi-browse --resolve --terminate --parsable _gossipfl._tcp || true
        read -rt 0.3 <> <(:) || true
    done
"""


def _why_not() -> str:
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs root on Linux"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"needs {', '.join(missing)}"
    name = f"gfl-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode:
        return f"network namespaces are not allowed here: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return ""


pytestmark = pytest.mark.skipif(bool(_why_not()), reason=_why_not() or "runs")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=20)


@contextmanager
def _network(count: int, ipv4: bool = True) -> Iterator[list[str]]:
    """Namespaces on one bridge, 10.77.0.1 and up; the bridge has a namespace of its own."""
    prefix = f"gfl{os.getpid()}"
    hub, machines = f"{prefix}-hub", [f"{prefix}-{at}" for at in range(count)]
    with ExitStack() as stack:

        def add(name: str) -> None:
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "del", name)
            _ip("-n", name, "link", "set", "lo", "up")

        add(hub)
        _ip("-n", hub, "link", "add", "br0", "type", "bridge")
        _ip("-n", hub, "link", "set", "br0", "up")
        for at, name in enumerate(machines):
            add(name)
            peer = ("peer", "name", "eth0", "netns", name)
            _ip("link", "add", f"v{at}", "netns", hub, "type", "veth", *peer)
            _ip("-n", hub, "link", "set", f"v{at}", "master", "br0", "up")
            if ipv4:
                _ip("-n", name, "addr", "add", f"10.77.0.{at + 1}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")
        yield machines


@contextmanager
def _process(
    namespace: str, *words: str, out: Path, mounts: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs in a namespace; its input is closed at the end, and it must end by itself then."""
    inside = ["unshare", "-m", *words] if mounts else list(words)
    with out.open("wb") as sink, out.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, *inside],
            stdin=subprocess.PIPE,
            stdout=sink,
            stderr=log,
        )
        try:
            yield process
        finally:
            process.communicate(timeout=BOUND_S)


def _until(condition: object, what: str) -> None:
    ends = time.monotonic() + BOUND_S
    while not condition():  # type: ignore[operator]
        if time.monotonic() > ends:
            pytest.fail(f"not within {BOUND_S:.0f} s: {what}")
        time.sleep(0.05)  # other processes: there is nothing to wait on but their output


def _records(out: Path) -> dict[int, list[str]]:
    """port -> fields of the resolved records in avahi-browse's parsable form."""
    found = {}
    for line in out.read_text().splitlines():
        fields = line.split(";")
        if fields[0] == "=" and len(fields) >= 10:
            found[int(fields[8])] = fields
    return found


def test_avahi_lists_the_agents_and_learns_nothing_of_them(tmp_path: Path) -> None:
    key = os.urandom(32).hex()
    config, stop = tmp_path / "avahi.conf", tmp_path / "stop"
    config.write_text(textwrap.dedent(AVAHI_CONFIG))
    watched = tmp_path / "watched"
    with ExitStack() as stack:
        watcher, *machines = stack.enter_context(_network(1 + len(PORTS)))
        outs = []
        for name, port in zip(machines, PORTS, strict=True):
            outs.append(tmp_path / f"agent-{port}")
            command = [sys.executable, "-c", textwrap.dedent(AGENT), key, str(port)]
            stack.enter_context(_process(name, *command, out=outs[-1]))
        script = ["bash", "-c", textwrap.dedent(WATCHER), "watcher", str(config), str(stop)]
        stack.enter_context(_process(watcher, *script, out=watched, mounts=True))
        stack.callback(stop.touch)
        _until(lambda: set(_records(watched)) >= set(PORTS), "avahi lists all agents")
        _until(lambda: all(len(o.read_text().split()) == 2 for o in outs), "agents see each other")
        records = _records(watched)
    for at, (port, out) in enumerate(zip(PORTS, outs, strict=True)):
        _, _, _, instance, service, _, host, address, _, text = records[port][:10]
        assert service == "_gossipfl._tcp"
        assert address == f"10.77.0.{at + 2}"
        for label in (instance, host.removesuffix(".local")):
            assert len(label) == 32
            assert set(label) <= set("0123456789abcdef")
        assert sorted(field.partition("=")[0] for field in text.replace('"', "").split()) == [
            "f",
            "v",
        ]
        assert socket.gethostname().lower() not in ";".join(records[port]).lower()
        others = {f"10.77.0.{i + 2}:{p}" for i, p in enumerate(PORTS) if p != port}
        assert set(out.read_text().split()) == others


def test_agents_on_a_link_without_ipv4_find_each_other(tmp_path: Path) -> None:
    key = os.urandom(32).hex()
    with ExitStack() as stack:
        machines = stack.enter_context(_network(2, ipv4=False))
        outs = []
        for name, port in zip(machines, PORTS, strict=False):
            outs.append(tmp_path / f"agent-{port}")
            command = [sys.executable, "-c", textwrap.dedent(AGENT), key, str(port)]
            stack.enter_context(_process(name, *command, out=outs[-1]))
        _until(lambda: all(o.read_text().split() for o in outs), "agents see each other")
    for out, other in zip(outs, reversed(PORTS[:2]), strict=True):
        assert out.read_text().startswith("[fe80::")
        assert out.read_text().strip().endswith(f"%eth0]:{other}")
