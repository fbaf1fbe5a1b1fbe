"""The two routes, and everything that is not one of them."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from netkit import CALM, Fleet, an_object, asking, closed, digest, head, raw, serving, until

from gossipfl.errors import Fault, UserError
from gossipfl.events import FetchFailed, HeadReceived, ObjectReceived

GET = b"GET /v1/heads/self HTTP/1.1\r\nHost: x\r\n\r\n"


async def test_a_head_arrives_with_its_member_its_update_and_the_carriers_tls_key(
    fleet: Fleet,
) -> None:
    alice, bob = fleet.device("alice"), fleet.device("bob")
    async with serving(alice) as site, asking(bob) as client:
        served = site.publish("head 1", update=b"u" * 38_000)
        answer = await client.fetch_head(head(site.address, update_bytes=38_000))
    assert answer == HeadReceived(
        1, b"head 1", digest(b"member"), update=b"u" * 38_000, tls_key=alice.tls_key
    )
    assert served.digest == digest(b"head 1")
    assert site.traffic.updates_served == 1
    assert 38_000 < site.traffic.bytes_sent < 38_500


async def test_an_update_larger_than_asked_for_stays_behind(fleet: Fleet) -> None:
    async with serving(fleet.device("alice")) as site, asking(fleet.device("bob")) as client:
        site.publish("head 1", update=b"u" * 1_000)
        answer = await client.fetch_head(head(site.address, update_bytes=999))
        unasked = await client.fetch_head(head(site.address))
    assert isinstance(answer, HeadReceived)
    assert (answer.head, answer.update) == (b"head 1", None)
    assert isinstance(unasked, HeadReceived)
    assert unasked.update is None


async def test_heads_of_others_by_device_and_absent_ones(fleet: Fleet) -> None:
    async with serving(fleet.device("alice")) as site, asking(fleet.device("bob")) as client:
        site.publish("head 1")
        known = await client.fetch_head(head(site.address, device=b"d" * 16))
        unknown = await client.fetch_head(head(site.address, device=b"e" * 16))
    assert isinstance(known, HeadReceived)
    assert known.head == b"head 1"
    assert isinstance(unknown, FetchFailed)
    assert unknown.absent


async def test_a_known_head_is_not_sent_again(fleet: Fleet) -> None:
    async with serving(fleet.device("alice")) as site, asking(fleet.device("bob")) as client:
        served = site.publish("head 1", update=b"u" * 1_000)
        again = await client.fetch_head(head(site.address, etag=served.digest, update_bytes=1_000))
    assert isinstance(again, HeadReceived)
    assert again.head is None
    assert site.traffic.not_modified == 1
    assert site.traffic.bytes_sent < 300


async def test_a_waiting_request_is_answered_when_the_head_changes(fleet: Fleet) -> None:
    async with serving(fleet.device("alice")) as site, asking(fleet.device("bob")) as client:
        served = site.publish("head 1")
        asked = head(site.address, etag=served.digest, wait_s=20.0)
        waiting = asyncio.create_task(client.fetch_head(asked))
        await until(lambda: site.traffic.requests_served == 1)
        assert not waiting.done()
        site.publish("head 2")
        answer = await asyncio.wait_for(waiting, 30.0)
    assert isinstance(answer, HeadReceived)
    assert answer.head == b"head 2"


async def test_a_first_head_is_waited_for_and_a_wait_ends(fleet: Fleet) -> None:
    async with serving(fleet.device("alice")) as site, asking(fleet.device("bob")) as client:
        none_yet = await client.fetch_head(head(site.address, wait_s=0.05))
        waiting = asyncio.create_task(client.fetch_head(head(site.address, wait_s=20.0)))
        await until(lambda: site.traffic.requests_served == 2)
        served = site.publish("head 1")
        first = await asyncio.wait_for(waiting, 30.0)
        same = await client.fetch_head(head(site.address, etag=served.digest, wait_s=0.05))
    assert isinstance(none_yet, FetchFailed)
    assert none_yet.absent
    assert isinstance(first, HeadReceived)
    assert first.head == b"head 1"
    assert isinstance(same, HeadReceived)
    assert same.head is None


async def test_the_server_holds_no_request_longer_than_its_own_limit(fleet: Fleet) -> None:
    limits = replace(CALM, head_wait_s=0.05)
    alice, bob = fleet.device("alice"), fleet.device("bob")
    async with serving(alice, limits) as site, asking(bob) as client:
        served = site.publish("head 1")
        answer = await asyncio.wait_for(
            client.fetch_head(head(site.address, etag=served.digest, wait_s=600.0)), 30.0
        )
    assert isinstance(answer, HeadReceived)
    assert answer.head is None


async def test_objects_come_from_the_shelf_and_from_the_store(fleet: Fleet) -> None:
    async with serving(fleet.device("alice")) as site, asking(fleet.device("bob")) as client:
        site.shelf.put(digest(b"on the shelf"), b"on the shelf")
        large = bytes(range(256)) * 4_096 * 5  # more than one write
        stored = site.store(large)
        near = await client.fetch_object(an_object(site.address, digest(b"on the shelf")))
        far = await client.fetch_object(an_object(site.address, stored))
        absent = await client.fetch_object(an_object(site.address, digest(b"nowhere")))
    assert near == ObjectReceived(2, b"on the shelf")
    assert far == ObjectReceived(2, large)
    assert isinstance(absent, FetchFailed)
    assert absent.absent


@pytest.mark.parametrize(
    ("asked", "status", "content_range", "body"),
    [
        ("bytes=3-", 206, "bytes 3-9/10", b"3456789"),
        ("bytes=3-5", 206, "bytes 3-5/10", b"345"),
        ("bytes=3-500", 206, "bytes 3-9/10", b"3456789"),
        ("bytes=10-", 416, "bytes */10", b""),
        ("bytes=5-3", 416, "bytes */10", b""),
        ("bytes=0-1,3-4", 200, None, b"0123456789"),
        ("lines=1-2", 200, None, b"0123456789"),
    ],
)
async def test_ranges(
    fleet: Fleet, asked: str, status: int, content_range: str | None, body: bytes
) -> None:
    alice, bob = fleet.device("alice"), fleet.device("bob")
    async with serving(alice) as site, raw(bob, site.address) as (reader, writer):
        wanted = site.store(b"0123456789")
        writer.write(
            f"GET /v1/objects/{wanted.hex()} HTTP/1.1\r\nHost: x\r\nRange: {asked}\r\n"
            "Connection: close\r\n\r\n".encode()
        )
        answer = await closed(reader)
    fields, _, received = answer.partition(b"\r\n\r\n")
    assert fields.startswith(b"HTTP/1.1 %d " % status)
    assert received == body
    if content_range is None:
        assert b"Content-Range" not in fields
    else:
        assert b"Content-Range: " + content_range.encode() in fields


@pytest.mark.parametrize(
    "line",
    [
        "GET / ",
        "GET /v1/heads/ ",
        "GET /v1/heads/self/ ",
        "GET /v1/heads/self?x=1 ",
        "GET /v1/heads/" + "D" * 32 + " ",  # hex is lower-case: one name for one thing
        "GET /v1/heads/" + "d" * 30 + " ",
        "GET /v1/objects/" + "0" * 63 + " ",
        "GET /v1/objects/../../etc/passwd ",
        "GET /metrics ",
        "GET /healthz ",
        "HEAD /v1/heads/self ",
        "POST /v1/heads/self ",
        "DELETE /v1/heads/self ",
    ],
)
async def test_anything_else_is_404(fleet: Fleet, line: str) -> None:
    alice, bob = fleet.device("alice"), fleet.device("bob")
    async with serving(alice) as site, raw(bob, site.address) as (reader, writer):
        site.publish("head 1")
        writer.write(f"{line}HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = await closed(reader)
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"head 1" not in answer


@pytest.mark.parametrize(
    "fields", [b"Content-Length: 1000000\r\n", b"Transfer-Encoding: chunked\r\n"]
)
async def test_a_body_is_refused_before_it_is_read(fleet: Fleet, fields: bytes) -> None:
    alice, bob = fleet.device("alice"), fleet.device("bob")
    async with serving(alice) as site, raw(bob, site.address) as (reader, writer):
        writer.write(b"GET /v1/heads/self HTTP/1.1\r\nHost: x\r\n" + fields + b"\r\n")
        answer = await closed(reader)
    assert answer.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "sent",
    [
        b"NONSENSE\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"GET /" + b"a" * 1_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/heads/self HTTP/1.1\r\nX: " + b"a" * 1_000 + b"\r\n\r\n",
        b"GET /v1/heads/self HTTP/1.1\r\n" + b"X: a\r\n" * 100 + b"\r\n",
    ],
)
async def test_what_is_no_request_or_too_large_closes_the_connection(
    fleet: Fleet, sent: bytes
) -> None:
    alice, bob = fleet.device("alice"), fleet.device("bob")
    async with serving(alice) as site, raw(bob, site.address) as (reader, writer):
        writer.write(sent)
        answer = await closed(reader)
        assert answer.startswith(b"HTTP/1.0 400 ") or answer.startswith(b"HTTP/1.1 400 ")
    async with serving(alice) as site, asking(bob) as client:  # and the next one is served
        site.publish("head 1")
        assert isinstance(await client.fetch_head(head(site.address)), HeadReceived)


async def test_answers_name_no_software_version(fleet: Fleet) -> None:
    alice, bob = fleet.device("alice"), fleet.device("bob")
    async with serving(alice) as site, raw(bob, site.address) as (reader, writer):
        site.publish("head 1")
        writer.write(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        answer = await closed(reader)
    assert b"Server: gossipfl\r\n" in answer
    assert b"aiohttp" not in answer
    assert b"Python" not in answer


async def test_a_port_in_use_is_said_in_words(fleet: Fleet) -> None:
    alice = fleet.device("alice")
    async with serving(alice) as site:
        with pytest.raises(UserError, match="in use") as caught:
            async with serving(alice, port=site.address.port):
                pass
    assert caught.value.code == "GF302"


async def test_a_bug_while_answering_is_loud_here_and_a_number_there(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(fleet.device("alice")) as site, asking(fleet.device("bob")) as client:
        site.server._shelf = None  # type: ignore[assignment]
        answer = await client.fetch_head(head(site.address))
    assert isinstance(answer, FetchFailed)
    assert (answer.fault, answer.detail) == (Fault.REFUSED, "the peer answered with status 500")
    assert "a bug while answering" in caplog.text
