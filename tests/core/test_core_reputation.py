"""What observations do to a peer's standing: scores, quarantine in words, decay, restart."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossipfl.anomaly import Cause, Traits
from gossipfl.errors import Fault
from gossipfl.reputation import (
    EVIDENCE_IDLE,
    EVIDENCE_MAX,
    GRACE_MERGES,
    PROBATION,
    QUARANTINE_AT,
    QUARANTINE_BELOW,
    QUARANTINE_DOUBLINGS_MAX,
    QUARANTINE_ROUNDS,
    RECOVERY_PER_ROUND,
    Reputation,
    Seen,
)
from gossipfl.standing import COST, ENTRIES_MAX, EVIDENCE_FLOOR, FORM, SCORE_FLOOR, Suspicion
from gossipfl.wire import pack

P, Q = b"p" * 16, b"q" * 16
HONEST = [bytes([n]) * 16 for n in range(1, 8)]
ROUND_S = 30.0
TERM_S = ROUND_S * QUARANTINE_ROUNDS


def reputation(*, enabled: bool = True) -> Reputation:
    return Reputation(ROUND_S, enabled=enabled)


def seen(
    distance: float = 1.0,
    influence: float = 0.125,
    *,
    alike: float = 0.9,
    towards: float = 0.5,
    norm: float = 1.0,
    crowd: int | None = None,
    share: float = 0.1,
) -> Seen:
    traits = Traits(distance, distance, norm, towards, alike, share, crowd)
    return Seen(influence, distance, traits)


def merge(
    held: Reputation,
    *,
    now: float = 0.0,
    attackers: int = 1,
    honest: int = 7,
    way: float = 0.0,
    **peers: Seen,
) -> list[tuple[bytes, str]]:
    """One merge of seven honest peers, slightly different, and of those named (`p=`, `q=`)."""
    pull = {device: seen(1.0 + 0.02 * n) for n, device in enumerate(HONEST[:honest])}
    pull |= {{"p": P, "q": Q}[name]: found for name, found in peers.items()}
    return held.merged(pull, attackers, now, way=way)


def merges(held: Reputation, count: int, **how: Any) -> list[tuple[bytes, str]]:
    return [found for _ in range(count) for found in merge(held, **how)]


def seasoned(held: Reputation, device: bytes = P) -> None:
    """Past its first merges, in good standing."""
    for _ in range(GRACE_MERGES):
        held.merged({device: Seen(0.2, 1.0)}, 1, 0.0)


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
        held.merged({P: Seen(0.2)}, 1, 0.0)
    assert held.weight(P, 0.0) == 1.0


def test_a_weight_in_disfavour_has_a_floor() -> None:
    held = reputation()
    for _ in range(2):
        held.fault(P, Fault.BAD_SIGNATURE, 0.0)
    held.fault(P, Fault.STALE, 0.0)
    assert held.weight(P, 0.0) >= SCORE_FLOOR


OBSERVATIONS = st.builds(
    seen,
    st.floats(0.0, 1e6),
    st.floats(0.0, 1.0),
    alike=st.floats(-1.0, 1.0),
    towards=st.floats(-1.0, 1.0),
    norm=st.floats(0.0, 1e6),
    crowd=st.none() | st.integers(0, 30),
    share=st.floats(-1.0, 1.0),
)
SUSPICIONS = st.none() | st.builds(
    Suspicion, st.sampled_from(list(Cause)), st.just("words"), st.floats(0.01, 1.0)
)


@given(st.lists(st.one_of(st.sampled_from(list(Fault)), OBSERVATIONS, SUSPICIONS), max_size=60))
def test_nobody_earns_more_than_a_newcomer_has(events: list[object]) -> None:
    held = reputation()
    for now, event in enumerate(events):
        if isinstance(event, Fault):
            held.fault(P, event, float(now))
        elif isinstance(event, Seen):
            merge(held, now=float(now), p=event)
        elif event is None or isinstance(event, Suspicion):
            held.suspect(P, event)
        assert 0.0 <= held.level(P) <= 1.0
        weight = held.weight(P, float(now))
        assert weight == 0.0 or 0.01 <= weight <= 1.0
        assert all(held.weight(device, float(now)) == 1.0 for device in HONEST)


# --- standing apart ------------------------------------------------------------------------------

# What a liar's updates look like -> what it is called. Grace, then four merges.
LIES = [
    (seen(12.0, 0.0, towards=-0.8), Cause.DIRECTION, "the other way"),
    (seen(12.0, 0.0, alike=-0.9), Cause.DIRECTION, "the other way"),
    (seen(1.0, 0.0, alike=-0.9), Cause.DIRECTION, "the other way"),  # near, yet opposed
    (seen(12.0, 0.0, norm=9.0), Cause.NORM, "larger"),
    (seen(12.0, 0.0), Cause.FAR, "apart"),
]


@pytest.mark.parametrize(("lie", "cause", "words"), LIES)
def test_who_stands_apart_is_named_then_quarantined(lie: Seen, cause: Cause, words: str) -> None:
    held = reputation()
    assert merges(held, GRACE_MERGES, p=lie) == [], "newcomers have grace"
    assert held.suspected(P, 0.0) == (None, "")
    weights = []
    for _ in range(int(QUARANTINE_AT) - 1):
        assert merge(held, p=lie) == []
        weights.append(held.weight(P, 0.0))
    assert weights == [1.0, 0.5, 0.25], "halved each time"
    assert held.suspected(P, 0.0)[0] is cause
    [(device, reason)] = merge(held, p=lie)
    assert device == P
    assert words in reason
    assert held.suspected(P, 0.0) == (cause, reason)
    assert held.weight(P, 0.0) == 0.0
    assert all(held.weight(d, 0.0) == 1.0 for d in HONEST), "nobody else pays"


def test_the_reason_has_figures() -> None:
    held = reputation()
    found = merges(held, 20, p=seen(12.0, 0.0))
    assert "11.3x as far from the merge" in found[0][1]


@pytest.mark.parametrize(
    "odd",
    [
        seen(12.0, 0.2, towards=-0.8),  # far, but the rule used it
        seen(2.9, 0.0),  # useless, but not far: an honest outlier
        seen(1.0, 0.0),
        seen(1.0, 0.0, towards=0.0),  # a step beside the others' is common near the end
        Seen(0.0, 9.0),  # too small a pull to tell
    ],
)
def test_what_is_no_reason(odd: Seen) -> None:
    held = reputation()
    assert merges(held, 60, p=odd) == []
    assert held.weight(P, 0.0) == 1.0
    assert held.suspected(P, 0.0) == (None, "")


def test_the_fleets_own_spread_decides() -> None:
    """The same distance in a fleet whose devices lie far apart anyway is no reason."""
    held = reputation()
    spread = {device: seen(0.5 * 1.6**n, 0.0) for n, device in enumerate(HONEST)}
    found = []
    for _ in range(60):
        found += held.merged({**spread, P: seen(12.0, 0.0)}, 2, 0.0)
    assert found == []
    assert held.weight(P, 0.0) == 1.0


def test_who_is_near_for_the_way_that_the_fleet_has_come_is_not_shut_out() -> None:
    """The others have agreed and hardly move: twelve times their spread is next to nothing."""
    near, far = reputation(), reputation()
    assert merges(near, 200, way=100.0, p=seen(12.0, 0.0)) == []
    assert near.suspected(P, 0.0) == (None, "")
    assert near.weight(P, 0.0) == 1.0
    assert [device for device, _ in merges(far, 200, way=20.0, p=seen(12.0, 0.0))] == [P]


@pytest.mark.parametrize("lie", [lie for lie, cause, _ in LIES if cause is Cause.DIRECTION])
def test_who_goes_the_other_way_is_called_however_near(lie: Seen) -> None:
    assert [device for device, _ in merges(reputation(), 20, way=1e6, p=lie)] == [P]


def test_whom_the_rule_cannot_do_without_is_not_shut_out() -> None:
    """Two liars of six peers were shut out, then an honest one: too few for a rule that stands
    against two, and no merge until a quarantine ended."""
    lie = seen(12.0, 0.0)
    for needed, shut_out in ((4, 1), (5, 0)):
        held = reputation()
        pull = {device: seen(1.0 + 0.02 * n) for n, device in enumerate(HONEST[:4])}
        found = []
        for _ in range(60):
            found += held.merged({**pull, P: lie}, 2, 0.0, needed)
        assert len(found) == shut_out, needed


def test_more_than_may_lie_are_not_judged() -> None:
    held = reputation()
    lie = seen(12.0, 0.0)
    assert merges(held, 60, attackers=1, p=lie, q=lie) == []
    assert len(merges(held, 60, attackers=2, p=lie, q=lie)) >= 2


def test_where_nobody_is_assumed_to_lie_nobody_is_judged() -> None:
    held = reputation()
    assert merges(held, 60, attackers=0, p=seen(12.0, 0.0)) == []


def test_evidence_fades_twice_as_slowly_as_it_grows() -> None:
    held = reputation()
    merges(held, GRACE_MERGES + 3, p=seen(12.0, 0.0))
    hurt = held.weight(P, 0.0)
    found = merges(held, 30, p=seen(1.0))
    assert found == []
    assert hurt == 0.25
    assert held.weight(P, 0.0) == 1.0
    assert held.of(P).outlying == 0.0


def test_once_in_three_merges_is_no_habit() -> None:
    """A device whose data are odd lies apart now and then."""
    held = reputation()
    for n in range(90):
        odd = seen(60.0, 0.0) if n % 3 == 0 else seen(1.0)
        assert merge(held, p=odd) == []


def test_evidence_fades_for_whoever_is_not_asked() -> None:
    held = reputation()
    merges(held, GRACE_MERGES + 3, p=seen(12.0, 0.0))
    merges(held, round(3 / EVIDENCE_IDLE) + 1)
    assert held.weight(P, 0.0) == 1.0


# --- near copies ---------------------------------------------------------------------------------


def test_crowds_lose_their_chance_and_nobody_is_shut_out() -> None:
    """Liars who copy an honest device must not be able to have it quarantined."""
    held = reputation()
    weights = []
    for _ in range(40):
        assert merge(held, p=seen(crowd=2), q=seen(crowd=1)) == []
        weights.append(held.weight(P, 0.0))
    assert weights[: GRACE_MERGES + 4] == [1.0] * (GRACE_MERGES + 1) + [0.5, 0.25, 0.125]
    assert weights[-1] == EVIDENCE_FLOOR
    assert held.of(P).crowded == EVIDENCE_MAX
    assert held.suspected(P, 0.0)[0] is Cause.COLLUSION
    assert held.weight(Q, 0.0) == 1.0, "two may be alike by chance"
    merges(held, 2 * int(EVIDENCE_MAX), p=seen(crowd=0))
    assert held.weight(P, 0.0) == 1.0


def test_a_pull_too_small_to_tell_changes_nothing() -> None:
    held = reputation()
    merges(held, 10, p=seen(crowd=5))
    before = held.weight(P, 0.0)
    merges(held, 10, p=seen(crowd=None))
    assert held.weight(P, 0.0) == before


# --- conduct -------------------------------------------------------------------------------------


def test_conduct_lowers_the_chance_for_as_long_as_it_lasts() -> None:
    held = reputation()
    held.suspect(P, Suspicion(Cause.STALE, "nothing new for 200 s", 0.05))
    assert held.weight(P, 0.0) == 0.05
    assert held.suspected(P, 0.0) == (Cause.STALE, "nothing new for 200 s")
    assert held.suspects() == [P]
    held.suspect(P, None)
    assert held.weight(P, 0.0) == 1.0
    assert held.suspects() == []


def test_the_worst_observation_is_the_one_that_is_said() -> None:
    held = reputation()
    held.suspect(P, Suspicion(Cause.SLOW, "late", 1.0))
    assert held.suspected(P, 0.0)[0] is Cause.SLOW
    held.fault(P, Fault.BAD_SIGNATURE, 0.0)
    assert held.suspected(P, 0.0)[0] is Cause.FORGED


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (Fault.BAD_SIGNATURE, Cause.FORGED),
        (Fault.TLS_MISMATCH, Cause.FORGED),
        (Fault.MALFORMED, Cause.MALFORMED),
        (Fault.NOT_FINITE, Cause.NORM),
        (Fault.REPLAYED_SEQ, Cause.STALE),
        (Fault.WITHHELD_CHAIN, Cause.WITHHELD),
    ],
)
def test_what_faults_point_to(fault: Fault, cause: Cause) -> None:
    held = reputation()
    for _ in range(2):
        held.fault(P, fault, 0.0)
    assert held.suspected(P, 0.0)[0] is cause


# --- off -----------------------------------------------------------------------------------------


def test_off_watches_and_does_nothing() -> None:
    held = reputation(enabled=False)
    assert merges(held, 30, p=seen(12.0, 0.0), q=seen(crowd=4)) == []
    for _ in range(5):
        assert held.fault(Q, Fault.BAD_SIGNATURE, 0.0) is None
    held.suspect(Q, Suspicion(Cause.STALE, "old", 0.05))
    assert held.weight(P, 0.0) == held.weight(Q, 0.0) == 1.0
    assert held.suspected(P, 0.0)[0] is Cause.FAR, "still said"
    held.condemn(P, "proof")
    assert held.weight(P, 0.0) == 0.0, "evidence holds all the same"


# --- contribution --------------------------------------------------------------------------------


def test_contribution_is_half_shares_and_half_bytes() -> None:
    held = reputation()
    for _ in range(10):
        held.merged({P: seen(share=0.3), Q: seen(share=0.1)}, 1, 0.0)
    held.served(Q, 1_000)
    found = held.contributions()
    assert found[P] == pytest.approx(0.75 / 2)
    assert found[Q] == pytest.approx(0.25 / 2 + 0.5)
    assert held.share(P) == pytest.approx(0.3)
    for _ in range(10):
        held.merged({Q: seen(share=0.1)}, 1, 0.0)
    assert held.share(P) == pytest.approx(0.15), "merges without it count"


def test_who_holds_the_others_back_contributes_nothing() -> None:
    held = reputation()
    held.merged({P: seen(share=-0.3), Q: seen(share=0.1)}, 1, 0.0)
    assert held.contributions() == {P: 0.0, Q: 0.5}


def test_contribution_buys_no_trust() -> None:
    held = reputation()
    held.served(P, 10**9)
    merges(held, 50, p=seen(share=0.9))
    assert held.weight(P, 0.0) == 1.0 == held.weight(b"new" + bytes(13), 0.0)


def test_influence_is_a_decayed_mean() -> None:
    held = reputation()
    held.merged({P: Seen(0.5)}, 1, 0.0)
    assert held.of(P).influence == 0.5, "the first one counts as it is"
    for _ in range(40):
        held.merged({P: Seen(0.1)}, 1, 0.0)
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


def test_who_a_person_releases_is_not_on_probation() -> None:
    """Somebody has looked: it takes as much as the first time to shut it out again."""
    held = reputation()
    lie = seen(12.0, 0.0)
    merges(held, GRACE_MERGES + int(QUARANTINE_AT), p=lie)
    assert held.weight(P, 0.0) == 0.0
    assert held.release(P)
    assert held.level(P) == 1.0
    again = [merge(held, p=lie) for _ in range(GRACE_MERGES + int(QUARANTINE_AT))]
    assert again[:-1] == [[]] * (len(again) - 1)
    assert again[-1] != []


def test_evidence_condemns_for_good() -> None:
    held = reputation()
    held.condemn(P, "two signed heads prove it")
    assert held.weight(P, 1e12) == 0.0
    assert not held.release(P)
    assert held.suspected(P, 0.0) == (Cause.EQUIVOCATION, "two signed heads prove it")
    merge(held, p=seen(1.0, 1.0))
    assert held.weight(P, 1e12) == held.level(P) == 0.0


def test_readmission_is_on_probation_with_grace() -> None:
    held = reputation()
    lie = seen(12.0, 0.0)
    merges(held, GRACE_MERGES + int(QUARANTINE_AT), p=lie)
    now = 2 * TERM_S
    assert held.weight(P, now) == 0.5, "heard again, at half a chance"
    assert held.of(P).outlying == PROBATION
    again = [merge(held, now=now, p=lie) for _ in range(GRACE_MERGES + 2)]
    assert again[:-1] == [[]] * (GRACE_MERGES + 1), "its grace again, then half the strikes"
    assert again[-1] != []


def test_a_readmitted_device_that_behaves_is_a_newcomer_soon() -> None:
    held = reputation()
    merges(held, GRACE_MERGES + int(QUARANTINE_AT), p=seen(12.0, 0.0))
    assert merges(held, 10, now=2 * TERM_S, p=seen(1.0)) == []
    assert held.weight(P, 2 * TERM_S) == 1.0


def test_who_walks_backward_is_named_with_the_figure() -> None:
    """No farther away than the others, and no part in the merges: an inner product liar."""
    held = reputation()
    [(device, words)] = merges(held, 20, p=seen(1.0, 0.0, towards=-0.6))
    assert device == P
    assert "a cosine of -0.60" in words
    assert held.suspected(P, 0.0)[0] is Cause.DIRECTION


def test_a_wrong_quarantine_does_not_hide_the_liar() -> None:
    """An honest outlier is out first; the one assumed attacker is still found."""
    held = reputation()
    merges(held, GRACE_MERGES + int(QUARANTINE_AT), q=seen(12.0, 0.0))
    assert held.weight(Q, 0.0) == 0.0
    assert merges(held, GRACE_MERGES + int(QUARANTINE_AT), p=seen(12.0, 0.0)) != []
    assert held.weight(P, 0.0) == 0.0


def test_the_majority_is_never_shut_out_for_standing_apart() -> None:
    """Whatever number of attackers is assumed: one after the other, until half are left."""
    held = reputation()
    for n in range(len(HONEST)):
        odd = {device: seen(1000.0 * 50.0**n, 0.0) for device in HONEST[: n + 1]}
        usual = {device: seen(1.0 + 0.01 * k) for k, device in enumerate(HONEST[n + 1 :])}
        for _ in range(3 * int(QUARANTINE_AT)):
            held.merged(odd | usual, 3, 0.0)
    out = sum(held.is_quarantined(device, 0.0) for device in HONEST)
    assert out == len(HONEST) // 2


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
    assert again.suspected(b"c" * 16, 7.0) == (Cause.EQUIVOCATION, "proof")
    for name in ("score", "faults", "influence", "merges"):
        assert getattr(again.of(Q), name) == getattr(held.of(Q), name)


def test_evidence_contribution_and_history_survive_a_restart() -> None:
    held, again = reputation(), reputation()
    merges(held, GRACE_MERGES + 3, p=seen(12.0, 0.0), q=seen(crowd=3))
    held.served(P, 77)
    held.record(P, 1_800_000_000, "something happened")
    again.load(held.dump(9.0), 0.0)
    assert again.weight(P, 0.0) == held.weight(P, 9.0) == 0.25
    assert again.suspected(Q, 0.0) == held.suspected(Q, 9.0)
    assert again.contributions() == held.contributions()
    assert list(again.of(P).entries) == [(1_800_000_000, "", "something happened")]
    assert merge(again, p=seen(12.0, 0.0)), "the fourth strike"


def test_history_is_bounded_and_keeps_the_newest() -> None:
    held = reputation()
    for n in range(50):
        held.record(P, n, f"event {n}")
    assert [entry.at for entry in held.of(P).entries] == list(range(50 - ENTRIES_MAX, 50))


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


def test_what_is_kept_of_a_peer_is_bounded() -> None:
    """Whatever it does, and however often: faults by kind, the newest lines of its history."""
    held = reputation()
    for n in range(2_000):
        held.fault(P, list(Fault)[n % len(Fault)], float(n))
        merge(held, now=float(n), p=seen(12.0, 0.0, towards=-0.9))
        held.record(P, n)
    one = len(held.dump(0.0)) // len(held.devices())
    assert one < 2_048


def test_the_first_versions_dump_still_loads() -> None:
    """Nobody in quarantine comes out of it by an upgrade; strikes by distance begin anew."""
    rows = [
        [P, 0.1, {"bad signature": 3}, 0.2, 9, [True, False], TERM_S, 1, False, "broke it"],
        [Q, 0.0, {}, 0.0, 0, [], 0.0, 0, True, "two signed heads prove it"],
    ]
    held = reputation()
    held.load(pack(rows), 50.0)
    assert held.weight(P, 50.0 + TERM_S - 1.0) == 0.0
    assert held.suspected(P, 51.0) == (None, "broke it")
    assert held.weight(P, 50.0 + TERM_S) > 0.0
    assert held.suspected(Q, 0.0) == (Cause.EQUIVOCATION, "two signed heads prove it")
    held.load(pack([]), 0.0)


def test_a_newer_versions_dump_is_dropped() -> None:
    held = reputation()
    held.load(pack([FORM + 1, {"anything": 1}]), 0.0)
    assert held.devices() == []


def test_what_is_proven_is_not_lost_by_an_older_dump() -> None:
    held, again = reputation(), reputation()
    held.fault(P, Fault.MALFORMED, 0.0)
    again.condemn(P, "proof")
    again.load(held.dump(0.0), 0.0)
    assert again.is_condemned(P)


def test_what_is_no_dump_is_refused() -> None:
    with pytest.raises((msgspec.ValidationError, ValueError)):
        reputation().load(b"\x91\x91\x01", 0.0)
