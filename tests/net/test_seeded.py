"""The same shell on a seeded loop: real aiohttp, real mutual TLS, a network that delays and cuts.

Needs Python 3.12 and simloop. Time is virtual, threads are replaced by inline work, the order in
which tasks run is drawn from the seed.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from netkit import Device, until
from netkit import Fleet as Certificates
from nodekit import House, World

from gossipfl.config import PACES
from gossipfl.events import Address, PolicyReceived
from gossipfl.net.server import Server
from gossipfl.net.worker import InlineWorker
from sim.fleet import EPOCH

simloop = pytest.importorskip("simloop", reason="simloop needs Python 3.12")

PORT = 7_000
SEEDS = range(3)


def _world(loop: simloop.SimLoop) -> World:
    async def listen(name: str, server: Server, tls: Device) -> Address:
        await loop.create_server(
            server.protocol, port=PORT, ssl=tls.server(), ssl_handshake_timeout=5.0
        )
        return Address(name, PORT)

    def wall() -> float:
        return EPOCH + loop.time()

    return World(listen, lambda _: InlineWorker(), wall, PACES["demo"])


async def _train(loop: simloop.SimLoop, certificates: Certificates) -> list[tuple[int, int]]:
    """Three devices, a partition that heals: (merges, evidence) of each."""
    loop.net.set_defaults(latency=(0.001, 0.050))
    house = House(certificates, _world(loop))
    # What a device starts runs on its host, so the network knows whose connections these are.
    a, b, c = [await loop.net.host(name).create_task(house.add(name)) for name in "abc"]
    house.introduce(a, b, c)
    a.give(PolicyReceived(house.policy(3)))
    await until(lambda: all(agent.merges >= 3 for agent in house.agents), 120.0)
    loop.net.partition({"a"}, {"b", "c"})
    alone, before = a.merges, b.merges
    await until(lambda: b.merges >= before + 12, 120.0)
    assert a.merges <= alone + 3  # nobody to merge with, but for what was on its way
    loop.net.heal()
    await until(lambda: a.merges >= alone + 8, 300.0)
    views = [agent.node.view() for agent in house.agents]
    for agent in list(house.agents):
        await house.leave(agent)
    return [(view.merges, view.evidence) for view in views]


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_three_devices_under_a_seeded_loop(seed: int, tmp_path: Path) -> None:
    loop = simloop.SimLoop(seed)
    asyncio.set_event_loop(loop)
    try:
        results = loop.run_until_complete(_train(loop, Certificates(tmp_path / "fleet")))
    finally:
        asyncio.set_event_loop(None)
        loop.close()
    assert all(merges >= 6 for merges, _ in results)
    assert all(evidence == 0 for _, evidence in results)
