"""Two processes of one hub on one PostgreSQL, as behind a balancer; one is killed under load."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from authkit import PASSWORD
from processkit import WAIT_S, HubProcess, free_port
from starkit import example

from gossipfl.hub.settings import load_settings

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

OCTETS = "application/octet-stream"
TAKE_OVER_S = 10.0


def second_of(first: HubProcess, folder: Path) -> HubProcess:
    """Another instance: the same keys and database, ports of its own."""
    second = HubProcess.__new__(HubProcess)
    second.__dict__.update(first.__dict__)
    second.state, second.log, second.process = folder, folder.with_suffix(".log"), None
    shutil.copytree(first.state, folder)
    second.port = free_port()
    second.config = folder / "hub.toml"
    text = first.config.read_text()
    peers = load_settings([first.config]).network.port
    for old, new in ((first.port, second.port), (peers, free_port())):
        assert f"port = {old}\n" in text
        text = text.replace(f"port = {old}\n", f"port = {new}\n")
    second.config.write_text(text)
    return second


@pytest.fixture
def servers(tmp_path: Path, postgres_dsn: str) -> Iterator[tuple[HubProcess, HubProcess]]:
    first = HubProcess(tmp_path, {"database.dsn": postgres_dsn, "pace.preset": "demo"})
    secret = tmp_path / "password"
    secret.touch(0o600)
    secret.write_text(PASSWORD + "\n")
    first.user("ann", "add", "--role", "operator", "--password-file", str(secret))
    first.start()
    second = second_of(first, tmp_path / "hub-2")
    second.start()
    yield first, second
    for server in (first, second):
        server.close()


def until(server: HubProcess, holds: Callable[[], object]) -> None:
    ends = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < ends, server.log.read_text()[-3000:]
        time.sleep(0.05)


def test_one_of_two_is_killed_under_load_and_nothing_acknowledged_is_lost(
    servers: tuple[HubProcess, HubProcess],
) -> None:
    first, second = servers
    hand = first.login("ann")
    hand.call("POST", "/api/v1/training/bundle", first.operator.bundle, OCTETS)
    policy = first.operator.policy(n=9, attackers=0, rule="mean")
    hand.call("POST", "/api/v1/aggregation/strategy", policy, OCTETS)
    invitation = hand.json("POST", "/api/v1/clients/invitations", {"uses": 100})["code"]
    star = example()
    shares, held = star.digits(8)
    urls = [first.url, second.url]
    members = []
    for number, share in enumerate(shares):
        hub = star.Hub(urls[number % 2], str(first.certificate), "")
        members.append(star.Client(hub, str(number), share, held))
        members[-1].register(invitation)
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
            except star.Refused:
                ended.wait(0.05)
            except OSError:  # as a balancer does: the other one
                member.hub.url = second.url
                ended.wait(0.05)

    threads = [threading.Thread(target=keep_on, args=(member,)) for member in members]
    for thread in threads:
        thread.start()
    try:
        until(first, lambda: len(acknowledged) >= 40)
        assert first.hub().json("GET", "/health")["leads"] is True
        assert second.hub().json("GET", "/health")["leads"] is False
        first.kill()
        began, before = time.monotonic(), len(acknowledged)
        until(second, lambda: second.hub().json("GET", "/health")["leads"])
        taken_over_s = time.monotonic() - began
        until(second, lambda: len(acknowledged) >= before + 40)
    finally:
        ended.set()
        for thread in threads:
            thread.join(WAIT_S)
    assert taken_over_s < TAKE_OVER_S
    known = set(acknowledged)
    hand = second.login("ann")
    merged = set()
    for version in hand.json("GET", "/api/v1/models?limit=1000")["versions"]:
        details = hand.json("GET", f"/api/v1/models/{version['version']}")["details"]
        merged |= {(part[0], part[1]) for part in details.get("merged", [])}
    status = hand.json("GET", "/api/v1/status")["star"]
    assert len(known - merged) <= status["received"]
    assert len(known) >= 80
