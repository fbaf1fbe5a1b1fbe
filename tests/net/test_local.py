"""What a monitor on this machine sees, and that nobody else sees it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gossipfl.errors import UserError
from gossipfl.net.local import Health, LocalListener
from gossipfl.net.traffic import Traffic


@asynccontextmanager
async def listening(
    health: Health | None = None, traffic: Traffic | None = None, **figures: float
) -> AsyncIterator[int]:
    local = LocalListener(lambda: health or Health(), traffic or Traffic(), lambda: dict(figures))
    port = await local.start(0)
    try:
        yield port
    finally:
        await local.close()


async def get(
    port: int, path: str, host: str = "localhost", method: str = "GET"
) -> tuple[int, str]:
    """(status, body)"""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    answer = await asyncio.wait_for(reader.read(), 30.0)
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode()


async def test_healthz_is_200_when_well_and_503_with_the_reason_when_not() -> None:
    async with listening(Health(facts={"round": 3})) as port:
        status, body = await get(port, "/healthz")
    assert (status, json.loads(body)) == (200, {"status": "ok", "problems": [], "round": 3})
    async with listening(Health(("the disk is full",))) as port:
        status, body = await get(port, "/healthz")
    assert status == 503
    assert json.loads(body)["problems"] == ["the disk is full"]


async def test_metrics_are_what_prometheus_reads() -> None:
    traffic = Traffic(bytes_sent=1_000, connections=3)
    async with listening(traffic=traffic, round=7.0) as port:
        traffic.bytes_sent = 2_000
        status, body = await get(port, "/metrics")
    assert status == 200
    samples = {
        sample.name: sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
    }
    assert samples["gossipfl_net_bytes_sent_total"] == 2_000
    assert samples["gossipfl_net_connections"] == 3
    assert samples["gossipfl_round"] == 7
    assert samples["process_resident_memory_bytes"] > 0


@pytest.mark.parametrize(
    ("path", "host", "method"),
    [
        ("/", "localhost", "GET"),
        ("/v1/heads/self", "localhost", "GET"),
        ("/metrics?x=1", "localhost", "GET"),
        ("/metrics", "localhost", "POST"),
        ("/metrics", "evil.example", "GET"),  # DNS rebinding from a browser
        ("/healthz", "evil.example:80", "GET"),
    ],
)
async def test_anything_else_is_404(path: str, host: str, method: str) -> None:
    async with listening() as port:
        assert (await get(port, path, host, method))[0] == 404
        assert (await get(port, "/healthz", f"127.0.0.1:{port}"))[0] == 200


async def test_it_listens_on_loopback_alone_and_says_if_it_cannot() -> None:
    local = LocalListener(Health, Traffic())
    port = await local.start(0)
    assert local._server is not None
    assert [s.getsockname()[0] for s in local._server.sockets] == ["127.0.0.1"]
    with pytest.raises(UserError) as caught:
        await LocalListener(Health, Traffic()).start(port)
    assert caught.value.code == "GF303"
    await local.close()
