"""The whole server as a process of its own, with TLS and tokens, spoken to by plain clients."""

from __future__ import annotations

import hashlib
import json
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from authkit import PASSWORD
from processkit import WAIT_S, HubProcess
from starkit import ROOT, example

from gossipfl.fleet.local import enrol_local
from gossipfl.fleet.stored import read_identity
from gossipfl.messages import Privacy, Stop

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

OCTETS = "application/octet-stream"
STRATEGY = "/api/v1/aggregation/strategy"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HubProcess]:
    server = HubProcess(tmp_path)
    secret = tmp_path / "password"
    secret.touch(0o600)
    secret.write_text(PASSWORD + "\n")
    server.user("ann", "add", "--role", "operator", "--password-file", str(secret))
    server.start()
    yield server
    server.close()


def begin(server: HubProcess, **choices: Any) -> Any:
    """The operator's client, after the job was given to the hub."""
    hand = server.login("ann")
    hand.call("POST", "/api/v1/training/bundle", server.operator.bundle, OCTETS)
    hand.call("POST", STRATEGY, server.operator.policy(**choices), OCTETS)
    return hand


def code(hand: Any) -> str:
    return str(hand.json("POST", "/api/v1/clients/invitations", {"uses": 100})["code"])


def clients(server: HubProcess, hand: Any) -> dict[str, Any]:
    """examples/star_client.py as anybody would run it: ten clients, of whom the last one lies."""
    script = ROOT / "examples" / "star_client.py"
    done = subprocess.run(
        [
            *(sys.executable, str(script), "--hub", server.url),
            *("--ca", str(server.certificate), "--code", code(hand)),
        ],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_every_feature_from_a_plain_client(server: HubProcess) -> None:
    stop = Stop(patience=4)
    hand = begin(server, epochs=3, learning_rate=0.2, stop=stop, rounds=40)
    told = clients(server, hand)
    assert told["accuracy"] >= 0.92

    history = hand.json("GET", "/api/v1/convergence/history")["rounds"]
    assert history[0]["stopped"] == "patience"
    kept = hand.json("POST", "/api/v1/checkpoints", {"name": "best"})
    model = hand.call("GET", "/api/v1/models/global")
    assert kept["digest"] == hashlib.sha256(model).hexdigest()

    rounds = len(history) + 2
    switch = server.operator.policy(rule="median", epochs=1, rounds=rounds)
    answer = json.loads(hand.call("POST", STRATEGY, switch, OCTETS))
    assert answer["rule"] == "median"
    clients(server, hand)
    after = hand.json("GET", "/api/v1/convergence/history")["rounds"]
    first = min(entry["round"] for entry in after if entry["rule"] == "median")
    assert first <= history[0]["round"] + 2

    hand.json("POST", "/api/v1/checkpoints/best/restore")
    assert hand.call("GET", "/api/v1/models/global") == model
    before = hand.json("GET", "/api/v1/storage")
    freed = hand.json("POST", "/api/v1/storage/cleanup", {"versions_kept": 1})
    left = hand.json("GET", "/api/v1/storage")
    gone = sum(before[key] - left[key] for key in ("model_bytes", "update_bytes"))
    assert freed["bytes_freed"] == gone > 0
    assert hand.call("GET", "/api/v1/models/global") == model

    security = hand.json("GET", "/api/v1/security/status")
    assert security["attackers_assumed"] == 1
    status = hand.json("GET", "/api/v1/status")
    assert status["star"]["clients"] == 20
    assert status["problems"] == []
    figures = server.hub().call("GET", "/metrics").decode()
    assert "gossipfl_hub_star_clients 20.0" in figures


def test_a_spent_budget_is_refused(server: HubProcess) -> None:
    privacy = Privacy(mode="local", unit="device", epsilon=2.0, delta=1e-5, clip=1.0, z=3.0)
    hand = begin(server, n=4, attackers=0, rule="mean", privacy=privacy)
    star = example()
    shares, held = star.digits(3)
    member = star.Client(server.hub(), "one", shares[0], held)
    member.register(code(hand))
    work(member)
    left = hand.json("GET", "/api/v1/privacy/budget")["clients"][0]["releases_left"]
    assert left > 0
    for _ in range(left):
        work(member)
    with pytest.raises(star.Refused) as found:
        work(member)
    assert (found.value.status, found.value.code) == (403, "GF845")
    budget = hand.json("GET", "/api/v1/privacy/budget")["clients"][0]
    assert (budget["releases"], budget["releases_left"]) == (left + 1, 0)
    assert 0.0 < budget["epsilon_spent"] <= 2.0


def work(member: Any) -> None:
    """One update, as soon as a round wants it."""
    while True:
        try:
            config = member.config()
        except example().Refused as refused:
            if refused.status != 404:
                raise
            continue
        if config["is_selected"] and not config["has_sent"] and member.step(config):
            return


def test_nothing_acknowledged_is_lost_when_the_hub_is_killed(server: HubProcess) -> None:
    hand = begin(server, n=9, attackers=0, rule="mean")
    star = example()
    shares, held = star.digits(8)
    members = [star.Client(server.hub(), str(i), share, held) for i, share in enumerate(shares)]
    invitation = code(hand)
    for member in members:
        member.register(invitation)
    acknowledged: list[tuple[str, str]] = []
    ended = threading.Event()

    def keep_on(member: Any) -> None:
        while not ended.is_set():
            try:
                config = member.config()
                if config["is_selected"] and not config["has_sent"]:
                    base = member.model(config["version"])
                    answer = member.send(config, base + 0.01)
                    acknowledged.append((answer["client_id"], answer["digest"]))
            except (OSError, star.Refused):
                ended.wait(0.05)

    threads = [threading.Thread(target=keep_on, args=(member,)) for member in members]
    for thread in threads:
        thread.start()
    while len(acknowledged) < 60:
        ended.wait(0.05)
    server.kill()
    ended.set()
    for thread in threads:
        thread.join(WAIT_S)
    known = list(acknowledged)
    server.start()
    hand = server.login("ann")
    merged = set()
    for version in hand.json("GET", "/api/v1/models?limit=1000")["versions"]:
        details = hand.json("GET", f"/api/v1/models/{version['version']}")["details"]
        merged |= {(part[0], part[1]) for part in details.get("merged", [])}
    status = hand.json("GET", "/api/v1/status")["star"]
    assert len(set(known) - merged) <= status["received"]
    assert len(known) >= 60
    assert status["version"] >= 5


def test_a_device_of_the_fleet_gets_a_token_by_its_certificate(
    server: HubProcess, tmp_path: Path
) -> None:
    enrol_local(server.fleet, tmp_path / "device")
    identity = read_identity(tmp_path / "device")
    body = json.dumps({"member": b64encode(identity.member_object).decode()}).encode()

    def ask(context: ssl.SSLContext) -> Any:
        request = urllib.request.Request(
            f"{server.url}/api/v1/auth/device", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, context=context, timeout=30) as answer:
            return json.load(answer)

    context = ssl.create_default_context(cafile=str(server.certificate))
    with pytest.raises(urllib.error.HTTPError, match="401"):
        ask(context)
    context.load_cert_chain(identity.tls_chain, identity.tls_key)
    token = ask(context)["access_token"]
    me = server.hub(token).json("GET", "/api/v1/auth/me")
    assert (me["role"], me["subject"]) == ("device", identity.signer.device.hex())


def test_events_come_as_they_happen(server: HubProcess) -> None:
    hand = server.login("ann")
    context = ssl.create_default_context(cafile=str(server.certificate))
    request = urllib.request.Request(
        f"{server.url}/api/v1/events", headers={"Authorization": f"Bearer {hand.token}"}
    )
    with urllib.request.urlopen(request, context=context, timeout=30) as stream:
        assert stream.readline().startswith(b": gossipfl")
        begin(server, n=3, attackers=0, rule="mean")
        while not (line := stream.readline()).startswith(b"event: star"):
            assert line
        assert b"run 1 starts at version 0" in stream.readline()


def test_off_loopback_there_is_no_start_without_an_operator(tmp_path: Path) -> None:
    server = HubProcess(tmp_path, {"api.host": "0.0.0.0"})
    done = server.gossipfl("hub", "run", "--config", str(server.config))
    assert done.returncode == 3
    assert json.loads(done.stdout.splitlines()[-1])["error"]["code"] == "GF834"


def test_users_are_made_listed_and_shut_out_by_the_command(server: HubProcess) -> None:
    made = server.user("vic", "add", "--role", "viewer", "--label", "site=north")
    body = {"code": made["code"], "password": PASSWORD}
    token = server.hub().json("POST", "/api/v1/auth/link", body)["access_token"]
    viewer = server.hub(token)
    assert viewer.json("GET", "/api/v1/clients") == {"clients": []}
    listed = json.loads(server.gossipfl("user", "list", "--config", str(server.config)).stdout)[
        "data"
    ]["users"]
    assert [(u["name"], u["state"]) for u in listed] == [("ann", "active"), ("vic", "active")]
    server.user("vic", "disable")
    with pytest.raises(example().Refused, match="401"):
        ask_until_refused(viewer)


def ask_until_refused(viewer: Any) -> None:
    """Another process revoked it: it counts here within a second."""
    end = time.monotonic() + 10.0
    while time.monotonic() < end:
        viewer.json("GET", "/api/v1/clients")
