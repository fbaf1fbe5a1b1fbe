"""`gossipfl fleet issuer run`: the enrolment service, three small routes over TLS 1.3.

Strangers may connect (they have no certificate yet), so everything is small, counted and timed:
handshakes by address (`net.listener`), connections in all, the whole life of a connection, bodies,
requests by address, and failures by address more strictly.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import ssl
import time
from collections.abc import Callable
from typing import Any

from aiohttp import web

from gossipfl.config import Limits
from gossipfl.errors import UserError
from gossipfl.events import Address
from gossipfl.fleet import files, pki
from gossipfl.fleet.desk import Desk
from gossipfl.fleet.enrolment import REQUEST_BYTES_MAX
from gossipfl.fleet.folders import IssuerFolder
from gossipfl.fleet.throttle import Throttle
from gossipfl.fleet.tokens import Refusal, RefusedError, Tokens
from gossipfl.net.listener import Listener, origin_of
from gossipfl.net.traffic import Traffic

CONNECTIONS_MAX = 64  # guess: a rack of boards that start at one instant
LIFE_S = 20.0  # a whole enrolment takes well under a second; slow readers and writers end here
REQUESTS_PER_S = 5.0  # guess, per address: a site behind one address enrols one board a second
REQUESTS_BURST = 150.0  # guess: 50 boards behind one address at one instant, three requests each
FAILURES_PER_S = 0.2  # guess: a person who mistypes; the secret is safe at any rate
FAILURES_BURST = 20.0
STATUS = {
    Refusal.MALFORMED: 400,
    Refusal.BUSY: 429,
    Refusal.ISSUER: 503,
}  # the rest: 403

log = logging.getLogger(__name__)
# aiohttp logs every malformed request with a traceback: a stranger could fill the disk with it.
_SILENT = logging.Logger("gossipfl.fleet.silent", level=logging.CRITICAL + 1)
_OPTIONS: dict[str, Any] = {
    "access_log": None,
    "logger": _SILENT,
    "auto_decompress": False,
    "keepalive_timeout": LIFE_S,
    "lingering_time": 0.0,
    "max_line_size": 512,
    "max_field_size": 512,
}


class Service:
    """One issuer behind a port. `life_s` is the longest that one connection may last."""

    def __init__(
        self,
        folder: IssuerFolder,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        life_s: float = LIFE_S,
    ) -> None:
        """Raises UserError if the issuer cannot issue (files, dates)."""
        issuer = folder.load()
        issuer.require_valid(int(clock()))
        self.folder = folder
        self.desk = Desk(issuer, Tokens(folder.tokens))
        self._clock = clock
        self._monotonic = monotonic
        self._life_s = life_s
        self._context, self._server_digest = _tls(folder, self.desk, int(clock()))
        self._requests = Throttle(REQUESTS_PER_S, REQUESTS_BURST)
        self._failures = Throttle(FAILURES_PER_S, FAILURES_BURST)
        self._runner: web.AppRunner | None = None
        self._listener: Listener | None = None

    async def start(self, host: str, port: int) -> Address:
        """Listen; port 0 means any free one. Raises UserError GF302."""
        app = web.Application(client_max_size=REQUEST_BYTES_MAX)
        app.add_routes(
            [
                web.get("/v1/root", self._root),
                web.get("/v1/challenge", self._challenge),
                web.post("/v1/join", self._join),
            ]
        )
        self._runner = web.AppRunner(app, **_OPTIONS)
        await self._runner.setup()
        self._listener = Listener(
            self._protocol, self._context, self._make_room, Limits(), Traffic()
        )
        try:
            bound = self._listener.open([host], port)
        except UserError:
            await self.close()
            raise
        return Address(host, bound)

    async def close(self) -> None:
        """Stop; requests under way are ended."""
        if self._listener is not None:
            await self._listener.close()
        if self._runner is not None:
            await self._runner.cleanup()

    def _protocol(self) -> asyncio.Protocol:
        if self._runner is None or self._runner.server is None:
            raise RuntimeError("the service has not been started")
        handler = self._runner.server()
        asyncio.get_running_loop().call_later(self._life_s, _abort, handler)
        return handler

    @property
    def connections(self) -> list[web.RequestHandler]:
        """Those open now."""
        server = self._runner.server if self._runner else None
        return server.connections if server else []

    def _make_room(self, origin: str) -> bool:
        """May one more come from `origin`? As in `net.listener`: whoever holds most makes way."""
        held: dict[str, list[web.RequestHandler]] = {}
        for handler in self.connections:  # oldest first
            transport = handler.transport
            peer = transport.get_extra_info("peername") if transport is not None else None
            if transport is not None and peer and not transport.is_closing():
                held.setdefault(origin_of(peer[0]), []).append(handler)
        if sum(map(len, held.values())) < CONNECTIONS_MAX:
            return True
        most = max(held.values(), key=len)
        if len(held.get(origin, ())) + 1 >= len(most):
            return False
        _abort(most[0])
        return True

    async def _root(self, request: web.Request) -> web.Response:
        self._require_allowed(request)
        return web.Response(body=pki.der(self.desk.issuer.root))

    async def _challenge(self, request: web.Request) -> web.Response:
        self._require_allowed(request)
        return web.Response(body=self.desk.challenge(int(self._clock())))

    async def _join(self, request: web.Request) -> web.Response:
        self._require_allowed(request)
        address = request.remote or ""
        if not self._failures.allow(address, self._monotonic(), cost=0.0):
            return _refusal(Refusal.BUSY)
        body = await request.read()  # at most REQUEST_BYTES_MAX, within the connection's life
        now = int(self._clock())
        try:
            # In a thread: it waits for the disk, and others may hold the token file.
            answer = await asyncio.to_thread(self.desk.admit, body, self._server_digest, now)
        except RefusedError as error:
            self._failures.allow(address, self._monotonic())
            log.warning("refused a joiner at %s: %s", address, error.refusal.value)
            return _refusal(error.refusal)
        except UserError as error:
            log.error("cannot admit anybody: %s", error.cause)  # noqa: TRY400 - no traceback
            return _refusal(Refusal.BUSY)
        return web.Response(body=answer)

    def _require_allowed(self, request: web.Request) -> None:
        if not self._requests.allow(request.remote or "", self._monotonic()):
            raise web.HTTPTooManyRequests(text=Refusal.BUSY.value)


def _refusal(refusal: Refusal) -> web.Response:
    return web.Response(status=STATUS.get(refusal, 403), text=refusal.value)


def _abort(handler: web.RequestHandler) -> None:
    if handler.transport is not None:
        handler.transport.abort()


def _tls(folder: IssuerFolder, desk: Desk, now: int) -> tuple[ssl.SSLContext, bytes]:
    """A fresh key and certificate for this run, and the certificate's digest.

    The chain includes the root, which no verifier needs, so that one look at the handshake shows
    whose issuer this is.
    """
    seed = secrets.token_bytes(files.SEED_BYTES)
    leaf = desk.issuer.service_certificate(pki.public_bytes(seed), now)
    key_path, chain_path = folder.tls
    files.write_file(key_path, pki.key_pem(seed))
    chain = pki.pem(leaf, desk.issuer.certificate, desk.issuer.root)
    files.write_file(chain_path, chain, files.PUBLIC_MODE)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(chain_path, key_path)
    context.num_tickets = 0
    return context, hashlib.sha256(pki.der(leaf)).digest()
