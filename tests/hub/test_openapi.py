"""`/openapi.json` against a real hub: what is described is what is answered."""

from __future__ import annotations

import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from authkit import PASSWORD
from processkit import HubProcess

from gossipfl.hub.api import described
from gossipfl.hub.rest.openapi import document

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_headers_conformance,response_schema_conformance"
)
# A stream that does not end by itself, and what would end the session that asks.
LEFT_OUT = "events|session/end|auth/revoke|auth/credentials|logout"
PAGE = "page"  # its routes are a browser's: tests of the page look at them
EXAMPLES = 2  # of each operation, beside the coverage phase's own
ODD: tuple[Any, ...] = (None, [], {}, "x", 7, {"name": None}, {"version": -1}, {"client_id": "zz"})


@pytest.fixture
def server(tmp_path: Path) -> Iterator[HubProcess]:
    """A hub with an operator."""
    server = HubProcess(tmp_path)
    secret = tmp_path / "password"
    secret.touch(0o600)
    secret.write_text(PASSWORD)
    server.user("ann", "add", "--role", "operator", "--password-file", str(secret))
    server.start()
    yield server
    server.close()


def test_the_document_is_whole() -> None:
    made = document(described())
    text = json.dumps(made)
    names = set(re.findall(r'"#/components/schemas/([^"]+)"', text))
    assert names <= set(made["components"]["schemas"])
    for path, methods in made["paths"].items():
        for operation in methods.values():
            found = {p["name"] for p in operation.get("parameters", ()) if p["in"] == "path"}
            assert found == set(re.findall(r"{(\w+)}", path))


def test_every_operation_answers_odd_bodies_as_described(server: HubProcess) -> None:
    """Without other tools: only statuses that the document names, and never a server error."""
    hand = server.login("ann")
    made = hand.json("GET", "/openapi.json")
    wrong, asked = [], 0
    for path, methods in made["paths"].items():
        for method, operation in methods.items():
            if re.search(LEFT_OUT, path) or operation["tags"] == [PAGE]:
                continue
            filled = re.sub(r"{\w+}", "nobody", path)
            bodies = ODD if "requestBody" in operation else (None,)
            for odd in bodies:
                body = json.dumps(odd).encode() if "requestBody" in operation else None
                status = _status(server, hand.token, method.upper(), filled, body)
                asked += 1
                if str(status) not in operation["responses"] or status in (500, 502):
                    wrong.append((method, path, odd, status))
    assert not wrong
    assert asked > 100


def _status(server: HubProcess, token: str, method: str, path: str, body: bytes | None) -> int:
    """Tried again as long as it is too much."""
    headers = {"Authorization": f"Bearer {token}"}
    if body is not None:
        headers["Content-Type"] = "application/json"
    context = ssl.create_default_context(cafile=str(server.certificate))
    while True:
        request = urllib.request.Request(server.url + path, body, headers, method=method)
        try:
            with urllib.request.urlopen(request, context=context, timeout=30) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            if error.code != 429:
                return error.code
            time.sleep(float(error.headers["Retry-After"]))


@pytest.mark.skipif(
    shutil.which("schemathesis") is None,
    reason="schemathesis is not on the path: pipx install schemathesis",
)
def test_schemathesis_finds_nothing(server: HubProcess) -> None:
    hand = server.login("ann")
    done = subprocess.run(
        [
            *("schemathesis", "run", f"{server.url}/openapi.json"),
            *("--tls-verify", str(server.certificate), "--checks", CHECKS),
            *("-H", f"Authorization: Bearer {hand.token}", "--max-examples", str(EXAMPLES)),
            *("--exclude-path-regex", LEFT_OUT, "--exclude-tag", PAGE),
            *("--rate-limit", "15/s", "--phases", "coverage,fuzzing"),
            *("--seed", "1", "--no-color"),
        ],
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        timeout=500,
        check=False,
    )
    sys.stderr.write(done.stdout[-600:])
    assert done.returncode == 0, done.stdout[-3000:]
