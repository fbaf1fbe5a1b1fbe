"""The peer server: two GET routes over mutual TLS, nothing to post to, everything bounded.

`GET /v1/heads/{self|hex device}` and `GET /v1/objects/{hex sha256}`, as the protocol page of the
docs states them. Anything else is 404, a request with a body is refused before the body is read.
A `Prefer: wait=` (RFC 7240) on the own head is held until there is something new.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence
from typing import Protocol

from aiohttp import web

from gossipfl.config import Limits
from gossipfl.identity import DEVICE_ID_BYTES
from gossipfl.net import replies
from gossipfl.net.connection import Connection
from gossipfl.net.headers import RIDE, count, from_etag, from_hex, from_prefer
from gossipfl.net.listener import Listener
from gossipfl.net.loads import Load, Loads
from gossipfl.net.replies import Reply, send
from gossipfl.net.traffic import Account, Accounts, Traffic

log = logging.getLogger(__name__)

HEADS = "/v1/heads/"
OBJECTS = "/v1/objects/"
KEEPALIVE_S = 75.0  # longer than the client's 60, so that a pooled connection is seldom stale
SMALL_BYTES = (
    16 * 1024
)  # an answer above this costs an update token: chapters are the largest small
REFUSAL_HOLD_S = 0.25  # a 429 is held this long: a flood then costs its sender time, not us work
BUSY_RETRY_S = 1.0


class ServedHead(Protocol):
    """What `gossipfl.shelf.Served` is."""

    @property
    def envelope(self) -> bytes: ...
    @property
    def digest(self) -> bytes: ...
    @property
    def member(self) -> bytes: ...
    @property
    def update(self) -> bytes | None: ...
    @property
    def update_digest(self) -> bytes | None: ...


class Shelf(Protocol):
    """What may be served: only durable things are here."""

    @property
    def member(self) -> bytes | None: ...
    def head(self, device: bytes | None) -> ServedHead | None: ...
    def object(self, digest: bytes) -> bytes | None: ...


class Server:
    """Answers peers. `refused` gets a TLS key and when its certificate ends, and gives the reason
    why a member is cut off, or None."""

    def __init__(
        self,
        shelf: Shelf,
        load: Load,
        context: ssl.SSLContext,
        refused: Callable[[bytes, int], str | None],
        limits: Limits,
        traffic: Traffic,
        keepalive_s: float = KEEPALIVE_S,
    ) -> None:
        self._shelf = shelf
        self._loads = Loads(load, limits.transfer_bytes)
        self._refused = refused
        self._limits = limits
        self._traffic = traffic
        self._keepalive_s = keepalive_s
        self._accounts = Accounts(limits)
        self._connections: dict[Connection, None] = {}
        self._cut: set[bytes] = set()
        self._waiting: set[asyncio.Future[None]] = set()
        self._sending = 0
        self._http: web.Server | None = None
        self._listener = Listener(self.protocol, context, lambda _: True, limits, traffic)

    def start(self, hosts: Sequence[str], port: int = 0) -> int:
        """Listen; the port that was bound. Needs a running loop. Raises UserError(GF302)."""
        return self._listener.open(hosts, port)

    def protocol(self) -> Connection:
        """One more connection, for whoever accepts: the listener, or a simulated network."""
        if self._http is None:
            self._http = web.Server(self._handle, handler_cancellation=True)
        return Connection(
            self._http,
            admit=self._admit,
            gone=self._gone,
            header_deadline_s=self._limits.header_deadline_s,
            keepalive_s=self._keepalive_s,
            traffic=self._traffic,
        )

    async def close(self) -> None:
        """Stop listening and end every connection at once."""
        await self._listener.close()
        for connection in list(self._connections):
            connection.abort()
        if self._http is not None:
            await self._http.shutdown(timeout=1.0)

    def head_changed(self) -> None:
        """The shelf has a new own head: answer the held requests."""
        for waiter in self._waiting:
            _wake(waiter)

    def cut_off(self, tls_key: bytes) -> None:
        """Close live connections of this TLS key and take no more."""
        self._cut.add(tls_key)
        for connection in [c for c in self._connections if c.tls_key == tls_key]:
            connection.abort()

    # --- connections ----------------------------------------------------------------------------

    def _make_room(self) -> bool:
        """For one more member: the longest idle connection makes way. False if none is idle."""
        if len(self._connections) < self._limits.connections:
            return True
        idle = [c for c in self._connections if not c.busy]
        if not idle:
            return False
        min(idle, key=lambda c: c.idle_since).abort()
        return True

    def _admit(self, connection: Connection) -> Account | None:
        key = connection.tls_key
        reason = self._why_refused(connection)
        account = self._accounts.of(key, asyncio.get_running_loop().time())
        if reason is None and account.connections >= self._limits.serves_per_device:
            reason = f"{account.connections} connections already"
        if reason is None and not key:
            reason = "no certificate"
        if reason is None and not self._make_room():
            reason = "no room"
        if reason is not None:
            log.info("connection of TLS key %s closed: %s", key.hex()[:16], reason)
            return None
        account.connections += 1
        self._connections[connection] = None
        self._traffic.connections = len(self._connections)
        return account

    def _why_refused(self, connection: Connection) -> str | None:
        if connection.tls_key in self._cut:
            return "cut off"
        return self._refused(connection.tls_key, connection.not_after)

    def _gone(self, connection: Connection) -> None:
        del self._connections[connection]
        if connection.account is not None:
            connection.account.connections -= 1
        self._traffic.connections = len(self._connections)

    # --- requests -------------------------------------------------------------------------------

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        if not isinstance(connection, Connection) or connection.account is None:
            raise ConnectionResetError  # it is being closed
        if self._why_refused(connection) is not None:  # its time may have ended since it came
            self._traffic.refused_member += 1
            connection.abort()
            raise ConnectionResetError
        account = connection.account
        writer = request.writer
        connection.begin()
        account.serving += 1
        self._traffic.requests_served += 1
        try:
            return await self._serve(request, account)
        except TimeoutError:
            self._traffic.stalled_readers += 1
            connection.abort()
            raise ConnectionResetError from None
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:  # ours: loud here, while the peer learns a number
            log.exception("a bug while answering %s", request.path[:100])
            return await send(request, replies.BUG, self._limits)
        finally:
            account.serving -= 1
            self._traffic.bytes_sent += writer.output_size
            connection.end()

    async def _serve(self, request: web.BaseRequest, account: Account) -> web.StreamResponse:
        reply = await self._reply(request, account)
        self._sending += 1
        try:
            response = await send(request, reply, self._limits)
        finally:
            self._sending -= 1
            if reply.held is not None:
                self._loads.release(reply.held)
        self._traffic.updates_served += reply.carries_update
        return response

    async def _reply(self, request: web.BaseRequest, account: Account) -> Reply:
        if request.body_exists:
            self._traffic.refused_request += 1
            return replies.BODY_REFUSED
        path = request.path_qs
        name = path.rpartition("/")[2]
        if request.method == "GET" and path == HEADS + name:
            device = from_hex(name, DEVICE_ID_BYTES)
            if device is not None or name == "self":
                return await self._within_budget(account) or await self._head(
                    request, account, device
                )
        elif request.method == "GET" and path == OBJECTS + name:
            digest = from_hex(name, 32)
            if digest is not None:
                return await self._within_budget(account) or await self._object(
                    request, account, digest
                )
        self._traffic.refused_request += 1
        return await self._within_budget(account) or replies.ABSENT

    async def _within_budget(self, account: Account) -> Reply | None:
        """None if this request may be answered, else what to say instead."""
        wait_s = account.requests.take(asyncio.get_running_loop().time())
        if wait_s > 0.0:
            return await self._over_budget(wait_s)
        if account.serving > self._limits.serves_per_device:
            return await self._over_budget(BUSY_RETRY_S)
        if self._sending >= self._limits.serves_total:
            self._traffic.refused_budget += 1
            return replies.busy(503, BUSY_RETRY_S)
        return None

    async def _over_budget(self, wait_s: float) -> Reply:
        self._traffic.refused_budget += 1
        await asyncio.sleep(min(wait_s, REFUSAL_HOLD_S))
        return replies.busy(429, wait_s)

    async def _head(
        self, request: web.BaseRequest, account: Account, device: bytes | None
    ) -> Reply:
        headers = request.headers
        known = from_etag(headers.get("If-None-Match"))
        found = self._shelf.head(device)
        if device is None and (found is None or found.digest == known):
            found = await self._news(known, from_prefer(headers.get("Prefer")))
        if found is None:
            member = self._shelf.member if device is None else None
            return replies.ABSENT if member is None else replies.no_head_yet(member)
        if found.digest == known:
            self._traffic.not_modified += 1
            return replies.not_modified(known)
        self._traffic.heads_served += 1
        update = found.update
        if update is not None and (
            len(update) > (count(headers.get(RIDE)) or 0)
            or (len(update) > SMALL_BYTES and self._update_wait_s(account) > 0.0)
        ):
            update = None  # the head alone: what it says must spread all the same
        return replies.head(found.envelope, found.digest, found.member, update)

    async def _news(self, known: bytes | None, wait_s: float) -> ServedHead | None:
        """The own head as soon as it is another than `known`, at the latest after `wait_s`."""
        loop = asyncio.get_running_loop()
        until = loop.time() + min(wait_s, self._limits.head_wait_s)
        while True:
            found = self._shelf.head(None)
            left = until - loop.time()
            if left <= 0.0 or (found is not None and found.digest != known):
                return found
            waiter = loop.create_future()
            timer = loop.call_later(left, _wake, waiter)
            self._waiting.add(waiter)
            try:
                await waiter
            finally:
                timer.cancel()
                self._waiting.discard(waiter)

    async def _object(self, request: web.BaseRequest, account: Account, digest: bytes) -> Reply:
        data = self._shelf.object(digest)
        held = data is None
        if data is None:
            if self._loads.full(digest):
                self._traffic.refused_budget += 1
                return replies.busy(503, BUSY_RETRY_S)
            data = await self._loads.hold(digest)
        if data is None:
            return replies.ABSENT
        wait_s = self._update_wait_s(account) if len(data) > SMALL_BYTES else 0.0
        if wait_s > 0.0:
            if held:
                self._loads.release(digest)
            return await self._over_budget(wait_s)
        self._traffic.objects_served += 1
        own = self._shelf.head(None)
        update = own is not None and own.update_digest == digest
        return replies.stored(digest, data, request.headers.get("Range"), held, update)

    def _update_wait_s(self, account: Account) -> float:
        return account.updates.take(asyncio.get_running_loop().time())


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
