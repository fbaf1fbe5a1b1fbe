"""What the recorder hands to the log: whole chains, in order, and what liars get for theirs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
from logkit import NOON, audited, log_on

from gossipfl.audit.entries import EntryKind, parse_entry
from gossipfl.config import Limits
from gossipfl.errors import Fault
from gossipfl.events import (
    Address,
    FetchFailed,
    FetchHead,
    FetchObject,
    HeadReceived,
    ObjectReceived,
)
from gossipfl.holdings import Holdings, Neighbour
from gossipfl.hub.database import Database
from gossipfl.hub.fleet.recorder import Recorder
from gossipfl.identity import Signer
from gossipfl.membership import Known
from gossipfl.messages import Head, Lineage, Marker, Member, Receipt, Role
from gossipfl.objects import digest, pack_list
from gossipfl.ownchain import OwnChain, Refs
from gossipfl.wire import decode, encode, open_envelope, seal

FLEET = b"f" * 32
LINEAGE = Lineage(b"b" * 32, 1, b"l" * 32)


class Device:
    """One device's chain of receipts, and what it hands out."""

    def __init__(self, number: int) -> None:
        self.signer = Signer(hashlib.sha256(b"device %d" % number).digest())
        self.objects: dict[bytes, bytes] = {}
        self.digests: list[bytes] = []
        self.chain = OwnChain(self.signer, FLEET, Limits())
        self.address = Address("127.0.0.1", 1_000 + number)
        self.pruned: bytes | None = None
        self.is_live = True

    def put(self, data: bytes) -> bytes:
        name = digest(data)
        self.objects[name] = data
        return name

    def merge(self, count: int, base: bytes = b"m" * 32) -> None:
        for _ in range(count):
            receipt = Receipt(
                FLEET, self.signer.device, 1, 1, LINEAGE, base, "nna", 1, NOON, merged=[]
            )
            link, chapter = self.chain.receipt(receipt)
            self.digests.append(self.put(link.envelope))
            if chapter:
                self.put(chapter)

    def head(self) -> Head:
        refs = Refs(b"m" * 32, receipts=self.chain.receipts, pruned=self.pruned)
        link, log, _ = self.chain.compose(refs, NOON)
        self.chain.adopt(link, refs, log)
        return decode(open_envelope(link.envelope, "head", 4096).payload, Head)

    def prune(self, below: int, says_so: bool = True) -> None:
        for name in self.digests[: below - 1]:
            self.objects.pop(name, None)
        if says_so:
            marker = Marker(FLEET, self.signer.device, "receipt", below, NOON)
            self.pruned = self.put(pack_list([seal("marker", encode(marker), self.signer)]))

    def neighbour(self) -> Neighbour:
        member = Member(
            FLEET, self.signer.device, self.signer.key_id, Role.DEVICE, 0, NOON * 2, NOON
        )
        data = b"member of " + self.signer.device
        return Neighbour(Known(member, digest(data), data), self.head(), (self.address,), True)


class World:
    """Devices behind a fetcher; counts what is asked for."""

    def __init__(self, *devices: Device) -> None:
        self.devices = devices
        self.asked = 0
        self.spoil: Callable[[bytes], bytes] = lambda data: data

    def holdings(self) -> Holdings:
        neighbours = tuple(d.neighbour() for d in self.devices)
        return Holdings(tuple(n.known for n in neighbours), neighbours, (), {}, ())

    async def fetch_head(self, effect: FetchHead) -> HeadReceived | FetchFailed:
        raise NotImplementedError

    async def fetch_object(self, effect: FetchObject) -> ObjectReceived | FetchFailed:
        self.asked += 1
        device = next(d for d in self.devices if d.address == effect.address)
        if not device.is_live:
            return FetchFailed(effect.request, Fault.UNREACHABLE, "nobody there")
        data = device.objects.get(effect.digest)
        if data is None:
            return FetchFailed(effect.request, Fault.REFUSED, "not here", absent=True)
        return ObjectReceived(effect.request, self.spoil(data))


def recorder(database: Database, world: World) -> Recorder:
    log, _ = log_on(database)
    return Recorder(database, log, world, world.holdings, lambda: NOON, Limits(), 1e6)


async def look(found: Recorder) -> None:
    await found.look()
    await found.settle()


async def logged(database: Database) -> list[tuple[EntryKind, bytes]]:
    log, writer = log_on(database)
    while await writer.integrate():
        pass
    payloads = await audited(log)
    kinds: list[EntryKind] = []
    for first in range(0, len(payloads), 256):
        entries = await log.reader.entries(first, min(first + 256, len(payloads)))
        kinds += [parse_entry(entry).kind for entry in entries]
    return list(zip(kinds, payloads, strict=True))


async def numbers(database: Database) -> list[int]:
    return [
        decode(open_envelope(data, "receipt", 65_536).payload, Receipt).number
        for kind, data in await logged(database)
        if kind is EntryKind.RECEIPT
    ]


async def test_a_chain_is_logged_as_it_grows_and_nothing_twice(database: Database) -> None:
    device = Device(1)
    world = World(device)
    found = recorder(database, world)
    await found.load()
    for count in (1, 3, 0, 2):
        device.merge(count)
        await look(found)
    assert await numbers(database) == [1, 2, 3, 4, 5, 6]
    assert world.asked == 6
    kinds = [kind for kind, _ in await logged(database)]
    assert kinds.count(EntryKind.MEMBER) == 1


async def test_a_long_absence_is_read_by_chapters_in_order(database: Database) -> None:
    device = Device(1)
    device.merge(2)
    world = World(device)
    first = recorder(database, world)
    await first.load()
    await look(first)
    device.merge(700)
    world.asked = 0
    second = recorder(database, world)
    await second.load()
    await look(second)
    assert await numbers(database) == list(range(1, 703))
    assert world.asked <= 700 + 3, "700 receipts and the chapters that name them"


async def test_receipts_that_retention_let_go_are_a_signed_marker(database: Database) -> None:
    device = Device(1)
    device.merge(400)
    device.prune(257)
    found = recorder(database, World(device))
    await found.load()
    await look(found)
    assert await numbers(database) == list(range(257, 401))
    kinds = [kind for kind, _ in await logged(database)]
    assert EntryKind.MARKER in kinds
    assert EntryKind.ALARM not in kinds


async def test_receipts_that_are_withheld_are_an_alarm(database: Database) -> None:
    device = Device(1)
    device.merge(10)
    device.prune(6, says_so=False)
    found = recorder(database, World(device))
    await found.load()
    await look(found)
    assert await numbers(database) == [6, 7, 8, 9, 10]
    alarms = [data for kind, data in await logged(database) if kind is EntryKind.ALARM]
    assert len(alarms) == 1
    assert b'"receipts withheld"' in alarms[0]


async def test_a_second_history_is_logged_beside_the_first_with_an_alarm(
    database: Database,
) -> None:
    device = Device(1)
    device.merge(5)
    world = World(device)
    found = recorder(database, world)
    await found.load()
    await look(found)
    other = Device(1)  # the same key, other merges
    other.merge(5, base=b"x" * 32)
    world.devices = (other,)
    await look(found)
    alarms = [data for kind, data in await logged(database) if kind is EntryKind.ALARM]
    assert len(alarms) == 1
    assert b'"receipt chain forked"' in alarms[0]
    assert (await numbers(database))[:5] == [1, 2, 3, 4, 5]
    assert 5 in (await numbers(database))[5:]


@pytest.mark.parametrize("liar", ["other bytes", "another device's"])
async def test_what_does_not_verify_is_not_logged(database: Database, liar: str) -> None:
    device, other = Device(1), Device(2)
    device.merge(3)
    other.merge(3)
    world = World(device)
    if liar == "other bytes":
        world.spoil = lambda data: data[:-1] + bytes([data[-1] ^ 1])
    else:
        device.chain.receipts = other.chain.receipts
        device.objects = other.objects
    found = recorder(database, world)
    await found.load()
    await look(found)
    assert await numbers(database) == []
    assert found.followed[device.signer.device].problem


async def test_one_that_fails_is_left_alone_and_holds_up_nobody(database: Database) -> None:
    dead, alive = Device(1), Device(2)
    dead.is_live = False
    dead.merge(2)
    alive.merge(2)
    world = World(dead, alive)
    found = recorder(database, world)
    await found.load()
    await look(found)
    asked = world.asked
    await look(found)
    assert world.asked == asked, "the breaker is open"
    assert await numbers(database) == [1, 2]
    dead.is_live = True
    found.followed[dead.signer.device].next_at = 0.0
    await look(found)
    assert await numbers(database) == [1, 2, 1, 2]
