"""What the doctor finds: each thing that can be wrong, its words, its fix, and the exit code."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from device_agent import doctor
from device_agent.checks import Check, State
from device_agent.doctor import AUTHORITY_S, DAY_S
from device_agent.doctor_network import echoed, multicast
from gossipfl.fleet import pki
from gossipfl.fleet.local import enrol_local, make_fleet
from gossipfl.fleet.stored import load_identity
from gossipfl.net.links import Link

NOW = 1_800_000_000.0
WIRE = Link("eth7", 7, ("192.0.2.7",))
HEALTHY: dict[str, Any] = {
    "round": 3,
    "phase": "waiting",
    "fleet_time": NOW,
    "policy": {"term": 0, "version": 1, "privacy": {"mode": "off"}},
    "peers": [
        {"device": "a", "state": "live", "is_hub": True},
        {"device": "b", "state": "away", "is_hub": False},
    ],
}


def problem(check: Check) -> str:
    assert check.state is State.PROBLEM, check
    assert check.fix, "who reads of a problem is told what to do"
    return check.what


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("doctor")
    fleet = make_fleet(folder / "fleet", "clinic")
    enrol_local(fleet, folder / "device")
    return folder / "device"


@pytest.fixture
def device(joined: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(joined, tmp_path / "device"))


# --- the whole ------------------------------------------------------------------------------------


def test_a_healthy_device_has_nothing_to_mend(
    device: Path, gossipfl: Callable[..., tuple[int, str, str]]
) -> None:
    quiet = ("--state", str(device), "--set", "discovery.enabled=false")
    code, out, _ = gossipfl("doctor", *quiet, "--set", "data.source=x.csv", "--json")
    told = json.loads(out)["data"]
    assert (code, told["problems"]) == (0, 0), told
    names = [check["name"] for check in told["checks"]]
    for name in ("multicast", "port", "clock", "issuer", "root", "disk", "memory", "onnxruntime"):
        assert name in names
    code, out, _ = gossipfl("doctor", *quiet)
    assert code == 0
    assert out.rstrip().endswith("nothing is wrong")


def test_what_is_wrong_is_said_with_its_fix_and_by_the_exit_code(
    device: Path, gossipfl: Callable[..., tuple[int, str, str]]
) -> None:
    (device / "signing.key").chmod(0o644)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        settings = (
            *("discovery.enabled=false", "network.hosts=127.0.0.1", f"network.port={number}"),
            f"job.bundle={device}/absent.gfl",
        )
        flags = [part for setting in settings for part in ("--set", setting)]
        code, out, _ = gossipfl("doctor", "--state", str(device), *flags)
    assert code == 1
    assert "3 problems" in out
    for part in (
        "signing.key",
        "chmod 600",
        f"port {number}: Address already in use",
        "absent.gfl",
    ):
        assert part in out
    assert out.count("how to fix") == 3


def test_before_it_joined(tmp_path: Path, gossipfl: Callable[..., tuple[int, str, str]]) -> None:
    quiet = ("--set", "discovery.enabled=false", "--json")
    code, out, _ = gossipfl("doctor", "--state", str(tmp_path), *quiet)
    checks = {check["name"]: check for check in json.loads(out)["data"]["checks"]}
    assert code == 1
    assert "gossipfl join" in checks["keys"]["fix"]


# --- the network ----------------------------------------------------------------------------------


def test_a_link_that_swallows_multicast_is_named() -> None:
    found = list(multicast(True, [WIRE], lambda link, address: "it does not come back"))
    assert "eth7 (192.0.2.7)" in problem(found[0])
    assert "network.peers" in found[0].fix
    assert "no network interface" in problem(next(multicast(True, [])))
    assert next(multicast(False, [])).state is State.NOTE


def test_multicast_comes_back_on_loopback() -> None:
    lo = Link("lo", 1, ("127.0.0.1",))
    assert echoed(lo, "127.0.0.1") == ""
    assert echoed(WIRE, "192.0.2.7"), "no such address is here"


def test_in_a_namespace_without_a_network(device: Path) -> None:
    """The real thing: a machine with nothing but a loopback interface that is down."""
    ask = [sys.executable, "-m", "gossipfl", "doctor", "--state", str(device), "--json"]
    apart = ["unshare", "--map-root-user", "--net"]
    if subprocess.run([*apart, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no network namespaces here")
    done = subprocess.run([*apart, *ask], capture_output=True, text=True, check=False)
    told = json.loads(done.stdout)["data"]
    [found] = [check for check in told["checks"] if check["name"] == "multicast"]
    assert done.returncode == 1
    assert found["state"] == "PROBLEM"
    assert found["fix"]


# --- the identity ---------------------------------------------------------------------------------


def test_who_admits_others_is_told_of_thirty_days_ahead(device: Path) -> None:
    identity = load_identity(device)
    issuer = pki.load_chain(identity.tls_chain.read_bytes())[1]
    soon = pki.not_after(issuer) - AUTHORITY_S + DAY_S
    found = {check.name: check for check in doctor.terms(identity, soon)}
    assert "29 days more" in problem(found["issuer"])
    assert "ended" in problem(found["membership"])
    now = identity.member.issued
    found = {check.name: check for check in doctor.terms(identity, now)}
    assert {check.state for check in found.values()} == {State.OK}
    late = identity.member.not_after - 6 * DAY_S
    found = {check.name: check for check in doctor.terms(identity, late)}
    assert "6 days more" in problem(found["membership"])


@pytest.mark.parametrize(
    ("skew", "words"), [(3_600, "3600 s ahead of"), (-90, "90 s behind"), (5, None)]
)
def test_a_clock_that_is_not_the_fleets(skew: float, words: str | None) -> None:
    found = doctor.clock(NOW + skew, None, HEALTHY)
    if words is None:
        assert found.state is State.OK
    else:
        assert words in problem(found)


def test_a_clock_that_began_in_1970(device: Path) -> None:
    identity = load_identity(device)
    assert "before this device was admitted" in problem(doctor.clock(60.0, identity, None))
    assert doctor.clock(identity.member.issued + 1.0, identity, None).state is State.OK


# --- the machine ----------------------------------------------------------------------------------


def test_a_full_disk_and_one_that_takes_nothing(tmp_path: Path) -> None:
    full = doctor.disk(tmp_path, lambda path: SimpleNamespace(free=3_000_000))
    assert "3 MB free" in problem(full)
    assert "No such file" in problem(doctor.disk(tmp_path / "absent"))
    assert doctor.disk(tmp_path, lambda path: SimpleNamespace(free=1 << 40)).state is State.OK


def test_little_memory(tmp_path: Path) -> None:
    table = tmp_path / "meminfo"
    table.write_text("MemTotal: 512000 kB\nMemAvailable: 51200 kB\n")
    assert "52 MB available" in problem(doctor.memory(table))
    table.write_text("MemAvailable: 5120000 kB\n")
    assert doctor.memory(table).state is State.OK


def test_a_library_that_ends_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ends.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    assert "signal 4" in problem(doctor.runtime("ends"))
    assert "No module" in problem(doctor.runtime("absent_module"))


# --- what the agent knows -------------------------------------------------------------------------


def test_a_running_agent_is_asked(tmp_path: Path) -> None:
    found = [
        doctor.running(HEALTHY, tmp_path),
        doctor.bundle(None, HEALTHY),
        doctor.data("x.csv", HEALTHY),
        *doctor.company(HEALTHY),
    ]
    assert {check.state for check in found} == {State.OK}


@pytest.mark.parametrize(
    ("changed", "name", "words"),
    [
        ({"policy": None}, "job", "no policy"),
        ({"waiting_for": "the bundle 1234"}, "job", "the bundle 1234"),
        ({"data_problem": "no such file"}, "data", "no such file"),
        ({"store_problem": "the disk is full"}, "agent", "the disk is full"),
        ({"peers": []}, "peers", "none was found"),
        ({"peers": [{"state": "away", "is_hub": False}]}, "peers", "none of 1 answers"),
        (
            {"peers": [{"state": "live", "is_hub": False}, {"state": "away", "is_hub": True}]},
            *("hub", "none of 1 answers"),
        ),
    ],
)
def test_what_the_agent_lacks(changed: dict[str, Any], name: str, words: str) -> None:
    status = {**HEALTHY, **changed}
    found = [
        doctor.running(status, Path("agent.sock")),
        doctor.bundle(None, status),
        doctor.data("x.csv", status),
        *doctor.company(status),
    ]
    wrong = [check for check in found if check.state is State.PROBLEM]
    assert [check.name for check in wrong] == [name]
    assert words in problem(wrong[0])


def test_group_sums_bear_fewer_attackers_and_the_doctor_says_so() -> None:
    sums = {"warning": "a fleet bears about 4.2% attackers"}
    policy = {**HEALTHY["policy"], "privacy": {"mode": "group-sum", "sums": sums}}
    found = {check.name: check for check in doctor.company({**HEALTHY, "policy": policy})}
    assert found["privacy"] == Check("privacy", State.NOTE, sums["warning"])
