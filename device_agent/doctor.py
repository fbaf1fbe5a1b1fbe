"""`gossipfl doctor`: what keeps this device from taking part, each with its fix.

Every check is a function of what it looks at, so that each can be shown what it should find. They
ask this machine and, where it runs, the agent; nothing leaves the link but one multicast datagram
of a byte, which comes back here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

from device_agent.checks import Check, State
from device_agent.doctor_network import multicast, port
from device_agent.reach import listening_hosts
from device_agent.settings import Settings
from gossipfl.errors import UserError
from gossipfl.fleet import files
from gossipfl.fleet.stored import (
    FLEET_FILE,
    MEMBER_FILE,
    SIGNING_KEY,
    TLS_KEY,
    DeviceIdentity,
    load_identity,
)
from gossipfl.net.links import choose

DAY_S = 86_400
MEMBERSHIP_S = 7 * DAY_S  # trust: 30 days long, and its issuer may be away for a week
AUTHORITY_S = 30 * DAY_S  # trust: who admits others is renewed by people, who need time
SKEW_S = 60  # guess: certificates and invitations forgive no more; NTP keeps within one second
DISK_BYTES = 256 * 1024 * 1024  # guess: two models of the largest shipped job, and the store's log
MEMORY_BYTES = 200 * 1024 * 1024  # an agent takes 82 MB at rest, its trial of a job a child beside
IMPORT_S = 60.0  # guess: onnxruntime from a slow SD card


def examine(settings: Settings) -> list[Check]:
    """All checks, what people run into most first."""
    status = _status(settings)
    return list(_checks(settings, status, time.time()))


def _status(settings: Settings) -> Mapping[str, Any] | None:
    from device_agent.local_api import call

    try:
        return call(settings.socket, "status")
    except UserError:
        return None


def _checks(settings: Settings, status: Mapping[str, Any] | None, now: float) -> Iterator[Check]:
    yield running(status, settings.socket)
    yield from multicast(settings.discovery.enabled, choose(settings.discovery.interfaces))
    if status is None:
        hosts = listening_hosts(settings.network.hosts)
        yield port(hosts, settings.network.port)
    identity = yield from keys(settings.device.state)
    yield clock(now, identity, status)
    if identity is not None:
        yield from terms(identity, now)
    yield disk(settings.device.state)
    if status is None:
        yield memory()
    yield runtime()
    yield bundle(settings.job.bundle, status)
    yield data(settings.data.source, status)
    if status is not None:
        yield from company(status)


# --- the agent -----------------------------------------------------------------------------------


def running(status: Mapping[str, Any] | None, where: Path) -> Check:
    if status is None:
        what = f"none answers at {where}: what only a running one knows is not looked at"
        return Check("agent", State.NOTE, what, "gossipfl run --config FILE, or the systemd unit")
    if status.get("store_problem"):
        return Check("agent", State.PROBLEM, f"its store: {status['store_problem']}", "see disk")
    what = f"runs, round {status['round']}, {status['phase']}"
    if status.get("listen_only"):
        what += f"; it only listens: {status['listen_only']}"
    return Check("agent", State.OK, what)


def bundle(given: Path | None, status: Mapping[str, Any] | None) -> Check:
    """The job: from the policy, or handed over by the settings."""
    if given is not None and not given.is_file():
        return Check(
            "job", State.PROBLEM, f"job.bundle: there is no {given}", "put the .gfl file there"
        )
    if status is None:
        return Check("job", State.NOTE, "only a running agent knows its policy and its bundle")
    if status.get("policy") is None:
        fix = "on the operator's machine: gossipfl policy issue ... --to SOCKET"
        return Check("job", State.PROBLEM, "no policy has come: there is nothing to train", fix)
    if status.get("waiting_for"):
        fix = "gossipfl bundle sign, then hand it to one device: gossipfl policy issue --help"
        return Check("job", State.PROBLEM, f"it waits for {status['waiting_for']}", fix)
    policy = status["policy"]
    return Check(
        "job", State.OK, f"policy {policy['term']}.{policy['version']}, its bundle is here"
    )


def data(source: str, status: Mapping[str, Any] | None) -> Check:
    if status is not None and status.get("data_problem"):
        fix = "docs/how-to/data.md says what a file has to look like"
        return Check("data", State.PROBLEM, str(status["data_problem"]), fix)
    if not source:
        what = "data.source is not set: this device only listens"
        return Check("data", State.NOTE, what, "set data.source in its config")
    return Check("data", State.OK, source)


def company(status: Mapping[str, Any]) -> Iterator[Check]:
    """Whom it hears."""
    peers = status["peers"]
    live = [peer for peer in peers if peer["state"] == "live"]
    if not live:
        what = f"none of {len(peers)} answers" if peers else "none was found"
        fix = "are others on, on this link, of this fleet? Else name one in network.peers"
        yield Check("peers", State.PROBLEM, what, fix)
    else:
        yield Check("peers", State.OK, f"{len(live)} of {len(peers)} answer")
    hubs = [peer for peer in peers if peer.get("is_hub")]
    if not hubs:
        yield Check("hub", State.NOTE, "none is known: nothing keeps an audit log")
    elif not any(peer["state"] == "live" for peer in hubs):
        fix = "start it again; devices go on without it, and it catches up"
        yield Check("hub", State.PROBLEM, f"none of {len(hubs)} answers", fix)
    else:
        yield Check("hub", State.OK, "it answers")
    sums = ((status.get("policy") or {}).get("privacy") or {}).get("sums")
    if sums is not None:
        yield Check("privacy", State.NOTE, str(sums["warning"]))


# --- the identity --------------------------------------------------------------------------------


def keys(folder: Path) -> Generator[Check, None, DeviceIdentity | None]:
    """Returns the identity if there is a whole one."""
    found = True
    for name in (SIGNING_KEY, TLS_KEY, FLEET_FILE):
        if not (folder / name).exists():
            continue
        try:
            files.require_private(folder / name)
        except UserError as error:
            found = False
            yield Check("keys", State.PROBLEM, error.cause, error.hint)
    if not (folder / MEMBER_FILE).exists():
        fix = "gossipfl join LINE: `gossipfl invite` prints the line on the issuer's machine"
        yield Check("keys", State.PROBLEM, f"{folder} is in no fleet yet", fix)
        return None
    if not found:
        return None
    try:
        identity = load_identity(folder)
    except UserError as error:
        yield Check("keys", State.PROBLEM, error.cause, error.hint)
        return None
    yield Check("keys", State.OK, "whole, and closed to others")
    return identity


def terms(identity: DeviceIdentity, now: float) -> Iterator[Check]:
    """How long this device, its issuer and the fleet's root are still believed."""
    from gossipfl.fleet import pki

    chain = pki.load_chain(files.read_file(identity.tls_chain))
    root = pki.load_chain(files.read_file(identity.root_certificate))
    own = min(pki.not_after(chain[0]), identity.member.not_after)
    yield term("membership", own, now, MEMBERSHIP_S, "a new invitation, and gossipfl join LINE")
    fix = "on the machine with the root key: gossipfl fleet --help; then devices join again"
    for certificate in chain[1:]:
        yield term("issuer", pki.not_after(certificate), now, AUTHORITY_S, fix)
    for certificate in root:
        yield term("root", pki.not_after(certificate), now, AUTHORITY_S, fix)


def term(name: str, end: int, now: float, least_s: int, fix: str) -> Check:
    from gossipfl.fleet.pki import show_time

    left = end - now
    if left <= 0:
        return Check(name, State.PROBLEM, f"ended {show_time(end)}", fix)
    what = f"until {show_time(end)}"
    if left < least_s:
        return Check(name, State.PROBLEM, f"{what}: {left / DAY_S:.0f} days more", fix)
    return Check(name, State.OK, what)


# --- the machine ---------------------------------------------------------------------------------


def clock(now: float, identity: DeviceIdentity | None, status: Mapping[str, Any] | None) -> Check:
    """Beside the fleet's time, which is what most devices say; else beside the own membership."""
    fix = "timedatectl set-ntp true, or set the hardware clock"
    if status is not None and status.get("fleet_time"):
        skew = now - status["fleet_time"]
        if abs(skew) > SKEW_S:
            side = "ahead of" if skew > 0 else "behind"
            return Check("clock", State.PROBLEM, f"{abs(skew):.0f} s {side} the fleet's time", fix)
        return Check("clock", State.OK, "as the fleet's time")
    if identity is not None and now < identity.member.issued - SKEW_S:
        what = f"{identity.member.issued - now:.0f} s before this device was admitted"
        return Check("clock", State.PROBLEM, what, fix)
    return Check("clock", State.OK, "plausible; only a running agent can compare it with others")


def disk(folder: Path, usage: Callable[[Path], Any] = shutil.disk_usage) -> Check:
    """Room, and whether the state folder takes a file."""
    fix = f"make room on the file system of {folder}"
    try:
        free = usage(folder).free
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"?")
    except OSError as error:
        return Check("disk", State.PROBLEM, f"{folder}: {error.strerror or error}", fix)
    what = f"{free / 1e6:.0f} MB free at {folder}"
    if free < DISK_BYTES:
        return Check("disk", State.PROBLEM, f"{what}, {DISK_BYTES / 1e6:.0f} are wanted", fix)
    return Check("disk", State.OK, what)


def memory(table: Path = Path("/proc/meminfo")) -> Check:
    found = [line.split() for line in table.read_text().splitlines()]
    free = next((int(row[1]) * 1024 for row in found if row[0] == "MemAvailable:"), 0)
    what = f"{free / 1e6:.0f} MB available"
    if free < MEMORY_BYTES:
        fix = f"an agent takes about 100 MB, {MEMORY_BYTES / 1e6:.0f} with the trial of a new job"
        return Check("memory", State.PROBLEM, what, fix)
    return Check("memory", State.OK, what)


def runtime(module: str = "onnxruntime") -> Check:
    """In a child: on a processor that it was not built for, the import ends the process."""
    done = _child(f"import {module}; print({module}.__version__)")
    if done.returncode == 0:
        return Check(module, State.OK, done.stdout.strip())
    fix = "pip install --force-reinstall gossipfl; is it 64-bit Linux on x86-64 or aarch64?"
    told = f"signal {-done.returncode}" if done.returncode < 0 else done.stderr.strip()[-200:]
    return Check(module, State.PROBLEM, f"its import fails: {told}", fix)


def _child(code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
    asked = [sys.executable, "-c", code]
    try:
        return subprocess.run(
            asked, capture_output=True, text=True, timeout=IMPORT_S, check=False, env=environment
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(asked, 1, "", f"no end within {IMPORT_S:g} s")
