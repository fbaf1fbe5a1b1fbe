"""What one keep-alive GET of a head with its 38 kB update costs, in CPU time of both ends.

Run by hand: python tests/net/measure_get.py [--requests N]; prints one JSON object. Server and
client are processes of their own, as devices are.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

from netkit import Device, Fleet, asking, head, serving

from gossipfl.events import Address, HeadReceived

UPDATE_BYTES = 38_000  # 9,482 parameters in float32: the MLP 64-128-10


async def serve(alice: Device, tell: int, end: int) -> None:
    async with serving(alice) as site:
        site.publish("h" * 600, update=os.urandom(UPDATE_BYTES))
        os.write(tell, b"%d\n" % site.address.port)
        await asyncio.get_running_loop().run_in_executor(None, os.read, end, 1)


async def ask(bob: Device, port: int, requests: int) -> tuple[float, float]:
    """(CPU, wall) seconds of `requests` requests, after some to warm up."""
    wanted = head(Address("127.0.0.1", port), update_bytes=UPDATE_BYTES)
    async with asking(bob) as client:
        for _ in range(100):
            await client.fetch_head(wanted)
        cpu, wall = time.process_time(), time.perf_counter()
        answered = 0
        for _ in range(requests):
            answered += isinstance(await client.fetch_head(wanted), HeadReceived)
        if answered != requests:
            raise RuntimeError(f"{requests - answered} requests failed")
        return time.process_time() - cpu, time.perf_counter() - wall


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=3_000)
    requests = parser.parse_args().requests
    with tempfile.TemporaryDirectory() as folder:
        fleet = Fleet(Path(folder))
        alice, bob = fleet.device("alice"), fleet.device("bob")
        told, tell = os.pipe()
        ended, end = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(end)
            asyncio.run(serve(alice, tell, ended))
            os._exit(0)
        port = int(os.read(told, 16))
        client_s, wall_s = asyncio.run(ask(bob, port, requests))
        os.write(end, b"x")
        os.waitpid(child, 0)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
    server_s = used.ru_utime + used.ru_stime  # its start and the warm-up are in it
    json.dump(
        {
            "requests": requests,
            "client_ms": round(1e3 * client_s / requests, 4),
            "server_ms": round(1e3 * server_s / (requests + 100), 4),
            "wall_ms": round(1e3 * wall_s / requests, 4),
        },
        sys.stdout,
    )
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
