"""What the page says of a fleet: from the receipts of real nodes, one of which lies."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import replace
from statistics import NormalDist

import msgspec
import pytest
from pagekit import FLEET, Story, facts, logged, near_its_end, story

from gossipfl.audit.entries import EntryKind
from gossipfl.config import Limits
from gossipfl.hub.alerts.settings import AlertsSection
from gossipfl.hub.log.drafts import Draft
from gossipfl.hub.page import compose, influence
from gossipfl.hub.page.blocks import quantiles, spent_at_most
from gossipfl.hub.page.chronicle import Chronicle, Known, Merge
from gossipfl.hub.page.facts import Facts, LogFacts, Measured
from gossipfl.hub.page.model import Check, Level, State
from gossipfl.hub.page.query import Query, rows
from gossipfl.hub.page.rendering import Renderer, fleet_csv
from gossipfl.hub.reports.asked import tariffs
from gossipfl.hub.reports.costs import Tariffs
from gossipfl.identity import Signer, device_name, short_name
from gossipfl.messages import ChainRef, Lineage, Policy, Privacy, Receipt, Sums
from gossipfl.objects import Vouched, digest, pack_vouched, unpack_vouched
from gossipfl.wire import decode, encode, open_envelope, seal


def test_the_liar_is_named_and_the_honest_are_not() -> None:
    told = story()
    page = compose.page(facts(told))
    states = {row.name: row.state for row in page.devices}
    assert states.pop(device_name(told.liar)) is State.LEFT_OUT
    assert set(states.values()) == {State.LIVE}
    assert short_name(told.liar) in page.verdict.text
    assert page.verdict.level is Level.WARNING
    assert [need.link for need in page.needs] == [f"/devices/{device_name(told.liar)}"]
    assert page.security is not None
    assert [out.name for out in page.security.out] == [device_name(told.liar)]
    assert page.security.lines[0].name == device_name(told.liar)  # the loudest first


def test_the_figures_are_those_of_the_receipts() -> None:
    told = story()
    receipts = [
        decode(open_envelope(d.data, "receipt", 65_536).payload, Receipt)
        for d in told.drafts
        if d.kind is EntryKind.RECEIPT
    ]
    page = compose.page(facts(told))
    by_name = {row.name: row for row in page.devices}
    for device in (*told.honest, told.liar):
        own = [r for r in receipts if r.device == device]
        others = [m for r in receipts for m in r.merged if m.device == device and m.influence > 0]
        row = by_name[device_name(device)]
        assert row.receipts == len(own)
        size = told.sightings[device].update_bytes
        assert size is not None
        assert row.sent_bytes == len(others) * size
    assert page.graph is not None
    assert all(page.graph.names[e.of] != device_name(told.liar) for e in page.graph.edges)
    assert page.cost is not None
    pulls = sum(len(r.merged) for r in receipts)
    assert page.cost.lines[0].formula.startswith(f"{pulls:,} models merged × 248 B")


def test_the_page_is_plain_data() -> None:
    page = compose.page(facts(story()))
    again = json.loads(msgspec.json.encode(page))
    assert again["verdict"]["text"] == page.verdict.text
    assert again["fleet"] == FLEET.hex()
    with pytest.raises(dataclasses.FrozenInstanceError):
        page.now = 1  # type: ignore[misc]


def test_the_version_changes_with_news_and_not_with_the_clock() -> None:
    told = story()
    first = compose.page(facts(told)).version
    assert compose.page(facts(told, now=told.now + 1)).version == first
    device = told.honest[0]
    moved = {**told.sightings, device: replace(told.sightings[device], state="away")}
    assert compose.page(facts(told, sightings=moved)).version != first


def test_empty_stale_and_away() -> None:
    told = story()
    nobody = Facts(Chronicle(), {}, LogFacts("log", "", ()), told.now, FLEET.hex())
    page = compose.page(nobody)
    assert page.verdict.text == "No device has joined this fleet yet."
    assert (page.graph, page.learning, page.privacy, page.cost) == (None, None, None, None)
    assert "gossipfl invite" in Renderer().page(page, Query(), "", "ann", True)

    old = compose.page(facts(told, now=told.now + 3_600))
    assert not old.mark.is_live
    assert old.verdict.text.startswith("Nothing was heard of the fleet for 1 h")
    assert "stale" in Renderer().page(old, Query(), "", "ann", True)

    device = told.honest[0]
    later = told.now + 900
    here = {d: replace(s, seen=later - 4) for d, s in told.sightings.items()}
    here[device] = replace(told.sightings[device], state="away")
    page = compose.page(facts(told, sightings=here, now=later))
    assert "6 of 7 devices are online" in page.verdict.text
    assert any("not heard of for" in need.title for need in page.needs)


def test_proof_and_revocation_are_told_with_their_reasons() -> None:
    told = story()
    made = facts(told)
    made.chronicle.devices[told.liar].evidence.append((told.now, "equal seq"))
    made.chronicle.devices[told.honest[0]].revoked = (told.now, "stolen")
    page = compose.page(made)
    states = {row.name: (row.state, row.note) for row in page.devices}
    assert states[device_name(told.liar)] == (State.SHUT_OUT, "proven: equal seq")
    assert states[device_name(told.honest[0])] == (State.REVOKED, "revoked: stolen")
    assert page.needs[0].level is Level.ALARM
    assert page.needs[0].command == f"gossipfl revoke {device_name(told.liar)}"
    assert page.tiles[0].value == "5 of 6"


def test_a_log_that_does_not_verify_is_the_first_thing_said() -> None:
    told = story()
    log = LogFacts("log", "00", (), 0, Check(False, told.now, "entry 7 is not what was signed"))
    page = compose.page(facts(told, log=log))
    assert page.verdict.level is Level.ALARM
    assert "entry 7" in page.verdict.text
    assert page.needs[0].title == "The log does not verify"


def test_what_the_hub_cannot_know_is_left_out() -> None:
    told = story()
    page = compose.page(facts(told))
    assert "Accuracy" not in [tile.name for tile in page.tiles]
    assert page.learning is not None
    assert page.learning.accuracy == ()
    measured = tuple(Measured(told.now - 9 + i, 0.8, 0.9, 0.92, None, 0.1) for i in range(3))
    page = compose.page(facts(told, measured=measured, holdout="digits"))
    assert [t.value for t in page.tiles if t.name == "Accuracy"] == ["90.0 %"]


def test_a_viewer_of_some_labels_sees_no_device() -> None:
    told = story()
    text = Renderer().page(compose.limited(compose.page(facts(told))), Query(), "", "eve", True)
    assert "1 is kept out" in text
    for device in (*told.honest, told.liar):
        assert device_name(device) not in text
        assert short_name(device) not in text


def test_entries_that_cannot_be_read_are_counted_and_left_aside() -> None:
    told = story()
    chronicle = Chronicle()
    bad = [
        Draft(EntryKind.RECEIPT, told.liar, b"\xc1", told.now),
        Draft(EntryKind.ALARM, told.liar, b"[1]", told.now),
        Draft(EntryKind.MEMBER, told.liar, b"", told.now),
    ]
    entries = logged([*bad, *told.drafts])
    entries[3] = replace(entries[3], data=None, subject=None)
    chronicle.fed(entries)
    assert (chronicle.unreadable, chronicle.erased) == (3, 1)
    assert chronicle.size == len(told.drafts) + 3


def test_weights_by_hand() -> None:
    """Three devices: a and b merge each other and, once in two, c."""
    a, b, c = (bytes([i]) * 16 for i in (1, 2, 3))

    def known(device: bytes, *merged: tuple[tuple[bytes, float], ...]) -> Known:
        made = Known(device)
        for number, row in enumerate(merged, 1):
            made.merges.append(Merge(number, number, number, "mean", row, ()))
        made.receipts = len(merged)
        return made

    fleet = [
        known(a, ((b, 0.5),), ((b, 0.25), (c, 0.25))),
        known(b, ((a, 0.5),), ((a, 0.5),)),
        known(c, ((a, 0.4), (b, 0.2)), ((a, 0.4), (b, 0.2))),
    ]
    found = influence.weights(fleet)
    # a: (0.5 + 0.5 + 0.4 + 0.4) / 4; b: (0.5 + 0.25 + 0.2 + 0.2) / 4; c: 0.25 / 4
    assert found[a].ratio == pytest.approx(1.8 / 1.15)
    assert found[b].ratio == pytest.approx(1.0)
    assert found[c].ratio == pytest.approx(0.25 / 1.15)
    assert (found[c].merged_of, found[c].judged_by) == (1, 2)
    assert influence.edges(fleet)[b, a] == (2, pytest.approx(0.375))


def test_costs_by_hand() -> None:
    told = story()
    plain = compose.page(facts(told)).cost
    assert plain is not None
    assert "Kept local" not in [line.name for line in plain.lines]
    rates = Tariffs(raw_mb=100.0, price=2.0, kwh_per_gb=0.06, kwh_price=0.3, currency="EUR")
    made = facts(told, tariffs=rates)
    cost = compose.page(made).cost
    assert cost is not None
    lines = {line.name: line for line in cost.lines}
    chronicle = made.chronicle
    days = (chronicle.newest - (chronicle.first or 0)) / 86_400
    raw = 7 * 100e6 * days
    pulls = sum(known.pulled for known in chronicle.devices.values())
    moved = pulls * 248
    assert lines["Kept local"].value == f"{raw / 1e3:.1f} kB"
    assert lines["Against raw upload"].value == f"{moved / raw:.2f} ×"
    assert lines["Traffic saved"].value == f"{(raw - moved) / 1e9 * 2.0:.3g} EUR"
    dearer = compose.page(facts(told, tariffs=replace(rates, price=20.0))).cost
    assert dearer is not None
    assert dearer.lines != cost.lines


def test_what_is_spent_is_an_upper_bound_that_grows() -> None:
    terms = Privacy(mode="local", epsilon=4.0, delta=1e-5, clip=1.0, z=10.0)
    spent = [spent_at_most(terms, n) for n in (0, 1, 10, 100)]
    assert spent[0] == 0.0
    assert spent == sorted(spent)
    # mu = sqrt(10) / 10; Dong, Roth and Su 2022, corollary 1.
    mu, cdf = math.sqrt(10) / 10, NormalDist().cdf
    epsilon = spent[2]
    delta = cdf(-epsilon / mu + mu / 2) - math.exp(epsilon) * cdf(-epsilon / mu - mu / 2)
    assert delta == pytest.approx(1e-5, rel=1e-3)


def test_in_group_sums_no_device_is_judged_by_what_others_merge() -> None:
    told = story()
    made = facts(told)
    sums = Sums(devices=sorted(told.sightings), size=4)
    policy = made.chronicle.policies[-1]
    made.chronicle.policies[-1] = msgspec.structs.replace(
        policy, privacy=Privacy(mode="group-sum", sums=sums)
    )
    page = compose.page(made)
    assert {row.state for row in page.devices} == {State.LIVE}
    assert {row.weight for row in page.devices} == {None}
    assert page.verdict.level is Level.GOOD
    assert [t.value for t in page.tiles if t.name == "Privacy"] == ["group sums"]
    text = Renderer().page(page, Query(), "", "ann", True)
    assert "nobody sees the model of a single device" in text


def test_a_budget_that_ends_needs_somebody() -> None:
    made, terms = near_its_end(story())
    page = compose.page(made)
    tile = next(t for t in page.tiles if t.name == "Worst epsilon left")
    assert tile.value == f"{4.0 - spent_at_most(terms, 81):.2f}"
    assert tile.level is Level.WARNING
    assert any("near the end of the privacy budget" in need.title for need in page.needs)
    assert "81 published" in Renderer().page(page, Query(), "", "ann", True)
    calm = compose.page(made, AlertsSection(budget_share=1.0))
    assert not any("privacy budget" in need.title for need in calm.needs)
    (tile,) = [t for t in calm.tiles if t.name == "Worst epsilon left"]
    assert tile.level is Level.GOOD


def test_who_logged_in_is_not_for_viewers() -> None:
    told = story()
    made = facts(told)
    said = b'{"action":"login","by":"p-ann","how":"password"}'
    login = Draft(EntryKind.LOGIN, bytes(16), said, told.now)
    made.chronicle.fed([replace(logged([login])[0], index=made.chronicle.size)])
    page = compose.page(made)
    assert "by p-ann" in Renderer().page(page, Query(), "", "otto", True)
    assert "by p-ann" not in Renderer().page(compose.without_people(page), Query(), "", "v", True)


def test_quantiles_by_hand() -> None:
    assert quantiles([3.0, 1.0, 2.0]) == (pytest.approx(1.2), 2.0, pytest.approx(2.8))
    assert quantiles([]) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("raw", "problem"), [("ten", True), ("-1", True), ("nan", True), ("1e99", True), ("2,5", False)]
)
def test_tariffs_are_numbers(raw: str, problem: bool) -> None:
    made, told = tariffs(Query(raw=raw), Tariffs())
    assert bool(told) is problem
    assert made.raw_mb == (None if problem else 2.5)


def test_the_table_is_sorted_and_filtered() -> None:
    told = story()
    page = compose.page(facts(told))
    assert page.devices[0].name == device_name(told.liar)  # who needs a look comes first
    down = [row.weight for row in rows(Query(sort="weight", down="1"), page.devices)]
    assert down == sorted(down, reverse=True)  # type: ignore[type-var]
    assert [r.name for r in rows(Query(state="left out"), page.devices)] == [device_name(told.liar)]
    found = rows(Query(find=short_name(told.honest[0]).upper()), page.devices)
    assert [r.name for r in found] == [device_name(told.honest[0])]
    assert Query(sort="weight", find="x").link("weight") == "/?find=x&sort=weight&down=1#fleet"


def test_what_others_write_is_escaped_in_html_and_in_spreadsheets() -> None:
    told = story()
    made = facts(told)
    attack = "<script>alert(1)</script>"
    made.chronicle.devices[told.liar].revoked = (told.now, attack)
    page = compose.page(made)
    text = Renderer().page(page, Query(find='"><b>'), "", attack, True)
    assert attack not in text
    assert '"><b>' not in text
    device = compose.device_page(made, told.liar)
    assert device is not None
    assert attack not in Renderer().device(device, page, attack, True)
    row = replace(page.devices[0], note="=HYPERLINK(1)")
    assert "'=HYPERLINK(1)" in fleet_csv(replace(page, devices=(row,)))


# --- canaries and proposals ----------------------------------------------------------------------


def on_trial(told: Story, canaries: list[bytes], **heads: object) -> Facts:
    """The same fleet after a policy that tries another bundle on some, whose heads say this."""
    first = next(d for d in told.drafts if d.kind is EntryKind.POLICY)
    envelope = open_envelope(unpack_vouched(first.data, Limits()).envelope, "policy", 65_536)
    policy = decode(envelope.payload, Policy)
    trial = msgspec.structs.replace(
        policy, version=2, run=7, bundle=b"n" * 32, canary=canaries, prev=digest(first.data)
    )
    signer = Signer(bytes(range(32)))
    member = unpack_vouched(first.data, Limits()).member
    data = pack_vouched(Vouched(seal("policy", encode(trial), signer), member))
    changed = {
        device: replace(
            told.sightings[device],
            head=msgspec.structs.replace(
                told.sightings[device].head,
                **{k: digest(data) if v == "policy" else v for k, v in heads.items()},
            ),
        )
        for device in canaries
    }
    drafts = [*told.drafts, Draft(EntryKind.POLICY, first.subject, data, told.now - 9)]
    more = replace(told, drafts=drafts, sightings={**told.sightings, **changed})
    return facts(more)


def test_a_canary_that_went_back_is_told() -> None:
    told = story()
    canaries = told.honest[:2]
    page = compose.page(on_trial(told, canaries, policy="policy", declined="policy"))
    card = next(need for need in page.needs if "went back" in need.title)
    assert card.title == "2 of 2 canaries went back from policy 0.2"
    assert card.level is Level.WARNING
    assert "the model from before serves" in card.words
    notes = {row.name: row.note for row in page.devices}
    assert all("went back" in notes[device_name(d)] for d in canaries)
    assert "went back" not in notes[device_name(told.honest[3])]


def test_a_canary_on_trial_is_no_outcast() -> None:
    """Nobody else learns its job, so nobody merges it: that is no reason to warn of it."""
    told = story()
    new = Lineage(b"n" * 32, 7, b"l" * 32)
    made = on_trial(told, [told.liar], policy="policy", lineage=new)
    page = compose.page(made)
    row = next(r for r in page.devices if r.name == device_name(told.liar))
    assert (row.state, row.note) == (State.LIVE, "canary: tries policy 0.2")
    assert not page.needs
    assert made.chronicle.policy is not None
    assert made.chronicle.policy.version == 1, "what canaries try is not the fleet's policy"


def test_a_blocked_device_is_kept_out_and_no_alarm() -> None:
    told = story()
    blocked = replace(
        told.sightings[told.honest[0]], state="blocked", why="blocked by the fleet's policy"
    )
    changed = {**told.sightings, told.honest[0]: blocked}
    page = compose.page(facts(replace(told, sightings=changed)))
    row = next(r for r in page.devices if r.name == device_name(told.honest[0]))
    assert row.state is State.SHUT_OUT
    card = next(n for n in page.needs if "is blocked" in n.title)
    assert card.level is Level.NOTE


def test_what_waits_for_a_signature_is_a_card() -> None:
    page = compose.page(facts(story(), proposals=2))
    card = next(n for n in page.needs if "to be signed" in n.title)
    assert (card.title, card.level) == ("2 policies to be signed", Level.NOTE)


def test_what_a_canary_has_spent_counts_with_the_least_noise_of_its_policies() -> None:
    told = story()
    made = facts(told)
    terms = Privacy(mode="local", epsilon=4.0, z=10.0)
    usual = msgspec.structs.replace(made.chronicle.policies[-1], privacy=terms)
    canary, other = told.honest[:2]
    trial = msgspec.structs.replace(
        usual, version=2, privacy=msgspec.structs.replace(terms, z=5.0), canary=[canary]
    )
    made.chronicle.policies[:] = [usual, trial]
    spent = dict(told.sightings)
    for device in (canary, other):
        sighting = told.sightings[device]
        assert sighting.head is not None
        head = msgspec.structs.replace(sighting.head, ledger=ChainRef(11, bytes(32)))
        spent[device] = replace(sighting, head=head)
    page = compose.page(replace(made, sightings=spent))
    assert page.privacy is not None
    bars = {bar.name: bar.spent for bar in page.privacy.bars}
    assert bars[device_name(other)] == spent_at_most(terms, 10)
    assert bars[device_name(canary)] == spent_at_most(trial.privacy, 10)
