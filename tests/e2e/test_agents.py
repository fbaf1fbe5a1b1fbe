"""Real agents on loopback: they learn, die, come back, join late, leave; and what people see."""

from __future__ import annotations

import json
import re
import resource
import shutil
import signal
import socket
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from agents import STOP_S, WAIT_S, Device, Fleet, examples, free_ports, until

from device_agent.local_api import call
from device_agent.store import DeviceStore
from gossipfl.config import PACES, Limits
from gossipfl.errors import UserError
from gossipfl.messages import Head
from gossipfl.wire import decode, open_envelope

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

Make = Callable[..., Fleet]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    fleets: list[Fleet] = []

    def build(count: int, pace: str = "none", rounds: int | None = None) -> Fleet:
        fleets.append(Fleet(tmp_path, count, pace, rounds))
        return fleets[-1]

    yield build
    for fleet in fleets:
        fleet.close()


def parse(envelope: bytes) -> Head:
    return decode(open_envelope(envelope, "head", Limits().head_bytes).payload, Head)


def durable_heads(device: Device) -> dict[int, bytes]:
    """Own heads in the store of a device that does not run, newest first: number -> envelope."""
    store = DeviceStore(device.folder)
    heads: dict[int, bytes] = {}
    envelope = store.load().head
    while envelope is not None:
        head = parse(envelope)
        heads[head.seq] = envelope
        envelope = store.get(head.prev) if head.prev is not None else None
    store.close()
    return heads


def durable_head(device: Device) -> Head:
    return parse(next(iter(durable_heads(device).values())))


def accused(device: Device) -> int:
    return int(device.status()["evidence"])


def seen_by(device: Device, other: str) -> dict[str, Any]:
    return next((p for p in device.status()["peers"] if p["device"] == other), {})


def is_followed(device: Device, other: str, seq: int) -> bool:
    """Whether `device` holds a head of `other` beyond `seq`, and reaches it again."""
    peer = seen_by(device, other)
    return peer.get("seq", 0) > seq and peer["state"] == "live"


def test_an_agent_killed_in_mid_round_comes_back_as_itself(make: Make) -> None:
    fleet = make(3)
    for device in fleet.devices:
        device.start()
    victim, *others = fleet.devices
    for device in fleet.devices:
        device.wait("a few rounds", lambda s: s["round"] >= 5)
    before = victim.wait("the middle of a round", lambda s: s["phase"] != "idle")
    assert victim.end(signal.SIGKILL) == -signal.SIGKILL
    heads = durable_heads(victim)
    last = max(heads)
    assert last >= before["seq"]

    # Nobody waits for the dead one longer than a round may take: its deadline, which a publish
    # late in the round puts off by half. The rest is for a machine that others use too.
    bound_s = 3 * 1.5 * PACES["none"].round_deadline_s + 20
    for device in others:
        rounds = device.status()["round"]
        at = time.monotonic()
        device.wait("the next rounds", lambda s, r=rounds: s["round"] >= r + 3)
        assert time.monotonic() - at < bound_s

    victim.start()
    after = victim.wait("a new head and a new merge", lambda s: s["merges"] and s["seq"] > last)
    assert after["device"] == before["device"]
    assert after["base_round"] >= before["base_round"]
    for device in others:
        until(
            "peers to see its new heads",
            lambda d=device: is_followed(d, after["device"], last),
        )
        assert accused(device) == 0
    victim.end(signal.SIGKILL)
    again = durable_heads(victim)
    assert again[last] == heads[last]  # the chain goes on from the very head that was durable
    assert sorted(again)[-3:] == list(range(max(again) - 2, max(again) + 1))


def test_restored_from_an_old_copy_it_is_not_accused(make: Make) -> None:
    fleet = make(3)
    for device in fleet.devices:
        device.start()
    victim, *others = fleet.devices
    victim.wait("a few rounds", lambda s: s["round"] >= 3)
    victim.end(signal.SIGTERM)
    copy = victim.folder.with_name("copy")
    shutil.copytree(victim.folder, copy)
    old = durable_head(victim)
    victim.start()
    newer = victim.wait("more heads than the copy has", lambda s: s["seq"] >= old.seq + 6)
    for device in others:
        until(
            "peers to hold newer heads than the copy",
            lambda d=device: is_followed(d, newer["device"], old.seq + 5),
        )
    victim.end(signal.SIGKILL)
    newest = durable_head(victim)

    shutil.rmtree(victim.folder)
    copy.rename(victim.folder)
    victim.start()
    after = victim.wait("a head beyond all it ever signed", lambda s: s["seq"] > newest.seq)
    for device in others:
        until(
            "peers to take its new head",
            lambda d=device: is_followed(d, after["device"], newest.seq),
        )
        assert accused(device) == 0


def test_a_wiped_disk_with_the_old_keys_asks_the_fleet_first(make: Make) -> None:
    fleet = make(3)
    victim, *others = fleet.devices
    assert (victim.folder / "first-start").exists()
    for device in fleet.devices:
        device.start()
    before = victim.wait("a few rounds", lambda s: s["round"] >= 2)
    assert not (victim.folder / "first-start").exists()
    for device in others:
        until("peers to hold a head of it", lambda d=device: is_followed(d, before["device"], 1))
    for device in (victim, *others):
        device.end(signal.SIGTERM)
    newest = durable_head(victim)
    for path in (*victim.folder.glob("store.db*"), victim.folder / "objects"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    victim.start()
    victim.wait("it to say what it waits for", lambda s: "empty store" in s["waiting_for"])
    for device in others:
        device.start()
    after = victim.wait("a head beyond all it ever signed", lambda s: s["seq"] > newest.seq)
    for device in others:
        until(
            "peers to take its new head",
            lambda d=device: is_followed(d, after["device"], newest.seq),
        )
        assert accused(device) == 0


def test_a_clean_stop_and_a_start(make: Make) -> None:
    fleet = make(2)
    first, second = fleet.devices
    for device in fleet.devices:
        device.start()
    first.wait("a round", lambda s: s["merges"] >= 1)
    at = time.monotonic()
    assert first.end(signal.SIGTERM) == 0
    assert time.monotonic() - at < STOP_S
    assert not (first.folder / "agent.sock").exists()
    code, _, err = first.cli("status")
    assert code == 4
    assert "GF311" in err
    head = durable_head(first)
    first.start()
    first.wait("rounds again", lambda s: s["merges"] >= 1 and s["seq"] > head.seq)
    assert second.end(signal.SIGINT) == 0


def test_a_late_joiner_gets_policy_and_bundle_from_its_peers(make: Make) -> None:
    fleet = make(3)
    *early, late = fleet.devices
    for device in early:
        device.start()
    for device in early:
        device.wait("a few rounds", lambda s: s["round"] >= 3)
    fleet.configure(late, 2, {"job.bundle": None, "job.policy": None})
    late.start()
    status = late.wait("a merge and rounds of its own", lambda s: s["round"] >= 2 and s["base"])
    assert status["bundle"] == early[0].status()["bundle"]
    for device in early:
        until(
            "peers to merge it",
            lambda d=device: seen_by(d, status["device"]).get("influence", 0) > 0,
        )


def test_what_people_see_and_use(make: Make, tmp_path: Path) -> None:
    fleet = make(2, rounds=6)
    first, second = fleet.devices
    for device in fleet.devices:
        device.start()
    for device in fleet.devices:
        device.wait("all rounds", lambda s: s["finished"])

    status = first.json("status")
    assert status["together_accuracy"] is not None
    assert status["alone_accuracy"] is not None
    assert 0 < status["seconds_to_first_round"] < status["uptime_s"]
    assert status["updates_served"] >= 5
    assert status["bytes_sent"] > 5 * 38_000
    assert second.json("peers")["peers"][0]["device"] == status["device"]
    for verb in ("status", "peers"):
        code, text, _ = first.cli(verb)
        assert code == 0
        assert max(map(len, text.splitlines())) <= 80
    assert "together" in first.cli("status")[1]

    told = second.json("reputation show", status["device"][:9])
    assert (told["reputation"], told["cause"]) == (1.0, "")
    assert told["served_bytes"] > 0
    assert told["contribution"] > 0.0
    assert second.json("quarantine list") == {"peers": []}
    code, _, err = second.cli("quarantine release", status["device"])
    assert code == 2
    assert "GF703" in err

    found = first.json("doctor", "--set", "discovery.enabled=false")
    states = {check["name"]: check["state"] for check in found["checks"]}
    asked = ("agent", "job", "data", "peers", "clock", "keys")
    assert {states[name] for name in asked} == {"ok"}, found
    assert states["hub"] == "note", "this fleet has none"

    # onnxruntime's telemetry would leave files below the home folder, and a thread.
    assert list((first.folder / "home").rglob("*")) == []

    # Used while the agent runs, then again from the store of the stopped agent: the same answers.
    x, y = examples(500, seed=7)
    np.save(tmp_path / "x.npy", x)
    running = first.json("predict", "--input", str(tmp_path / "x.npy"))
    exported = first.json("models export", "-o", str(tmp_path / "m.onnx"))
    assert first.end(signal.SIGTERM) == 0
    stopped = first.json("predict", "--input", str(tmp_path / "x.npy"))
    assert stopped == running
    right = np.mean([row["class"] for row in running["predictions"]] == y)
    assert right > 0.5
    assert exported["base"] == status["base"]
    assert exact_accuracy(tmp_path / "m.onnx", first) == status["accuracy"]

    # After a restart with nothing left to train it still says how good its model is.
    first.start()
    again = first.wait("its figures", lambda s: s["accuracy"] is not None)
    assert again["accuracy"] == status["accuracy"]
    assert again["alone_accuracy"] == status["alone_accuracy"]


def exact_accuracy(model: Path, device: Device) -> float:
    """Of an exported file in bare onnxruntime, on the held-out data of the device."""
    import onnxruntime

    from device_agent.data import DataSource, DataSpec
    from device_agent.settings import DataSection

    spec = DataSpec((64,), "f32", (), "i64", classes=10)
    data = DataSource(DataSection(source=str(device.folder / "data")), spec).load()
    session = onnxruntime.InferenceSession(model.read_bytes())
    batch = session.get_inputs()[0].shape[0]
    right = 0
    for start in range(0, len(data.test_x), batch):
        piece = data.test_x[start : start + batch]
        padded = np.zeros((batch, 64), np.float32)
        padded[: len(piece)] = piece
        answers = session.run(None, {session.get_inputs()[0].name: padded})[0][: len(piece)]
        right += int((answers.argmax(-1) == data.test_y[start : start + batch]).sum())
    return right / len(data.test_x)


def test_a_full_disk_stops_publishing_and_nothing_else(make: Make) -> None:
    fleet = make(2)
    first, second = fleet.devices
    health = free_ports(1)[0]
    fleet.configure(first, 0, {"job.bundle": fleet.root / "job.gfl", "local.health_port": health})
    for device in fleet.devices:
        device.start()
    first.wait("a few rounds", lambda s: s["round"] >= 3)
    code, body = fetch(health, "/healthz")
    assert (code, json.loads(body)["status"]) == (200, "ok")
    assert re.search(rb"^gossipfl_round [1-9]", fetch(health, "/metrics")[1], re.MULTILINE)

    assert first.process is not None
    unlimited = resource.prlimit(first.process.pid, resource.RLIMIT_FSIZE, (1_024, -1))
    sick = first.wait("the problem to be told", lambda s: s["store_problem"])
    assert fetch(health, "/healthz")[0] == 503
    assert "problem" in first.cli("status")[1]
    resource.prlimit(first.process.pid, resource.RLIMIT_FSIZE, unlimited)
    at = time.monotonic()
    well = first.wait("new heads", lambda s: s["seq"] > sick["seq"] and not s["store_problem"])
    assert time.monotonic() - at < 30  # two seconds on an idle machine: retries double their pause
    assert fetch(health, "/healthz")[0] == 200
    until(
        "its peer to follow", lambda: seen_by(second, well["device"]).get("seq", 0) >= well["seq"]
    )
    assert accused(second) == 0


def fetch(port: int, path: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_a_policy_by_hand_and_data_that_come_later(make: Make) -> None:
    fleet = make(2)
    first = fleet.devices[0]
    for number, device in enumerate(fleet.devices):
        fleet.configure(device, number, {"job.policy": None})
        (device.folder / "data" / "a.npz").rename(device.folder / "later.npz")
        device.start()
    for device in fleet.devices:
        device.wait("that it waits for a policy", lambda s: s["waiting_for"] == "a policy")
    with pytest.raises(UserError, match="policy is refused") as refused:
        call(first.folder / "agent.sock", "policy", data=b64encode(b"nonsense").decode())
    assert refused.value.code == "GF702"
    policy = b64encode((fleet.root / "policy").read_bytes()).decode()
    assert call(first.folder / "agent.sock", "policy", data=policy)["taken"]
    call(first.folder / "agent.sock", "give-bundle", path=str(fleet.root / "job.gfl"))
    for device in fleet.devices:
        told = device.wait("that there are no data", lambda s: s["data_problem"])
        assert "holds no examples" in told["data_problem"]
        assert "holds no examples" in told["listen_only"]
        (device.folder / "later.npz").rename(device.folder / "data" / "a.npz")
    for device in fleet.devices:
        device.wait("rounds of its own", lambda s: s["merges"] and s["examples"]["training"])


def test_systemd_is_told(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(WAIT_S)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "1000000")
        device = make(2).devices[0]
        device.start()
        assert systemd.recv(500).startswith(b"READY=1")
        heard = [systemd.recv(500) for _ in range(3)]
        assert b"WATCHDOG=1" in heard
        device.end(signal.SIGTERM)
        heard = [systemd.recv(500)]
        while heard[-1] != b"STOPPING=1":
            heard.append(systemd.recv(500))


def test_a_device_that_cannot_start_says_why(make: Make, tmp_path: Path) -> None:
    fleet = make(2)
    device = fleet.devices[0]
    device.config.write_text(device.config.read_text().replace("port =", "prot ="))
    code, _, err = device.cli("run")
    assert code == 3
    assert "config.toml" in err
    assert "did you mean 'port'?" in err
    (tmp_path / "empty").mkdir()
    code, _, err = fleet.devices[1].cli("run", "--set", f"device.state={tmp_path / 'empty'}")
    assert code == 5
    assert "GF201" in err
    running = fleet.devices[1]
    running.start()
    running.wait("the agent", lambda s: s["device"])
    code, _, err = running.cli("run")
    assert code == 3
    assert "GF503" in err
