"""Real agents and a hub: a block outlives the hub that issued it, bad bundles go back by
themselves, and the model from before answers all along."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnx.helper
import pytest
from agents import Device, Fleet, examples, until
from hubs import HubProcess

import gossipfl
from device_agent.local_api import call
from gossipfl.bundle.archive import Bundle, build, read_path, write
from gossipfl.bundle.manifest import DP_GRADIENT, GRADIENT, FileEntry
from gossipfl.bundle.signing import sign
from gossipfl.errors import UserError
from gossipfl.fleet.stored import read_identity
from gossipfl.identity import device_name

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

PASSWORD = "a sentence of seven words is long"
ROUNDS_MAX = 2  # issue, line h


class Operator:
    """A person at another machine: the key, a login, and the command."""

    def __init__(self, fleet: Fleet, hub: HubProcess) -> None:
        self.fleet, self.hub, self.folder = fleet, hub, fleet.root
        self.secret = fleet.root / "password"
        self.secret.touch(0o600)
        self.secret.write_text(PASSWORD)
        words = ("--role", "operator", "--password-file", str(self.secret))
        self.run("user", "add", "ann", *words, "--config", str(hub.config))

    def run(self, *words: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-m", "gossipfl", *words, "--json"],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        data: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])["data"]
        return data

    @property
    def login(self) -> tuple[str, ...]:
        url = f"http://127.0.0.1:{self.hub.api_port}"
        return ("--hub", url, "--user", "ann", "--password-file", str(self.secret))

    def change(self, name: str, *more: str, **changes: Any) -> dict[str, Any]:
        """Propose at the hub, sign here, issue through the hub: what it answered."""
        file = self.folder / f"{name}.json"
        file.write_text(json.dumps(changes))
        unsigned = self.folder / f"{name}.gfu"
        self.run("policy", "propose", str(file), *more, "-o", str(unsigned), *self.login)
        key = ("--operator", str(self.fleet.fleet.path))
        answer: dict[str, Any] = self.run("policy", "sign", str(unsigned), *key, "--yes",
                                          *self.login)["hub"]  # fmt: skip
        return answer

    def bundle(self, name: str, made: Bundle) -> Path:
        path = self.folder / name
        operator = self.fleet.operator
        path.write_bytes(write(sign(made, operator.signer, operator.member_object)))
        return path


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[int], tuple[Fleet, HubProcess, Operator]]]:
    opened: list[Any] = []

    def build_fleet(count: int) -> tuple[Fleet, HubProcess, Operator]:
        fleet = Fleet(tmp_path, count, "demo")
        opened.append(fleet)
        hub = HubProcess(fleet, tmp_path / "hub")
        opened.append(hub)
        for number, device in enumerate(fleet.devices):
            peers = [f"127.0.0.1:{port}" for n, port in enumerate(fleet.ports) if n != number]
            where = f"127.0.0.1:{_peer_port(hub)}"
            more = {"network.peers": [*peers, where], "job.bundle": fleet.root / "job.gfl"}
            fleet.configure(device, number, more)
        return fleet, hub, Operator(fleet, hub)

    yield build_fleet
    for thing in reversed(opened):
        thing.close()


def _peer_port(hub: HubProcess) -> int:
    import tomllib

    return int(tomllib.loads(hub.config.read_text())["network"]["port"])


def begin(fleet: Fleet, hub: HubProcess) -> None:
    hub.start()
    for device in fleet.devices:
        device.start()
    for device in fleet.devices:
        device.wait("merges", lambda s: s["base_round"] >= 2)
    until("the hub leads", lambda: hub.health().get("leads"))


def name_of(device: Device) -> str:
    return device_name(read_identity(device.folder).member.device)


def peer(device: Device, name: str) -> dict[str, Any]:
    found = call(device.folder / "agent.sock", "peers")["peers"]
    return next((p for p in found if p["device"] == name), {})


def test_a_block_outlives_the_hub_that_issued_it(make: Callable[..., Any]) -> None:
    fleet, hub, operator = make(4)
    begin(fleet, hub)
    *awake, liar = fleet.devices
    blocked = name_of(liar)
    until("the hub has met all", lambda: len(hub.receipts()) == 4)
    answer = operator.change("block", block=[blocked])
    hub.end(signal.SIGKILL)
    assert answer["has_spread"], answer
    before = [device.status()["round"] for device in awake]
    for device, number in zip(awake, before, strict=True):
        status = device.wait("the block", lambda s: s["blocked"] == [blocked])
        assert status["round"] <= number + ROUNDS_MAX
        assert peer(device, blocked)["state"] == "blocked"
    stuck = liar.status()["base_round"]
    for device in awake:
        merged = device.status()["merges"]
        device.wait("merges without it", lambda s, n=merged: s["merges"] >= n + 3)
    assert liar.status()["base_round"] <= stuck + 1, "nobody gives it a model any more"
    assert all("shut out" in device.cli("status")[1] for device in awake)


def test_bad_bundles_go_back_and_the_model_before_answers(make: Callable[..., Any]) -> None:
    fleet, hub, operator = make(3)
    begin(fleet, hub)
    canary, *others = fleet.devices
    for device in fleet.devices:
        device.wait("a good model", lambda s: (s["accuracy"] or 0.0) >= 0.8)
    old = call(canary.folder / "agent.sock", "base")["bundle"]
    x, y = examples(60, seed=77)
    np.save(fleet.root / "x.npy", x)

    def tried(what: str) -> str:
        """Until the canary has gone back; it is asked all along. Why it has."""
        answers: set[str] = set()

        def declined() -> Any:
            try:
                answers.add(call(canary.folder / "agent.sock", "base")["bundle"])
            except UserError as error:
                answers.add(error.cause)
            trial = canary.status().get("trial") or {}
            return trial.get("why") if trial.get("state") == "declined" else None

        why = str(until(what, declined))
        assert answers == {old}, "it answers, and with the model that it had"
        rows = canary.json("predict", "--input", str(fleet.root / "x.npy"))["predictions"]
        assert float(np.mean(np.array([row["class"] for row in rows]) == y)) >= 0.8
        return why

    shipped = Path(gossipfl.__file__).parent / "bundles" / "digits-logistic.gfl"
    good = read_path(shipped)
    broken = operator.bundle("broken.gfl", _broken(good))
    who = [name_of(canary)]
    operator.change("broken", "--bundle", str(broken), canary=who)
    assert "does not work here" in tried("it cannot be loaded")
    uphill = str(operator.bundle("uphill.gfl", _uphill(good)))
    operator.change("uphill", "--bundle", uphill, canary=who, gate={"rounds": 3})
    assert "accuracy" in tried("it is far worse")
    state = until("the hub shows it", lambda: _declined(operator))
    assert state["for_all"]["version"] == 1
    number = canary.status()["base_round"]
    status = canary.wait("it learns with the others again", lambda s: s["base_round"] > number + 1)
    assert status["bundle"] == old
    assert all(d.status()["bundle"] == old and d.status()["trial"] is None for d in others)


def _broken(good: Bundle) -> Bundle:
    """Hashes and signature are right; the gradient is no graph."""
    return _with(good, {GRADIENT: b"not a graph at all"})


def _uphill(good: Bundle) -> Bundle:
    """A sign is wrong in the gradients: norms and losses are as the author saw them, so that the
    trial finds nothing, and each step makes the model worse. (A learning rate of 100 is not bad
    enough: now and then that model was good for a round, and served.)"""
    outputs = {GRADIENT: "grads", DP_GRADIENT: "grad_sum"}
    return _with(good, {name: _negated(good.files[name], out) for name, out in outputs.items()})


def _negated(graph: bytes, output: str) -> bytes:
    model = onnx.load_from_string(graph)
    [last] = [node for node in model.graph.node if output in node.output]
    last.output[:] = ["downhill"]
    model.graph.node.append(onnx.helper.make_node("Neg", ["downhill"], [output]))
    data: bytes = model.SerializeToString()
    return data


def _with(good: Bundle, graphs: dict[str, bytes]) -> Bundle:
    entries = {
        name: FileEntry(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
        for name, data in graphs.items()
    }
    manifest = msgspec.structs.replace(good.manifest, files={**good.manifest.files, **entries})
    return build(manifest, {**good.files, **graphs})


def _declined(operator: Operator) -> Any:
    """What the hub says of the trial, once it has heard of its end."""
    from gossipfl.cli.hub_client import HubClient
    from gossipfl.cli.main import parse

    client = HubClient.login(parse(["policy", "history", *operator.login]))
    state = client.json("GET", "/api/v1/policy")
    return state if [c["state"] for c in state["canaries"]] == ["declined"] else None
