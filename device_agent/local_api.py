"""Asking the agent on this machine over its Unix socket. Standard library only: `status` is quick.

One request per connection. A request is one line of JSON, `{"verb": ..., fields}`. The answer is
one line of JSON, `{"data": {...}, "body": N}` or `{"error": {code, cause, hint}}`, then N bytes.
The socket's mode (0600) says who may ask. Verbs are in `local_server`.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gossipfl.errors import ERRORS, UserError

REQUEST_BYTES_MAX = 128 * 1024  # a policy of 64 KiB in base64, with room
LINE_BYTES_MAX = 8 * 1024 * 1024  # the peers of a fleet of 4,096
BODY_BYTES_MAX = 1024 * 1024 * 1024  # a model of 256 M parameters
TIMEOUT_S = 10.0  # guess: the agent answers from memory; a commit under way may hold it a moment
PATH_BYTES_MAX = 107  # unix(7): sun_path, with its final zero byte
_READ = 256 * 1024


@contextmanager
def short(path: Path) -> Iterator[str]:
    """A name of `path` that fits into a socket address, however deep the folder lies."""
    if len(os.fsencode(path)) <= PATH_BYTES_MAX:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def call(path: Path, verb: str, /, **fields: Any) -> dict[str, Any]:
    """Ask the agent whose socket is `path`: its data, with bytes under "body" if it sent some.

    Raises UserError: GF311 if nobody answers, or what the agent answered.
    """
    line = json.dumps({"verb": verb, **fields}).encode() + b"\n"
    if len(line) > REQUEST_BYTES_MAX:
        raise UserError("GF312", f"{verb}: a request of {len(line)} bytes")
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(TIMEOUT_S)
            with short(path) as name:
                connection.connect(name)
            connection.sendall(line)
            return _answer(connection)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise UserError("GF311", f"no agent answers at {path}") from error
    except TimeoutError as error:
        raise UserError("GF311", f"the agent at {path} is silent for {TIMEOUT_S:g} s") from error
    except OSError as error:
        raise UserError("GF311", f"{path}: {error.strerror or error}") from error


def _answer(connection: socket.socket) -> dict[str, Any]:
    head = bytearray()
    while b"\n" not in head:
        part = connection.recv(_READ)
        if not part or len(head) > LINE_BYTES_MAX:
            raise UserError("GF312", "the agent's answer is cut short or too long")
        head += part
    line, _, rest = bytes(head).partition(b"\n")
    answer = json.loads(line)
    if "error" in answer:
        error = answer["error"]
        code = error["code"] if error["code"] in ERRORS else "GF312"
        raise UserError(code, error["cause"], error["hint"])
    data: dict[str, Any] = answer["data"]
    size = answer.get("body", 0)
    if size > BODY_BYTES_MAX:
        raise UserError("GF312", f"the agent's answer has {size} bytes")
    if "body" in answer:
        data["body"] = _rest(connection, rest, size)
    return data


def _rest(connection: socket.socket, begun: bytes, size: int) -> bytes:
    parts = bytearray(begun)
    while len(parts) < size:
        part = connection.recv(_READ)
        if not part:
            raise UserError("GF312", f"the agent sent {len(parts)} of {size} bytes")
        parts += part
    return bytes(parts)
