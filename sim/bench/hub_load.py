"""What loads a hub's API, in a process of its own: `python -m sim.bench.hub_load ROLE FILE`.

    submit   registers clients, then sends signed updates from many at once until the hub is gone
    calm     asks at a steady pace, in two phases; says how long answers took in each
    slow     holds connections that say nothing, half of something, or drip

FILE is JSON with what the role needs; each line of stdout is one JSON object, in order.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from gossipfl.hub.star.client_routes import ENVELOPE_HEADER
from gossipfl.hub.star.wire import JOIN, MODEL, Join, Model
from gossipfl.identity import Signer
from gossipfl.messages import Lineage
from gossipfl.objects import digest
from gossipfl.wire import encode, seal

ADDRESSES = 20  # of loopback: strangers are slowed down by address, and registering is theirs
OCTETS = "application/octet-stream"
POLL_S = 0.1  # how often one of the senders' site asks whether the next round is open
GONE = 1 << 60  # the number of the round in which the hub is no longer there
AGAIN = (429, 503)  # the hub asks to be asked again
HOSTED_S = 30.0  # a request may take so long before it counts as failed


def say(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of them do not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


@dataclass
class Site:
    """Where the hub is, and one HTTP session for each local address."""

    url: str
    ca: str
    sessions: list[aiohttp.ClientSession] = field(default_factory=list)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Site]:
        context = ssl.create_default_context(cafile=self.ca)
        async with AsyncExitStack() as stack:
            for number in range(ADDRESSES):
                connector = aiohttp.TCPConnector(
                    ssl=context, limit=0, local_addr=(f"127.0.0.{number + 1}", 0)
                )
                timeout = aiohttp.ClientTimeout(total=HOSTED_S)
                session = aiohttp.ClientSession(self.url, connector=connector, timeout=timeout)
                self.sessions.append(await stack.enter_async_context(session))
            yield self


class Client:
    """One registered client of star mode."""

    def __init__(self, site: Site, number: int, salt: str) -> None:
        self.signer = Signer(digest(f"{salt} {number}".encode()))
        self.http = site.sessions[number % len(site.sessions)]
        self.token = ""
        self.seq = 0
        self._fleet = b""

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    async def register(self, fleet: bytes, code: str) -> None:
        self._fleet = fleet
        join = seal(JOIN, encode(Join(fleet, int(time.time()), "bench")), self.signer)
        body = {"envelope": base64.b64encode(join).decode(), "code": code}
        while True:
            async with self.http.post("/api/v1/clients/register", json=body) as answer:
                if answer.status in AGAIN:
                    await asyncio.sleep(float(answer.headers.get("Retry-After", "1")))
                    continue
                answer.raise_for_status()
                self.token = (await answer.json())["access_token"]
                return

    async def config(self) -> dict[str, Any]:
        async with self.http.get("/api/v1/training/config", headers=self.headers) as answer:
            if answer.status == 404:  # no policy yet
                return {"state": "waiting"}
            answer.raise_for_status()
            found: dict[str, Any] = await answer.json()
            return found

    async def model(self, version: int) -> bytes:
        path = f"/api/v1/models/global?version={version}"
        async with self.http.get(path, headers=self.headers) as answer:
            answer.raise_for_status()
            return await answer.read()

    def signed(self, config: dict[str, Any], update: bytes) -> tuple[dict[str, str], str]:
        """Headers of one more update, and the digest that it is acknowledged with."""
        self.seq += 1
        lineage = Lineage(
            bytes.fromhex(config["bundle"]), config["run"], bytes.fromhex(config["layout"])
        )
        model = Model(
            self._fleet, self.signer.device, self.seq, config["round"], config["version"],
            lineage, digest(update), len(update), config["codec"], 100,
        )  # fmt: skip
        envelope = base64.b64encode(seal(MODEL, encode(model), self.signer)).decode()
        headers = {**self.headers, "Content-Type": OCTETS, ENVELOPE_HEADER: envelope}
        return headers, model.digest.hex()


@dataclass
class Tally:
    """What came of the updates that were sent."""

    took: list[float] = field(default_factory=list)  # seconds, of those acknowledged in time
    acknowledged: list[tuple[str, int, str]] = field(default_factory=list)  # client, seq, digest
    late: int = 0  # the round was over: 409
    again: int = 0
    failed: int = 0
    counts: bool = False  # whether it is measured now


class Senders:
    """`senders` tasks that send for all clients, round after round."""

    def __init__(self, clients: Sequence[Client], senders: int) -> None:
        self.tally = Tally()
        self._clients = clients
        self._senders = senders
        self._config: dict[str, Any] = {}
        self._changed = asyncio.Condition()

    async def run(self, seconds: float) -> None:
        """Sends for so long once a round is open, says what was measured, and goes on until the
        hub is gone."""
        shares = [self._clients[n :: self._senders] for n in range(self._senders)]
        async with asyncio.TaskGroup() as group:
            works = [group.create_task(self._work(share)) for share in shares if share]
            watching = group.create_task(self._watch())
            async with self._changed:
                await self._changed.wait()
            self.tally.counts = True
            say(started=time.time())
            began = time.perf_counter()
            await asyncio.sleep(seconds)
            self.tally.counts = False
            took_s, took = time.perf_counter() - began, self.tally.took
            say(
                measured=time.time(),
                updates_per_s=round(len(took) / took_s, 1),
                p50_s=round(percentile(took, 0.5), 3),
                p99_s=round(percentile(took, 0.99), 3),
                worst_s=round(max(took, default=0.0), 3),
                rounds_over=self.tally.late,
                asked_again=self.tally.again,
                failed=self.tally.failed,
            )
            await asyncio.wait([*works, watching])

    async def _watch(self) -> None:
        """The newest configuration, as one client sees it."""
        with suppress(aiohttp.ClientError, TimeoutError):
            while True:
                for client in self._clients[:10]:  # each asks once a second
                    found = await client.config()
                    if found["state"] == "running" and found["round"] != self._config.get("round"):
                        await self._tell(found)
                    await asyncio.sleep(POLL_S)
        await self._tell({"round": GONE})

    async def _tell(self, config: dict[str, Any]) -> None:
        async with self._changed:
            self._config = config
            self._changed.notify_all()

    async def _work(self, share: Sequence[Client]) -> None:
        """One sender: the model once a round; for each of its clients configuration and update."""
        with suppress(aiohttp.ClientError, ConnectionError, TimeoutError):
            done = 0
            while (done := await self._after(done)) != GONE:
                await share[0].model(self._config["version"])
                for client in share:
                    config = await client.config()
                    if config["is_selected"] and not config["has_sent"]:
                        await self._send(client, config)

    async def _after(self, done: int) -> int:
        """The number of a newer round, as soon as there is one."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._config.get("round", 0) > done)
            return int(self._config["round"])

    async def _send(self, client: Client, config: dict[str, Any]) -> None:
        tally, header = self.tally, base64.b64decode(config["update_header"])
        values = client.signer.device * ((config["update_bytes"] - len(header)) // 16 + 1)
        update = header + _small(values)[: config["update_bytes"] - len(header)]
        headers, name = client.signed(config, update)
        began = time.perf_counter()
        while True:
            async with client.http.post(
                "/api/v1/models/update", data=update, headers=headers
            ) as answer:
                await answer.read()
                status = answer.status
            if status not in AGAIN:
                break
            tally.again += tally.counts
            await asyncio.sleep(1.0)
        if status == 200:
            tally.acknowledged.append((client.signer.device.hex(), client.seq, name))
            if tally.counts:
                tally.took.append(time.perf_counter() - began)
        tally.late += tally.counts and status == 409
        tally.failed += tally.counts and status not in (200, 409)


def _small(values: bytes) -> bytes:
    """Any bytes as bf16 values between -0.02 and 0.02: exponents that no merge chokes on."""
    out = bytearray(values)
    out[1::2] = bytes(0x3C | (high & 0x80) for high in out[1::2])
    return bytes(out)


async def submit(given: dict[str, Any]) -> None:
    """given: url, ca, code, fleet, clients, senders, seconds, acknowledged (a file to write)."""
    async with Site(given["url"], given["ca"]).open() as site:
        clients = [Client(site, n, given["code"]) for n in range(given["clients"])]
        fleet, began = bytes.fromhex(given["fleet"]), time.perf_counter()
        waiting = asyncio.Semaphore(given["senders"])

        async def enter(client: Client) -> None:
            async with waiting:
                await client.register(fleet, given["code"])

        await asyncio.gather(*(enter(client) for client in clients))
        say(registered=len(clients), registered_s=round(time.perf_counter() - began, 1))
        senders = Senders(clients, given["senders"])
        try:
            await senders.run(given["seconds"])
        finally:
            data = msgspec.json.encode(senders.tally.acknowledged)
            await asyncio.to_thread(Path(given["acknowledged"]).write_bytes, data)


async def calm(given: dict[str, Any]) -> None:
    """given: url, ca, tokens, askers, per_s, seconds. Waits for a line on stdin between phases."""
    loop, tokens, askers = asyncio.get_running_loop(), given["tokens"], given["askers"]
    async with Site(given["url"], given["ca"]).open() as site:

        async def ask(number: int, took: list[float], until: float) -> int:
            """How many were refused: a quick refusal is no quick answer."""
            refused = 0
            http = site.sessions[number % ADDRESSES]
            headers = {"Authorization": f"Bearer {tokens[number % len(tokens)]}"}
            await asyncio.sleep(number / given["per_s"])
            while loop.time() < until:
                began = loop.time()
                async with http.get("/api/v1/training/config", headers=headers) as answer:
                    await answer.read()
                if answer.status == 200:
                    took.append(loop.time() - began)
                else:
                    refused += 1
                await asyncio.sleep(askers / given["per_s"])
            return refused

        for phase in ("before", "during"):
            took: list[float] = []
            until = loop.time() + given["seconds"]
            refused = sum(await asyncio.gather(*(ask(n, took, until) for n in range(askers))))
            say(
                phase=phase,
                refused=refused,
                p50_s=round(percentile(took, 0.5), 4),
                p99_s=round(percentile(took, 0.99), 4),
            )
            await asyncio.to_thread(sys.stdin.readline)


async def slow(given: dict[str, Any]) -> None:
    """given: host, port, ca, count, token. Opens them side by side; says when all are closed."""
    context = ssl.create_default_context(cafile=given["ca"])
    body = b"Content-Type: application/json\r\nContent-Length: 60000\r\n\r\n"
    stranger = b"POST /api/v1/auth/token HTTP/1.1\r\nHost: x\r\n" + body
    caller = (
        f"POST /api/v1/auth/revoke HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {given['token']}"
        "\r\n"
    ).encode() + body
    kinds: list[tuple[str, bytes | None, bool]] = [
        ("no handshake", None, False),
        ("no request", b"", False),
        ("half a header", b"GET /health HTTP/1.1\r\nX-Slow: ", True),
        ("a stalled body", stranger, False),
        ("a dripping body", stranger, True),
        ("a dripping body of a user", caller, True),
    ]
    took: dict[str, list[float]] = {kind: [] for kind, _, _ in kinds}

    async def hold(number: int) -> None:
        kind, sent, drips = kinds[number % len(kinds)]
        began = time.perf_counter()
        with suppress(OSError):
            reader, writer = await asyncio.open_connection(
                given["host"],
                given["port"],
                ssl=context if sent is not None else None,
                local_addr=(f"127.0.1.{number % ADDRESSES + 1}", 0),
            )
            try:
                writer.write(sent or b"")
                ended = asyncio.create_task(reader.read())
                while not ended.done():
                    await asyncio.wait([ended], timeout=1.0)
                    if drips and not ended.done():
                        writer.write(b"x")
                ended.exception()
            finally:
                writer.close()
        took[kind].append(time.perf_counter() - began)

    say(opening=given["count"])
    async with asyncio.timeout(60.0):
        await asyncio.gather(*(hold(number) for number in range(given["count"])))
    say(closed_s={kind: round(max(values, default=0.0), 1) for kind, values in took.items()})


ROLES = {"submit": submit, "calm": calm, "slow": slow}

if __name__ == "__main__":
    asyncio.run(ROLES[sys.argv[1]](json.loads(Path(sys.argv[2]).read_text())))
