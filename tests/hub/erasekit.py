"""A hub's database in which somebody has left traces everywhere, and what would show them."""

from __future__ import annotations

import base64
import io
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import msgspec
import pgkit

from gossipfl.audit.cosignatures import cosign
from gossipfl.audit.entries import EntryKind
from gossipfl.audit.exports import Exporter
from gossipfl.audit.notes import Note, log_key, parse_note
from gossipfl.audit.verification import Verdict, verify_export
from gossipfl.events import Fault
from gossipfl.hub import pseudonyms
from gossipfl.hub.database import Database, Transaction
from gossipfl.hub.erasing.eraser import Eraser
from gossipfl.hub.log.drafts import Draft
from gossipfl.hub.log.log import HubLog
from gossipfl.hub.log.writer import LogWriter
from gossipfl.hub.star.values import Details, Part, Phase
from gossipfl.identity import device_name
from gossipfl.logged import Contents
from gossipfl.messages import Head, Merged, Receipt, Record, Role
from gossipfl.objects import digest, pack_list
from gossipfl.parameters import Layout, Tensor
from gossipfl.reputation import Reputation
from gossipfl.wire import encode, seal
from sim.fleet import Fleet, Keys

NOON = 1_700_000_000
NAME = "Robertas-Phone-7"
RECEIPTS = 40


@dataclass
class Traces:
    """A hub; `ann` stays, `bob` is revoked, `cat` is a client of star mode."""

    fleet: Fleet
    database: Database
    hub: Keys
    ann: Keys
    bob: Keys
    cat: Keys
    log: HubLog
    writer: LogWriter

    @property
    def eraser(self) -> Eraser:
        return Eraser(
            self.database, self.log, self.writer, self.hub.device, self.fleet.root.key_id,
            lambda: NOON + 100,
        )  # fmt: skip

    async def export(self) -> bytes:
        exporter = Exporter(self.log.reader, self.fleet.id, True)
        return b"".join([chunk async for chunk in exporter.chunks()])

    def verify(self, data: bytes) -> Verdict:
        check = lambda fleet: Contents(fleet).check  # noqa: E731
        return verify_export(io.BytesIO(data), log_key(self.hub.signer.key_id), (), check)


async def left_in(database: Database) -> Traces:
    """Everything of which a hub keeps something, about ann, bob and cat alike."""
    fleet = Fleet(5)
    hub = fleet.admit(Role.HUB)
    ann, bob, cat = (fleet.admit() for _ in range(3))
    log = HubLog(database, log_key(hub.signer.key_id))
    writer = LogWriter(database, log, hub.signer, clock=lambda: NOON + 50)
    found = Traces(fleet, database, hub, ann, bob, cat, log, writer)
    await log.append(_entries(found))
    while await writer.integrate():
        pass
    await _cosigned(found)
    async with database.transaction() as tx:
        for keys, state in ((ann, "live"), (bob, "revoked")):
            await of_a_device(tx, keys, state)
        for keys in (ann, cat):
            await _of_a_client(tx, keys)
        await _of_the_node(tx, found)
        await _of_star(tx, found)
    await pseudonyms.of(database, [ann.device, bob.device, cat.device])
    return found


def _entries(found: Traces) -> Iterator[Draft]:
    fleet, ann, bob = found.fleet, found.ann, found.bob
    for keys in (found.hub, fleet.operator, ann, bob):
        yield Draft(EntryKind.MEMBER, keys.device, keys.member, NOON)
    job = fleet.job("erase", Layout((Tensor("w", (8,), 0),)))
    for number in range(1, RECEIPTS + 1):
        for keys, other in ((ann, bob), (bob, ann)):
            merged = [Merged(other.device, number, bytes(32), bytes(32), 0.25)]
            value = Receipt(
                fleet.id, keys.device, number, number, job.lineage(), bytes(32), "nna", 0, NOON,
                merged=merged,
            )  # fmt: skip
            data = seal("receipt", encode(value), keys.signer)
            key = f"receipt/{digest(data).hex()}"
            yield Draft(EntryKind.RECEIPT, keys.device, data, NOON, key)
    yield Draft(EntryKind.REVOCATION, bob.device, fleet.revoke(bob.device, "lost"), NOON)
    told = json.dumps({"action": "join", "name": NAME}).encode()
    yield Draft(EntryKind.DECISION, found.cat.device, told, NOON)


async def _cosigned(found: Traces) -> None:
    note: Note = parse_note(await found.log.reader.checkpoint(await found.log.reader.newest()))
    for keys in (found.ann, found.bob):
        await found.log.cosigned(
            await found.log.reader.newest(), cosign(note.text, NOON + 60, keys.signer)
        )


async def of_a_device(tx: Transaction, keys: Keys, state: str) -> None:
    head = Head(bytes(32), keys.device, 1, digest(keys.member), NOON)
    await tx.execute(
        "INSERT INTO fleet_devices (device, role, state, why, seq, receipts, seen, head, address) "
        "VALUES (?, 'device', ?, '', 1, 1, 1, ?, '10.1.2.3:99')",
        *(keys.device, state, encode(head)),
    )
    await tx.execute(
        "INSERT INTO fleet_chains (device, number, digest) VALUES (?, 1, ?)",
        *(keys.device, bytes(32)),
    )
    await tx.execute(
        "INSERT INTO auth_sessions (family, subject, role, labels, secret, started, expires, "
        "ended) VALUES (?, ?, 'device', '{}', 's', 1, 9999999999, '')",
        *(keys.device.hex()[:8], keys.device.hex()),
    )


async def _of_a_client(tx: Transaction, keys: Keys) -> None:
    name = keys.device.hex()
    await tx.execute(
        "INSERT INTO star_clients (client, key_id, name, capability, labels, registered, proved, "
        "seen, seq, updates, spends, releases, blocked) "
        "VALUES (?, ?, ?, '{}', '{}', 1, 1, 1, 1, 1, '[]', 0, '')",
        *(name, keys.signer.key_id, NAME),
    )
    await tx.execute(
        "INSERT INTO star_updates (client, round, seq, digest, envelope, body, bytes, examples, "
        "accepted) VALUES (?, 1, 1, 'd', ?, ?, 1, 1, 1.0)",
        *(name, seal("star-model", b"payload", keys.signer), b"body"),
    )
    await tx.execute(
        "INSERT INTO star_metrics (client, version, examples, details, received) "
        "VALUES (?, 1, 1, '{}', 1)",
        name,
    )
    fault = Fault.REPLAYED_SEQ.value
    await tx.execute("INSERT INTO star_faults (client, fault, times) VALUES (?, ?, 1)", name, fault)


async def _of_the_node(tx: Transaction, found: Traces) -> None:
    devices = (found.ann, found.bob)
    heads, records = [], []
    reputation = Reputation(30.0)
    for keys in devices:
        head = Head(found.fleet.id, keys.device, 1, digest(keys.member), NOON)
        heads.append(seal("head", encode(head), keys.signer))
        record = Record(found.fleet.id, keys.device, 1, digest(keys.member), ["10.1.2.3:99"])
        records.append(seal("record", encode(record), keys.signer))
        reputation.fault(keys.device, Fault.STALE, 1.0)
    revocation = found.fleet.revoke(found.bob.device, "lost")
    documents = {
        "members": pack_list([found.hub.member, *(keys.member for keys in devices)]),
        "heads": pack_list(heads),
        "records": pack_list(records),
        "reputation": reputation.dump(2.0),
        "revocations": pack_list([revocation]),
    }
    await tx.many("INSERT INTO node_documents (name, data) VALUES (?, ?)", list(documents.items()))
    objects = [*(k.member for k in devices), pack_list(sorted(records)), pack_list([revocation])]
    await tx.many(
        "INSERT INTO node_objects (digest, data) VALUES (?, ?)", [(digest(o), o) for o in objects]
    )


async def _of_star(tx: Transaction, found: Traces) -> None:
    ids = (found.ann.device, found.cat.device)
    await tx.execute(
        "INSERT INTO star_rounds (round, version, policy, opened, deadline, needed, faulty, "
        "selected, closed) VALUES (1, 0, 'p', 1.0, 2.0, 1, 0, ?, 2)",
        b"".join(sorted(ids)).hex(),
    )
    parts = [Part(device.hex(), "u", 1, 0.5, 10) for device in ids]
    details = msgspec.json.encode(Details("nna", 0, parts)).decode()
    await tx.execute(
        "INSERT INTO star_models (version, parent, round, run, bundle, policy, origin, digest, "
        "bytes, details, created) VALUES (1, 0, 1, 1, 'b0', 'c0', 'merge', 'd0', 4, ?, 1.0)",
        details,
    )
    reputation = Reputation(30.0)
    for device in ids:
        reputation.fault(device, Fault.STALE, 1.0)
    phase = Phase("running", "", {device.hex(): "slow" for device in ids})
    for name, data in (
        ("reputation", reputation.dump(2.0)),
        ("phase", msgspec.json.encode(phase)),
    ):
        await tx.execute("INSERT INTO star_state (name, data) VALUES (?, ?)", name, data)


# --- looking -------------------------------------------------------------------------------------


def forms(value: bytes) -> set[bytes]:
    """How bytes may be written: as they are, in hex, in base64 at each alignment, in base32."""
    found = {value, value.hex().encode(), value.hex().upper().encode()}
    for lead in range(3):
        text = base64.b64encode(bytes(lead) + value)
        found.add(text[4 if lead else 0 : len(text) - 4])
    return found | {base64.b32encode(value)[:-8], base64.b32encode(value).lower()[:-8]}


def signs_of(keys: Keys) -> dict[str, set[bytes]]:
    """What of a device no stored byte may show."""
    name = device_name(keys.device).encode()
    return {
        "key": forms(keys.signer.key_id),
        "member": forms(digest(keys.member)),
        "name": {name, name.replace(b"-", b"")},
        "id in text": forms(keys.device) - {keys.device},
        "what it called itself": {NAME.encode()},
    }


def shown(data: bytes, signs: dict[str, set[bytes]]) -> list[str]:
    return [what for what, values in signs.items() if any(value in data for value in values)]


def stored(dsn: str) -> bytes:
    """Every byte of a closed database: of the folder, or of a dump of the server's."""
    if dsn.startswith("sqlite:///"):
        folder = Path(dsn.removeprefix("sqlite:///")).parent
        return b"".join(path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file())
    parts = urlsplit(dsn)
    (host,) = parse_qs(parts.query)["host"]
    programs = pgkit.programs()
    assert programs is not None
    where = ["-h", host, "-U", "hub", parts.path[1:]]
    done = subprocess.run([programs / "pg_dump", *where], check=True, capture_output=True)
    return done.stdout
