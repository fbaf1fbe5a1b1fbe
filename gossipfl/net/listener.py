"""The listening sockets of the peer server: what may happen before a peer has proved anything.

asyncio's own servers accept first and tell the address after the handshake. Here each accepted
socket is counted by address and in all before a byte of TLS is computed, so that strangers can
hold only so many handshakes open, for so long. Idle ones from a few addresses do not keep others
out: who comes from an address that holds fewer is let in, and the oldest handshake of the one that
holds most is aborted. Within one address an older one makes way only after a second, so that a
flood is turned away before it costs us anything.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from gossipfl.config import Limits
from gossipfl.errors import UserError
from gossipfl.net.traffic import Traffic

log = logging.getLogger(__name__)

BACKLOG = 512  # a fleet that starts at one instant, or a crowd; the kernel may cap it
HANDSHAKES_PER_ADDRESS = 32  # guess: half a fleet of 64 behind one address starts at one instant
HANDSHAKES = 128  # guess: at 4 ms each, half a second of work
PATIENCE_S = 1.0  # then a handshake makes way for another from its address: guess, a slow board's
SHUTDOWN_S = 1.0  # TLS close_notify is waited for this long; the bytes are out by then
PAUSE_S = 0.5  # after accept() failed for want of descriptors


@dataclass(frozen=True, slots=True)
class _Begun:
    accepted: socket.socket
    at: float


class Listener:
    """Accepts connections and hands them to protocols that `protocol` makes.

    `room` is asked before a handshake whether one more connection from an origin fits. `context`
    None: plain TCP. `per_address` and `in_all`: how many handshakes may be under way; `at_once`:
    how many are begun before others' requests get a turn.
    """

    def __init__(
        self,
        protocol: Callable[[], asyncio.Protocol],
        context: ssl.SSLContext | None,
        room: Callable[[str], bool],
        limits: Limits,
        traffic: Traffic,
        *,
        per_address: int = HANDSHAKES_PER_ADDRESS,
        in_all: int = HANDSHAKES,
        at_once: int = BACKLOG,
    ) -> None:
        self._protocol = protocol
        self._context = context
        self._room = room
        self._limits = limits
        self._traffic = traffic
        self._per_address = per_address
        self._in_all = in_all
        self._at_once = at_once
        self._sockets: list[socket.socket] = []
        self._handshakes: set[asyncio.Task[None]] = set()  # with those that were aborted just now
        self._by_origin: dict[str, dict[asyncio.Task[None], _Begun]] = {}  # oldest first

    def open(self, hosts: Sequence[str], port: int) -> int:
        """Listen on every host at one port, 0 for any free one; the port. UserError(GF302)."""
        try:
            for host in hosts:
                listening = _bound(host, port)
                self._sockets.append(listening)
                port = listening.getsockname()[1]
        except OSError as error:
            self._close_sockets()
            raise UserError("GF302", f"{', '.join(hosts)} port {port}: {error}") from error
        for listening in self._sockets:
            self._resume(listening)
        return port

    async def close(self) -> None:
        """Stop accepting, end handshakes under way. Established connections are not touched."""
        loop = asyncio.get_running_loop()
        for listening in self._sockets:
            loop.remove_reader(listening)
        self._close_sockets()
        await asyncio.sleep(0)  # so that every handshake has begun, and closes what it was given
        for task in self._handshakes:
            task.cancel()
        await asyncio.gather(*self._handshakes, return_exceptions=True)

    def _close_sockets(self) -> None:
        for listening in self._sockets:
            listening.close()
        self._sockets.clear()

    def _resume(self, listening: socket.socket) -> None:
        if listening in self._sockets:
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        """With peers all that are waiting, so that a crowd is turned away faster than it can queue
        up. The loop calls again while some wait."""
        loop = asyncio.get_running_loop()
        for _ in range(self._at_once):
            try:
                accepted, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # out of descriptors or memory
                log.warning("cannot accept a connection: %s", error)
                loop.remove_reader(listening)
                loop.call_later(PAUSE_S, self._resume, listening)
                return
            self._take(accepted, origin_of(address[0]))

    def _take(self, accepted: socket.socket, origin: str) -> None:
        if not (self._make_way(origin) and self._room(origin)):
            self._traffic.refused_address += 1
            accepted.close()
            return
        accepted.setblocking(False)
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._handshake(accepted, origin))
        self._handshakes.add(task)
        self._by_origin.setdefault(origin, {})[task] = _Begun(accepted, loop.time())
        task.add_done_callback(lambda done: self._ended(done, origin))

    def _make_way(self, origin: str) -> bool:
        """May one more handshake begin? An older one may have to end for it."""
        own = len(self._by_origin.get(origin, ()))
        if own >= self._per_address:
            return self._abort_oldest(origin, PATIENCE_S)
        if sum(map(len, self._by_origin.values())) < self._in_all:
            return True
        most = max(self._by_origin, key=lambda o: len(self._by_origin[o]))
        # Only towards balance: else two addresses could push each other out for ever.
        return own + 1 < len(self._by_origin[most]) and self._abort_oldest(most, 0.0)

    def _abort_oldest(self, origin: str, older_s: float) -> bool:
        task, begun = next(iter(self._by_origin[origin].items()))
        if asyncio.get_running_loop().time() - begun.at < older_s:
            return False
        self._traffic.handshakes_aborted += 1
        self._forget(task, origin)
        with suppress(OSError):  # gone already
            begun.accepted.shutdown(socket.SHUT_RDWR)  # its task sees the end and cleans up
        return True

    def _ended(self, task: asyncio.Task[None], origin: str) -> None:
        self._handshakes.discard(task)
        self._forget(task, origin)

    def _forget(self, task: asyncio.Task[None], origin: str) -> None:
        of_origin = self._by_origin.get(origin, {})
        of_origin.pop(task, None)
        if not of_origin:
            self._by_origin.pop(origin, None)

    async def _handshake(self, accepted: socket.socket, origin: str) -> None:
        plain = self._context is None
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._protocol,
                accepted,
                ssl=self._context,
                ssl_handshake_timeout=None if plain else self._limits.handshake_deadline_s,
                ssl_shutdown_timeout=None if plain else SHUTDOWN_S,
            )
        except OSError as error:  # SSLError and TimeoutError are OSErrors
            self._traffic.handshakes_failed += 1
            log.debug("no handshake with %s: %s", origin, error)
        else:
            self._traffic.handshakes += 1


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setblocking(False)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def origin_of(host: str) -> str:
    """What counts as one address: an IPv4 address, or the /64 that an IPv6 host owns whole."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))
