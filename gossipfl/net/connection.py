"""One accepted connection: who it is, and the deadlines that aiohttp does not have.

aiohttp reads headers for as long as they drip in. Here a connection that has begun a request, or
has just been made, must have a complete one within the header deadline.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import StreamReader, web

from gossipfl.net.tls import leaf_of
from gossipfl.net.traffic import Account, Traffic

# aiohttp logs every malformed request with a traceback: a peer could fill our disk with it.
SILENT = logging.Logger("gossipfl.net.silent", level=logging.CRITICAL + 1)
# Below this many unsent bytes a write does not wait, so an answer up to this size never stalls us.
WRITE_BUFFER_BYTES = 64 * 1024

HTTP_OPTIONS: dict[str, Any] = {
    "access_log": None,
    "logger": SILENT,
    "auto_decompress": False,
    "lingering_time": 0.0,  # a body is refused, not read
    "max_line_size": 512,  # the longest path has 79 bytes
    "max_field_size": 512,
    "max_headers": 32,
    "tcp_keepalive": True,
}


class TimedHandler(web.RequestHandler):
    """aiohttp's protocol with a header deadline. Who answers calls `begin` and `end`."""

    def __init__(
        self,
        manager: web.Server,
        *,
        header_deadline_s: float,
        keepalive_s: float,
        options: Mapping[str, Any] = HTTP_OPTIONS,
    ) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(manager, loop=loop, **{**options, "keepalive_timeout": keepalive_s})
        self._clock = loop
        self.busy = False
        self.idle_since = 0.0
        self._header_deadline_s = header_deadline_s
        self._deadline: asyncio.TimerHandle | None = None
        self._rest: StreamReader | None = None  # of a body that nobody wants

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.idle_since = self._clock.time()

    def data_received(self, data: bytes) -> None:
        is_rest = self._rest is not None and not self._rest.is_eof()
        if data and not self.busy and self._deadline is None and not is_rest:
            self._await_request()
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._cancel_deadline()
        super().connection_lost(exc)

    def begin(self) -> None:
        """A complete request is here: its headers no longer have a deadline."""
        self.busy = True
        self._rest = None
        self._cancel_deadline()

    def end(self, body: StreamReader | None = None) -> None:
        """It has been answered; the next one may come, after what is left of its `body`."""
        self.busy = False
        self._rest = body
        self.idle_since = self._clock.time()

    def abort(self) -> None:
        """Close now, without flushing."""
        if self.transport is not None:
            self.transport.abort()

    def too_slow(self) -> None:
        """No complete request came within the header deadline."""
        self.abort()

    def _await_request(self) -> None:
        self._deadline = self._clock.call_later(self._header_deadline_s, self._expired)

    def _expired(self) -> None:
        self._deadline = None
        self.too_slow()

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class Connection(TimedHandler):
    """A peer's: it has an owner, and its bytes are counted.

    `admit(connection)` decides, once the TLS key is known, and returns the account to charge or
    None to close at once; `gone(connection)` is called when an admitted one has ended.
    """

    def __init__(
        self,
        manager: web.Server,
        *,
        admit: Callable[[Connection], Account | None],
        gone: Callable[[Connection], None],
        header_deadline_s: float,
        keepalive_s: float,
        traffic: Traffic,
    ) -> None:
        super().__init__(manager, header_deadline_s=header_deadline_s, keepalive_s=keepalive_s)
        self.tls_key = b""
        self.not_after = 0  # of its certificate, seconds since the epoch
        self.account: Account | None = None
        self._admit = admit
        self._gone = gone
        self._traffic = traffic

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        leaf = leaf_of(transport.get_extra_info("ssl_object"))
        if leaf is not None:
            self.tls_key, self.not_after = leaf.tls_key, leaf.not_after
        super().connection_made(transport)
        self.account = self._admit(self)
        if self.account is None:
            self._traffic.refused_member += 1
            self.abort()
            return
        if isinstance(transport, asyncio.WriteTransport):
            transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self._await_request()

    def data_received(self, data: bytes) -> None:
        if self.account is None:
            return
        self._traffic.bytes_received += len(data)
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self.account is not None:
            self._gone(self)
            self.account = None
        super().connection_lost(exc)

    def too_slow(self) -> None:
        self._traffic.slow_headers += 1
        self.abort()
