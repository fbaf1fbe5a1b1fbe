"""The hub: verified receipts a second, how soon a killed hub with a long log answers, and its API
under load (`sim.bench.hub_api`)."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from gossipfl.audit.entries import EntryKind
from gossipfl.audit.notes import log_key
from gossipfl.config import Limits
from gossipfl.errors import Fault
from gossipfl.events import (
    Address,
    FetchFailed,
    FetchHead,
    FetchObject,
    HeadReceived,
    ObjectReceived,
)
from gossipfl.fleet.local import enrol_local, make_fleet
from gossipfl.fleet.stored import read_identity
from gossipfl.holdings import Holdings, Neighbour
from gossipfl.hub.database import open_database
from gossipfl.hub.fleet.recorder import Recorder
from gossipfl.hub.log.drafts import Draft
from gossipfl.hub.log.log import HubLog
from gossipfl.hub.log.writer import LogWriter
from gossipfl.hub.settings import load_settings, template
from gossipfl.identity import Signer
from gossipfl.membership import Known
from gossipfl.messages import Head, Lineage, Member, Merged, Receipt, Role
from gossipfl.objects import digest
from gossipfl.ownchain import OwnChain
from sim.bench import hub_api
from sim.bench.report import progress
from sim.demo.places import free_ports

ENTRIES = 1_000_000
DEVICES = 20
RECEIPTS = 500  # of each device
MERGED = 6  # models in each receipt
FILL = 10_000  # entries staged at once
PAYLOAD_BYTES = 64  # of a filler: what is measured does not read payloads
START_S = 60.0
RESTARTS = 5
NOW = 1_700_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--entries", type=int, default=ENTRIES, metavar="N", help="in the log")
    parser.add_argument("--receipts", type=int, default=RECEIPTS, metavar="N", help="per device")
    parser.add_argument(
        "--part", choices=("all", "log", "api"), default="all", help="log and receipts, or the API"
    )
    hub_api.add_arguments(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The figures, on SQLite in a temporary folder."""
    folder = Path(tempfile.mkdtemp(prefix="gossipfl-bench-"))
    figures: dict[str, Any] = {}
    try:
        if args.part != "api":
            hub = _hub(folder / "log")
            figures |= asyncio.run(_receipts(folder / "receipts.db", hub, args.receipts))
            figures |= asyncio.run(_fill(hub, args.entries))
            figures |= _restarts(hub)
        if args.part != "log":
            figures |= hub_api.run(args, folder / "api")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return figures


def _hub(folder: Path) -> Path:
    """The config of an enrolled hub."""
    folder.mkdir()
    home = folder / "hub"
    enrol_local(make_fleet(folder / "fleet"), home, role="hub")
    (port,) = free_ports(1, progress)
    settings = {
        "api.port": port,
        "network.hosts": ["127.0.0.1"],
        "discovery.enabled": False,
        "pace.preset": "demo",
    }
    config = home / "hub.toml"
    config.write_text(template(settings))
    return config


# --- receipts -----------------------------------------------------------------------------------


class _Devices:
    """Devices with receipts, served from memory: the network is not measured here."""

    def __init__(self, fleet: bytes, count: int, receipts: int) -> None:
        self._objects: dict[bytes, bytes] = {}
        neighbours = tuple(self._device(fleet, n, receipts) for n in range(count))
        self.found = Holdings(tuple(n.known for n in neighbours), neighbours, (), {}, ())

    def _device(self, fleet: bytes, number: int, receipts: int) -> Neighbour:
        signer = Signer(digest(b"bench %d" % number))
        chain = OwnChain(signer, fleet, Limits())
        lineage = Lineage(bytes(32), 0, bytes(32))
        names = [bytes([n] * 16) for n in range(MERGED)]
        merged = [Merged(name, 1, bytes(32), bytes(32), 1 / MERGED) for name in names]
        receipt = Receipt(
            fleet, signer.device, 1, 1, lineage, bytes(32), "nna", 1, NOW, merged=merged
        )
        for _ in range(receipts):
            link, chapter = chain.receipt(receipt)
            for data in filter(None, (link.envelope, chapter)):
                self._objects[digest(data)] = data
        member = Member(fleet, signer.device, signer.key_id, Role.DEVICE, 0, 2 * NOW, NOW)
        data = b"member %d" % number
        head = Head(
            fleet,
            signer.device,
            1,
            bytes(32),
            NOW,
            receipts=chain.receipts,
            receipt_chapter=chain.receipts_log.chapter,
        )
        known = Known(member, digest(data), data)
        return Neighbour(known, head, (Address("127.0.0.1", 1),), True)

    async def fetch_head(self, effect: FetchHead) -> HeadReceived | FetchFailed:
        return FetchFailed(effect.request, Fault.REFUSED, "not asked for", absent=True)

    async def fetch_object(self, effect: FetchObject) -> ObjectReceived | FetchFailed:
        return ObjectReceived(effect.request, self._objects[effect.digest])


async def _receipts(path: Path, config: Path, receipts: int) -> dict[str, Any]:
    signer = read_identity(config.parent).signer
    progress(f"signing {DEVICES * receipts} receipts")
    devices = _Devices(bytes(32), DEVICES, receipts)
    database = await open_database(path)
    log = HubLog(database, log_key(signer.key_id))
    writer = LogWriter(database, log, signer)
    recorder = Recorder(
        database, log, devices, lambda: devices.found, lambda: NOW, Limits(), requests_per_s=1e9
    )
    await recorder.load()
    began, cpu = time.perf_counter(), time.process_time()
    await recorder.look()
    await recorder.settle()
    while await writer.integrate():
        pass
    took_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    entries = await log.reader.size()
    await database.close()
    return {
        "receipts": recorder.recorded,
        "receipts_entries": entries,
        "receipts_per_s": round(recorder.recorded / took_s),
        "receipts_per_cpu_s": round(recorder.recorded / cpu_s),
    }


# --- a long log ---------------------------------------------------------------------------------


async def _fill(config: Path, entries: int) -> dict[str, Any]:
    signer = read_identity(config.parent).signer
    database = await open_database(load_settings([config]).dsn)
    log = HubLog(database, log_key(signer.key_id))
    writer = LogWriter(database, log, signer)
    await writer.start()
    began = time.perf_counter()
    for first in range(0, entries, FILL):
        count = min(FILL, entries - first)
        payload = bytes(PAYLOAD_BYTES)
        await log.append(
            Draft(EntryKind.ALARM, bytes([n % 50] * 16), payload, NOW) for n in range(count)
        )
        while await writer.integrate():
            pass
        if first % (10 * FILL) == 0:
            progress(f"{first + count} entries")
    took_s = time.perf_counter() - began
    size = await database.size_bytes()
    await database.close()
    return {
        "entries": entries,
        "entries_per_s": round(entries / took_s),
        "database_mb": round(size / 1e6, 1),
    }


def _restarts(config: Path) -> dict[str, Any]:
    """Seconds from the start of the process until it says that it leads, each after a kill -9."""
    took: list[float] = []
    cpu: list[float] = []
    rss = 0.0
    for _ in range(RESTARTS):
        began = time.perf_counter()
        log = config.with_name("hub.log")
        with log.open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "gossipfl", "hub", "run", "--config", str(config)],
                stdout=out,
                stderr=out,
                env={**os.environ, "NO_COLOR": "1"},
            )
        try:
            _wait(process, load_settings([config]).api.port, log)
            took.append(time.perf_counter() - began)
            cpu.append(_cpu_s(process.pid))
            rss = max(rss, _rss_mb(process.pid))
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    return {
        "restart_s_median": round(sorted(took)[len(took) // 2], 2),
        "restart_s_worst": round(max(took), 2),
        "restart_cpu_s_median": round(sorted(cpu)[len(cpu) // 2], 2),
        "rss_mb": round(rss, 1),
        "processors": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
    }


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    ends = time.perf_counter() + START_S
    while time.perf_counter() < ends and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                if json.load(answer)["leads"]:
                    return
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.02)
    progress(log.read_text()[-2_000:])
    raise RuntimeError(f"the hub does not lead after {START_S:g} s")


def _rss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1e3
    return 0.0


def _cpu_s(pid: int) -> float:
    """Processor seconds of a process and of its children that have ended (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")
