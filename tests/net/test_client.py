"""The asking side against carriers that lie, stall, break off or change places."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace

import pytest
from netkit import (
    CALM,
    QUICK,
    Fleet,
    Script,
    an_object,
    asking,
    digest,
    head,
    scripted,
    serving,
    until,
)

from gossipfl.errors import Fault
from gossipfl.events import Address, FetchFailed, HeadReceived, ObjectReceived
from gossipfl.net.partials import Partial, Partials

WHOLE = bytes(range(256)) * 1_024  # 256 KiB, enough to be worth remembering


def says(text: str, body: bytes = b"", then_close: bool = False) -> Script:
    """A script that sends a status line with fields (one a line) and a body."""

    async def script(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fields = "\r\n".join(line.strip() for line in text.strip().splitlines())
        writer.write(f"HTTP/1.1 {fields}\r\n\r\n".encode() + body)
        await writer.drain()
        if then_close:
            writer.close()

    return script


def part(first: int, size: int = len(WHOLE)) -> str:
    """Status and fields of an honest answer to `Range: bytes=first-`."""
    return f"""206 Partial Content
        Content-Length: {size - first}
        Content-Range: bytes {first}-{size - 1}/{size}"""


async def silence(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Nothing is ever said."""


CASES: dict[str, tuple[Script, Fault, str]] = {
    "longer than a head may be": (
        says("200 OK\nContent-Length: 9999999\nGossipfl-Head-Bytes: 1"),
        Fault.OVERSIZED,
        "9999999 bytes, at most 5096",
    ),
    "the head part is too long": (
        says("200 OK\nContent-Length: 5000\nGossipfl-Head-Bytes: 5000", b"x" * 5_000),
        Fault.OVERSIZED,
        "a head of 5000 bytes",
    ),
    "no length": (
        says("200 OK\nTransfer-Encoding: chunked", b"5\r\nhello\r\n0\r\n\r\n"),
        Fault.MALFORMED,
        "does not declare its length",
    ),
    "no end of the head": (
        says("200 OK\nContent-Length: 5", b"hello"),
        Fault.MALFORMED,
        "does not say where its head ends",
    ),
    "a head longer than the body": (
        says("200 OK\nContent-Length: 5\nGossipfl-Head-Bytes: 6", b"hello"),
        Fault.MALFORMED,
        "does not say where its head ends",
    ),
    "broken off": (
        says("200 OK\nContent-Length: 50\nGossipfl-Head-Bytes: 50", b"hello", then_close=True),
        Fault.TRUNCATED,
        "ended too early",
    ),
    "silent from the start": (silence, Fault.STALLED, "fell silent"),
    "silent in the middle": (
        says("200 OK\nContent-Length: 50\nGossipfl-Head-Bytes: 50", b"hello"),
        Fault.STALLED,
        "fell silent",
    ),
    "not HTTP": (says("nonsense\n\n"), Fault.MALFORMED, "not HTTP"),
    "unasked not modified": (says("304 Not Modified"), Fault.MALFORMED, "status 304"),
    "a redirect": (
        says("302 Found\nLocation: https://127.0.0.1:1/\nContent-Length: 0"),
        Fault.REFUSED,
        "status 302",
    ),
    "endless header": (says("200 OK\nX: " + "a" * 100_000), Fault.MALFORMED, "not HTTP"),
}


@pytest.mark.parametrize("name", CASES)
async def test_what_a_carrier_can_do_to_a_head_is_a_typed_fault(fleet: Fleet, name: str) -> None:
    script, fault, detail = CASES[name]
    async with (
        scripted(fleet.device("mallory"), script, script) as address,
        asking(fleet.device("bob"), QUICK) as client,
    ):
        answer = await client.fetch_head(head(address, update_bytes=1_000))
    assert isinstance(answer, FetchFailed)
    assert (answer.fault, answer.absent) == (fault, False)
    assert detail in answer.detail


@pytest.mark.parametrize(
    "address",
    [
        Address("127.0.0.1", 1),
        Address("::1", 1),
        Address("not a host", 1),
        Address("127.0.0.1", 0),
        Address("127.0.0.1", 99_999_999),
    ],
)
async def test_nobody_at_the_address_is_unreachable(fleet: Fleet, address: Address) -> None:
    async with asking(fleet.device("bob"), QUICK) as client:
        answer = await asyncio.wait_for(client.fetch_head(head(address)), 30.0)
    assert isinstance(answer, FetchFailed)
    assert answer.fault is Fault.UNREACHABLE


async def test_a_name_that_nobody_knows_is_unreachable(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unknown(*_: object, **__: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    async with asking(fleet.device("bob"), QUICK) as client:
        answer = await client.fetch_head(head(Address("board-7.example", 7_000)))
    assert isinstance(answer, FetchFailed)
    assert (answer.fault, answer.detail) == (Fault.UNREACHABLE, "Name or service not known")


async def test_an_object_larger_than_agreed_is_not_read(fleet: Fleet) -> None:
    async with serving(fleet.device("alice")) as site, asking(fleet.device("bob")) as client:
        wanted = site.store(bytes(20_000_000))
        answer = await client.fetch_object(an_object(site.address, wanted, bytes_max=19_999_999))
    assert answer == FetchFailed(2, Fault.OVERSIZED, "20000000 bytes, at most 19999999")
    assert client._traffic.bytes_received < 1_000


async def test_a_transfer_that_breaks_is_continued_by_range(fleet: Fleet) -> None:
    half, cut = len(WHOLE) // 2, len(WHOLE) * 3 // 4
    async with (
        scripted(
            fleet.device("alice"),
            says(f"200 OK\nContent-Length: {len(WHOLE)}", WHOLE[:half], then_close=True),
            says(part(half), WHOLE[half:cut], then_close=True),
            says(part(cut), WHOLE[cut:]),
        ) as address,
        asking(fleet.device("bob")) as client,
    ):
        answer = await client.fetch_object(an_object(address, digest(WHOLE)))
    assert answer == ObjectReceived(2, WHOLE)
    assert client._traffic.resumes == 2
    assert len(WHOLE) < client._traffic.bytes_received < len(WHOLE) + 1_000


async def test_a_later_call_continues_where_an_earlier_one_broke_off(fleet: Fleet) -> None:
    alice = fleet.device("alice")
    half = len(WHOLE) // 2
    broken = says(f"200 OK\nContent-Length: {len(WHOLE)}", WHOLE[:half])
    async with asking(fleet.device("bob"), QUICK) as client:
        async with scripted(alice, broken, silence) as address:
            first = await client.fetch_object(an_object(address, digest(WHOLE)))
        async with serving(alice) as site:  # the same device, at another address
            site.store(WHOLE)
            again = await client.fetch_object(an_object(site.address, digest(WHOLE)))
    assert isinstance(first, FetchFailed)
    assert first.fault is Fault.STALLED
    assert again == ObjectReceived(2, WHOLE)
    assert site.traffic.bytes_sent < half + 1_000


async def test_the_bytes_of_one_carrier_are_never_completed_by_another(fleet: Fleet) -> None:
    """Else a liar could send half an object and have an honest peer blamed for its digest."""
    poisoned = b"\0" * (len(WHOLE) // 2)
    broken = says(f"200 OK\nContent-Length: {len(WHOLE)}", poisoned)
    async with asking(fleet.device("bob"), QUICK) as client:
        async with scripted(fleet.device("mallory"), broken, silence) as address:
            first = await client.fetch_object(an_object(address, digest(WHOLE)))
        async with serving(fleet.device("alice")) as site:
            site.store(WHOLE)
            again = await client.fetch_object(an_object(site.address, digest(WHOLE)))
    assert isinstance(first, FetchFailed)
    assert again == ObjectReceived(2, WHOLE)


def test_unfinished_transfers_are_bounded_and_forgotten() -> None:
    held = Partials(bytes_max=3 * len(WHOLE))

    def keep(name: bytes, data: bytes, at: float, size: int = 10 * len(WHOLE)) -> None:
        partial = Partial()
        partial.data += data
        partial.size = size
        held.keep(name, partial, at)

    keep(b"small", b"x", 0.0)
    keep(b"whole", WHOLE, 0.0, size=len(WHOLE))
    assert held.held_bytes() == 0
    for at in range(5):
        keep(b"%d" % at, WHOLE, float(at))
    assert held.held_bytes() == 3 * len(WHOLE)
    assert not held.take(b"0", 5.0).data
    assert held.take(b"4", 5.0).data == WHOLE
    assert not held.take(b"3", 1_000.0).data
    assert held.held_bytes() == 0


WRONG_PARTS = {
    "another part": part(len(WHOLE) // 2 + 1),
    "of another whole": part(len(WHOLE) // 2, len(WHOLE) + 1),
    "more than the rest": f"""206 Partial Content
        Content-Length: 999999999999
        Content-Range: bytes {len(WHOLE) // 2}-{len(WHOLE) - 1}/{len(WHOLE)}""",
    "no part": "206 Partial Content\nContent-Length: 5",
    "nothing left": "416 Range Not Satisfiable\nContent-Length: 0",
}


@pytest.mark.parametrize("name", WRONG_PARTS)
async def test_a_wrong_part_makes_it_begin_again(fleet: Fleet, name: str) -> None:
    half = len(WHOLE) // 2
    async with (
        scripted(
            fleet.device("alice"),
            says(f"200 OK\nContent-Length: {len(WHOLE)}", WHOLE[:half], then_close=True),
            says(WRONG_PARTS[name], b"" if "416" in WRONG_PARTS[name] else b"wrong", True),
            says(f"200 OK\nContent-Length: {len(WHOLE)}", WHOLE),
        ) as address,
        asking(fleet.device("bob")) as client,
    ):
        answer = await client.fetch_object(an_object(address, digest(WHOLE)))
    assert answer == ObjectReceived(2, WHOLE)


async def test_a_transfer_that_gets_nowhere_is_given_up(fleet: Fleet) -> None:
    step = len(WHOLE) // 16
    scripts = [says(f"200 OK\nContent-Length: {len(WHOLE)}", WHOLE[:step], then_close=True)]
    scripts += [
        says(part(step * at), WHOLE[step * at : step * (at + 1)], then_close=True)
        for at in range(1, 16)
    ]
    async with (
        scripted(fleet.device("alice"), *scripts) as address,
        asking(fleet.device("bob")) as client,
    ):
        answer = await client.fetch_object(an_object(address, digest(WHOLE)))
    assert isinstance(answer, FetchFailed)
    assert answer.fault is Fault.TRUNCATED
    assert client._traffic.resumes == 3


async def test_a_dripping_body_is_bounded_in_time_by_its_size(fleet: Fleet) -> None:
    """It never stalls, so only the bound on the whole transfer ends it."""
    limits = replace(CALM, transfer_base_s=0.1, transfer_bytes_per_s=1_000)

    async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n")
        for _ in range(199):
            writer.write(b"x")
            await asyncio.sleep(0.01)

    async with (
        scripted(fleet.device("mallory"), drip) as address,
        asking(fleet.device("bob"), limits) as client,
    ):
        began = asyncio.get_running_loop().time()
        answer = await client.fetch_object(an_object(address, digest(WHOLE)))
        took = asyncio.get_running_loop().time() - began
    assert isinstance(answer, FetchFailed)
    assert answer.fault is Fault.STALLED
    assert "longer than its size allows" in answer.detail
    assert 0.3 <= took < 1.5


async def test_a_cancelled_fetch_leaves_nothing_behind(fleet: Fleet) -> None:
    async with serving(fleet.device("alice")) as site, asking(fleet.device("bob")) as client:
        served = site.publish("head 1")
        asked = head(site.address, etag=served.digest, wait_s=20.0)
        waiting = asyncio.create_task(client.fetch_head(asked))
        await until(lambda: site.traffic.requests_served == 1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await until(lambda: site.traffic.connections == 0)  # the server has seen it too
        assert isinstance(await client.fetch_head(head(site.address)), HeadReceived)


async def test_one_connection_serves_many_requests_and_a_stale_one_is_replaced(
    fleet: Fleet,
) -> None:
    alice = fleet.device("alice")
    async with asking(fleet.device("bob")) as client:
        async with serving(alice) as site:
            site.publish("head 1")
            for _ in range(20):
                assert isinstance(await client.fetch_head(head(site.address)), HeadReceived)
            assert site.traffic.handshakes == 1
        async with serving(alice, port=site.address.port) as restarted:
            restarted.publish("head 2")
            answer = await client.fetch_head(head(site.address))
    assert isinstance(answer, HeadReceived)
    assert answer.head == b"head 2"


async def test_both_ends_count_the_same_bytes(fleet: Fleet) -> None:
    async with serving(fleet.device("alice")) as site, asking(fleet.device("bob")) as client:
        site.publish("head 1", update=b"u" * 38_000)
        for _ in range(10):
            await client.fetch_head(head(site.address, update_bytes=38_000))
        await client.fetch_object(an_object(site.address, site.store(WHOLE)))
    assert abs(client._traffic.bytes_received - site.traffic.bytes_sent) < 0.01 * len(WHOLE)
    assert abs(client._traffic.bytes_sent - site.traffic.bytes_received) < 11 * 60


async def test_requests_tell_no_software_version(fleet: Fleet) -> None:
    seen = b""

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        seen = await reader.readuntil(b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0, ssl=fleet.device("alice").server())
    address = Address("127.0.0.1", server.sockets[0].getsockname()[1])
    async with asking(fleet.device("bob")) as client:
        await client.fetch_head(head(address, etag=b"e" * 32, wait_s=2.5, update_bytes=7))
    server.close()
    assert b"aiohttp" not in seen
    assert b"Python" not in seen
    assert b"Prefer: wait=2.500\r\n" in seen
    assert b"Gossipfl-Ride: 7\r\n" in seen
    assert len(seen) < 260
