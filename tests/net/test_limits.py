"""What one peer, or a stranger, can cost us: slow senders, stalled readers, floods, crowds."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from netkit import (
    CALM,
    QUICK,
    Fleet,
    Site,
    an_object,
    asking,
    closed,
    head,
    raw,
    serving,
    until,
)

from gossipfl.errors import Fault
from gossipfl.events import FetchFailed, HeadReceived, ObjectReceived
from gossipfl.net import listener

GET = b"GET /v1/heads/self HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("sent", [b"", b"GET /v1/heads/self HTTP/1.1\r\nHost: x\r\nX: "])
async def test_a_request_that_never_comes_is_not_waited_for(fleet: Fleet, sent: bytes) -> None:
    alice, bob = fleet.device("alice"), fleet.device("bob")
    async with serving(alice, QUICK) as site, raw(bob, site.address) as (reader, writer):
        writer.write(sent)
        assert await closed(reader) == b""
        assert site.traffic.slow_headers == 1


async def test_dripping_headers_do_not_extend_the_deadline(fleet: Fleet) -> None:
    alice, bob = fleet.device("alice"), fleet.device("bob")
    async with serving(alice, QUICK) as site, raw(bob, site.address) as (reader, writer):
        writer.write(GET)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 404 ")
        ended = asyncio.create_task(closed(reader))
        writer.write(b"GET /v1/heads/self HTTP/1.1\r\nX: ")

        async def drip() -> None:
            while not ended.done():
                writer.write(b"a")
                await asyncio.wait([ended], timeout=0.02)

        await asyncio.wait_for(drip(), 30.0)
        assert site.traffic.slow_headers == 1


async def test_a_kept_connection_outlives_the_header_deadline(fleet: Fleet) -> None:
    alice, bob = fleet.device("alice"), fleet.device("bob")
    async with serving(alice, QUICK) as site, asking(bob) as client:
        site.publish("head 1")
        await client.fetch_head(head(site.address))
        served = site.publish("head 2")
        # A held request takes far longer than its headers did.
        asked = head(site.address, etag=served.digest, wait_s=0.8)
        again = await client.fetch_head(asked)
    assert isinstance(again, HeadReceived)
    assert site.traffic.handshakes == 1
    assert site.traffic.slow_headers == 0


async def test_an_idle_connection_is_closed(fleet: Fleet) -> None:
    alice, bob = fleet.device("alice"), fleet.device("bob")
    async with (
        serving(alice, CALM, keepalive_s=0.1) as site,
        raw(bob, site.address) as (reader, writer),
    ):
        site.publish("head 1")
        writer.write(GET)
        assert (await closed(reader)).endswith(b"head 1")
        await until(lambda: site.traffic.connections == 0)


async def test_who_does_not_read_the_answer_is_cut(fleet: Fleet) -> None:
    alice, bob = fleet.device("alice"), fleet.device("bob")
    async with serving(alice, QUICK) as site, raw(bob, site.address) as (_reader, writer):
        wanted = site.store(bytes(32 * 1024 * 1024))
        writer.write(f"GET /v1/objects/{wanted.hex()} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await until(lambda: site.traffic.stalled_readers == 1)
        await until(lambda: site.traffic.connections == 0)


async def test_who_pipelines_and_never_reads_is_cut(fleet: Fleet) -> None:
    alice, bob = fleet.device("alice"), fleet.device("bob")
    async with serving(alice, QUICK) as site, raw(bob, site.address) as (reader, writer):
        site.publish("head 1", update=b"u" * 30_000)
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        ride = GET.replace(b"\r\n\r\n", b"\r\nGossipfl-Ride: 30000\r\n\r\n")
        writer.write(ride * 1_000)
        await until(lambda: site.traffic.stalled_readers == 1)
        await until(lambda: site.traffic.connections == 0)


async def test_a_stranger_who_does_not_finish_the_handshake_is_closed(fleet: Fleet) -> None:
    limits = replace(QUICK, handshake_deadline_s=0.3)
    async with serving(fleet.device("alice"), limits) as site:
        reader, writer = await asyncio.open_connection(site.address.host, site.address.port)
        writer.write(b"\x16\x03\x01")
        assert await closed(reader) == b""
        writer.close()
        await until(lambda: site.traffic.handshakes_failed == 1)


async def test_a_crowd_of_strangers_is_closed_and_does_not_keep_members_out(
    fleet: Fleet,
) -> None:
    """Five hundred connections without a byte: most are closed at once, the rest in time."""
    limits = replace(CALM, handshake_deadline_s=1.0)
    alice, bob = fleet.device("alice"), fleet.device("bob")
    async with serving(alice, limits) as site, asking(bob) as client:
        site.publish("head 1")
        await client.fetch_head(head(site.address))
        crowd = await asyncio.gather(
            *(asyncio.open_connection(site.address.host, site.address.port) for _ in range(500))
        )
        await until(lambda: site.traffic.refused_address >= 300)
        assert isinstance(await client.fetch_head(head(site.address)), HeadReceived)
        await asyncio.gather(*(closed(reader) for reader, _ in crowd))
        await until(lambda: site.traffic.handshakes_failed >= listener.HANDSHAKES_PER_ADDRESS)
        assert site.traffic.refused_address + site.traffic.handshakes_failed == 500
        for _, writer in crowd:
            writer.transport.abort()
        async with asking(fleet.device("carol")) as other:  # room again for a new member
            assert isinstance(await other.fetch_head(head(site.address)), HeadReceived)


async def test_idle_handshakes_from_a_few_addresses_keep_no_member_out(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as there may be, from four addresses of one stranger, and it goes on knocking."""
    monkeypatch.setattr(listener, "PATIENCE_S", 3_600.0)  # a loaded machine takes more than one
    addresses = listener.HANDSHAKES // listener.HANDSHAKES_PER_ADDRESS

    async def crowd(site: Site) -> list[asyncio.StreamWriter]:
        pairs = await asyncio.gather(
            *(
                asyncio.open_connection(
                    site.address.host, site.address.port, local_addr=(f"127.0.0.{2 + n}", 0)
                )
                for _ in range(listener.HANDSHAKES_PER_ADDRESS)
                for n in range(addresses)
            )
        )
        return [writer for _, writer in pairs]

    limits = replace(CALM, handshake_deadline_s=60.0)
    async with serving(fleet.device("alice"), limits) as site:
        site.publish("head 1")
        held = await crowd(site)
        await until(lambda: len(site.server._listener._handshakes) == listener.HANDSHAKES)
        for name in ("bob", "carol"):
            async with asking(fleet.device(name)) as client:
                assert isinstance(await client.fetch_head(head(site.address)), HeadReceived)
            held += await crowd(site)
        assert site.traffic.handshakes == 2
        assert 1 <= site.traffic.handshakes_aborted <= 8, "balance is kept, not traded to and fro"
        for writer in held:
            writer.transport.abort()


async def test_who_shares_an_address_with_idle_handshakes_gets_in_after_a_second(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = replace(CALM, handshake_deadline_s=60.0)
    async with serving(fleet.device("alice"), limits) as site:
        site.publish("head 1")
        idle = await asyncio.gather(
            *(
                asyncio.open_connection(site.address.host, site.address.port)
                for _ in range(listener.HANDSHAKES_PER_ADDRESS)
            )
        )
        await until(
            lambda: len(site.server._listener._handshakes) == listener.HANDSHAKES_PER_ADDRESS
        )
        for patience_s, kind in ((3_600.0, FetchFailed), (0.0, HeadReceived)):
            monkeypatch.setattr(listener, "PATIENCE_S", patience_s)
            async with asking(fleet.device(f"{patience_s}")) as client:
                assert isinstance(await client.fetch_head(head(site.address)), kind)
        for _, writer in idle:
            writer.transport.abort()


async def test_a_flood_gets_429_and_the_others_are_served(fleet: Fleet) -> None:
    limits = replace(CALM, requests_per_s=10.0, burst=5)
    alice, bob, carol = (fleet.device(name) for name in ("alice", "bob", "carol"))
    async with serving(alice, limits) as site, asking(bob) as flooding, asking(carol) as calm:
        site.publish("head 1")
        answers = [await flooding.fetch_head(head(site.address)) for _ in range(8)]
        served = await calm.fetch_head(head(site.address))
    assert sum(isinstance(a, HeadReceived) for a in answers) in (5, 6, 7)
    refused = [a for a in answers if isinstance(a, FetchFailed)]
    assert {a.fault for a in refused} == {Fault.REFUSED}
    assert refused[0].detail == "we asked too often, it says to retry after 1 s"
    assert isinstance(served, HeadReceived)


async def test_a_flood_cannot_make_us_answer_faster_than_the_hold(fleet: Fleet) -> None:
    limits = replace(CALM, requests_per_s=0.01, burst=1)
    alice, bob = fleet.device("alice"), fleet.device("bob")
    async with serving(alice, limits) as site, raw(bob, site.address) as (_, writer):
        writer.write(GET * 100)
        await until(lambda: site.traffic.refused_budget == 3)
        assert site.traffic.requests_served <= 4


async def test_updates_have_a_budget_of_their_own_and_heads_still_spread(fleet: Fleet) -> None:
    limits = replace(CALM, updates_per_s=0.01, burst=2)
    alice, bob = fleet.device("alice"), fleet.device("bob")
    async with serving(alice, limits) as site, asking(bob) as client:
        site.publish("head 1", update=b"u" * 38_000)
        answers = [
            await client.fetch_head(head(site.address, update_bytes=38_000)) for _ in range(3)
        ]
        wanted = site.store(b"o" * 38_000)
        refused = await client.fetch_object(an_object(site.address, wanted))
    updates = [a.update is not None for a in answers if isinstance(a, HeadReceived)]
    assert updates == [True, True, False]
    assert isinstance(refused, FetchFailed)
    assert refused.detail.startswith("we asked too often")


async def test_one_device_gets_so_many_answers_at_once_and_no_more(fleet: Fleet) -> None:
    limits = replace(CALM, serves_per_device=3)
    alice, bob, carol = (fleet.device(name) for name in ("alice", "bob", "carol"))
    async with serving(alice, limits) as site, asking(bob) as greedy, asking(carol) as modest:
        served = site.publish("head 1")
        asked = head(site.address, etag=served.digest, wait_s=20.0)
        held = [asyncio.create_task(greedy.fetch_head(asked)) for _ in range(5)]
        await asyncio.wait(held, timeout=30.0, return_when=asyncio.FIRST_COMPLETED)
        await until(lambda: site.traffic.refused_member >= 2)
        assert site.traffic.connections == 3
        assert isinstance(await modest.fetch_head(head(site.address)), HeadReceived)
        site.publish("head 2")
        answers = await asyncio.gather(*held)
    assert sum(isinstance(a, HeadReceived) for a in answers) == 3


async def test_when_all_are_busy_one_more_is_told_so(fleet: Fleet) -> None:
    limits = replace(CALM, serves_total=0)
    async with serving(fleet.device("alice"), limits) as site, asking(fleet.device("b")) as client:
        site.publish("head 1")
        answer = await client.fetch_head(head(site.address))
    assert isinstance(answer, FetchFailed)
    assert answer.detail == "the peer is busy, it says to retry after 1 s"


async def test_the_longest_idle_connection_makes_way_for_a_new_one(fleet: Fleet) -> None:
    limits = replace(CALM, connections=2)
    names = ("alice", "first", "second", "third")
    alice, first, second, third = (fleet.device(name) for name in names)
    async with (
        serving(alice, limits) as site,
        raw(first, site.address) as (reader, writer),
        raw(second, site.address) as (_, waiting),
        asking(third) as client,
    ):
        site.publish("head 1")
        writer.write(GET)
        await until(lambda: site.traffic.requests_served == 1)
        waiting.write(GET)
        await until(lambda: site.traffic.requests_served == 2)
        assert isinstance(await client.fetch_head(head(site.address)), HeadReceived)
        assert (await closed(reader)).endswith(b"head 1")
        assert site.traffic.connections == 2


async def test_strangers_drive_no_idle_member_out(fleet: Fleet) -> None:
    limits = replace(QUICK, connections=1)
    alice, bob = fleet.device("alice"), fleet.device("bob")
    async with serving(alice, limits) as site, asking(bob) as client:
        site.publish("head 1")
        await client.fetch_head(head(site.address))
        for failed in range(1, 4):
            _, writer = await asyncio.open_connection(site.address.host, site.address.port)
            writer.transport.abort()
            await until(lambda: site.traffic.handshakes_failed == failed)  # noqa: B023
        assert isinstance(await client.fetch_head(head(site.address)), HeadReceived)
        assert site.traffic.handshakes == 1


async def test_when_every_connection_is_busy_one_more_is_refused(fleet: Fleet) -> None:
    limits = replace(CALM, connections=1)
    alice, bob, carol = (fleet.device(name) for name in ("alice", "bob", "carol"))
    async with serving(alice, limits) as site, asking(bob) as busy, asking(carol) as late:
        served = site.publish("head 1")
        asked = head(site.address, etag=served.digest, wait_s=20.0)
        waiting = asyncio.create_task(busy.fetch_head(asked))
        await until(lambda: site.traffic.requests_served == 1)
        assert isinstance(await late.fetch_head(head(site.address)), FetchFailed)
        site.publish("head 2")
        assert isinstance(await waiting, HeadReceived)


async def test_cut_off_closes_live_connections_and_takes_no_more(fleet: Fleet) -> None:
    alice, bob, carol = (fleet.device(name) for name in ("alice", "bob", "carol"))
    async with serving(alice) as site, asking(bob) as cut, asking(carol) as other:
        served = site.publish("head 1")
        asked = head(site.address, etag=served.digest, wait_s=20.0)
        waiting = asyncio.create_task(cut.fetch_head(asked))
        await until(lambda: site.traffic.requests_served == 1)
        site.server.cut_off(bob.tls_key)
        answer = await asyncio.wait_for(waiting, 30.0)
        again = await cut.fetch_head(head(site.address))
        fine = await other.fetch_head(head(site.address))
    for refused in (answer, again):
        assert isinstance(refused, FetchFailed)
        assert refused.fault is Fault.REFUSED
        assert "has cut us off" in refused.detail
    assert isinstance(fine, HeadReceived)


async def test_a_member_that_the_node_refuses_gets_no_answer(fleet: Fleet) -> None:
    alice, bob = fleet.device("alice"), fleet.device("bob")
    async with serving(alice) as site, asking(bob) as client:
        site.publish("head 1")
        site.refused[bob.tls_key] = "revoked"
        answer = await client.fetch_head(head(site.address))
    assert isinstance(answer, FetchFailed)
    assert answer.fault is Fault.REFUSED
    assert site.traffic.requests_served == 0


async def test_a_large_object_is_held_once_for_all_who_read_it(fleet: Fleet) -> None:
    limits = replace(CALM, transfer_bytes=1)
    alice, bob = fleet.device("alice"), fleet.device("bob")
    loads = 0
    large = bytes(8 * 1024 * 1024)

    async with serving(alice, limits) as site, asking(bob) as client:
        wanted = site.store(large)
        load = site.server._loads._load

        async def counted(digest: bytes) -> bytes | None:
            nonlocal loads
            loads += 1
            return await load(digest)

        site.server._loads._load = counted
        async with raw(bob, site.address) as (_, slow):
            slow.write(f"GET /v1/objects/{wanted.hex()} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            await until(lambda: loads == 1)
            same = await client.fetch_object(an_object(site.address, wanted))
            other = await client.fetch_object(an_object(site.address, site.store(b"other")))
        assert same == ObjectReceived(2, large)
        assert loads == 1
        assert isinstance(other, FetchFailed)
        assert other.detail.startswith("the peer is busy")
        await until(lambda: site.traffic.connections == 1)
        assert await client.fetch_object(an_object(site.address, site.store(b"other"))) == (
            ObjectReceived(2, b"other")
        )
