"""A log for the page, filled by real nodes in a simulated fleet, one of which lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import msgspec
from logkit import SIGNER

from gossipfl.audit.entries import EntryKind
from gossipfl.audit.notes import log_key
from gossipfl.events import Batch
from gossipfl.hub.database import Database
from gossipfl.hub.log.drafts import Draft
from gossipfl.hub.log.log import HubLog
from gossipfl.hub.log.writer import LogWriter
from gossipfl.hub.page.chronicle import Chronicle, Logged
from gossipfl.hub.page.facts import Facts, LogFacts, Sighting
from gossipfl.hub.page.model import CheckpointBox
from gossipfl.messages import ChainRef, Head, Privacy
from gossipfl.wire import decode, encode, open_envelope
from sim.adversaries import FoeTrainer
from sim.checkers import Checker
from sim.device import SimDevice
from sim.fleet import EPOCH
from sim.scene import Scene, Setup

FLEET = bytes(range(32))
CENSUS = (
    "INSERT INTO fleet_devices (device, role, state, why, seq, round, receipts, seen, reputation, "
    "head, address) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


class Recorder(Checker):
    """What a hub would pull: the durable receipts in order, and each device's newest head."""

    def __init__(self) -> None:
        self.receipts: list[tuple[int, bytes, bytes]] = []
        self.heads: dict[bytes, Head] = {}

    def on_commit(self, device: SimDevice, batch: Batch, done: bool) -> None:
        if not done:
            return
        if batch.receipt is not None:
            time = int(EPOCH + self.world.now)
            self.receipts.append((time, device.device, batch.receipt))
        if batch.head is not None:
            envelope = open_envelope(batch.head, "head", 4_096)
            self.heads[device.device] = decode(envelope.payload, Head)


@dataclass
class Story:
    """A fleet's life, as log entries and sightings."""

    drafts: list[Draft]
    sightings: dict[bytes, Sighting]
    now: int
    liar: bytes
    honest: list[bytes] = field(default_factory=list)


@cache
def story(devices: int = 7, rounds: int = 14, privacy: bool = False) -> Story:
    """A fleet of simulated nodes; the last device publishes inner product lies."""
    policy: dict[str, object] = {}
    recorder = Recorder()
    setup = Setup(devices=devices, attackers=1, poison=((devices - 1, FoeTrainer),), policy=policy)
    scene = Scene(3, setup, checkers=[recorder])
    scene.start()
    scene.run_rounds(rounds, limit_s=rounds * 120.0)
    start = int(EPOCH)
    drafts = [Draft(EntryKind.MEMBER, d.device, d.keys.member, start) for d in scene.devices] + [
        Draft(EntryKind.POLICY, scene.fleet.operator.device, scene.policy, start)
    ]
    drafts += [
        Draft(EntryKind.RECEIPT, device, data, time) for time, device, data in recorder.receipts
    ]
    now = int(EPOCH + scene.world.now)
    sightings = {
        d.device: Sighting(
            device=d.device,
            role="device",
            state="live",
            why="",
            round=scene.base_round(d),
            seen=now - 4,
            reputation=1.0,
            head=recorder.heads.get(d.device),
            address=f"10.0.0.{d.index + 1}:7700",
        )
        for d in scene.devices
    }
    ids = [d.device for d in scene.devices]
    return Story(drafts, sightings, now, ids[-1], ids[:-1])


def logged(drafts: Sequence[Draft]) -> list[Logged]:
    return [Logged(i, d.kind, d.time, d.subject, d.data) for i, d in enumerate(drafts)]


def facts(told: Story, **changes: object) -> Facts:
    """What the page is made from, without a database."""
    chronicle = Chronicle()
    chronicle.fed(logged(told.drafts), len(told.drafts))
    box = CheckpointBox(1, len(told.drafts), told.now - 3, 2, True)
    values: dict[str, object] = {
        "chronicle": chronicle,
        "sightings": told.sightings,
        "log": LogFacts("gossipfl.log/hub", "ab" * 32, (box,)),
        "now": told.now,
        "fleet": FLEET.hex(),
    }
    return Facts(**{**values, **changes})  # type: ignore[arg-type]


def near_its_end(told: Story) -> tuple[Facts, Privacy]:
    """The same fleet under a policy of privacy, of which one device has published 81 times."""
    made = facts(told)
    terms = Privacy(mode="local", epsilon=4.0, z=10.0)
    policy = made.chronicle.policies[-1]
    made.chronicle.policies[-1] = msgspec.structs.replace(policy, privacy=terms)
    sighting = told.sightings[told.honest[0]]
    assert sighting.head is not None
    head = msgspec.structs.replace(sighting.head, ledger=ChainRef(82, bytes(32)))
    spent = {**told.sightings, told.honest[0]: replace(sighting, head=head)}
    return replace(made, sightings=spent), terms


async def kept(database: Database, told: Story, batch: int = 40) -> HubLog:
    """The story in a database, as the hub's writer and census leave it there."""
    log = HubLog(database, log_key(SIGNER.key_id))
    writer = LogWriter(database, log, SIGNER, clock=lambda: told.now - 2, batch_max=batch)
    await log.append(told.drafts)
    while await writer.integrate():
        pass
    await sighted(database, told)
    return log


async def sighted(database: Database, told: Story) -> None:
    rows = []
    for s in told.sightings.values():
        seq = s.head.seq if s.head else 0
        head = encode(s.head) if s.head else None
        state = (s.role, s.state, s.why, seq, s.round, 0, s.seen, s.reputation)
        rows.append((s.device, *state, head, s.address))
    async with database.transaction() as transaction:
        await transaction.execute("DELETE FROM fleet_devices")
        await transaction.many(CENSUS, rows)
