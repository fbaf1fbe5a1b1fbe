"""Erasure: no stored byte links a device to its pseudonym any more, and all proofs hold."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest
from erasekit import NOON, RECEIPTS, Traces, forms, left_in, of_a_device, shown, signs_of, stored

from gossipfl.audit.entries import EntryKind
from gossipfl.audit.notes import log_key
from gossipfl.audit.proofs import parse_proof, verify_proof
from gossipfl.cli.audit import _proof
from gossipfl.errors import UserError
from gossipfl.hub import pseudonyms
from gossipfl.hub.alerts import book
from gossipfl.hub.alerts.alerter import Alerter
from gossipfl.hub.alerts.channels import Channel
from gossipfl.hub.alerts.messages import Composer
from gossipfl.hub.alerts.settings import AlertsSection
from gossipfl.hub.database import Database, Unavailable, open_database
from gossipfl.hub.erasing.asking import Stage, ask, parse, stage
from gossipfl.hub.erasing.eraser import Eraser
from gossipfl.hub.log.drafts import Draft
from gossipfl.hub.page.chronicle import MENTIONED_MAX
from gossipfl.hub.page.feed import Feed
from gossipfl.hub.page.model import Finding, Kind, Level
from gossipfl.hub.policy import desk
from gossipfl.hub.reports.contribution import contribution
from gossipfl.hub.reports.costs import Tariffs
from gossipfl.hub.reports.formats import as_json
from gossipfl.hub.reports.office import Office
from gossipfl.identity import device_name
from gossipfl.messages import Merged, Policy, Receipt, Refused
from gossipfl.parameters import Layout, Tensor
from gossipfl.wire import encode, seal
from sim.fleet import Keys

BY = "olga"


async def erase(found: Traces, keys: Keys) -> None:
    await ask(found.database, keys.device, found.fleet.root.key_id, BY)
    await found.eraser.erase()
    await found.eraser.compact()


async def salt_of(database: Database, table: str, device: bytes) -> bytes:
    async with database.transaction(write=False) as tx:
        row = await tx.row(f"SELECT salt FROM {table} WHERE subject = ?", device)
    assert row is not None
    return bytes(row["salt"])


async def kinds_by_whom(database: Database, device: bytes) -> set[str]:
    """The tables and columns in which an id still stands, as it is."""
    async with database.transaction(write=False) as tx:
        names = {
            "sqlite": "SELECT name FROM sqlite_master WHERE type = 'table'",
            "postgresql": "SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public'",
        }
        found = set()
        for table in await tx.rows(names[database.kind]):
            for row in await tx.rows(f"SELECT * FROM {table['name']}"):
                found |= {
                    f"{table['name']}.{column} {row.get('kind') or row.get('name') or ''}"
                    for column, value in row.items()
                    if isinstance(value, bytes) and device in value
                }
    return found


async def test_no_stored_byte_links_a_device_to_its_pseudonym(dsn: str, database: Database) -> None:
    found = await left_in(database)
    name = (await pseudonyms.of(database, [found.bob.device]))[found.bob.device]
    salts = {await salt_of(database, t, found.bob.device) for t in ("pseudonyms", "log_salts")}
    signs = signs_of(found.bob)
    signs |= {"salt": set().union(*map(forms, salts)), "pseudonym": {name.encode()}}
    del signs["what it called itself"]  # a device has no name
    if database.kind == "sqlite":
        assert {"key", "id in text", "salt"} <= set(shown(stored(dsn), signs))
    else:
        del signs["id in text"]  # a dump shows all bytes so, those of others' receipts too
    await erase(found, found.bob)
    left = await kinds_by_whom(database, found.bob.device)
    await database.close()
    assert shown(stored(dsn), signs) == []
    # What others signed about it stays: ann's receipts, and the revocation that shuts it out.
    receipts, revocations = f"log_entries.data {EntryKind.RECEIPT:d}", "node_documents.data "
    assert {entry for entry in left if not entry.startswith("node_objects.data")} == {
        receipts,
        revocations + "revocations",
    }


async def test_nothing_of_a_star_client_stays(dsn: str, database: Database) -> None:
    found = await left_in(database)
    signs = signs_of(found.cat) | {"id": {found.cat.device}}
    assert await ask(database, found.cat.device, found.fleet.root.key_id, BY) is Stage.ASKED
    await found.eraser.erase()
    await found.eraser.compact()
    async with database.transaction(write=False) as tx:
        row = await tx.row("SELECT details FROM star_models")
        assert row is not None
        assert found.ann.device.hex() in row["details"]
        assert row["details"].count("0.5") == 2  # that somebody took part stays
        clients = await tx.rows("SELECT client FROM star_clients")
        assert [r["client"] for r in clients] == [found.ann.device.hex()]
        await_name = await tx.row("SELECT name FROM star_clients")
        assert await_name is not None
    async with database.transaction() as tx:
        await tx.execute("UPDATE star_clients SET name = ''")  # ann's is the same
    await found.database.compact(["star_clients"])
    await database.close()
    assert shown(stored(dsn), signs) == []


async def test_every_proof_and_every_export_verifies_and_says_what_was_erased(
    database: Database,
) -> None:
    found = await left_in(database)
    key = log_key(found.hub.signer.key_id)
    size = await found.log.reader.size()
    before = [await _proof(found.log.reader, index, False) for index in range(size)]
    old = await found.export()
    await erase(found, found.bob)
    for proof in before:
        assert verify_proof(parse_proof(proof), key).payload is not None
    for index in range(size):
        again = verify_proof(parse_proof(await _proof(found.log.reader, index, False)), key)
        assert again.entry == verify_proof(parse_proof(before[index]), key).entry
    assert found.verify(old).valid
    verdict = found.verify(await found.export())
    assert verdict.problem is None
    assert verdict.erased == RECEIPTS + 2  # its admission and its revocation
    assert verdict.kinds["erasure"] == 1
    assert verdict.kinds["decision"] == 2


async def test_there_is_no_instant_at_which_an_export_misses_what_no_entry_explains(
    database: Database,
) -> None:
    found = await left_in(database)
    await ask(database, found.bob.device, found.fleet.root.key_id, BY)
    assert found.verify(await found.export()).valid
    await found.eraser.erase()  # and a crash before the second step
    assert found.verify(await found.export()).valid


async def test_a_crash_between_the_steps_loses_nothing(dsn: str, database: Database) -> None:
    found = await left_in(database)
    await ask(database, found.bob.device, found.fleet.root.key_id, BY)
    await found.eraser.erase()
    assert await stage(database, found.bob.device) is Stage.DELETED
    other = await open_database(dsn)
    found.database = other
    assert await found.eraser.erase() == 0
    await found.eraser.compact()
    assert await stage(other, found.bob.device) is Stage.DONE
    await other.close()


async def test_the_page_forgets_too(database: Database) -> None:
    found = await left_in(database)
    feed = Feed(database, found.log, found.fleet.id, lambda: 1, 60)
    await feed.look()
    before = feed.device(found.bob.device)
    assert before is not None
    assert any("revoked" in line.words for line in feed._chronicle.lines)
    await erase(found, found.bob)
    await feed.look()
    lines = [line.words for line in feed._chronicle.lines]
    assert not any("revoked" in words for words in lines)
    assert feed._chronicle.erased == RECEIPTS + 2
    assert (await feed.verify()).is_good


async def test_nothing_that_is_shown_or_told_names_it_again(database: Database) -> None:
    """Others' receipts name it for ever; nobody reads its name from them."""
    found = await left_in(database)
    name, clock = device_name(found.bob.device), [NOON + 5_000]
    feed = Feed(database, found.log, found.fleet.id, lambda: clock[0], 60)
    await feed.look()
    assert name in {row.name for row in feed.page(Tariffs()).devices}
    await erase(found, found.bob)
    new = Feed(database, found.log, found.fleet.id, lambda: clock[0], 60)
    for reader in (feed, new):
        await reader.look()
        page = reader.page(Tariffs())
        assert [row.name for row in page.devices] == [device_name(found.ann.device)]
        assert reader.device(found.bob.device) is None
        other = reader.device(found.ann.device)
        assert other is not None
        assert other.receipts[0].merged[0][0] == "not known"
        assert not {name, name[:9]} & set(re.findall("[-0-9a-z]+", repr((page, other))))


async def test_what_the_node_hears_of_it_again_is_not_shown(database: Database) -> None:
    found = await left_in(database)
    await erase(found, found.bob)
    async with database.transaction() as tx:
        await of_a_device(tx, found.bob, "away")
    feed = Feed(database, found.log, found.fleet.id, lambda: NOON + 5_000, 60)
    await feed.look()
    assert feed.device(found.bob.device) is None


async def test_no_alert_is_made_of_what_was_read_before(database: Database) -> None:
    """The page of the instance that alerts is a second old when somebody is erased."""
    found = await left_in(database)
    clock = [NOON + 5_000]
    feed = Feed(database, found.log, found.fleet.id, lambda: clock[0], 60)
    hook = SimpleNamespace(name="hook")
    alerter = Alerter(
        database, AlertsSection(), feed, lambda: [], [cast(Channel, hook)],
        Composer("f", "h", "", name_devices=True), lambda: clock[0],
    )  # fmt: skip
    await feed.look()
    feed._tell()
    before = feed.page(Tariffs()).findings
    subjects = {device_name(found.ann.device), device_name(found.bob.device)}
    old = [Finding(Kind.SILENCE, s, Level.WARNING, f"{s[:9]} was", "") for s in subjects]
    seen = replace(feed.page(Tariffs()), findings=(*before, *old))
    await erase(found, found.bob)
    feed.page = lambda tariffs, insecure="": seen  # type: ignore[method-assign]
    for _ in range(2):
        await alerter.look()
        clock[0] += 1_000
    async with database.transaction(write=False) as tx:
        alerts = await tx.rows("SELECT subject, title FROM alerts")
        messages = await tx.rows("SELECT body FROM alert_messages")
    assert device_name(found.ann.device) in {row["subject"] for row in alerts}
    told = repr((alerts, messages))
    assert device_name(found.ann.device)[:9] in told
    assert device_name(found.bob.device)[:9] not in told


async def test_what_instances_report_of_it_goes_too(database: Database) -> None:
    found = await left_in(database)
    names = [device_name(keys.device) for keys in (found.ann, found.bob)]
    seen = [Finding(Kind.TASK, name, Level.WARNING, f"{name[:9]} failed", "") for name in names]
    async with database.transaction() as tx:
        await book.report(tx, "other", seen, NOON)
    await erase(found, found.bob)
    async with database.transaction(write=False) as tx:
        left = await book.reported(tx, "this", NOON)
    assert [finding.subject for finding in left] == names[:1]


async def test_a_report_has_one_row_for_all_who_were_erased(database: Database) -> None:
    found = await left_in(database)
    await erase(found, found.bob)
    office = Office(database, found.log, found.hub.signer, found.fleet.id, lambda: NOON)
    async with office.facts(Tariffs()) as facts:
        made = contribution(facts)
    rows = {row.device: row for row in made.rows if row.mode == "peers"}
    gone = rows.pop(pseudonyms.ERASED)
    assert (gone.state, gone.incentive, gone.merged_by_others) == ("erased", 0.0, RECEIPTS)
    assert [row.state for row in rows.values()] == ["counts"]
    assert made.devices == 1


async def test_ids_that_somebody_invents_leave_nothing_behind(database: Database) -> None:
    """A member's receipts may name 512 ids each, and nobody checks whose they are."""
    found = await left_in(database)
    job, ann = found.fleet.job("erase", Layout((Tensor("w", (8,), 0),))), found.ann
    drafts = []
    for number in range(RECEIPTS + 1, RECEIPTS + 21):
        merged = [Merged(os.urandom(16), 1, bytes(32), bytes(32), 1 / 256) for _ in range(256)]
        refused = [Refused(os.urandom(16), os.urandom(5).hex()) for _ in range(256)]
        value = Receipt(
            found.fleet.id, ann.device, number, number, job.lineage(), bytes(32), "nna", 0, NOON,
            merged=merged, refused=refused,
        )  # fmt: skip
        data = seal("receipt", encode(value), ann.signer)
        drafts.append(Draft(EntryKind.RECEIPT, ann.device, data, NOON + 1))
    await found.log.append(drafts)
    while await found.writer.integrate():
        pass
    office = Office(database, found.log, found.hub.signer, found.fleet.id, lambda: NOON)
    async with office.facts(Tariffs()) as facts:
        made = contribution(facts)
        assert max(bin.active for _, bin in facts.tally.timeline.bins()) < 4
        assert len(facts.tally._mentioned) <= MENTIONED_MAX
    async with database.transaction(write=False) as tx:
        row = await tx.row("SELECT COUNT(*) AS n FROM pseudonyms")
    assert row is not None
    assert row["n"] == 3
    assert len([row for row in made.rows if row.mode == "peers"]) == 2
    feed = Feed(database, found.log, found.fleet.id, lambda: NOON + 5_000, 60)
    await feed.look()
    page = feed.page(Tariffs())
    names = {row.name for row in page.devices}
    assert names == {device_name(found.ann.device), device_name(found.bob.device)}
    assert {f.subject for f in page.findings if f.kind is Kind.SILENCE} <= names
    assert len(feed._chronicle.mentioned) <= MENTIONED_MAX
    assert set(feed._chronicle.faults) == {"other"}


def test_the_database_alone_gives_the_same_report(
    dsn: str, tmp_path: Path, gossipfl: Callable[..., tuple[int, str, str]]
) -> None:
    """Star mode's clients and whoever was erased have their rows there as well."""

    async def left() -> tuple[str, bytes]:
        database = await open_database(dsn)
        try:
            found = await left_in(database)
            await erase(found, found.bob)
            office = Office(database, found.log, found.hub.signer, found.fleet.id, lambda: NOON)
            async with office.facts(Tariffs()) as facts:
                return str(found.log.key), as_json(contribution(facts))
        finally:
            await database.close()

    key, made = asyncio.run(left())
    (tmp_path / "hub.pub").write_text(key)
    words = ("report", "contribution", dsn, "--hub-key", str(tmp_path / "hub.pub"), "--json")
    _, out, _ = gossipfl(*words)
    told = json.loads(out)["data"]
    assert told == json.loads(made)
    assert {row["state"] for row in told["rows"]} == {"counts", "erased"}
    assert {row["mode"] for row in told["rows"]} == {"peers", "star"}


async def test_what_is_staged_at_that_instant_gets_no_place(database: Database) -> None:
    found = await left_in(database)
    await erase(found, found.bob)
    size = await found.log.reader.size()
    late = Draft(EntryKind.ALARM, found.bob.device, b'{"alarm":"late"}', 1)
    await found.log.append([late])
    assert await found.writer.integrate() == 0
    assert (await found.log.reader.staged())[0] == 0
    assert await found.log.reader.size() == size
    assert await pseudonyms.of(database, [found.bob.device]) == {
        found.bob.device: pseudonyms.ERASED
    }


async def test_who_is_not_known_still_here_or_was_erased_is_told(database: Database) -> None:
    found = await left_in(database)
    root = found.fleet.root.key_id
    for device, code in (
        (os.urandom(16), "GF850"),
        (found.ann.device, "GF852"),
        (found.hub.device, "GF852"),
        (found.fleet.operator.device, "GF852"),
    ):
        with pytest.raises(UserError) as raised:
            await ask(database, device, root, BY)
        assert raised.value.code == code
    assert await ask(database, found.bob.device, root, BY) is Stage.ASKED
    assert await ask(database, found.bob.device, root, BY) is Stage.ASKED
    await found.eraser.erase()
    assert await ask(database, found.bob.device, root, BY) is Stage.DELETED
    await found.eraser.compact()
    with pytest.raises(UserError) as raised:
        await ask(database, found.bob.device, root, BY)
    assert raised.value.code == "GF851"


async def test_who_is_only_blocked_comes_back_and_is_not_erased(database: Database) -> None:
    """A later policy may let it in again. What is proven stays so."""
    found = await left_in(database)
    root = found.fleet.root.key_id
    for state in ("blocked", "quarantined", "away"):
        await _is_now(database, found.ann, state)
        with pytest.raises(UserError) as raised:
            await ask(database, found.ann.device, root, BY)
        assert raised.value.code == "GF852"
    await _is_now(database, found.ann, "condemned")
    assert await ask(database, found.ann.device, root, BY) is Stage.ASKED


async def _is_now(database: Database, keys: Keys, state: str) -> None:
    async with database.transaction() as tx:
        await tx.execute("UPDATE fleet_devices SET state = ? WHERE device = ?", state, keys.device)


def test_an_id_is_read_in_both_forms_and_a_typo_is_told() -> None:
    device = bytes(range(16))
    assert parse(device.hex()) == parse(f" {device_name(device)} ") == device
    for wrong in ("", "zz" * 16, "b" + device_name(device)[1:], device.hex()[:-2]):
        with pytest.raises(UserError, match="no device id") as raised:
            parse(wrong)
        assert raised.value.code == "GF850"


async def test_a_long_erasure_that_is_cut_off_goes_on_where_it_was(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store cuts off a transaction that holds up all others: no one may have to do all of it."""
    monkeypatch.setattr("gossipfl.hub.erasing.eraser.PAGE", 10)
    found = await left_in(database)
    await ask(database, found.bob.device, found.fleet.root.key_id, BY)
    emptied, times = found.eraser._emptied, []

    async def cut_off(subject: bytes) -> int:
        times.append(subject)
        if len(times) == 3:
            raise Unavailable("cut off")
        return await emptied(subject)

    with monkeypatch.context() as patch:
        patch.setattr(Eraser, "_emptied", lambda self, subject: cut_off(subject))
        with pytest.raises(Unavailable):
            await found.eraser.erase()
    verdict = found.verify(await found.export())
    assert (verdict.problem, verdict.erased) == (None, 20)
    assert await stage(database, found.bob.device) is Stage.ASKED
    await found.eraser.erase()
    await found.eraser.compact()
    verdict = found.verify(await found.export())
    assert (verdict.problem, verdict.erased) == (None, RECEIPTS + 2)
    assert await stage(database, found.bob.device) is Stage.DONE


async def test_a_reader_delays_the_second_step_and_it_is_tried_again(
    dsn: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    if database.kind != "sqlite":
        pytest.skip("PostgreSQL waits for readers")
    monkeypatch.setattr("gossipfl.hub.database.sqlite_words.BUSY_MS", 50)
    await database.close()
    database = await open_database(dsn)
    found = await left_in(database)
    await ask(database, found.bob.device, found.fleet.root.key_id, BY)
    await found.eraser.erase()
    async with database.transaction(write=False) as reading:
        await reading.row("SELECT 1 FROM log_entries")
        with pytest.raises(Unavailable, match="somebody reads"):
            await found.eraser.compact()
    assert await stage(database, found.bob.device) is Stage.DELETED
    await found.eraser.compact()
    assert await stage(database, found.bob.device) is Stage.DONE
    await database.close()


async def test_proposals_and_reports_of_alerts_that_name_it_go(
    dsn: str, database: Database
) -> None:
    found = await left_in(database)
    job = found.fleet.job("x", Layout((Tensor("w", (8,), 0),)))
    plain = Policy(found.fleet.id, 0, 1, 0, job.bundle, bytes(32), 1, 4, 1, 1)
    bob, name = found.bob.device, device_name(found.bob.device)
    async with database.transaction() as tx:
        await desk.add(tx, msgspec.structs.replace(plain, canary=[bob]), "", BY, 1)
        await desk.add(tx, msgspec.structs.replace(plain, blocked=[bob]), "", BY, 2)
        await desk.add(tx, plain, f"{name} is too slow", BY, 3)
        await desk.add(tx, msgspec.structs.replace(plain, canary=[found.ann.device]), "it", BY, 4)
        for device in (bob, found.ann.device):
            told = Finding(Kind.SILENCE, device_name(device), Level.WARNING, "silent", "", "")
            await book.report(tx, device.hex(), [told], 1)
    await erase(found, found.bob)
    async with database.transaction(write=False) as tx:
        assert [p.note for p in await desk.listed(tx)] == ["it"]
        subjects = await tx.rows("SELECT subject FROM alert_reports")
    assert [row["subject"] for row in subjects] == [device_name(found.ann.device)]
    await database.close()
    assert shown(stored(dsn), {"name": {name.encode()}}) == []
