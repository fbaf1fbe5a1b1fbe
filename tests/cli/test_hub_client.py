"""A hub's API as the command asks it: where a token goes, and what a wrong answer says."""

from __future__ import annotations

import json
import threading
from argparse import Namespace
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gossipfl.cli.hub_client import HubClient
from gossipfl.errors import UserError

TOKEN = json.dumps({"access_token": "secret"}).encode()


class Answers(BaseHTTPRequestHandler):
    """Says what the test wrote down for a path, and notes who showed what."""

    def _answer(self) -> None:
        server: Any = self.server
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        server.shown.append((self.path, self.headers.get("Authorization")))
        status, headers, body = server.answers[self.path]
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = _answer

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.shown, server.answers = [], {"/api/v1/auth/token": (200, {}, TOKEN)}
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def args(hub: Any, tmp_path: Path) -> Namespace:
    password = tmp_path / "password"
    password.touch(0o600)
    password.write_text("a long sentence")
    url = f"http://127.0.0.1:{hub.server_port}"
    return Namespace(hub=url, user="ann", password_file=password, hub_ca=None)


def test_a_token_goes_to_the_hub_and_nowhere_else(hub: Any, args: Namespace) -> None:
    hub.answers["/there"] = (302, {"Location": "/elsewhere"}, b"")
    hub.answers["/elsewhere"] = (200, {}, b"{}")
    with pytest.raises(UserError):
        HubClient.login(args).fetch("/there")
    assert hub.shown == [("/api/v1/auth/token", None), ("/there", "Bearer secret")]


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b"{}", b'{"access_token": 3}'])
def test_who_is_no_hub_is_told(hub: Any, args: Namespace, answer: bytes) -> None:
    hub.answers["/api/v1/auth/token"] = (200, {}, answer)
    with pytest.raises(UserError) as told:
        HubClient.login(args)
    assert told.value.code == "GF806"
