"""A hub's API for verbs of the command: log in, ask, and say in our words what went wrong."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
from argparse import Namespace
from pathlib import Path
from typing import Any

from gossipfl.errors import ERRORS, UserError

TIMEOUT_S = 120.0  # `issue` waits up to a minute, a report reads the whole log
ANSWER_BYTES_MAX = 64 * 1024 * 1024  # guess: ten times a report on the largest fleet
PROBLEM_BYTES_MAX = 65_536
PASSWORD_BYTES_MAX = 4_096


def add_hub(parser: Any, *, required: bool = False) -> None:
    """Which hub, and who asks."""
    group = parser.add_argument_group("a hub")
    group.add_argument("--hub", required=required, metavar="URL", help="as https://hub.lan:8700")
    group.add_argument("--user", metavar="NAME", help="who logs in there, an operator")
    group.add_argument("--password-file", type=Path, metavar="FILE", help="of mode 0600")
    group.add_argument("--hub-ca", type=Path, metavar="PEM", help="if it is signed by no public CA")


class HubClient:
    """The API under `url` for who holds `token`. `ca`: whom the hub's certificate is from, if that
    is no public CA. Raises UserError: GF806 if no hub answers, else the code that the hub gives."""

    def __init__(self, url: str, ca: Path | None, token: str = "") -> None:
        self._url = url.rstrip("/")
        if not self._url.startswith(("http://", "https://")):
            raise UserError("GF100", f"{url}: a URL begins with http:// or https://")
        host = urllib.parse.urlsplit(self._url).hostname or ""
        if self._url.startswith("http://") and host not in ("127.0.0.1", "::1", "localhost"):
            raise UserError("GF100", f"{url}: over plain HTTP anybody on the way reads a secret")
        self._context = ssl.create_default_context()
        if ca is not None:
            try:
                self._context.load_verify_locations(cafile=ca)
            except (OSError, ssl.SSLError) as error:
                raise UserError("GF403", f"{ca}: {error}") from error
        self._token = token

    @classmethod
    def login(cls, args: Namespace) -> HubClient:
        """One login, as the flags of `add_hub` say."""
        from gossipfl.fleet import files

        if args.user is None or args.password_file is None:
            raise UserError("GF100", "--hub needs --user and --password-file")
        client = cls(str(args.hub), args.hub_ca)
        password = files.read_secret(args.password_file, PASSWORD_BYTES_MAX).decode().strip()
        login = {"name": args.user, "password": password}
        told = client.json("POST", "/api/v1/auth/token", login)
        if not isinstance(told, dict) or not isinstance(told.get("access_token"), str):
            raise UserError("GF806", f"{args.hub}: no hub's answer to a login")
        client._token = told["access_token"]
        return client

    def json(self, method: str, path: str, body: Any = None) -> Any:
        """JSON or nothing there, JSON back."""
        data = None if body is None else json.dumps(body).encode()
        found = self._call(method, path, data, "application/json")
        return _parsed(found, path) if found else None

    def send(self, path: str, body: bytes) -> Any:
        """Bytes there, JSON back."""
        return _parsed(self._call("POST", path, body, "application/octet-stream"), path)

    def fetch(self, path: str) -> bytes:
        """Nothing there, bytes back."""
        return self._call("GET", path, None, "")

    def _call(self, method: str, path: str, data: bytes | None, kind: str) -> bytes:
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        if data is not None:
            headers["Content-Type"] = kind
        request = urllib.request.Request(
            self._url + path, data=data, headers=headers, method=method
        )
        try:
            with _opener(self._context).open(request, timeout=TIMEOUT_S) as answer:
                found: bytes = answer.read(ANSWER_BYTES_MAX + 1)
        except urllib.error.HTTPError as error:
            raise _problem(error, path) from error
        except (OSError, ValueError) as error:
            raise UserError("GF806", f"{self._url}: {error}") from error
        if len(found) > ANSWER_BYTES_MAX:
            raise UserError("GF806", f"{path}: an answer of more than {ANSWER_BYTES_MAX} bytes")
        return found


def _opener(context: ssl.SSLContext) -> urllib.request.OpenerDirector:
    """A hub's API sends nobody elsewhere: a token that went along would be another's."""

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *args: Any, **named: Any) -> None:
            return None

    return urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), Stay())


def _problem(error: urllib.error.HTTPError, path: str) -> UserError:
    """The hub's problem+json as our own error."""
    try:
        told = json.loads(error.read(PROBLEM_BYTES_MAX))
        code, detail, hint = str(told["code"]), str(told["detail"]), str(told["hint"])
    except (ValueError, KeyError, TypeError):
        return UserError("GF806", f"{path}: HTTP {error.code}")
    return UserError(code if code in ERRORS else "GF806", _plain(detail), _plain(hint) or None)


def _parsed(data: bytes, path: str) -> Any:
    try:
        return json.loads(data)
    except ValueError as error:
        raise UserError("GF806", f"{path}: the answer is no JSON") from error


def _plain(text: str) -> str:
    """A hub's words go to a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text[:600])
