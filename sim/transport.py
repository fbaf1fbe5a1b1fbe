"""Requests and answers between simulated devices: what `gossipfl.net` does over mutual TLS.

An answer is built from the server's shelf at the moment the request arrives. A head request may
be held open until the server's own head changes. Which faults a client sees, and when, follows
the limits of the protocol: no connection after the handshake deadline, nothing heard for the stall
time, or the whole transfer too slow.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from gossipfl.errors import Fault
from gossipfl.events import FetchFailed, FetchHead, FetchObject, HeadReceived, ObjectReceived
from gossipfl.shelf import Served
from sim.adversaries import Withheld
from sim.device import SimDevice

if TYPE_CHECKING:
    from sim.world import World

REQUEST_BYTES = 350  # request line and headers of both routes, rounded up
ANSWER_BYTES = 250  # status line and headers


class Phase(Enum):
    OPEN = auto()
    ANSWERED = auto()
    OVER = auto()  # failed, cancelled, or its client is gone


@dataclass(slots=True, eq=False)
class Exchange:
    """One request of one client, from issue to the answer."""

    client: SimDevice
    incarnation: int
    server: SimDevice
    effect: FetchHead | FetchObject
    issued: float
    silent_until: float  # STALLED then, if nothing arrived
    expires: float = 0.0  # while it is held at the server
    phase: Phase = Phase.OPEN

    @property
    def live(self) -> bool:
        """Somebody still waits for the answer, or may get a duplicate of it."""
        return self.phase is not Phase.OVER and self.client.incarnation == self.incarnation


class Transport:
    def __init__(self, world: World) -> None:
        self._world = world
        self._network = world.network

    # --- the client's side --------------------------------------------------------------------

    def fetch(self, client: SimDevice, effect: FetchHead | FetchObject) -> None:
        limits = client.settings.limits
        world = self._world
        wait = effect.wait_s if isinstance(effect, FetchHead) else 0.0
        server = world.find(effect.address)
        self._network.counter(client.index).requests += 1
        if server is None or not self._network.reaches(client.index, server.index):
            failed = FetchFailed(effect.request, Fault.UNREACHABLE, "no connection")
            world.after(limits.handshake_deadline_s, client, world.deliver, client, failed)
            return
        exchange = Exchange(
            client,
            client.incarnation,
            server,
            effect,
            world.now,
            world.now + wait + limits.stall_s,
        )
        client.exchanges[effect.request] = exchange
        arrivals = self._network.transit(client.index, server.index, REQUEST_BYTES, world.now)
        if not arrivals:
            self._fail_at(exchange, exchange.silent_until, Fault.STALLED, "request lost")
        for delay in arrivals:
            world.schedule(world.now + delay, self._arrived, exchange)

    def cancel(self, client: SimDevice, request: int) -> None:
        exchange = client.exchanges.pop(request, None)
        if exchange is not None:
            exchange.phase = Phase.OVER
            if exchange in exchange.server.waiters:
                exchange.server.waiters.remove(exchange)

    def _fail_at(
        self, exchange: Exchange, when: float, fault: Fault, detail: str, absent: bool = False
    ) -> None:
        self._world.schedule(when, self._fail, exchange, fault, detail, absent)

    def _fail(self, exchange: Exchange, fault: Fault, detail: str, absent: bool) -> None:
        if exchange.live and exchange.phase is Phase.OPEN:
            exchange.phase = Phase.OVER
            exchange.client.exchanges.pop(exchange.effect.request, None)
            key = self._tls(exchange) if absent else None
            failed = FetchFailed(exchange.effect.request, fault, detail, absent, key)
            self._world.deliver(exchange.client, failed)

    def _answered(self, exchange: Exchange, event: HeadReceived | ObjectReceived) -> None:
        if exchange.phase is not Phase.OVER and exchange.client.incarnation == exchange.incarnation:
            exchange.phase = Phase.ANSWERED
            exchange.client.exchanges.pop(exchange.effect.request, None)
            self._world.deliver(exchange.client, event)

    # --- the server's side --------------------------------------------------------------------

    def _arrived(self, exchange: Exchange) -> None:
        server, client = exchange.server, exchange.client
        if not exchange.live:
            return
        if server.node is None:
            self._refuse(exchange, Fault.UNREACHABLE, "connection refused")
        elif server.fleet is not client.fleet:
            self._refuse(exchange, Fault.UNREACHABLE, "TLS: not a member of this fleet")
        elif client.keys.tls_key in server.cut:
            self._refuse(exchange, Fault.REFUSED, "cut off")
        elif (reason := server.node.refused(client.keys.tls_key)) is not None:
            self._refuse(exchange, Fault.REFUSED, reason)
        else:
            self._serve(exchange)

    def _serve(self, exchange: Exchange) -> None:
        try:
            if isinstance(exchange.effect, FetchHead):
                self._serve_head(exchange, exchange.effect)
            else:
                self._serve_object(exchange, exchange.effect)
        except Withheld:
            self._fail_at(exchange, exchange.silent_until, Fault.STALLED, "no answer")

    def _refuse(self, exchange: Exchange, fault: Fault, detail: str, absent: bool = False) -> None:
        """A short answer or a reset: small, but it travels and may be lost like any other."""
        arrivals = self._network.transit(
            exchange.server.index, exchange.client.index, ANSWER_BYTES, self._world.now
        )
        when = self._world.now + arrivals[0] if arrivals else exchange.silent_until
        self._fail_at(exchange, when, fault if arrivals else Fault.STALLED, detail, absent)

    def _head_for(self, exchange: Exchange, effect: FetchHead) -> Served | None:
        server = exchange.server
        if server.node is None:
            return None
        served = server.node.shelf.head(effect.device)
        if server.adversary is not None:
            return server.adversary.serve_head(server, exchange.client, effect.device, served)
        if served is not None:
            for on_serve_head in self._world.hooks.on_serve_head:
                on_serve_head(server, effect.device, served)
        return served

    def _serve_head(self, exchange: Exchange, effect: FetchHead) -> None:
        """Answers now, or holds an own head's request until there is something new."""
        served = self._head_for(exchange, effect)
        if served is None and effect.device is None and exchange.server.node is not None:
            if effect.wait_s > 0.0:
                self._hold(exchange, effect)
            else:
                self._send(exchange, self._unchanged(exchange), 0)
        elif served is None:
            self._refuse(exchange, Fault.REFUSED, "404", absent=True)
        elif served.digest != effect.etag:
            self._send_head(exchange, effect, served)
        elif effect.device is None and effect.wait_s > 0.0:
            self._hold(exchange, effect)
        else:
            self._send(exchange, self._unchanged(exchange), 0)

    def _unchanged(self, exchange: Exchange) -> HeadReceived:
        """Not modified; or, before the first head, only who the server is."""
        node = exchange.server.node
        member = node.shelf.member if node is not None and node.shelf.head(None) is None else None
        return HeadReceived(exchange.effect.request, None, member, None, self._tls(exchange))

    def _tls(self, exchange: Exchange) -> bytes:
        return exchange.server.keys.tls_key

    def _hold(self, exchange: Exchange, effect: FetchHead) -> None:
        limits = exchange.server.settings.limits
        waiting = sum(1 for other in exchange.server.waiters if other.client is exchange.client)
        if (
            waiting >= limits.serves_per_device
            or len(exchange.server.waiters) >= limits.connections
        ):
            self._refuse(exchange, Fault.REFUSED, "429: too many requests held open")
            return
        wait = min(effect.wait_s, limits.head_wait_s)
        exchange.expires = self._world.now + wait
        exchange.server.waiters.append(exchange)
        self._world.schedule(exchange.expires, self._expire, exchange)

    def _expire(self, exchange: Exchange) -> None:
        if exchange in exchange.server.waiters:
            exchange.server.waiters.remove(exchange)
            self._send(exchange, self._unchanged(exchange), 0)

    def head_changed(self, server: SimDevice) -> None:
        """Answers every held request whose client does not have the new head yet."""
        held, server.waiters = server.waiters, []
        for exchange in held:
            effect = exchange.effect
            if not (exchange.live and isinstance(effect, FetchHead)):
                continue
            try:
                served = self._head_for(exchange, effect)
            except Withheld:
                served = None
            if served is None or served.digest == effect.etag:
                server.waiters.append(exchange)
            else:
                self._send_head(exchange, effect, served)

    def close(self, server: SimDevice, tls_key: bytes | None, detail: str) -> None:
        """Connections of one member (None: of all, the process ended) are reset."""
        held, server.waiters = server.waiters, []
        for exchange in held:
            if tls_key is None or exchange.client.keys.tls_key == tls_key:
                self._refuse(exchange, Fault.UNREACHABLE, detail)
            else:
                server.waiters.append(exchange)

    def _send_head(self, exchange: Exchange, effect: FetchHead, served: Served) -> None:
        update = served.update
        if update is not None and len(update) > effect.update_bytes:
            update = None
        event = HeadReceived(
            effect.request, served.envelope, served.member, update, self._tls(exchange)
        )
        self._send(exchange, event, len(served.envelope) + len(update or b""))

    def _serve_object(self, exchange: Exchange, effect: FetchObject) -> None:
        server = exchange.server
        if server.node is None:
            return
        data = server.node.shelf.object(effect.digest)
        if data is None:
            data = server.store.get(effect.digest)
        if server.adversary is not None:
            data = server.adversary.serve_object(server, exchange.client, effect.digest, data)
        elif data is not None:
            for on_serve_object in self._world.hooks.on_serve_object:
                on_serve_object(server, effect.digest, data)
        if data is None:
            self._refuse(exchange, Fault.REFUSED, "404", absent=True)
        elif len(data) > effect.bytes_max:
            detail = f"{len(data)} bytes, at most {effect.bytes_max}"
            self._refuse(exchange, Fault.OVERSIZED, detail)
        else:
            event = ObjectReceived(effect.request, data, self._tls(exchange))
            self._send(exchange, event, len(data))

    def _send(self, exchange: Exchange, event: HeadReceived | ObjectReceived, size: int) -> None:
        world = self._world
        limits = exchange.client.settings.limits
        whole = limits.transfer_base_s + size / limits.transfer_bytes_per_s
        give_up = max(exchange.silent_until, exchange.issued + whole)
        server, client = exchange.server.index, exchange.client.index
        arrivals = self._network.transit(server, client, ANSWER_BYTES + size, world.now)
        if not arrivals:
            self._fail_at(exchange, exchange.silent_until, Fault.STALLED, "answer lost")
        for delay in arrivals:
            if world.now + delay > give_up:
                self._fail_at(exchange, give_up, Fault.STALLED, "transfer too slow")
            else:
                world.schedule(world.now + delay, self._answered, exchange, event)
