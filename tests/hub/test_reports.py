"""Reports from the log of real nodes: what they claim, prove, reckon, and what they never say."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from logkit import SIGNER
from pagekit import FLEET, Story, kept, logged, story

from gossipfl.audit.entries import EntryKind, account_subject
from gossipfl.audit.exports import Exporter
from gossipfl.audit.notes import log_key
from gossipfl.audit.opened import ExportReader
from gossipfl.audit.refused import AuditRefused
from gossipfl.config import Limits
from gossipfl.hub.database import open_database
from gossipfl.hub.log.drafts import Draft
from gossipfl.hub.log.writer import LogWriter
from gossipfl.hub.page.facts import Measured
from gossipfl.hub.reports.claims import DUTIES
from gossipfl.hub.reports.contribution import contribution, limited
from gossipfl.hub.reports.costs import Flow, Tariffs, costs, missing
from gossipfl.hub.reports.facts import Facts, LogPart
from gossipfl.hub.reports.formats import as_csv, as_json
from gossipfl.hub.reports.history import History
from gossipfl.hub.reports.office import Office
from gossipfl.hub.reports.performance import performance
from gossipfl.hub.reports.rendering import ReportRenderer
from gossipfl.hub.reports.schema import compliance_schema
from gossipfl.hub.reports.signing import check, signed
from gossipfl.hub.reports.stated import stated
from gossipfl.hub.reports.summary import summary
from gossipfl.hub.reports.tally import Part, Tally
from gossipfl.hub.reports.timeline import BINS_MAX, Durations, Timeline
from gossipfl.hub.reports.value import cost_report
from gossipfl.identity import Signer, device_name, short_name
from gossipfl.messages import Lineage, Merged, Policy, Privacy, Receipt, Refused
from gossipfl.objects import Vouched, digest, pack_vouched, unpack_vouched
from gossipfl.parameters import Layout, Tensor
from gossipfl.privacy.gaussian import epsilon_of
from gossipfl.privacy.protection import Unit
from gossipfl.wire import decode, encode, open_envelope, seal
from sim.fleet import Fleet

KEY = log_key(SIGNER.key_id)
LOG = LogPart("log", 100, 3, 1_800_000_040, 1_800_000_000, 1_800_000_038)
ALL_SET = Tariffs(
    raw_mb=100.0, price=2.0, kwh_per_gb=0.05, kwh_price=0.3, training_w=4.0, training_s=30.0,
    device_month=1.0, central_month=400.0, currency="EUR",
)  # fmt: skip
# Ten devices, 30 days: 100,000 models of 50 kB merged in 20,000 rounds.
FLOW = Flow(100_000, 50_000.0, 10, 20_000, 1_800_000_000, 1_800_000_000 + 30 * 86_400)


def tally_of(drafts: Sequence[Draft]) -> Tally:
    tally = Tally()
    tally.fed(logged(drafts))
    return tally


def facts_of(told: Story, **changes: Any) -> Facts:
    tally = tally_of(told.drafts)
    devices = [d.device for d in tally.devices()]
    values: dict[str, Any] = {
        "tally": tally,
        "log": LOG,
        "names": {d: f"p-{i}" for i, d in enumerate(devices)},
        "update_bytes": (248,) * 7,
        "holdout": "digits",
    }
    return Facts(**{**values, **changes})


async def document(folder: Path, told: Story) -> bytes:
    database = await open_database(folder / "hub.db")
    try:
        log = await kept(database, told)
        office = Office(database, log, SIGNER, FLEET, lambda: told.now)
        return await office.compliance(None, None)
    finally:
        await database.close()


# --- compliance ----------------------------------------------------------------------------------


async def test_it_fits_its_schema_and_every_proof_leads_to_the_root(tmp_path: Path) -> None:
    data = await document(tmp_path, story())
    schema = compliance_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    told = json.loads(data)
    validator.validate(told)
    assert not validator.is_valid({**told, "extra": 1})
    found = check(data, KEY)
    assert found.proofs == len(told["report"]["entries"]) > 4
    assert {c["framework"] for c in told["report"]["claims"]} == {
        *("GDPR", "HIPAA", "EU AI Act", "NIST SP 800-226")
    }
    articles = {c["article"] for c in told["report"]["claims"]}
    for number in ("17", "25", "30", "32", "33", "35", "12", "19", "26(6)"):
        assert f"Art. {number}" in articles
    assert articles >= {*(f"164.312({x})" for x in "abcde"), "164.316(b)(2)"}


async def test_the_proofs_hold_for_who_recomputes_the_tree_from_an_export(tmp_path: Path) -> None:
    """RFC 6962 in a dozen lines of this test, on the files of the tar, with none of our code."""
    told = story()
    database = await open_database(tmp_path / "hub.db")
    log = await kept(database, told)
    office = Office(database, log, SIGNER, FLEET, lambda: told.now)
    report = json.loads(await office.compliance(None, None))["report"]
    tar = b"".join([chunk async for chunk in Exporter(log.reader, FLEET).chunks()])
    await database.close()
    entries: list[bytes] = []
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        for name in sorted(n for n in archive.getnames() if n.startswith("tile/entries/")):
            file = archive.extractfile(name)
            assert file is not None
            data = file.read()
            while data:
                length = int.from_bytes(data[:2])
                entries.append(data[2 : 2 + length])
                data = data[2 + length :]

    def root(leaves: list[bytes]) -> bytes:
        if len(leaves) == 1:
            return hashlib.sha256(b"\x00" + leaves[0]).digest()
        k = 1 << (len(leaves) - 1).bit_length() - 1
        return hashlib.sha256(b"\x01" + root(leaves[:k]) + root(leaves[k:])).digest()

    def path(index: int, leaves: list[bytes]) -> list[bytes]:
        if len(leaves) == 1:
            return []
        k = 1 << (len(leaves) - 1).bit_length() - 1
        if index < k:
            return [*path(index, leaves[:k]), root(leaves[k:])]
        return [*path(index - k, leaves[k:]), root(leaves[:k])]

    assert len(entries) == report["log"]["size"] == len(told.drafts)
    assert root(entries).hex() == report["log"]["root"]
    assert report["entries"]
    for row in report["entries"]:
        assert entries[row["entry"]].hex() == row["leaf"]
        assert [h.hex() for h in path(row["entry"], entries)] == row["proof"]
    kinds = [int(entry[1]) for entry in entries]
    for duty, claim in zip(DUTIES, report["claims"], strict=True):
        assert claim["count"] == sum(kinds.count(kind) for kind in duty.kinds)


async def test_one_size_of_the_log_gives_the_same_bytes_wherever_it_is_made(
    dsn: str, tmp_path: Path
) -> None:
    told = story()
    database = await open_database(dsn)
    try:
        log = await kept(database, told)
        office = Office(database, log, SIGNER, FLEET, lambda: told.now)
        first = await office.compliance(None, "ann")
        size = json.loads(first)["report"]["log"]["size"]
        writer = LogWriter(database, log, SIGNER, clock=lambda: told.now + 500)
        await log.append([Draft(EntryKind.ALARM, told.liar, b'{"alarm":"x"}', told.now + 400)])
        await writer.integrate()  # with the entry that the report left
        later = json.loads(await office.compliance(None, "ann"))["report"]
        assert later["log"]["size"] == size + 2
        assert later["activity"]["entries"]["report"] == 1
        assert await office.compliance(size, "otto") == first
        other = Office(database, log, SIGNER, FLEET, lambda: told.now + 9_999)
        assert await other.compliance(size, None) == first
        tar = b"".join([chunk async for chunk in Exporter(log.reader, FLEET).chunks()])
        with pytest.raises(AuditRefused, match="no checkpoint covers exactly 99 entries"):
            await office.compliance(99, None)
    finally:
        await database.close()
    history = History(ExportReader(io.BytesIO(tar)), KEY)
    await history.read(size)
    assert signed(await history.compliance(FLEET), size, KEY, SIGNER) == first


async def test_what_was_erased_is_forgotten_and_another_report_says_so(tmp_path: Path) -> None:
    told = story()
    database = await open_database(tmp_path / "hub.db")
    try:
        log = await kept(database, told)
        office = Office(database, log, SIGNER, FLEET, lambda: told.now)
        before = json.loads(await office.compliance(None, None))["report"]
        async with office.facts(Tariffs()) as facts:
            assert told.liar in facts.tally.parts
        gone = told.honest[0]
        async with database.transaction() as transaction:
            await transaction.execute(
                "UPDATE log_entries SET data = NULL, subject = NULL WHERE subject = ?", gone
            )
            await transaction.execute("INSERT INTO erased (mark) VALUES (?)", bytes(16))
        after = json.loads(await office.compliance(None, None))["report"]
        assert after["log"] == before["log"]
        assert [c["count"] for c in after["claims"]] == [c["count"] for c in before["claims"]]
        assert after["activity"]["merges"] < before["activity"]["merges"]
        async with office.facts(Tariffs()) as facts:
            assert gone not in facts.tally.chronicle.devices
    finally:
        await database.close()


@pytest.mark.parametrize("place", ["count", "leaf", "proof", "proven", "signature", "root"])
async def test_a_changed_report_is_refused(tmp_path: Path, place: str) -> None:
    data = await document(tmp_path, story())
    told = json.loads(data)
    report = told["report"]
    match place:
        case "count":
            report["claims"][1]["count"] += 1
        case "leaf":
            report["entries"][0]["leaf"] = report["entries"][1]["leaf"]
        case "proof":
            report["entries"][0]["proof"].pop()
        case "proven":
            report["claims"][1]["proven"] = [5_000]
        case "root":
            report["log"]["root"] = "00" * 32
    body = json.dumps(report, sort_keys=True, separators=(",", ":")).encode()
    if place == "signature":
        other = Signer(bytes(32))
        forged = signed(body, report["log"]["size"], log_key(other.key_id), other)
        with pytest.raises(AuditRefused, match="not signed by"):
            check(forged, KEY)
        return
    tail = data[data.rindex(b',"signature":') :]
    with pytest.raises(AuditRefused, match="what was signed is another report"):
        check(b'{"report":' + body + tail, KEY)
    if place == "count":
        return  # the hub itself may lie about that: an export shows it
    with pytest.raises(AuditRefused):  # not even the hub's signature makes a wrong proof right
        check(signed(body, report["log"]["size"], KEY, SIGNER), KEY)


async def test_looking_again_does_not_make_the_log_grow(tmp_path: Path) -> None:
    told = story()
    database = await open_database(tmp_path / "hub.db")
    now = told.now
    try:
        log = await kept(database, told)
        office = Office(database, log, SIGNER, FLEET, lambda: now)
        writer = LogWriter(database, log, SIGNER, lambda: now)
        size = await log.reader.size()
        grown = []
        for by, asked in (
            *(("ann", None), ("ann", None), ("otto", None)),
            *(("ann", size), ("ann", size), ("ann", None)),
        ):
            await office.compliance(asked, by)
            grown.append(await writer.integrate())
        assert grown == [1, 0, 1, 1, 0, 0]
        now += 86_400
        await office.compliance(None, "ann")
        assert await writer.integrate() == 1
        async with database.transaction(write=False) as tx:
            rows = await tx.rows(
                "SELECT subject, data FROM log_entries WHERE kind = ?", int(EntryKind.REPORT)
            )
        assert {bytes(row["subject"]) for row in rows} == set(map(account_subject, ("ann", "otto")))
        assert not any(b"ann" in row["data"] or b"otto" in row["data"] for row in rows)
    finally:
        await database.close()


@pytest.mark.parametrize("data", [b"", b"{}", b'{"report":{},"signature":7}', b"[" * 100_000])
def test_what_is_no_report_is_refused(data: bytes) -> None:
    with pytest.raises(AuditRefused):
        check(data, KEY)
    wrapped = b'{"report":' + data + b',"signature":"x"}\n'
    with pytest.raises(AuditRefused):
        check(wrapped, KEY)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({}, ""),
        ({"article": "Art. 17"}, "supports no such claim"),
        ({"article": "Art. 99"}, "does not know"),
        ({"first": 1, "last": 2}, "not within"),
        ({"first": None}, "not within"),
        ({"count": 1}, "not within"),
    ],
)
async def test_a_claim_that_its_hub_has_signed_is_not_proven_by_other_entries(
    tmp_path: Path, change: dict[str, object], problem: str
) -> None:
    report = json.loads(await document(tmp_path, story()))["report"]
    claim = next(c for c in report["claims"] if c["article"] == "Art. 25")
    claim |= change
    body = json.dumps(report, sort_keys=True, separators=(",", ":")).encode()
    forged = signed(body, report["log"]["size"], KEY, SIGNER)
    if not problem:
        check(forged, KEY)
        return
    with pytest.raises(AuditRefused, match=problem):
        check(forged, KEY)


async def test_a_report_is_no_checkpoint_and_a_checkpoint_no_report(tmp_path: Path) -> None:
    from gossipfl.audit.checkpoints import open_checkpoint

    data = await document(tmp_path, story())
    told = json.loads(data)
    with pytest.raises(AuditRefused):
        open_checkpoint(told["signature"].encode(), KEY)
    note = json.dumps(told["report"]["log"]["note"]).encode()
    body = data[len(b'{"report":') : data.rindex(b',"signature":')]
    with pytest.raises(AuditRefused, match="another report"):
        check(b'{"report":' + body + b',"signature":' + note + b"}\n", KEY)


# --- nobody is named -----------------------------------------------------------------------------


def poisoned(told: Story) -> Story:
    """A liar writes names into what it may: causes, rules; people come and go."""
    liar = told.liar
    template = next(d for d in told.drafts if d.kind is EntryKind.RECEIPT and d.subject == liar)
    envelope = open_envelope(template.data, "receipt", 65_536)
    receipt = decode(envelope.payload, Receipt)
    bad = msgspec.structs.replace(
        receipt,
        rule="mail=eve@example.org",
        refused=[Refused(told.honest[0], short_name(told.honest[0])), Refused(liar, "10.0.0.7")],
    )
    signer = Signer(bytes(32))  # the tally reads what was verified before it was logged
    people = [
        (EntryKind.LOGIN, b'{"event":"login","name":"ann"}'),
        (EntryKind.EXPORT, b'{"by":"ann (command line)","bytes":1}'),
        (EntryKind.ALARM, b'{"alarm":"silence","device":"%s"}' % liar.hex().encode()),
    ]
    more = [Draft(EntryKind.RECEIPT, liar, seal("receipt", encode(bad), signer), told.now)]
    more += [Draft(kind, account_subject("ann"), data, told.now) for kind, data in people]
    return Story([*told.drafts, *more], told.sightings, told.now, liar, told.honest)


def named_in(text: str, told: Story) -> list[str]:
    """What of the deny-list is in a text: ids, names, addresses, people, hosts, mail."""
    found = []
    for device in (*told.honest, told.liar):
        name = device_name(device)
        forms = (device.hex(), name, name.replace("-", ""), short_name(device))
        forms += (base64.b64encode(device).decode(), told.sightings[device].address)
        found += [form for form in forms if form and form in text]
    found += re.findall(r"[\w.]+@[\w.]+|\b\d{1,3}(?:\.\d{1,3}){3}\b", text)
    found += [who for who in ("ann", "eve") if re.search(rf"\b{who}\b", text)]
    return found


async def test_no_report_names_a_device_or_a_person(tmp_path: Path) -> None:
    told = poisoned(story())
    database = await open_database(tmp_path / "hub.db")
    try:
        log = await kept(database, told)
        office = Office(database, log, SIGNER, FLEET, lambda: told.now)
        texts = [(await office.compliance(None, "ann")).decode()]
        async with office.facts(ALL_SET) as facts:
            made = [m(facts) for m in (performance, cost_report, contribution, summary)]
        texts += [as_json(report).decode() for report in made]
        texts += [as_csv(report).decode() for report in made]
        whole = check(texts[0].encode(), KEY).report
        texts += [ReportRenderer().alone(report) for report in (*made, whole)]
        texts.append(as_csv(whole).decode())
    finally:
        await database.close()
    assert named_in(told.sightings[told.liar].address + short_name(told.liar), told)  # it sees some
    for text in texts:
        assert named_in(text, told) == []
    assert whole.activity.refused["other"] == 2
    assert whole.activity.rules["other"] == 1
    rows = next(m for m in made if m.report == "contribution").rows  # type: ignore[union-attr]
    assert len({row.device for row in rows}) == 7
    assert all(row.device.startswith("p-") for row in rows)


# --- the statement on privacy --------------------------------------------------------------------


def with_privacy(told: Story, terms: Privacy) -> list[Draft]:
    """The same log under a policy with these terms."""
    made = []
    for draft in told.drafts:
        if draft.kind is EntryKind.POLICY:
            vouched = unpack_vouched(draft.data, Limits())
            envelope = open_envelope(vouched.envelope, "policy", 65_536)
            policy = msgspec.structs.replace(decode(envelope.payload, Policy), privacy=terms)
            sealed = seal("policy", encode(policy), Signer(bytes(32)))
            made.append(replace(draft, data=pack_vouched(Vouched(sealed, vouched.member))))
        else:
            made.append(draft)
    return made


def test_privacy_off_promises_nothing_and_counts_what_was_bare() -> None:
    tally = tally_of(story().drafts)
    found = stated(tally)
    own = {
        decode(open_envelope(d.data, "receipt", 65_536).payload, Receipt).own
        for d in story().drafts
        if d.kind is EntryKind.RECEIPT
    } - {None}
    assert (found.mode, found.epsilon) == ("off", None)
    assert found.releases_all == found.releases_without_noise == len(own)
    assert "nothing is promised" in found.words


def test_local_privacy_states_every_field_and_what_the_releases_cost() -> None:
    terms = Privacy(mode="local", epsilon=8.0, delta=1e-5, clip=1.5, z=6.0)
    found = stated(tally_of(with_privacy(story(), terms)))
    empty = [name for name in found.__struct_fields__ if getattr(found, name) in (None, [], "")]
    assert empty == []
    assert found.releases is not None
    assert found.releases_max is not None
    assert found.epsilon is not None
    assert found.releases <= found.releases_max
    exact = epsilon_of(1e-5, (found.releases / 36.0) ** 0.5)
    assert exact <= found.epsilon <= exact + 1e-4
    assert (found.z, found.clip, found.sigma) == (6.0, 1.5, 2 * 1.5 * 6.0)
    assert "any two data sets" in (found.neighbours or "")
    assert found.unit == "device"


def followed(*steps: dict[str, Any]) -> dict[str, Part]:
    """Each of these policies, the first ones later, and after each a release of ann and of bob."""
    fleet = Fleet(5)
    who = {"ann": fleet.admit(), "bob": fleet.admit()}
    job = fleet.job("x", Layout((Tensor("w", (8,), 0),)))
    drafts = []
    for number, step in enumerate(steps, 1):
        now = 1_800_000_000 + number
        told = {**step, "canary": [who[name].device for name in step.get("canary", ())]}
        policy = Policy(
            fleet.id, 0, number, 0, job.bundle, bytes(32), 1, 4, 1, now,
            prev=None if number == 1 else bytes(32), **told,
        )  # fmt: skip
        sealed = seal("policy", encode(policy), fleet.operator.signer)
        data = pack_vouched(Vouched(sealed, fleet.operator.member))
        drafts.append(Draft(EntryKind.POLICY, fleet.operator.device, data, now))
        for keys in who.values():
            receipt = Receipt(
                fleet.id, keys.device, number, number, job.lineage(), bytes(32), "nna", 0, now,
                own=os.urandom(32),
            )  # fmt: skip
            data = seal("receipt", encode(receipt), keys.signer)
            drafts.append(Draft(EntryKind.RECEIPT, keys.device, data, now))
    tally = tally_of(drafts)
    assert tally.chronicle.unreadable == 0
    return {name: tally.parts[keys.device] for name, keys in who.items()}


def local(z: float, **more: Any) -> Privacy:
    return Privacy(mode="local", epsilon=8.0, z=z, **more)


def test_a_canary_s_releases_count_with_the_least_noise_that_it_may_have_used() -> None:
    """Whether it follows what is tried out or has gone back to the usual, no receipt says."""
    less = followed({"privacy": local(10.0)}, {"privacy": local(0.5), "canary": ["ann"]})
    assert less["ann"].spends == {(Unit.DEVICE, 10.0, 1.0): 1, (Unit.DEVICE, 0.5, 1.0): 1}
    assert less["bob"].spends == {(Unit.DEVICE, 10.0, 1.0): 2}
    more = followed({"privacy": local(0.5)}, {"privacy": local(10.0), "canary": ["ann"]})
    assert more["ann"].spends == more["bob"].spends == {(Unit.DEVICE, 0.5, 1.0): 2}
    bare = followed({"privacy": local(10.0)}, {"privacy": Privacy(), "canary": ["ann"]})
    assert (bare["ann"].bare, bare["bob"].bare) == (1, 0)
    over = followed(
        {"privacy": local(10.0)},
        {"privacy": local(0.5), "canary": ["ann"]},
        {"privacy": local(9.0)},
    )
    assert over["ann"].spends[Unit.DEVICE, 9.0, 1.0] == 1
    record = local(9.0, unit="record", sample_rate=0.1, steps=5)
    mixed = followed({"privacy": local(10.0)}, {"privacy": record, "canary": ["ann"]})
    assert mixed["ann"].spends == {
        (Unit.DEVICE, 10.0, 1.0): 2,
        (Unit.RECORD, 9.0, 0.1): 5,
    }


def test_a_policy_that_has_not_begun_adds_no_noise_yet() -> None:
    later = 1_800_000_000 + 86_400
    found = followed({"privacy": Privacy()}, {"privacy": local(10.0), "not_before": later})
    assert (found["ann"].bare, found["ann"].spends) == (2, {})


# --- cost ----------------------------------------------------------------------------------------


def test_costs_and_roi_by_hand() -> None:
    """All figures worked out on paper."""
    found = {f.key: f.value for f in costs(FLOW, ALL_SET)}
    assert found["moved"] == 5e9  # 100,000 x 50 kB
    assert found["network"] == pytest.approx(0.25)  # 5 GB x 0.05 kWh/GB
    assert found["training"] == pytest.approx(2 / 3)  # 20,000 x 30 s x 4 W = 2.4 MJ
    assert found["traffic"] == pytest.approx(10.0)  # 5 GB x 2
    assert found["power"] == pytest.approx(0.275)  # (0.25 + 0.6667) kWh x 0.3
    assert found["kept_local"] == pytest.approx(30e9)  # 10 x 100 MB x 30
    assert found["against_raw"] == pytest.approx(1 / 6)
    assert found["traffic_saved"] == pytest.approx(50.0)  # 25 GB x 2
    months = 30 / (365.25 / 12)
    together = 10.0 + 0.275 + 10 * months
    central = 60.0 + 30 * 0.05 * 0.3 + 400 * months
    assert found["together"] == pytest.approx(together)
    assert found["central"] == pytest.approx(central)
    assert found["saved"] == pytest.approx(central - together)
    assert found["roi"] == pytest.approx((central - together) / together)
    assert found["roi"] == pytest.approx(21.58, abs=0.01)


@pytest.mark.parametrize(
    ("tariff", "changed"),
    [
        ("price", {"traffic", "traffic_saved", "together", "central", "saved", "roi"}),
        ("raw_mb", {"kept_local", "against_raw", "traffic_saved", "central", "saved", "roi"}),
        ("kwh_price", {"power", "together", "central", "saved", "roi"}),
        ("training_w", {"training", "power", "together", "saved", "roi"}),
        ("device_month", {"together", "saved", "roi"}),
        ("central_month", {"central", "saved", "roi"}),
    ],
)
def test_a_changed_tariff_changes_what_hangs_on_it_and_nothing_else(
    tariff: str, changed: set[str]
) -> None:
    before = {f.key: f.value for f in costs(FLOW, ALL_SET)}
    dearer = replace(ALL_SET, **{tariff: getattr(ALL_SET, tariff) * 2})
    after = {f.key: f.value for f in costs(FLOW, dearer)}
    assert {key for key in before if before[key] != after[key]} == changed


def test_what_is_not_set_is_not_shown_and_said() -> None:
    assert [f.key for f in costs(FLOW, Tariffs())] == ["moved", "network"]
    assert {m.name: m.tariffs for m in missing(Tariffs())}["Traffic"] == ("price_per_gb",)
    assert missing(ALL_SET) == ()
    half = costs(FLOW, replace(ALL_SET, central_month=None))
    assert "roi" not in {f.key for f in half}
    found = cost_report(facts_of(story(), update_bytes=()))
    assert found.figures == []
    assert "No figures" in found.words


def test_the_cost_report_has_the_page_s_figures_and_the_gain() -> None:
    rows = tuple(Measured(n, 0.5, 0.6, 0.7, 0.5 + n / 100, None) for n in range(3))
    found = cost_report(facts_of(story(), tariffs=ALL_SET, measured=rows))
    values = {row.key: row.value for row in found.figures}
    receipts = [
        decode(open_envelope(d.data, "receipt", 65_536).payload, Receipt)
        for d in story().drafts
        if d.kind is EntryKind.RECEIPT
    ]
    assert values["moved"] == 248 * sum(len(r.merged) for r in receipts)
    assert values["accuracy"] == pytest.approx(0.02)
    assert found.tariffs["price_per_gb"] == 2.0


# --- contribution --------------------------------------------------------------------------------


def receipt_draft(by: bytes, number: int, merged: dict[bytes, float], time: int) -> Draft:
    lineage = Lineage(bytes(32), 1, bytes(32))
    rows = [Merged(d, number, bytes(32), digest(d + bytes([number])), w) for d, w in merged.items()]
    made = Receipt(
        FLEET, by, number, number, lineage, bytes(32), "nna", 1, time,
        own=digest(by + bytes([number])), merged=rows,
    )  # fmt: skip
    return Draft(EntryKind.RECEIPT, by, seal("receipt", encode(made), Signer(bytes(32))), time)


def test_contribution_by_hand() -> None:
    a, b, c = (bytes([i]) * 16 for i in (1, 2, 3))
    drafts = [
        receipt_draft(a, 1, {b: 0.4, c: 0.2, a: 0.4}, 100),
        receipt_draft(b, 1, {a: 0.5}, 101),
        receipt_draft(c, 1, {a: 0.3, b: 0.0}, 103),
        # Whatever is claimed, one merge is worth one: 3.0 counts as a half each.
        receipt_draft(c, 2, {a: 1.0, b: 1.0}, 110),
    ]
    tally = tally_of(drafts)
    names = {a: "p-a", b: "p-b", c: "p-c"}
    found = contribution(Facts(tally, LOG, names, (1_000,)))
    rows = {row.device: row for row in found.rows}
    # influence: a 0.5 + 0.3 + 0.5 = 1.3; b 0.4 + 0.5 = 0.9; c 0.2; in all 2.4.
    # merges by others with influence: a 3, b 2, c 1; in all 6.
    assert rows["p-a"].influence == pytest.approx(1.3)
    assert (rows["p-a"].bytes, rows["p-b"].bytes, rows["p-c"].bytes) == (3_000, 2_000, 1_000)
    assert rows["p-a"].incentive == pytest.approx((1.3 / 2.4 + 3 / 6) / 2)
    assert rows["p-b"].incentive == pytest.approx((0.9 / 2.4 + 2 / 6) / 2)
    assert rows["p-c"].incentive == pytest.approx((0.2 / 2.4 + 1 / 6) / 2)
    assert sum(row.incentive for row in found.rows) == pytest.approx(1.0)
    assert [row.device for row in found.rows] == ["p-a", "p-b", "p-c"]

    tally.chronicle.devices[a].evidence.append((104, "equal seq"))
    found = contribution(Facts(tally, LOG, names, (1_000,)))
    rows = {row.device: row for row in found.rows}
    assert (rows["p-a"].state, rows["p-a"].incentive) == ("proven", 0.0)
    assert rows["p-b"].incentive == pytest.approx((0.9 / 1.1 + 2 / 3) / 2)
    assert limited(found).rows == []
    assert limited(found).influence == pytest.approx(2.4)


def test_the_liar_that_nobody_merges_gets_nothing() -> None:
    facts = facts_of(story())
    rows = {row.device: row for row in contribution(facts).rows}
    assert rows[facts.names[story().liar]].incentive == 0.0
    assert all(rows[facts.names[d]].incentive > 0.05 for d in story().honest)


# --- performance, summary ------------------------------------------------------------------------


def test_latency_and_staleness_by_hand() -> None:
    a, b = bytes([1]) * 16, bytes([2]) * 16
    drafts = [
        receipt_draft(a, 1, {}, 100),
        receipt_draft(b, 1, {a: 0.5}, 107),  # a's first, 7 s old
        receipt_draft(a, 2, {b: 0.5}, 130),  # b's second, 13 s old; a round of 30 s
        receipt_draft(b, 2, {}, 117),  # a round of 10 s, logged late
    ]
    entries = logged(drafts)
    entries[3] = replace(entries[3], time=150)
    tally = Tally()
    tally.fed(entries)
    found = performance(Facts(tally, LOG, {}, (1_000,)))
    assert sorted(tally.ages.counts.elements()) == [7, 13]
    assert (found.rounds, found.models_merged, found.bytes) == (4, 2, 2_000)
    assert sorted(tally.rounds.counts.elements()) == [10, 30]
    assert sorted(tally.logging.counts.elements()) == [0, 0, 0, 33]
    assert sum(p.rounds for p in found.points) == 4


def test_a_claimed_time_does_not_stretch_the_trend() -> None:
    a = bytes([1]) * 16
    entries = logged([receipt_draft(a, 1, {}, 1_000), receipt_draft(a, 2, {}, 2**40)])
    tally = Tally()
    tally.fed([entries[0], replace(entries[1], time=1_010)])
    assert [start for start, _ in tally.timeline.bins()] == list(range(1_000, 1_011))


def test_the_summary_says_what_matters() -> None:
    told = story()
    facts = facts_of(told, tariffs=ALL_SET)
    facts.tally.chronicle.devices[told.liar].evidence.append((told.now, "equal seq"))
    found = summary(facts)
    assert found.headline.startswith("7 devices learned together")
    assert any("1 device proven" in words for words in found.attention)
    assert "1 device kept out: none of the others merges it." in found.attention
    facts.tally.chronicle.devices[told.liar].revoked = (told.now, "sold")
    assert not any("kept out" in words for words in summary(facts).attention)
    assert "Return on what is spent" in [box.name for box in found.costs]
    assert found.not_set == []
    assert "price_per_gb" in summary(facts_of(told)).not_set
    assert as_csv(found).decode().splitlines()[0] == "name,value,words"


def test_a_timeline_is_bounded_and_loses_nothing() -> None:
    line = Timeline()
    for n in range(10_000):
        made = line.at(1_000_000 + 7 * n)
        made.receipts += 1
        made.active |= 1 << (n % 5)
    bins = list(line.bins())
    assert len(bins) <= BINS_MAX
    assert sum(b.receipts for _, b in bins) == 10_000
    assert all(b.active.bit_count() == 5 for _, b in bins)
    assert line.width_s == 512


def test_durations_are_exact_where_it_matters() -> None:
    found = Durations()
    for seconds in (3, 5, 5, 40, -2, 10**9):
        found.add(seconds)
    assert (found.quantile(0.5), found.quantile(0.9)) == (5, Durations.MOST_S)
    assert Durations().quantile(0.5) is None


def test_tariffs_of_hub_toml(tmp_path: Path) -> None:
    from gossipfl.errors import UserError
    from gossipfl.hub.settings import load_settings

    file = tmp_path / "hub.toml"
    file.write_text('[reports]\ncurrency = "CHF"\nprice_per_gb = 2\nraw_mb_per_day = ""\n')
    found = load_settings([file]).reports.tariffs
    assert (found.currency, found.price, found.raw_mb, found.kwh_per_gb) == ("CHF", 2, None, 0.06)
    for wrong in ('currency = "EURO5"', "price_per_gb = -1", 'price_per_gb = "dear"'):
        file.write_text(f"[reports]\n{wrong}\n")
        with pytest.raises(UserError):
            load_settings([file])
