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

TIMEOUT_S = 90.0  # `issue` waits up to a minute
ANSWER_BYTES_MAX = 16 * 1024 * 1024
PASSWORD_BYTES_MAX = 4_096


def add_hub(parser: Any, *, required: bool = False) -> None:
    """Which hub, and who asks."""
    group = parser.add_argument_group("a hub")
    group.add_argument("--hub", required=required, metavar="URL", help="as https://hub.lan:8700")
    group.add_argument("--user", metavar="NAME", help="who logs in there, an operator")
    group.add_argument("--password-file", type=Path, metavar="FILE", help="of mode 0600")
    group.add_argument("--hub-ca", type=Path, metavar="PEM", help="if it is signed by no public CA")


class HubClient:
    """One login. Raises UserError: GF311 if nobody answers, else the code that the hub gives."""

    def __init__(self, args: Namespace) -> None:
        from gossipfl.fleet import files

        self._url = str(args.hub).rstrip("/")
        if not self._url.startswith(("http://", "https://")):
            raise UserError("GF100", f"--hub {args.hub}: a URL begins with http:// or https://")
        host = urllib.parse.urlsplit(self._url).hostname or ""
        if self._url.startswith("http://") and host not in ("127.0.0.1", "::1", "localhost"):
            raise UserError("GF100", f"--hub {args.hub}: a password goes over https only")
        if args.user is None or args.password_file is None:
            raise UserError("GF100", "--hub needs --user and --password-file")
        self._context = ssl.create_default_context()
        if args.hub_ca is not None:
            try:
                self._context.load_verify_locations(cafile=args.hub_ca)
            except (OSError, ssl.SSLError) as error:
                raise UserError("GF403", f"{args.hub_ca}: {error}") from error
        files.require_private(args.password_file)
        password = files.read_file(args.password_file, PASSWORD_BYTES_MAX).decode().strip()
        login = {"name": args.user, "password": password}
        self._token = ""
        told = self.json("POST", "/api/v1/auth/token", login)
        if not isinstance(told, dict) or not isinstance(told.get("access_token"), str):
            raise UserError("GF312", f"{self._url}: no hub's answer to a login")
        self._token = told["access_token"]

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
            with opener(self._context).open(request, timeout=TIMEOUT_S) as answer:
                found: bytes = answer.read(ANSWER_BYTES_MAX)
                return found
        except urllib.error.HTTPError as error:
            raise _problem(error, path) from error
        except (OSError, ValueError) as error:
            raise UserError("GF311", f"{self._url}: {error}") from error


def opener(context: ssl.SSLContext) -> urllib.request.OpenerDirector:
    """A hub's API sends nobody elsewhere: a token that went along would be another's."""

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *args: Any, **named: Any) -> None:
            return None

    return urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), Stay())


def _problem(error: urllib.error.HTTPError, path: str) -> UserError:
    """The hub's problem+json as our own error."""
    try:
        told = json.loads(error.read(ANSWER_BYTES_MAX))
        code, detail, hint = str(told["code"]), str(told["detail"]), str(told["hint"])
    except (ValueError, KeyError, TypeError):
        return UserError("GF312", f"{path}: HTTP {error.code}")
    return UserError(code if code in ERRORS else "GF312", plain(detail), plain(hint) or None)


def _parsed(data: bytes, path: str) -> Any:
    try:
        return json.loads(data)
    except ValueError as error:
        raise UserError("GF312", f"{path}: the answer is no JSON") from error


def plain(text: str) -> str:
    """A hub's words go to a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text[:600])
