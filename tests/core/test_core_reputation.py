"""What observations do to a peer's standing: scores, quarantine in words, decay, restart."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossipfl.errors import Fault
from gossipfl.reputation import (
    COST,
    FAR_RATIO,
    FAR_STRIKES,
    FAR_WINDOW,
    GRACE_MERGES,
    QUARANTINE_BELOW,
    QUARANTINE_DOUBLINGS_MAX,
    QUARANTINE_ROUNDS,
    RECOVERY_PER_ROUND,
    WEIGHT_FLOOR,
    Reputation,
)

P, Q = b"p" * 16, b"q" * 16
ROUND_S = 30.0
TERM_S = ROUND_S * QUARANTINE_ROUNDS


def reputation() -> Reputation:
    return Reputation(ROUND_S)


def seasoned(held: Reputation, device: bytes = P) -> None:
    """Past its first merges, in good standing."""
    for _ in range(GRACE_MERGES):
        held.merged(device, 0.2, 1.0, 0.0)


# --- faults --------------------------------------------------------------------------------------


def test_every_fault_has_its_price() -> None:
    assert set(COST) == set(Fault)
    assert all(0.0 <= cost <= 1.0 for cost in COST.values())


# Faults in a row until quarantine; None: never. Whoever only has a bad network, an old membership
# or another lineage is not silenced; whoever sends bytes that no honest device can send is.
@pytest.mark.parametrize(
    ("fault", "times"),
    [
        (Fault.BAD_SIGNATURE, 3),
        (Fault.WRONG_DIGEST, 3),
        (Fault.BAD_EVIDENCE, 3),
        (Fault.NOT_FINITE, 3),
        (Fault.NORM_BOUND, 3),
        (Fault.WRONG_FLEET, 3),
        (Fault.WRONG_DEVICE, 3),
        (Fault.TLS_MISMATCH, 3),
        (Fault.MALFORMED, 4),
        (Fault.UNKNOWN_TYPE, 4),
        (Fault.OVERSIZED, 4),
        (Fault.WRONG_LENGTH, 4),
        (Fault.WRONG_ROLE, 4),
        (Fault.TRUNCATED, 9),
        (Fault.WITHHELD_CHAIN, 9),
        (Fault.REPLAYED_SEQ, 9),
        (Fault.EQUIVOCATION, 1),
        (Fault.STALE, 40),
        (Fault.STALLED, None),
        (Fault.UNREACHABLE, None),
        (Fault.REFUSED, None),
        (Fault.OTHER_LINEAGE, None),
        (Fault.UNKNOWN_MEMBER, None),
        (Fault.EXPIRED_MEMBER, None),
        (Fault.REVOKED_MEMBER, None),
    ],
)
def test_how_often_until_quarantine(fault: Fault, times: int | None) -> None:
    held = reputation()
    reasons = [held.fault(P, fault, 0.0) for _ in range(200)]
    if times is None:
        assert reasons == [None] * 200
        assert held.weight(P, 0.0) == 1.0
        assert held.of(P).faults == {fault.value: 200}, "counted all the same"
        return
    assert reasons[: times - 1] == [None] * (times - 1)
    words = reasons[times - 1]
    assert words is not None
    assert fault.value in words
    assert f"{times} times" in words
    assert reasons[times:] == [None] * (200 - times), "said once"
    assert held.weight(P, 0.0) == 0.0
    assert held.weight(Q, 0.0) == 1.0, "nobody else pays"


def test_the_reason_names_what_weighed_most() -> None:
    held = reputation()
    for _ in range(50):
        held.fault(P, Fault.UNREACHABLE, 0.0)
    words = [held.fault(P, Fault.BAD_SIGNATURE, 0.0) for _ in range(3)][-1]
    assert words == "broke the protocol: bad signature, 3 times"
    assert held.of(P).why == words


def test_a_fault_is_forgotten_after_good_rounds() -> None:
    held = reputation()
    held.fault(P, Fault.BAD_SIGNATURE, 0.0)
    hurt = held.weight(P, 0.0)
    assert hurt == pytest.approx(1.0 - COST[Fault.BAD_SIGNATURE])
    rounds = math.ceil(COST[Fault.BAD_SIGNATURE] / RECOVERY_PER_ROUND)
    for _ in range(rounds):
        held.merged(P, 0.2, None, 0.0)
    assert held.weight(P, 0.0) == 1.0


@given(
    st.lists(
        st.one_of(
            st.sampled_from(list(Fault)),
            st.tuples(st.floats(0.0, 1.0), st.none() | st.floats(0.0, 100.0)),
        ),
        max_size=60,
    )
)
def test_nobody_earns_more_than_a_newcomer_has(events: list[object]) -> None:
    held = reputation()
    for now, event in enumerate(events):
        if isinstance(event, Fault):
            held.fault(P, event, float(now))
        elif isinstance(event, tuple):
            held.merged(P, event[0], event[1], float(now))
        assert 0.0 <= held.of(P).score <= 1.0
        weight = held.weight(P, float(now))
        assert weight == 0.0 or WEIGHT_FLOOR <= weight <= 1.0


# --- distance and influence ----------------------------------------------------------------------


def test_far_and_without_influence_is_quarantined_with_the_figures_in_words() -> None:
    held = reputation()
    seasoned(held)
    reasons = [held.merged(P, 0.0, 4.2, 0.0) for _ in range(FAR_STRIKES)]
    assert reasons[:-1] == [None] * (FAR_STRIKES - 1)
    words = reasons[-1]
    assert words is not None
    assert "4.2x farther" in words
    assert f"{FAR_STRIKES} of the last" in words


@pytest.mark.parametrize(
    ("influence", "ratio"),
    [
        (0.01, 50.0),  # far, but the rule used it
        (0.0, FAR_RATIO - 0.01),  # useless, but near: an honest outlier of a skewed fleet
        (0.0, None),  # too small a pull to tell
    ],
)
def test_what_is_no_reason(influence: float, ratio: float | None) -> None:
    held = reputation()
    seasoned(held)
    assert [held.merged(P, influence, ratio, 0.0) for _ in range(50)] == [None] * 50


def test_strikes_age() -> None:
    """Far in two rounds of three is below 5 of the last 6."""
    held = reputation()
    seasoned(held)
    for n in range(60):
        far = n % 3 != 0
        assert held.merged(P, 0.0 if far else 0.2, 9.0 if far else 1.0, 0.0) is None
    assert FAR_WINDOW == 6


def test_newcomers_have_grace() -> None:
    held = reputation()
    reasons = [held.merged(P, 0.0, 99.0, 0.0) for _ in range(GRACE_MERGES + FAR_STRIKES)]
    assert reasons[:-1] == [None] * (GRACE_MERGES + FAR_STRIKES - 1)
    assert reasons[-1] is not None


def test_influence_is_a_decayed_mean() -> None:
    held = reputation()
    held.merged(P, 0.5, None, 0.0)
    assert held.of(P).influence == 0.5, "the first one counts as it is"
    for _ in range(40):
        held.merged(P, 0.1, None, 0.0)
    assert held.of(P).influence == pytest.approx(0.1, abs=1e-3)


# --- how long ------------------------------------------------------------------------------------


def silence(held: Reputation, now: float) -> None:
    while not held.is_quarantined(P, now):
        held.fault(P, Fault.BAD_SIGNATURE, now)


def test_a_quarantine_ends_by_itself_and_is_longer_each_time() -> None:
    held = reputation()
    now = 1_000.0
    for times in range(8):
        silence(held, now)
        length = TERM_S * 2 ** min(times, QUARANTINE_DOUBLINGS_MAX)
        assert held.weight(P, now + length - 1.0) == 0.0
        now += length
        assert held.weight(P, now) >= QUARANTINE_BELOW, "heard again, so that it can recover"
        assert held.of(P).why == ""


def test_a_person_lifts_a_quarantine() -> None:
    held = reputation()
    assert not held.release(P), "there is none"
    silence(held, 0.0)
    assert held.release(P)
    assert held.weight(P, 1.0) > 0.0
    assert not held.release(P)


def test_evidence_condemns_for_good() -> None:
    held = reputation()
    held.condemn(P, "two signed heads prove it")
    assert held.weight(P, 1e12) == 0.0
    assert not held.release(P)
    assert held.of(P).why == "two signed heads prove it"
    held.merged(P, 1.0, None, 0.0)
    assert held.weight(P, 1e12) == 0.0


def test_readmission_forgets_the_strikes_of_before() -> None:
    held = reputation()
    seasoned(held)
    for _ in range(FAR_STRIKES):
        held.merged(P, 0.0, 9.0, 0.0)
    assert held.weight(P, 2 * TERM_S) > 0.0
    assert held.merged(P, 0.0, 9.0, 2 * TERM_S) is None, "it has its grace again"


def test_excluded_counts_who_is_not_asked() -> None:
    held = reputation()
    silence(held, 0.0)
    held.condemn(Q, "proof")
    held.fault(b"r" * 16, Fault.MALFORMED, 0.0)
    assert held.excluded(0.0) == 2
    assert held.excluded(TERM_S) == 1


# --- restart -------------------------------------------------------------------------------------


def test_standings_survive_a_restart_on_another_clock() -> None:
    """Monotonic time begins anew: what is left of a quarantine counts, not its instant."""
    held, again = reputation(), reputation()
    seasoned(held, Q)
    held.fault(Q, Fault.MALFORMED, 0.0)
    held.condemn(b"c" * 16, "proof")
    silence(held, 5_000.0)
    again.load(held.dump(5_000.0 + TERM_S / 2), 7.0)
    assert again.weight(P, 7.0 + TERM_S / 2 - 1.0) == 0.0
    assert again.of(P).why == held.of(P).why
    assert again.weight(P, 7.0 + TERM_S / 2) > 0.0
    assert again.of(b"c" * 16).condemned
    for name in ("score", "faults", "influence", "merges"):
        assert getattr(again.of(Q), name) == getattr(held.of(Q), name)


def test_a_restart_does_not_shorten_the_next_quarantine() -> None:
    held, again = reputation(), reputation()
    silence(held, 0.0)
    again.load(held.dump(TERM_S), 0.0)
    assert again.weight(P, 0.0) > 0.0
    silence(again, 0.0)
    assert again.weight(P, 2 * TERM_S - 1.0) == 0.0


def test_a_dump_comes_back_the_same() -> None:
    held, again = reputation(), reputation()
    silence(held, 0.0)
    seasoned(held, Q)
    again.load(held.dump(1.0), 1.0)
    assert again.dump(1.0) == held.dump(1.0)


def test_asking_about_strangers_leaves_no_trace() -> None:
    """Ids come from strangers' lists: an answer must not cost memory."""
    held = reputation()
    for n in range(1_000):
        device = n.to_bytes(16, "big")
        assert held.weight(device, 0.0) == 1.0
        assert not held.is_quarantined(device, 0.0)
        assert not held.is_condemned(device)
    assert held.devices() == []


def test_a_standing_goes_over_to_the_new_identity() -> None:
    held = reputation()
    silence(held, 0.0)
    held.inherit(P, Q)
    assert held.weight(Q, 1.0) == 0.0
    assert P not in held.devices()


def test_what_is_no_dump_is_refused() -> None:
    with pytest.raises((msgspec.ValidationError, ValueError)):
        reputation().load(b"\x91\x91\x01", 0.0)
