"""Reports of a real hub: by its folder, over its API, and checked without it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from authkit import PASSWORD
from processkit import WAIT_S, HubProcess

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HubProcess]:
    """A hub with an operator, whose pace gives its log a checkpoint within seconds."""
    server = HubProcess(tmp_path, {"pace.preset": "demo", "reports.price_per_gb": 2.0})
    secret = tmp_path / "password"
    secret.touch(0o600)
    secret.write_text(PASSWORD)
    server.user("ann", "add", "--role", "operator", "--password-file", str(secret))
    server.start()
    yield server
    server.close()


def test_the_command_gets_what_the_hub_signs(server: HubProcess, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.touch(0o600)
    token.write_text(server.login("ann").token)
    key = json.loads(server.gossipfl("audit", "key", "--state", str(server.state)).stdout)
    (tmp_path / "hub.pub").write_text(key["data"]["log"])
    hub_key = ("--hub-key", str(tmp_path / "hub.pub"))
    made, config = tmp_path / "compliance.json", ("--config", str(server.config))
    there = (server.url, "--token-file", str(token), "--ca", str(server.certificate))
    end = time.monotonic() + WAIT_S
    while True:  # the log is empty until its first checkpoint, and names no fleet before a member
        made.unlink(missing_ok=True)
        done = server.gossipfl("report", "compliance", *there, "-o", str(made))
        is_made = done.returncode == 0
        if time.monotonic() > end or (is_made and '"kind":"member"' in made.read_text()):
            break
        assert is_made or json.loads(done.stdout)["error"]["code"] == "GF823", done.stdout
    assert done.returncode == 0, done.stdout
    checked = server.gossipfl("audit", "verify", str(made), *hub_key)
    told = json.loads(checked.stdout)["data"]
    assert told["valid"]
    size = str(told["entries"])

    own = server.gossipfl("report", "compliance", *config, "--size", size, "--against", str(made))
    assert json.loads(own.stdout)["data"] == {"same": True}
    database = str(server.state / "hub.db")
    bare = ("report", "compliance", database, *hub_key, "--size", size, "--against", str(made))
    assert json.loads(server.gossipfl(*bare).stdout)["data"] == {"same": True}
    cost = server.gossipfl("report", "cost", *config)
    assert json.loads(cost.stdout)["data"]["tariffs"]["price_per_gb"] == 2.0
    page = tmp_path / "summary.html"
    assert server.gossipfl("report", "summary", *there, "-o", str(page)).returncode == 0
    assert "Nothing was merged yet." in page.read_text()
    token.write_text("not a token")
    refused = server.gossipfl("report", "summary", *there, "-o", str(page))
    assert json.loads(refused.stdout)["error"]["code"] == "GF821"
