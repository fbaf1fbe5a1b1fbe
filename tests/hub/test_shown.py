"""The log as devices see it: objects that the hub's node names, and cosignatures that come back."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import pytest
from logkit import NOON, SIGNER, draft, log_on

from gossipfl.audit.cosignatures import cosign, require_cosignature
from gossipfl.audit.linked import CheckpointMade, open_linked
from gossipfl.audit.notes import log_key, parse_note, witness_key
from gossipfl.config import Limits
from gossipfl.errors import Fault, PeerError
from gossipfl.events import Address, Event
from gossipfl.holdings import Holdings, Neighbour
from gossipfl.hub.database import open_database
from gossipfl.hub.fleet import shown as shown_module
from gossipfl.hub.fleet.shown import Cosigners, ShownLog
from gossipfl.hub.log.log import HubLog
from gossipfl.hub.log.writer import LogWriter
from gossipfl.membership import Known, Roster
from gossipfl.messages import Head
from gossipfl.objects import digest
from gossipfl.witness import Verdict, Witness
from sim.fleet import Fleet, Keys

KEY = log_key(SIGNER.key_id)


@dataclass
class FakeNode:
    """Takes objects, and stores them at once or never."""

    stores: bool = True
    full: bool = False
    given: list[bytes] = field(default_factory=list)
    stored: dict[bytes, bytes] = field(default_factory=dict)

    def give(self, event: Event) -> bool:
        if self.full:
            return False
        assert isinstance(event, CheckpointMade)
        self.given.append(event.data)
        if self.stores:
            self.stored[digest(event.data)] = event.data
        return True

    async def held(self, name: bytes) -> bytes | None:
        return self.stored.get(name)


async def grow(log: HubLog, writer: LogWriter, first: int, checkpoints: int) -> None:
    for number in range(first, first + checkpoints):
        await log.append([draft(number)])
        await writer.integrate()


async def test_every_checkpoint_is_shown_once_and_follows_the_one_before(dsn: str) -> None:
    database = await open_database(dsn)
    log, writer = log_on(database)
    node = FakeNode()
    shown = ShownLog(database, log, node.give, node.held)
    assert await shown.look() == 0
    await grow(log, writer, 0, 9)
    assert await shown.look() == 9
    assert await shown.look() == 0
    await grow(log, writer, 9, 3)
    again = ShownLog(database, log, node.give, node.held)  # another process takes over
    assert await again.look() == 3
    witness = Witness(KEY)
    for data in node.given:
        assert witness.receive(data).verdict is Verdict.FOLLOWS
    names = {open_linked(d, KEY).checkpoint.number: digest(d) for d in node.given}
    for data in node.given:
        for link in open_linked(data, KEY).links:
            assert link.object == names[link.checkpoint.number]
    await database.close()


async def test_what_the_node_did_not_store_is_given_again(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shown_module, "DURABLE_S", 0.02)
    monkeypatch.setattr(shown_module, "LOOK_S", 0.01)
    database = await open_database(dsn)
    log, writer = log_on(database)
    await grow(log, writer, 0, 2)
    node = FakeNode(stores=False)
    shown = ShownLog(database, log, node.give, node.held)
    assert await shown.look() == 0
    node.stores = True
    assert await shown.look() == 2
    assert node.given[:2] == node.given[2:]  # the same bytes
    node.full = True
    await grow(log, writer, 2, 1)
    assert await shown.look() == 0
    node.full = False
    assert await shown.look() == 1
    await database.close()


def neighbour(keys: Keys, fleet: Fleet, checkpoint: bytes, cosignature: bytes) -> Neighbour:
    roster = Roster(fleet.root.key_id, Limits())
    known: Known = roster.admit(keys.member)
    head = Head(
        fleet.id,
        keys.device,
        1,
        known.digest,
        NOON,
        checkpoint=checkpoint,
        cosignature=cosignature,
    )
    return Neighbour(known, head, (Address("10.0.0.1", 1),), is_live=True)


async def test_cosignatures_are_fetched_verified_and_kept(dsn: str) -> None:
    database = await open_database(dsn)
    log, writer = log_on(database)
    node = FakeNode()
    await grow(log, writer, 0, 3)
    await ShownLog(database, log, node.give, node.held).look()
    fleet = Fleet(1)
    honest, liar, silent = fleet.admit(), fleet.admit(), fleet.admit()
    text = open_linked(node.given[1], KEY).checkpoint.text()
    good = cosign(text, NOON + 5, honest.signer).line().encode()
    wrong = cosign(text + b"x\n", NOON + 5, liar.signer).line().encode()
    lines = {digest(good): good, digest(wrong): wrong}
    name = digest(node.given[1])
    found = Holdings(
        (),
        (
            neighbour(honest, fleet, name, digest(good)),
            neighbour(liar, fleet, name, digest(wrong)),
            neighbour(silent, fleet, name, b"?" * 32),
        ),
        (),
        {},
        (),
    )
    asked: list[bytes] = []

    async def fetch(source: Neighbour, wanted: bytes, most: int) -> bytes | None:
        asked.append(source.device)
        if wanted not in lines:
            raise PeerError(Fault.UNREACHABLE, "it is away")
        return lines[wanted]

    cosigners = Cosigners(database, log, lambda: found, fetch, Limits())
    assert await cosigners.look() == 1
    assert await cosigners.look() == 0
    assert len(asked) == 3  # each once: the next head names another
    note = parse_note(await log.reader.checkpoint(2))
    assert require_cosignature(note, witness_key(honest.signer.key_id)) == NOON + 5
    assert len(note.signatures) == 2
    assert len(parse_note(await log.reader.checkpoint(3)).signatures) == 1
    await database.close()


async def test_a_hub_that_heard_no_device_waits_and_says_so_once(
    dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    database = await open_database(dsn)
    log, writer = log_on(database)
    await grow(log, writer, 0, 2)
    node, alone = FakeNode(), [True]
    shown = ShownLog(database, log, node.give, node.held, lambda: alone[0])
    with caplog.at_level(logging.INFO):
        for _ in range(5):
            assert await shown.look() == 0
    assert node.given == []
    assert [r.levelname for r in caplog.records if "no device" in r.message] == ["INFO"]
    alone[0] = False
    assert await shown.look() == 2
    await database.close()


async def test_a_node_that_does_not_store_is_complained_of_once(
    dsn: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shown_module, "DURABLE_S", 0.02)
    monkeypatch.setattr(shown_module, "LOOK_S", 0.01)
    database = await open_database(dsn)
    log, writer = log_on(database)
    await grow(log, writer, 0, 1)
    node = FakeNode(stores=False)
    shown = ShownLog(database, log, node.give, node.held)
    for _ in range(3):
        assert await shown.look() == 0
    assert len(caplog.records) == 1
    node.stores = True
    assert await shown.look() == 1
    await database.close()
