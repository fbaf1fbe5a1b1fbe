"""The ledger: spent never falls, the budget is never exceeded, any change of the past is seen."""

from __future__ import annotations

import dataclasses
import hashlib
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gossipfl.messages import ChainRef
from gossipfl.privacy import DevicePrivacy, RecordPrivacy, Unit
from gossipfl.privacy.entries import (
    ROWS_MAX,
    LedgerError,
    Row,
    entry_bytes,
    link_of,
    pack_rows,
    parse_entry,
    released,
    unpack_rows,
)
from gossipfl.privacy.gaussian import epsilon_of
from gossipfl.privacy.ledger import (
    BudgetError,
    Floors,
    Ledger,
    Refusal,
    Spec,
    Terms,
    open_ledger,
    replay,
)
from gossipfl.wire import pack

DEVICE = b"d" * 16
DEVICE_SPEC = DevicePrivacy(clip=1.0, z=4.0)
RECORD_SPEC = RecordPrivacy(clip=1.0, z=1.2, sample_rate=0.1, steps=10, lot=40)
DEVICE_TERMS = Terms(epsilon=4.0, delta=1e-5, z=1.0, unit=Unit.DEVICE)
RECORD_TERMS = Terms(epsilon=4.0, delta=1e-5, z=0.5, unit=Unit.RECORD)

specs = st.one_of(
    st.builds(DevicePrivacy, clip=st.just(1.0), z=st.sampled_from([1.0, 4.0, 30.0])),
    st.builds(
        RecordPrivacy,
        clip=st.just(1.0),
        z=st.sampled_from([0.8, 4.0]),
        sample_rate=st.sampled_from([0.05, 0.2]),
        steps=st.integers(1, 20),
        lot=st.just(32),
    ),
)
terms = st.builds(
    Terms,
    epsilon=st.floats(0.1, 20.0),
    delta=st.just(1e-5),
    z=st.sampled_from([0.0, 1.0, 4.0]),
    unit=st.sampled_from(Unit),
)


def name(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


def filled(count: int, spec: Spec = DEVICE_SPEC, limit: Terms = DEVICE_TERMS) -> list[Row]:
    ledger, row = open_ledger(DEVICE)
    rows = [row]
    for number in range(count):
        ledger, row = ledger.release(spec, name(number), limit)
        rows.append(row)
    return rows


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(specs, terms), max_size=12))
def test_spent_never_falls_and_no_release_exceeds_the_terms(
    wishes: list[tuple[Spec, Terms]],
) -> None:
    ledger, row = open_ledger(DEVICE)
    rows = [row]
    spent = dict.fromkeys(Unit, 0.0)
    for number, (spec, limit) in enumerate(wishes):
        if ledger.refusal(spec, limit) is not None:
            with pytest.raises(BudgetError):
                ledger.release(spec, name(number), limit)
            continue
        ledger, row = ledger.release(spec, name(number), limit)
        rows.append(row)
        assert ledger.spent(limit.delta, limit.unit) <= limit.epsilon
        assert spec.z >= limit.z
        for unit in Unit:
            now = ledger.spent(1e-5, unit)
            # The record unit's is an upper bound whose grid depends on what is composed.
            assert now >= spent[unit] * (1.0 if unit is Unit.DEVICE else 1.0 - 1e-3)
            spent[unit] = now
    assert replay(unpack_rows(pack_rows(rows))) == ledger
    assert ledger.releases == len(rows) - 1


@settings(max_examples=200)
@given(st.data())
def test_any_changed_byte_is_found(data: st.DataObject) -> None:
    packed = bytearray(pack_rows(filled(3)))
    at = data.draw(st.integers(0, len(packed) - 1))
    packed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(LedgerError):
        replay(unpack_rows(bytes(packed)))


@given(st.binary(max_size=300))
def test_any_bytes_are_a_ledger_or_an_error_of_ours(data: bytes) -> None:
    with pytest.raises(LedgerError):
        replay(unpack_rows(data))
    with pytest.raises(LedgerError):
        parse_entry(data)


def test_rows_that_were_dropped_swapped_or_doubled_are_found() -> None:
    rows = filled(4)
    for wrong in (
        rows[1:],
        rows[:2] + rows[3:],
        [rows[0], rows[2], rows[1], *rows[3:]],
        [*rows, rows[-1]],
        [],
    ):
        renumbered = [dataclasses.replace(row, number=i) for i, row in enumerate(wrong, 1)]
        with pytest.raises(LedgerError):
            replay(renumbered)


def test_a_ledger_that_lost_its_end_or_was_rewritten_is_not_what_the_head_commits_to() -> None:
    rows = filled(4)
    whole = replay(rows)
    assert replay(rows, whole.ref) == whole
    with pytest.raises(LedgerError, match="commits"):
        replay(rows[:-1], whole.ref)
    forged, row = open_ledger(DEVICE)
    others = [row]
    for number in range(4):
        forged, row = forged.release(DEVICE_SPEC, name(100 + number), DEVICE_TERMS)
        others.append(row)
    with pytest.raises(LedgerError, match="commits"):
        replay(others, whole.ref)


def test_a_ledger_may_have_grown_since_the_head() -> None:
    """A crash between the ledger and the head: the release counts as spent."""
    rows = filled(4)
    assert replay(rows, replay(rows[:-1]).ref).releases == 4


def test_the_same_release_entered_again_gives_the_same_bytes() -> None:
    """A commit in doubt is tried again."""
    ledger, _ = open_ledger(DEVICE)
    first = ledger.release(DEVICE_SPEC, name(1), DEVICE_TERMS)
    assert ledger.release(DEVICE_SPEC, name(1), DEVICE_TERMS) == first


def test_a_spent_budget_refuses_and_the_number_of_releases_was_known_before() -> None:
    ledger, _ = open_ledger(DEVICE)
    expected = ledger.affordable(DEVICE_SPEC, DEVICE_TERMS)
    while ledger.refusal(DEVICE_SPEC, DEVICE_TERMS) is None:
        ledger, _ = ledger.release(DEVICE_SPEC, name(ledger.releases), DEVICE_TERMS)
    assert ledger.releases == expected > 5
    assert ledger.refusal(DEVICE_SPEC, DEVICE_TERMS) is Refusal.SPENT
    assert ledger.affordable(DEVICE_SPEC, DEVICE_TERMS) == 0
    assert ledger.spent(1e-5, Unit.DEVICE) <= 4.0
    assert epsilon_of(1e-5, math.sqrt(expected + 1) / 4.0) > 4.0
    with pytest.raises(BudgetError, match="spent"):
        ledger.release(DEVICE_SPEC, name(0), DEVICE_TERMS)


def test_a_new_key_is_no_new_budget() -> None:
    rows = filled(5)
    ledger = replay(rows)
    spent = ledger.spent(1e-5, Unit.DEVICE)
    moved, row = ledger.enrol(b"n" * 16)
    assert moved.device == b"n" * 16
    assert moved.spent(1e-5, Unit.DEVICE) == spent > 0
    assert moved.releases == 5
    assert replay([*rows, row], ledger.ref) == moved
    further, _ = moved.release(DEVICE_SPEC, name(9), DEVICE_TERMS)
    assert further.releases == 6


def test_a_lost_ledger_counts_as_spent() -> None:
    ledger, row = open_ledger(b"n" * 16, replaces=DEVICE, unknown=True)
    assert ledger.spent(1e-5, Unit.RECORD) == math.inf
    assert ledger.refusal(DEVICE_SPEC, DEVICE_TERMS) is Refusal.UNKNOWN
    assert replay([row]).unknown


def test_what_hides_a_device_counts_for_its_examples_and_not_the_other_way_round() -> None:
    ledger, _ = open_ledger(DEVICE)
    ledger, _ = ledger.release(DEVICE_SPEC, name(1), RECORD_TERMS)
    assert ledger.spent(1e-5, Unit.RECORD) == ledger.spent(1e-5, Unit.DEVICE) > 0
    ledger, _ = ledger.release(RECORD_SPEC, name(2), RECORD_TERMS)
    assert ledger.spent(1e-5, Unit.DEVICE) == math.inf
    assert 0 < ledger.spent(1e-5, Unit.RECORD) < 4.0
    assert ledger.refusal(DEVICE_SPEC, DEVICE_TERMS) is Refusal.SPENT


def test_a_device_may_be_stricter_and_never_looser() -> None:
    policy = Terms(epsilon=4.0, delta=1e-5, z=1.0, unit=Unit.RECORD)
    loose = Floors(epsilon=100.0, delta=0.1, z=0.1, unit=Unit.RECORD)
    assert policy.stricter(loose) == policy
    assert policy.stricter(Floors()) == policy
    strict = policy.stricter(Floors(epsilon=1.0, delta=1e-6, z=9.0, unit=Unit.DEVICE))
    assert strict == Terms(epsilon=1.0, delta=1e-6, z=9.0, unit=Unit.DEVICE)
    ledger, _ = open_ledger(DEVICE)
    assert ledger.refusal(DEVICE_SPEC, strict) is Refusal.TOO_LITTLE_NOISE
    assert ledger.refusal(RECORD_SPEC, strict) is Refusal.WRONG_UNIT
    assert ledger.refusal(RECORD_SPEC, policy) is None
    assert policy.stricter(Floors(unit=Unit.DEVICE)).unit is Unit.DEVICE
    assert Terms(4.0, 1e-5, 1.0, Unit.DEVICE).stricter(loose).unit is Unit.DEVICE


@pytest.mark.parametrize(
    ("epsilon", "delta"), [(0.0, 1e-5), (math.nan, 1e-5), (math.inf, 1e-5), (1.0, 0.0), (1.0, 1.0)]
)
def test_terms_without_a_bound_are_refused(epsilon: float, delta: float) -> None:
    with pytest.raises(ValueError, match="no terms"):
        Terms(epsilon, delta, 1.0, Unit.DEVICE)


@pytest.mark.parametrize(
    "changes",
    [{"z": math.nan}, {"z": 0.0}, {"z": 1e9}, {"steps": 0}, {"sample_rate": 0.0}, {"clip": -1.0}],
)
def test_an_entry_with_a_value_out_of_range_is_refused(changes: dict[str, float]) -> None:
    """It could make the past look cheaper than it was."""
    ledger, first = open_ledger(DEVICE)
    fields = {
        **{"number": 1, "unit": "record", "mechanism": "dp-sgd", "z": 1.2, "clip": 1.0},
        **{"released": name(1), "sample_rate": 0.1, "steps": 10, "lot": 40},
    }
    good = pack(["released", fields])
    assert good == entry_bytes(released(1, RECORD_SPEC, name(1)))
    data = pack(["released", {**fields, **changes}])
    with pytest.raises(LedgerError):
        replay([first, Row(2, data, link_of(ledger.ref.digest, data))])


def test_one_entry_has_one_form() -> None:
    good = entry_bytes(released(1, DEVICE_SPEC, name(1)))
    parse_entry(good)
    fields = {
        **{"unit": "device", "number": 1, "mechanism": "rounded gaussian"},
        **{"z": 4.0, "clip": 1.0, "released": name(1)},
    }
    with pytest.raises(LedgerError, match="one form"):
        parse_entry(pack(["released", fields]))  # another order
    with pytest.raises(LedgerError):
        parse_entry(pack(["forgiven", {}]))


def test_a_full_ledger_refuses() -> None:
    ledger = dataclasses.replace(replay(filled(1)), ref=ChainRef(ROWS_MAX, name(1)))
    assert ledger.refusal(DEVICE_SPEC, DEVICE_TERMS) is Refusal.FULL
    with pytest.raises(LedgerError, match="full"):
        ledger.enrol(DEVICE)


def test_a_ledger_is_a_value() -> None:
    ledger, _ = open_ledger(DEVICE)
    after, _ = ledger.release(DEVICE_SPEC, name(1), DEVICE_TERMS)
    assert (ledger.releases, after.releases) == (0, 1)
    with pytest.raises(TypeError):
        after.spends[(Unit.DEVICE, 4.0, 1.0)] = 0  # type: ignore[index]
    assert isinstance(after, Ledger)


@pytest.mark.parametrize(
    ("spec", "terms"), [(DEVICE_SPEC, DEVICE_TERMS), (RECORD_SPEC, RECORD_TERMS)]
)
def test_the_account_of_one_release_is_that_of_the_one_before_and_one_less(
    spec: Spec, terms: Terms
) -> None:
    ledger, _ = open_ledger(DEVICE)
    account = ledger.account(spec, terms)
    for number in range(4):
        ledger, _ = ledger.release(spec, name(number), terms, account)
        quick, slow = ledger.account(spec, terms, account), ledger.account(spec, terms)
        assert quick == slow
        assert quick.spent == ledger.spent(terms.delta, terms.unit)
        account = quick


def test_an_account_of_another_state_allows_nothing() -> None:
    fresh, _ = open_ledger(DEVICE)
    early = fresh.account(DEVICE_SPEC, DEVICE_TERMS)
    ledger = fresh
    while ledger.refusal(DEVICE_SPEC, DEVICE_TERMS) is None:
        ledger, _ = ledger.release(DEVICE_SPEC, name(ledger.releases), DEVICE_TERMS)
    assert early.refusal is None
    with pytest.raises(BudgetError):
        ledger.release(DEVICE_SPEC, name(0), DEVICE_TERMS, early)
    assert ledger.account(DEVICE_SPEC, DEVICE_TERMS, early).refusal is Refusal.SPENT
