"""Who is slow, or silent, loses its own connection, and nobody else's request."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from authkit import LOG_N, bearer, user
from test_hub_rest import Badge
from test_service import running, settings, until  # noqa: F401 - settings is a fixture

from gossipfl.config import Limits
from gossipfl.hub.api import token_seed
from gossipfl.hub.auth.service import Auth
from gossipfl.hub.rest import bodies
from gossipfl.hub.rest.access import DEVICES, EVERYBODY, PUBLIC, Role
from gossipfl.hub.rest.bodies import OCTETS
from gossipfl.hub.rest.dispatch import Dispatcher
from gossipfl.hub.rest.doors import SERVER_OPTIONS, STALL_S, Doors
from gossipfl.hub.rest.origins import Origins
from gossipfl.hub.rest.routing import Call, Raw, Route
from gossipfl.hub.settings import HubSettings
from sim.bench.hub_tls import self_signed

WAIT_S = 20.0
OPERATOR = {"Badge": "operator:ann"}
DEVICE = {"Badge": "device:aa"}


class Said(msgspec.Struct):
    text: str


async def say(hub: Any, call: Call) -> Said:
    return Said(call.origin)


async def shout(hub: Any, call: Call) -> Said:
    return Said(call.body.text)


async def put(hub: Any, call: Call) -> Said:
    return Said(str(len(call.body)))


async def fill(hub: Any, call: Call) -> Raw:
    return Raw(bytes(64 << 20))


ROUTES = [
    Route("GET", "/say", say, EVERYBODY, None, Said, "say"),
    Route("POST", "/shout", shout, PUBLIC, Said, Said, "shout"),
    Route("PUT", "/blob", put, DEVICES, bytes, Said, "put", kinds=(OCTETS,), bytes_max=1 << 20),
    Route("GET", "/fill", fill, PUBLIC, None, None, "fill", answer_kind=OCTETS),
]


@dataclass
class Site:
    port: int
    doors: Doors
    dispatcher: Dispatcher
    tls: ssl.SSLContext | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    async def ask(self) -> int:
        """An honest request on a connection of its own: its status."""
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"{self.url}/say", headers=OPERATOR, ssl=self.tls or True) as answer,
        ):
            return answer.status

    async def raw(
        self, sent: bytes, local: str = "127.0.0.1"
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=self.tls, local_addr=(local, 0)
        )
        writer.write(sent)
        await writer.drain()
        return reader, writer


@asynccontextmanager
async def serving(
    *,
    header_s: float = 30.0,
    stall_s: float = 30.0,
    tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None,
    origins: Origins | None = None,
    **more: Any,
) -> AsyncIterator[Site]:
    app = web.Application()
    dispatcher = Dispatcher(None, ROUTES, Badge(), origins=origins)
    dispatcher.install(app)
    runner = web.AppRunner(app, shutdown_timeout=1.0, **SERVER_OPTIONS)
    await runner.setup()
    assert runner.server is not None
    limits = replace(Limits(), header_deadline_s=header_s, handshake_deadline_s=header_s)
    doors = Doors(
        runner.server,
        tls[0] if tls else None,
        limits=limits,
        stall_s=stall_s,
        **more,
    )
    try:
        port = await doors.open("127.0.0.1", 0)
        yield Site(port, doors, dispatcher, tls[1] if tls else None)
    finally:
        await doors.close()
        await runner.cleanup()


async def closed(reader: asyncio.StreamReader) -> bytes:
    """What came until the other side closed."""
    async with asyncio.timeout(WAIT_S):
        with suppress(ConnectionError):
            return await reader.read()
    return b""


async def answered(reader: asyncio.StreamReader) -> bytes:
    """Its headers, and its body: one JSON object."""
    return await asyncio.wait_for(reader.readuntil(b"}"), WAIT_S)


def upload(
    path: str,
    size: int,
    badge: str = "",
    kind: str = "application/json",
    begins: bytes = b"x",
) -> bytes:
    """A request's headers, and the beginning of its body."""
    who = f"Badge: {badge}\r\n" if badge else ""
    return (
        f"POST {path} HTTP/1.1\r\nHost: x\r\n{who}Content-Type: {kind}\r\n"
        f"Content-Length: {size}\r\n\r\n"
    ).encode() + begins


# --- the finding: 300 slow uploads of strangers ------------------------------------------------


async def test_three_hundred_slow_uploads_leave_the_api_to_those_who_use_it(
    settings: HubSettings,  # noqa: F811
) -> None:
    async with running(settings) as (service, hub), AsyncExitStack() as stack:
        assert service.address is not None
        auth = Auth(
            hub.database, token_seed(settings.hub.state), hub.fleet.hex(), time.time,
            time.monotonic, log_n=LOG_N,
        )  # fmt: skip
        headers = bearer(await user(auth, "ann", Role.OPERATOR))
        slow = upload("/api/v1/auth/token", 60_000)
        writers = []
        for number in range(300):  # from two addresses: each may begin 200 at one instant
            _, writer = await asyncio.open_connection(
                "127.0.0.1", service.address.port, local_addr=(f"127.0.0.{1 + number % 2}", 0)
            )
            stack.callback(writer.close)
            writer.write(slow)
            writers.append(writer)
        http = await stack.enter_async_context(aiohttp.ClientSession())
        loop = asyncio.get_running_loop()
        for _ in range(20):
            for writer in writers:
                if not writer.is_closing():
                    writer.write(b"x")  # they go on, a byte now and then
            began = loop.time()
            async with http.get(service.address.url + "/api/v1/status", headers=headers) as answer:
                assert answer.status == 200
            assert loop.time() - began < 5.0


async def test_one_stranger_more_gets_the_place_of_the_slowest() -> None:
    async with serving() as site, AsyncExitStack() as stack:
        readers = []
        for _ in range(16):  # all that one address may have on their way
            reader, writer = await site.raw(upload("/shout", 60_000))
            stack.callback(writer.close)
            readers.append(reader)
        uploads = site.dispatcher._strangers_uploads
        await until(lambda: uploads.count == 16)
        uploads._patience_s = 10 * WAIT_S
        refused, writer = await site.raw(upload("/shout", 60_000))
        stack.callback(writer.close)
        assert b" 503 " in await answered(refused)
        uploads._patience_s = 0.0
        body = b'{"text": "ho"}'
        newcomer, writer = await site.raw(upload("/shout", len(body), begins=body[:5]))
        stack.callback(writer.close)
        assert b" 408 " in await answered(readers[0])
        writer.write(body[5:])
        assert b" 200 " in await answered(newcomer)
        assert site.dispatcher.in_flight == 0


async def test_one_caller_cannot_hold_the_places_of_others() -> None:
    async with serving() as site, AsyncExitStack() as stack:

        async def put(name: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            sent = upload("/blob", 3_000, f"device:{name}", OCTETS).replace(b"POST", b"PUT", 1)
            reader, writer = await site.raw(sent)
            stack.callback(writer.close)
            return reader, writer

        site.dispatcher._uploads._patience_s = 10 * WAIT_S
        for _ in range(8):
            await put("aa")
        await until(lambda: site.dispatcher._uploads.count == 8)
        refused, _ = await put("aa")
        assert b" 503 " in await answered(refused)
        other, writer = await put("bb")
        await until(lambda: site.dispatcher._uploads.count == 9)
        writer.write(bytes(2_999))
        assert b" 200 " in await answered(other)


# --- deadlines -----------------------------------------------------------------------------------


def test_what_is_slow_is_closed_within_ten_seconds() -> None:
    """The deadlines, with the time in which a refused sender may read why."""
    lingering = SERVER_OPTIONS["lingering_time"]
    assert Limits().header_deadline_s < 10.0
    assert Limits().handshake_deadline_s < 10.0
    for seconds in (bodies.STRANGER_S, bodies.STALL_S, bodies.START_S, STALL_S):
        assert seconds + lingering < 10.0


@pytest.mark.parametrize("sent", [b"", b"GET /say HT", b"GET /say HTTP/1.1\r\nHost: x\r\nX: "])
async def test_a_request_that_does_not_come_is_not_waited_for(sent: bytes) -> None:
    async with serving(header_s=0.2) as site:
        reader, writer = await site.raw(sent)
        assert await closed(reader) == b""
        writer.close()
        assert site.doors.traffic.slow_headers == 1
        assert await site.ask() == 200


async def test_a_handshake_that_does_not_come_is_not_waited_for(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    client = ssl.create_default_context(cafile=str(certificate))
    async with serving(header_s=0.5, tls=(server, client)) as site:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        assert await closed(reader) == b""
        writer.close()
        assert await site.ask() == 200


@pytest.mark.parametrize("badge", ["", "device:aa"])
async def test_a_body_that_drips_is_given_up(badge: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("START_S", "STALL_S", "STRANGER_S"):
        monkeypatch.setattr(bodies, name, 0.3)
    path = "/blob" if badge else "/shout"
    sent = upload(path, 60_000, badge, OCTETS if badge else "application/json")
    async with serving() as site:
        reader, writer = await site.raw(sent.replace(b"POST", b"PUT", 1) if badge else sent)
        answer = asyncio.create_task(reader.readuntil(b"}"))
        while not answer.done():
            with suppress(ConnectionError):
                writer.write(b"x")
            await asyncio.wait([answer], timeout=0.02)
        assert b" 408 " in answer.result()
        writer.close()


async def test_a_slow_but_steady_upload_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps ahead of the pace that is asked for, long after the start."""
    monkeypatch.setattr(bodies, "START_S", 0.2)
    monkeypatch.setattr(bodies, "READ_BYTES_PER_S", 20_000)

    async def steady() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 2_000
            await asyncio.sleep(0.03)

    headers = {**DEVICE, "Content-Type": OCTETS}
    async with serving() as site, aiohttp.ClientSession() as http:
        answer = await http.put(f"{site.url}/blob", data=steady(), headers=headers)
        assert (answer.status, await answer.json()) == (200, {"text": "40000"})


async def test_an_answer_that_nobody_reads_is_given_up() -> None:
    async with serving(stall_s=0.3) as site:
        reader, writer = await site.raw(b"GET /fill HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await asyncio.wait_for(reader.readexactly(100), WAIT_S)
        await until(lambda: site.doors.traffic.stalled_readers == 1)
        await until(lambda: site.doors.traffic.connections == 0)
        writer.close()


async def test_what_is_left_of_a_refused_body_is_no_slow_request() -> None:
    """The rest of a body that nobody wanted does not start the next request's deadline."""
    async with serving() as site:
        size = 20_000
        sent = upload("/say", size).replace(b"POST", b"GET", 1)  # no token: 401
        reader, writer = await site.raw(sent)
        assert b" 401 " in await answered(reader)
        (visitor,) = site.doors._open
        await until(lambda: visitor._rest is not None)
        rest = visitor._rest
        assert rest is not None
        assert not rest.is_eof()
        writer.write(b"x" * (size - 1))
        await until(rest.is_eof)
        assert visitor._deadline is None
        writer.write(b"GET /say HTTP/1.1\r\nHost: x\r\nBadge: operator:ann\r\n\r\n")
        assert b" 200 " in await answered(reader)
        writer.close()


# --- how many connections ------------------------------------------------------------------------


async def test_the_longest_idle_connection_makes_way_and_one_at_work_does_not() -> None:
    async with serving(connections_max=3, is_trusted=lambda origin: True) as site:
        busy, busy_writer = await site.raw(upload("/shout", 60_000))
        await until(lambda: site.dispatcher._strangers_uploads.count == 1)
        first, first_writer = await site.raw(b"")
        second, second_writer = await site.raw(b"")
        await until(lambda: site.doors.traffic.connections == 3)
        assert await site.ask() == 200
        assert await closed(first) == b""
        assert site.dispatcher._strangers_uploads.count == 1
        assert not second.at_eof()
        assert not busy.at_eof()
        for writer in (busy_writer, first_writer, second_writer):
            writer.close()


async def test_an_address_has_its_share_and_no_more() -> None:
    async with serving(per_address=2) as site:
        mine, writer = await site.raw(b"")
        others = [await site.raw(b"", "127.0.0.2") for _ in range(3)]
        assert await closed(others[0][0]) == b""
        assert site.doors.traffic.connections == 3
        assert not mine.at_eof()
        for _, each in (*others, (mine, writer)):
            each.close()


async def test_who_holds_most_and_works_keeps_nobody_out_while_others_idle() -> None:
    async with serving(connections_max=3, is_trusted=lambda origin: True) as site:
        busy = [await site.raw(upload("/shout", 60_000)) for _ in range(2)]
        await until(lambda: site.dispatcher._strangers_uploads.count == 2)
        idle, writer = await site.raw(b"", "127.0.0.2")
        await until(lambda: len(site.doors._open) == 3)
        newcomer, another = await site.raw(b"", "127.0.0.3")
        assert await closed(idle) == b""
        assert site.doors.traffic.refused_address == 0
        for each in (*(w for _, w in busy), writer, another):
            each.close()
        del newcomer


async def test_a_full_house_of_requests_turns_the_next_one_away() -> None:
    async with serving(connections_max=2, is_trusted=lambda origin: True) as site:
        both = [await site.raw(upload("/shout", 60_000)) for _ in range(2)]
        await until(lambda: site.dispatcher._strangers_uploads.count == 2)
        reader, writer = await site.raw(b"")
        assert await closed(reader) == b""
        assert site.doors.traffic.refused_address == 1
        for _, each in (*both, (reader, writer)):
            each.close()


# --- proxies -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trusted", "told", "seen"),
    [
        ((), "203.0.113.9", "127.0.0.1"),
        (("127.0.0.1",), "203.0.113.9", "203.0.113.9"),
        (("127.0.0.0/8",), "198.51.100.7, 203.0.113.9", "203.0.113.9"),
        (("127.0.0.1", "203.0.113.9"), "198.51.100.7, 203.0.113.9", "198.51.100.7"),
        (("127.0.0.1",), "198.51.100.7, not an address", "127.0.0.1"),
        (("127.0.0.1",), "", "127.0.0.1"),
        (("10.0.0.1",), "203.0.113.9", "127.0.0.1"),
    ],
)
async def test_a_trusted_proxy_says_who_asks(
    trusted: tuple[str, ...], told: str, seen: str
) -> None:
    async with serving(origins=Origins(trusted)) as site, aiohttp.ClientSession() as http:
        headers = {**OPERATOR, **({"X-Forwarded-For": told} if told else {})}
        async with http.get(f"{site.url}/say", headers=headers) as answer:
            assert await answer.json() == {"text": seen}


async def test_strangers_behind_a_trusted_proxy_are_slowed_down_apart() -> None:
    async with serving(origins=Origins(("127.0.0.1",))) as site, aiohttp.ClientSession() as http:

        async def ask(address: str) -> int:
            headers = {"X-Forwarded-For": address}
            async with http.get(f"{site.url}/say", headers=headers) as answer:
                return answer.status

        statuses = [await ask("203.0.113.9") for _ in range(220)]
        assert statuses[0] == 401
        assert statuses[-1] == 429
        assert await ask("203.0.113.10") == 401
