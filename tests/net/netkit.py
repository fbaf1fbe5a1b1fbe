"""A tiny fleet for the tests of the wire: certificates, a shelf, a server and a client at hand."""

from __future__ import annotations

import asyncio
import hashlib
import os
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from gossipfl.config import Limits
from gossipfl.events import Address, FetchHead, FetchObject
from gossipfl.fleet import pki
from gossipfl.net.client import Client
from gossipfl.net.server import Server
from gossipfl.net.tls import TlsFiles, client_context, server_context
from gossipfl.net.traffic import Traffic
from gossipfl.shelf import Served, Shelf

YEAR_S = 365 * 86_400
BOUND_S = 30.0  # not a wait: far above what anything takes, on two cores that others use too
# Deadlines that a test may wait for, and rates that it does not run into unasked.
QUICK = Limits(
    header_deadline_s=0.5,
    stall_s=0.3,
    transfer_base_s=5.0,
    requests_per_s=10_000.0,
    updates_per_s=10_000.0,
    burst=10_000,
)
# Deadlines that nothing runs into, however loaded the machine is.
CALM = replace(
    QUICK, header_deadline_s=60.0, stall_s=60.0, transfer_base_s=120.0, handshake_deadline_s=60.0
)


class Fleet:
    """A root, an issuer, and as many devices as are asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._folder.mkdir(parents=True, exist_ok=True)
        now = int(time.time())
        root_seed, self._issuer_seed = os.urandom(32), os.urandom(32)
        self._root = pki.root_certificate(root_seed, now)
        self._issuer = pki.issuer_certificate(
            root_seed, self._root, pki.public_bytes(self._issuer_seed), now
        )

    def device(self, name: str, end: int | None = None) -> Device:
        """A leaf that ends at `end` (seconds since the epoch), in a year by default."""
        seed = os.urandom(32)
        now = int(time.time()) if end is None else end - 1_000
        leaf = pki.leaf_certificate(
            self._issuer_seed,
            self._issuer,
            pki.public_bytes(seed),
            now,
            now + YEAR_S if end is None else end,
            pki.device_purpose(),
        )
        files = TlsFiles(*(self._folder / f"{name}.{kind}" for kind in ("root", "crt", "key")))
        files.root.write_bytes(pki.pem(self._root))
        files.certificate.write_bytes(pki.pem(leaf, self._issuer))
        files.key.write_bytes(pki.key_pem(seed))
        return Device(files, pki.spki_sha256(leaf.public_key()))


@dataclass(frozen=True, slots=True)
class Device:
    files: TlsFiles
    tls_key: bytes

    def server(self) -> ssl.SSLContext:
        return server_context(self.files)

    def client(self) -> ssl.SSLContext:
        return client_context(self.files)


@dataclass(slots=True)
class Site:
    """One serving device: change the shelf and the stored objects, read the counters."""

    server: Server
    address: Address
    shelf: Shelf
    stored: dict[bytes, bytes] = field(default_factory=dict)
    refused: dict[bytes, str] = field(default_factory=dict)
    traffic: Traffic = field(default_factory=Traffic)

    def publish(self, text: str, update: bytes | None = None) -> Served:
        """A new own head, served from now on."""
        envelope = text.encode()
        served = Served(
            envelope,
            digest(envelope),
            digest(b"member"),
            update,
            None if update is None else digest(update),
        )
        self.shelf.set_own(b"d" * 16, served)
        self.server.head_changed()
        return served

    def store(self, data: bytes) -> bytes:
        """An object that only the store has; its digest."""
        self.stored[digest(data)] = data
        return digest(data)


def digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


@asynccontextmanager
async def serving(
    device: Device, limits: Limits = CALM, port: int = 0, keepalive_s: float = 60.0
) -> AsyncIterator[Site]:
    traffic = Traffic()
    stored: dict[bytes, bytes] = {}
    refused: dict[bytes, str] = {}
    shelf = Shelf(64 * 1024 * 1024, 100)

    async def load(wanted: bytes) -> bytes | None:
        return stored.get(wanted)

    def why(tls_key: bytes, not_after: int) -> str | None:
        return refused.get(tls_key)

    server = Server(shelf, load, device.server(), why, limits, traffic, keepalive_s)
    bound = server.start(["127.0.0.1"], port)
    try:
        yield Site(server, Address("127.0.0.1", bound), shelf, stored, refused, traffic)
    finally:
        await server.close()


@asynccontextmanager
async def asking(device: Device, limits: Limits = CALM) -> AsyncIterator[Client]:
    client = Client(device.client(), limits, Traffic())
    client.start()
    try:
        yield client
    finally:
        await client.close()


def head(
    address: Address,
    *,
    device: bytes | None = None,
    etag: bytes | None = None,
    wait_s: float = 0.0,
    update_bytes: int = 0,
) -> FetchHead:
    return FetchHead(1, address, device, etag, wait_s, update_bytes)


def an_object(address: Address, wanted: bytes, bytes_max: int = 1 << 30) -> FetchObject:
    return FetchObject(2, address, wanted, bytes_max)


async def until(condition: Callable[[], object], bound_s: float = BOUND_S) -> None:
    """Wait for `condition` to hold, turn by turn of the loop; TimeoutError after `bound_s`."""
    async with asyncio.timeout(bound_s):
        while not condition():  # noqa: ASYNC110 - counters have no event to wait for
            await asyncio.sleep(0.001)


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def scripted(device: Device, *scripts: Script) -> AsyncIterator[Address]:
    """A certified server that plays one script per request head, in order, then none.

    Each script gets a request whose head was read already; the connection stays open after it
    unless the script closes it.
    """
    left = list(scripts)
    open_writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_writers.append(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            while left:
                await reader.readuntil(b"\r\n\r\n")
                await left.pop(0)(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=device.server())
    try:
        yield Address("127.0.0.1", server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for writer in open_writers:
            writer.transport.abort()


@asynccontextmanager
async def raw(
    device: Device, address: Address
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A certified peer that sends what it likes."""
    reader, writer = await asyncio.open_connection(
        address.host, address.port, ssl=device.client(), server_hostname="peer.gossipfl"
    )
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def closed(reader: asyncio.StreamReader, bound_s: float = BOUND_S) -> bytes:
    """Everything that the peer sends until it closes. TimeoutError if it does not."""
    received = b""
    async with asyncio.timeout(bound_s):
        try:
            while data := await reader.read(65_536):
                received += data
        except (ConnectionError, ssl.SSLError):
            pass
    return received
