"""What receives alerts in tests: a webhook that can be told to fail, and a mail server."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from gossipfl.hub.alerts.channels import Undelivered
from gossipfl.hub.alerts.messages import Message
from gossipfl.hub.page.finding import Finding, Kind, Level

SECRET = b"0123456789abcdef-of-the-tests"
NOON = 1_800_000_000
WAIT_S = 20.0


def finding(
    kind: Kind = Kind.SILENCE,
    subject: str = "",
    level: Level = Level.WARNING,
    *,
    title: str = "",
    at_once: bool = False,
) -> Finding:
    said = title or f"{kind.value} of {subject}"
    return Finding(kind, subject, level, said, "words", at_once=at_once)


@dataclass
class Clock:
    now: int = NOON

    def __call__(self) -> int:
        return self.now


class Receiver:
    """A channel that keeps what it is given; while `problem` is set it takes nothing."""

    def __init__(self, name: str = "webhook") -> None:
        self.name = name
        self.got: list[tuple[str, dict[str, Any]]] = []
        self.tries = 0
        self.problem = ""

    async def send(self, message: Message) -> None:
        self.tries += 1
        if self.problem:
            raise Undelivered(self.problem)
        self.got.append((message.key, message.content))

    @property
    def events(self) -> list[tuple[str, str]]:
        return [(content["kind"], content["event"]) for _, content in self.got]


@dataclass
class Hook:
    """A webhook over HTTP. `status` is what it answers."""

    url: str = ""
    status: int = 204
    headers: dict[str, str] = field(default_factory=dict)
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def contents(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.got]

    async def until(self, holds: Callable[[list[dict[str, Any]]], object]) -> None:
        """Until what it has got is enough."""
        async with asyncio.timeout(WAIT_S):
            while not holds(self.contents):
                self.changed.clear()
                await self.changed.wait()

    async def answer(self, request: web.Request) -> web.Response:
        self.got.append((dict(request.headers), await request.read()))
        self.changed.set()
        return web.Response(status=self.status, headers=self.headers)


def is_signed(headers: dict[str, str], body: bytes, secret: bytes = SECRET) -> bool:
    """As docs/how-to/alerts.md tells receivers to check it."""
    parts = dict(part.split("=", 1) for part in headers["X-Gossipfl-Signature"].split(","))
    wanted = hmac.new(secret, f"{parts['t']}.".encode() + body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(parts["v1"], wanted)


@contextlib.asynccontextmanager
async def hook(tls: ssl.SSLContext | None = None) -> AsyncIterator[Hook]:
    made = Hook()
    app = web.Application()
    app.router.add_post("/alerts", made.answer)
    runner = web.AppRunner(app, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    scheme = "http" if tls is None else "https"
    made.url = f"{scheme}://127.0.0.1:{runner.addresses[0][1]}/alerts"
    try:
        yield made
    finally:
        await runner.cleanup()


class MailServer(asyncio.Protocol):
    """So much of RFC 5321 that a mail goes in; `offers` are the extensions that it names."""

    def __init__(self, mails: list[str], offers: Sequence[str], refuses: bool) -> None:
        self._mails = mails
        self._offers = offers
        self._refuses = refuses
        self._lines: list[str] = []
        self._in_data = False
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._say("220 here")

    def data_received(self, data: bytes) -> None:
        self._rest += data
        while b"\r\n" in self._rest:
            line, _, self._rest = self._rest.partition(b"\r\n")
            self._line(line.decode())

    def _line(self, line: str) -> None:
        if self._in_data:
            if line == ".":
                self._in_data = False
                self._mails.append("\n".join(self._lines))
                self._say("250 taken")
            else:
                self._lines.append(line)
            return
        match line.split()[0].upper():
            case "EHLO":
                for offer in self._offers:
                    self._say(f"250-{offer}")
                self._say("250 8BITMIME")
            case "DATA":
                self._in_data, self._lines = True, []
                self._say("354 go on")
            case "RCPT" if self._refuses:
                self._say("550 no such mailbox")
            case "QUIT":
                self._say("221 bye")
            case _:
                self._say("250 ok")

    def _say(self, line: str) -> None:
        self._transport.write(line.encode() + b"\r\n")


@contextlib.asynccontextmanager
async def mail_server(
    *, tls: ssl.SSLContext | None = None, offers: Sequence[str] = (), refuses: bool = False
) -> AsyncIterator[tuple[str, list[str]]]:
    """Where it listens, and what it has taken."""
    mails: list[str] = []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: MailServer(mails, offers, refuses), "127.0.0.1", 0, ssl=tls
    )
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", mails
    finally:
        server.close()
        await server.wait_closed()
