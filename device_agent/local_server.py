"""The agent's side of the Unix socket: one bounded request, one answer, then the end.

`Answers` are the verbs: each takes the request's fields and gives plain data, with bytes to follow
or none. What they do is the agent's business; this module only guards the door.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import stat
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from device_agent.local_api import REQUEST_BYTES_MAX, short
from gossipfl.errors import UserError

CONNECTIONS_MAX = 16  # guess: people, a monitor and a script or two
REQUEST_S = 5.0  # a local program has its request ready
VERB_S = 8.0  # below the asker's 10 s, so that it hears a reason
ANSWER_S = 30.0  # guess: a reader that stops reading is dropped

log = logging.getLogger(__name__)


class Answer(NamedTuple):
    data: Mapping[str, Any]
    body: bytes | None = None


Verb = Callable[[Mapping[str, Any]], Awaitable[Answer]]


class LocalServer:
    """Serves `verbs` on a Unix socket at `path`, mode 0600, in the running loop."""

    def __init__(self, path: Path, verbs: Mapping[str, Verb]) -> None:
        self._path = path
        self._verbs = verbs
        self._server: asyncio.Server | None = None
        self._open = 0

    async def start(self) -> None:
        """Raises UserError GF313 if the socket cannot be made. A dead one is replaced."""
        try:
            listening = _bound(self._path)
        except OSError as error:
            raise UserError("GF313", f"{self._path}: {error.strerror or error}") from error
        self._server = await asyncio.start_unix_server(
            self._serve, sock=listening, limit=REQUEST_BYTES_MAX
        )

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            with suppress(OSError):
                self._path.unlink()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= CONNECTIONS_MAX:
                async with asyncio.timeout(REQUEST_S):
                    line = await reader.readuntil(b"\n")
                async with asyncio.timeout(VERB_S):
                    answer = await self._answer(line)
                async with asyncio.timeout(ANSWER_S):
                    writer.writelines(answer)
                    await writer.drain()
        except (OSError, TimeoutError, EOFError, asyncio.LimitOverrunError) as error:
            log.debug("local request dropped: %s", error)
        finally:
            self._open -= 1
            writer.close()

    async def _answer(self, line: bytes) -> list[bytes]:
        try:
            data, body = await self._dispatch(line)
        except UserError as error:
            told = {"code": error.code, "cause": error.cause, "hint": error.hint}
            return [_line({"error": told})]
        except Exception as error:  # ours: loud in the log, told to the asker, no end of the agent
            log.exception("local request failed")
            bug = UserError("GF001", f"{type(error).__name__}: {error}")
            return [_line({"error": {"code": bug.code, "cause": bug.cause, "hint": bug.hint}})]
        if body is None:
            return [_line({"data": data})]
        return [_line({"data": data, "body": len(body)}), body]

    async def _dispatch(self, line: bytes) -> Answer:
        try:
            request = json.loads(line)
        except ValueError as error:
            raise UserError("GF312", f"a request is one line of JSON: {error}") from error
        name = request.get("verb") if isinstance(request, dict) else None
        verb = self._verbs.get(name) if isinstance(name, str) else None
        if verb is None:
            raise UserError("GF312", f"the agent does not know {name!r}")
        return await verb(request)


def _line(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, allow_nan=False).encode() + b"\n"


def _bound(path: Path) -> socket.socket:
    """Made under a name that nobody knows and renamed, so that it is never open to others."""
    if path.exists() and not stat.S_ISSOCK(path.stat().st_mode):
        raise OSError(f"{path} is there and is no socket")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.setblocking(False)
        with short(temporary) as name:
            listening.bind(name)
        temporary.chmod(0o600)
        listening.listen(CONNECTIONS_MAX)
        temporary.replace(path)
    except OSError:
        listening.close()
        temporary.unlink(missing_ok=True)
        raise
    return listening
