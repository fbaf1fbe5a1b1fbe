"""The sockets of the API: what a connection may cost before anybody has asked anything.

A connection has to bring a complete request within the header deadline, and to read its answer.
There is room for so many, of one address and in all; when it is used up, the longest idle one of
whoever holds most makes way, so that no stranger can keep others out by keeping silent.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from aiohttp import web

from gossipfl.config import Limits
from gossipfl.errors import UserError
from gossipfl.net.connection import SILENT, WRITE_BUFFER_BYTES, TimedHandler
from gossipfl.net.listener import Listener, origin_of
from gossipfl.net.traffic import Traffic

CONNECTIONS_MAX = 1_024  # guess: 200 clients at one instant, 500 slow ones, and who watches
PER_ADDRESS = 128  # guess: a site behind one address; a trusted proxy, or this machine, has no cap
HANDSHAKES = 512  # guess: two seconds of a core
HANDSHAKES_PER_ADDRESS = 256  # guess: so many star clients behind one address start at one instant
AT_ONCE = 1  # a handshake takes 2 ms, and a request several turns of the loop
STALL_S = 6.0  # fault table: what is stalled is closed within ten seconds, two of them lingering
READ_BYTES_PER_S = 16 * 1024  # protocol: the least that a reader takes of a long answer
DESCRIPTORS = 256  # guess: databases, the hub's node, files
SERVER_OPTIONS: dict[str, Any] = {
    "logger": SILENT,
    "auto_decompress": False,  # what is packed is refused, not unpacked
    "access_log": None,
    "keepalive_timeout": 75.0,  # as the peer server's
    "lingering_time": 2.0,  # guess: so that who sends too much can read why it is refused
    "max_line_size": 4096,
    "max_field_size": 8190,
}
"""What `web.AppRunner` of a hub is to be given."""


class Visitor(TimedHandler):
    """One connection of somebody."""

    def __init__(self, manager: web.Server, doors: Doors) -> None:
        super().__init__(
            manager,
            header_deadline_s=doors.limits.header_deadline_s,
            keepalive_s=SERVER_OPTIONS["keepalive_timeout"],
            options=SERVER_OPTIONS,
        )
        self.origin = ""
        self._doors = doors
        self._writing: asyncio.TimerHandle | None = None
        self._unsent = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peer = transport.get_extra_info("peername")
        self.origin = origin_of(peer[0]) if peer else ""
        super().connection_made(transport)
        if not self._doors.admit(self):
            self.abort()
            return
        if isinstance(transport, asyncio.WriteTransport):
            transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self._await_request()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._doors.gone(self)
        self._end_watch()
        super().connection_lost(exc)

    def begin(self) -> None:
        super().begin()
        self._doors.busy(self)

    def end(self, body: Any = None) -> None:
        super().end(body)
        if self._writing is None:
            self._doors.idle(self)

    def too_slow(self) -> None:
        self._doors.traffic.slow_headers += 1
        self.abort()

    # --- answers that nobody reads ---------------------------------------------------------

    def pause_writing(self) -> None:
        super().pause_writing()
        self._doors.busy(self)
        self._watch()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._end_watch()
        if not self.busy:
            self._doors.idle(self)

    def _watch(self) -> None:
        if isinstance(self.transport, asyncio.WriteTransport):
            self._unsent = self.transport.get_write_buffer_size()
            self._writing = self._clock.call_later(self._doors.stall_s, self._look)

    def _look(self) -> None:
        before, self._writing = self._unsent, None
        self._watch()
        wanted = before - self._doors.stall_s * READ_BYTES_PER_S
        if self._unsent > max(0.0, wanted):
            self._doors.traffic.stalled_readers += 1
            self.abort()

    def _end_watch(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None


class Doors:
    """Listens for `server`. `is_trusted(origin)`: a proxy, which speaks for many."""

    def __init__(
        self,
        server: web.Server,
        tls: ssl.SSLContext | None = None,
        *,
        is_trusted: Callable[[str], bool] = lambda origin: False,
        connections_max: int = CONNECTIONS_MAX,
        per_address: int = PER_ADDRESS,
        limits: Limits | None = None,
        stall_s: float = STALL_S,
    ) -> None:
        self.traffic = Traffic()
        self.limits = limits or Limits()
        self.stall_s = stall_s
        self._is_trusted = is_trusted
        self._connections_max = connections_max
        self._per_address = per_address
        self._open: set[Visitor] = set()
        self._of: dict[str, int] = {}  # how many of an origin are open
        self._idle: dict[str, dict[Visitor, None]] = {}  # by origin, the longest idle first
        self._listener = Listener(
            lambda: Visitor(server, self),
            tls,
            lambda origin: True,
            self.limits,
            self.traffic,
            per_address=HANDSHAKES_PER_ADDRESS,
            in_all=HANDSHAKES,
            at_once=AT_ONCE,
        )

    async def open(self, host: str, port: int) -> int:
        """Listen on every address of `host`; the port. Raises UserError GF302."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(
                host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
        except OSError as error:
            raise UserError("GF302", f"{host} port {port}: {error}") from error
        return self._listener.open(list(dict.fromkeys(str(entry[4][0]) for entry in found)), port)

    async def close(self) -> None:
        """Take nobody in any more. Who is in stays, until the runner says so."""
        await self._listener.close()

    # --- who is in -------------------------------------------------------------------------

    def admit(self, visitor: Visitor) -> bool:
        """Whether there is room. A longer idle one may have to go for it."""
        origin = visitor.origin
        if not self._make_room(origin):
            self.traffic.refused_address += 1
            return False
        self._open.add(visitor)
        self._of[origin] = self._of.get(origin, 0) + 1
        self.idle(visitor)
        self.traffic.connections = len(self._open)
        return True

    def gone(self, visitor: Visitor) -> None:
        if visitor not in self._open:
            return
        self.busy(visitor)
        self._open.discard(visitor)
        self._of[visitor.origin] -= 1
        if not self._of[visitor.origin]:
            del self._of[visitor.origin]
        self.traffic.connections = len(self._open)

    def idle(self, visitor: Visitor) -> None:
        """It waits for a request: it may have to make way."""
        if visitor in self._open:
            self._idle.setdefault(visitor.origin, {})[visitor] = None

    def busy(self, visitor: Visitor) -> None:
        """It is being served."""
        waiting = self._idle.get(visitor.origin, {})
        waiting.pop(visitor, None)
        if not waiting:
            self._idle.pop(visitor.origin, None)

    def _make_room(self, origin: str) -> bool:
        is_own_full = not self._is_trusted(origin) and self._of.get(origin, 0) >= self._per_address
        if is_own_full:
            return self._end_idle(origin)
        if len(self._open) < self._connections_max:
            return True
        # Of those who have an idle one: whoever holds most may be at work with all of them.
        most = max(self._idle, key=lambda of: self._of[of], default="")
        return self._end_idle(most)

    def _end_idle(self, origin: str) -> bool:
        """The longest idle one of an origin goes; False if all of them are being served."""
        waiting = self._idle.get(origin)
        if not waiting:
            return False
        oldest = next(iter(waiting))
        self.traffic.handshakes_aborted += 1
        self.gone(oldest)
        oldest.abort()
        return True


def room_for(wanted: int = CONNECTIONS_MAX) -> int:
    """How many connections the descriptors of this process are enough for, at most `wanted`; the
    soft limit is raised as far as that needs and the hard one lets it."""
    needed = wanted + HANDSHAKES + DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    infinite = resource.RLIM_INFINITY
    if soft != infinite and soft < needed:
        with suppress(OSError, ValueError):
            soft = needed if hard == infinite else min(hard, needed)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == infinite or soft >= needed:
        return wanted
    return max(64, soft - HANDSHAKES - DESCRIPTORS)
