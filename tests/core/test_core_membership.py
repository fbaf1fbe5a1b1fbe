"""Who belongs to the fleet: chains from the root, fleet time, and the set of the revoked."""

from __future__ import annotations

import random
from typing import Any

import pytest
from harness import fault_of, flip
from hypothesis import given
from hypothesis import strategies as st

from gossipfl.config import Limits
from gossipfl.errors import Fault, PeerError
from gossipfl.fleettime import HEARD_MAX, NEAR_S, FleetClock
from gossipfl.identity import Signer
from gossipfl.membership import Roster
from gossipfl.messages import Member, Revocation, Role
from gossipfl.objects import (
    MemberObject,
    Vouched,
    digest,
    fleet_of,
    pack_member,
    pack_vouched,
    unpack_list,
)
from gossipfl.wire import encode, seal
from sim.fleet import DAY_S, EPOCH, Fleet

NOW = int(EPOCH)
ROOT, ISSUER, DEVICE, OTHER = (Signer(bytes([n]) * 32) for n in range(1, 5))
FLEET = fleet_of(ROOT.key_id)


def sealed(subject: Signer, role: Role, by: Signer, **fields: Any) -> bytes:
    values: dict[str, Any] = {
        **{"fleet": FLEET, "device": subject.device, "key": subject.key_id, "role": role},
        **{"not_before": NOW, "not_after": NOW + DAY_S, "issued": NOW},
    }
    return seal("member", encode(Member(**{**values, **fields})), by)


LIST_MAX = Limits().list_bytes
ISSUER_ENVELOPE = sealed(ISSUER, Role.ISSUER, ROOT)


def member(role: Role = Role.DEVICE, subject: Signer = DEVICE, **fields: Any) -> bytes:
    """A member object as the issuer makes it."""
    return pack_member(MemberObject(sealed(subject, role, ISSUER, **fields), ISSUER_ENVELOPE))


def roster(**limits: Any) -> Roster:
    return Roster(ROOT.key_id, Limits(**limits))


# --- chains --------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", [Role.DEVICE, Role.HUB, Role.OPERATOR, Role.AUDITOR])
def test_an_issuer_signed_by_the_root_makes_members(role: Role) -> None:
    held = roster()
    known = held.admit(member(role))
    assert known.member.device == DEVICE.device
    assert held.by_key(DEVICE.key_id) == held.by_device(DEVICE.device) == known
    assert held.by_digest(known.digest) == known


@pytest.mark.parametrize("role", [Role.ISSUER, Role.OPERATOR])
def test_the_root_signs_issuers_and_operators(role: Role) -> None:
    data = pack_member(MemberObject(sealed(DEVICE, role, ROOT), None))
    assert roster().admit(data).member.role is role


@pytest.mark.parametrize("role", [Role.DEVICE, Role.HUB, Role.AUDITOR])
def test_the_root_signs_no_devices(role: Role) -> None:
    data = pack_member(MemberObject(sealed(DEVICE, role, ROOT), None))
    assert fault_of(roster().admit, data) is Fault.WRONG_ROLE


def test_an_issuer_cannot_make_issuers() -> None:
    assert fault_of(roster().admit, member(Role.ISSUER)) is Fault.WRONG_ROLE


@pytest.mark.parametrize("role", [r for r in Role if r is not Role.ISSUER])
def test_nobody_but_an_issuer_makes_members(role: Role) -> None:
    """Not even with a true member object of its own in the issuer's place."""
    above = sealed(OTHER, role, ROOT)
    data = pack_member(MemberObject(sealed(DEVICE, Role.DEVICE, OTHER), above))
    assert fault_of(roster().admit, data) is Fault.WRONG_ROLE


def test_a_chain_of_three_is_refused() -> None:
    """root, issuer, issuer's issuer: the middle one is not signed by the root."""
    middle = sealed(OTHER, Role.ISSUER, ISSUER)
    data = pack_member(MemberObject(sealed(DEVICE, Role.DEVICE, OTHER), middle))
    assert fault_of(roster().admit, data) is Fault.UNKNOWN_MEMBER


def test_an_issuer_cannot_lend_its_name() -> None:
    """The issuer's envelope is true, but somebody else signed the member."""
    data = pack_member(MemberObject(sealed(DEVICE, Role.DEVICE, OTHER), ISSUER_ENVELOPE))
    assert fault_of(roster().admit, data) is Fault.WRONG_ROLE


def test_a_self_signed_member_is_unknown() -> None:
    data = pack_member(MemberObject(sealed(DEVICE, Role.ISSUER, DEVICE), None))
    assert fault_of(roster().admit, data) is Fault.UNKNOWN_MEMBER


def test_a_member_of_another_fleet_is_unknown() -> None:
    stranger = Fleet(77)
    assert fault_of(roster().admit, stranger.admit().member) is Fault.UNKNOWN_MEMBER


def test_the_same_root_key_cannot_vouch_for_another_fleet_id() -> None:
    other = member(fleet=b"\x09" * 32)
    assert fault_of(roster().admit, other) is Fault.WRONG_FLEET


def test_device_id_and_signing_key_belong_together() -> None:
    """Else a member could be enrolled under another device's name."""
    assert fault_of(roster().admit, member(device=OTHER.device)) is Fault.WRONG_DEVICE


def test_every_flipped_bit_of_a_member_is_refused() -> None:
    data = member(tls=b"t" * 32)
    held = roster()
    refused = sum(fault_of(held.admit, flip(data, bit)) is not None for bit in range(len(data) * 8))
    assert refused == len(data) * 8
    assert held.by_device(DEVICE.device) is None
    assert fault_of(held.admit, data) is None


@pytest.mark.parametrize("size", [0, 1, 2, 100, -1])
def test_a_truncated_member_is_malformed(size: int) -> None:
    assert fault_of(roster().admit, member()[:size]) is Fault.MALFORMED


def test_a_member_is_admitted_once_and_an_older_one_does_not_replace_it() -> None:
    held = roster()
    renewed = held.admit(member(issued=NOW + 10, not_after=NOW + 9 * DAY_S))
    assert held.admit(renewed.data) is renewed
    old = held.admit(member())
    assert held.by_key(DEVICE.key_id) == renewed, "whoever replays an old one gains nothing"
    assert held.by_digest(old.digest) == old, "archived objects still name it"


def test_members_are_bounded() -> None:
    held = roster(devices=3)
    for n in range(3):
        held.admit(member(subject=Signer(bytes([40 + n]) * 32)))
    extra = member(subject=Signer(bytes([50]) * 32))
    assert fault_of(held.admit, extra) is Fault.REFUSED


def test_years_of_renewals_do_not_fill_the_table() -> None:
    """30 days each, renewed from day 10. It is the objects that fill it, not the devices."""
    held = roster(devices=12)
    signers = [Signer(bytes([40 + n]) * 32) for n in range(5)]
    for day in range(0, 900, 10):
        for n, signer in enumerate(signers):
            if n == 4 and day > 200:
                continue  # it left the fleet
            at = NOW + day * DAY_S
            known = held.admit(
                member(subject=signer, issued=at, not_after=at + 30 * DAY_S, tls=bytes([n]) * 32)
            )
            held.forget(at, DEVICE.device)
            assert held.by_key(signer.key_id) == known
    assert held.by_device(signers[4].device) is None, "ended more than 30 days ago"
    assert held.device_of_tls(bytes([4]) * 32) is None
    assert held.device_of_tls(bytes([3]) * 32) == signers[3].device


def test_what_is_forgotten_is_named_once_so_that_it_leaves_the_store() -> None:
    held = roster()
    first, *_ = (
        held.admit(member(issued=NOW + n, not_after=NOW + DAY_S + n)).digest for n in range(3)
    )
    other = held.admit(member(subject=OTHER)).digest
    assert held.forget(NOW, DEVICE.device) == [first]
    assert held.forget(NOW + 32 * DAY_S, DEVICE.device) == [other], "our own stay"
    assert held.forget(NOW + 32 * DAY_S, DEVICE.device) == []
    assert held.admit(member(subject=OTHER)).digest == other, "who comes back brings it again"


def test_a_hub_is_one_as_long_as_its_newest_membership_says_so() -> None:
    held = roster()
    held.admit(member(Role.HUB))
    held.admit(member(subject=OTHER))
    assert set(held.hubs) == {DEVICE.device}
    held.admit(member(Role.DEVICE, issued=NOW - 1, not_after=NOW + DAY_S))
    assert held.is_hub(DEVICE.device), "an older one does not undo it"
    held.admit(member(Role.DEVICE, issued=NOW + 1))
    assert not held.is_hub(DEVICE.device)
    held.admit(member(Role.HUB, issued=NOW + 2))
    assert held.is_hub(DEVICE.device)
    held.forget(NOW + 60 * DAY_S, OTHER.device)
    assert not held.hubs, "it ended long ago"


def test_a_full_table_on_disk_does_not_keep_an_agent_from_starting() -> None:
    """Its own newest membership first, then as many of the others as there is room for."""
    before, after = roster(devices=4), roster(devices=4)
    for n in range(4):
        before.admit(member(subject=Signer(bytes([40 + n]) * 32)))
    own = after.admit(member(issued=NOW + 10))
    after.load(before.dump())
    assert after.by_device(DEVICE.device) == own
    assert after.by_device(Signer(bytes([42]) * 32).device) is not None


def test_members_survive_a_restart() -> None:
    held, again = roster(), roster()
    held.admit(member(tls=b"t" * 32))
    again.load(held.dump())
    assert again.by_device(DEVICE.device) == held.by_device(DEVICE.device)
    assert again.device_of_tls(b"t" * 32) == DEVICE.device


# --- dates ---------------------------------------------------------------------------------------


def test_dates_gate_live_use() -> None:
    held = roster()
    known = held.admit(member())
    assert fault_of(held.require_live, known, NOW) is None
    assert fault_of(held.require_live, known, NOW + DAY_S) is None
    assert fault_of(held.require_live, known, NOW + DAY_S + 1) is Fault.EXPIRED_MEMBER


def test_a_fresh_member_is_not_refused_by_a_lagging_clock() -> None:
    held = roster()
    known = held.admit(member())
    assert fault_of(held.require_live, known, 0) is None


def test_a_member_of_tomorrow_is_refused_today() -> None:
    held = roster()
    known = held.admit(member(not_before=NOW + DAY_S, not_after=NOW + 2 * DAY_S))
    assert fault_of(held.require_live, known, NOW) is Fault.EXPIRED_MEMBER
    assert fault_of(held.require_live, known, NOW + DAY_S - NEAR_S) is None


def test_an_expired_member_still_proves_what_it_signed() -> None:
    """Archived objects need a valid chain only."""
    assert roster().verify_chain(member(not_after=NOW)).device == DEVICE.device


# --- revocation ----------------------------------------------------------------------------------


def revocation(of: Signer = DEVICE, by: Signer = ISSUER, **fields: Any) -> bytes:
    values: dict[str, Any] = {
        **{"fleet": FLEET, "device": of.device, "reason": "lost", "since": NOW},
    }
    envelope = seal("revocation", encode(Revocation(**{**values, **fields})), by)
    above = pack_member(MemberObject(ISSUER_ENVELOPE, None))
    return pack_vouched(Vouched(envelope, above))


def test_an_issuer_revokes_and_the_reason_is_kept() -> None:
    held = roster()
    known = held.admit(member())
    added = held.revoke(revocation(reason="stolen from the van"))
    assert added is not None
    with pytest.raises(PeerError, match="stolen from the van") as caught:
        held.require_live(known, NOW)
    assert caught.value.fault is Fault.REVOKED_MEMBER
    assert held.revoked() == [DEVICE.device]


def test_a_revocation_names_the_tls_keys_of_whom_nobody_here_has_met() -> None:
    held = roster()
    held.revoke(revocation(tls=[b"t" * 32]))
    found = held.revocation_of_tls(b"t" * 32)
    assert found is not None
    assert found.device == DEVICE.device
    assert held.revocation_of_tls(b"u" * 32) is None
    again = held.admit(member(subject=OTHER, tls=b"t" * 32))
    assert fault_of(held.require_live, again, NOW) is Fault.REVOKED_MEMBER, "one key, two names"


def test_two_issuers_revocations_of_one_device_end_as_one_entry_everywhere() -> None:
    """Whatever came first: else the lists of two halves of a fleet would differ for ever."""
    objects = [
        revocation(reason="lost"),
        revocation(reason="stolen"),
        revocation(reason="sold", tls=[b"t" * 32]),
    ]
    for chosen in (objects, objects[:2]):
        one, two = roster(), roster()
        for data in chosen:
            one.revoke(data)
        for data in reversed(chosen):
            two.revoke(data)
        assert one.revoked() == [DEVICE.device]
        assert one.revocations() == two.revocations()
        assert [one.revoke(data) for data in chosen] == [None] * len(chosen)
    assert one.revocation_of_tls(b"t" * 32) is None
    one.revoke(objects[2])
    assert one.revocation_of_tls(b"t" * 32) is not None, "what names keys outranks what does not"


@pytest.mark.parametrize("role", [Role.DEVICE, Role.OPERATOR, Role.HUB, Role.AUDITOR])
def test_only_issuers_revoke(role: Role) -> None:
    body = Revocation(FLEET, DEVICE.device, "spite", NOW)
    envelope = seal("revocation", encode(body), OTHER)
    data = pack_vouched(Vouched(envelope, member(role, OTHER)))
    assert fault_of(roster().revoke, data) is Fault.WRONG_ROLE


def test_an_issuers_name_alone_revokes_nobody() -> None:
    assert fault_of(roster().revoke, revocation(by=OTHER)) is Fault.WRONG_ROLE


def test_a_revocation_of_another_fleet_is_refused() -> None:
    assert fault_of(roster().revoke, revocation(fleet=b"\x07" * 32)) is Fault.WRONG_FLEET
    assert fault_of(roster().revoke, Fleet(9).revoke(DEVICE.device, "x")) is Fault.UNKNOWN_MEMBER


def test_every_flipped_bit_of_a_revocation_is_refused() -> None:
    data = revocation()
    held = roster()
    refused = sum(
        fault_of(held.revoke, flip(data, bit)) is not None for bit in range(len(data) * 8)
    )
    assert refused == len(data) * 8
    assert held.revoked() == []


@given(st.lists(st.sampled_from(range(8)), max_size=12), st.lists(st.sampled_from(range(8))))
def test_sets_of_two_peers_unite_to_one(first: list[int], second: list[int]) -> None:
    signers = [Signer(bytes([60 + n]) * 32) for n in range(8)]
    one, two = roster(), roster()
    for held, numbers in ((one, first), (two, second)):
        for n in numbers:
            held.revoke(revocation(signers[n]))
    from_one, from_two = one.revocations(), two.revocations()
    if from_two:
        one.unite(unpack_list(from_two, LIST_MAX))
    if from_one:
        two.unite(unpack_list(from_one, LIST_MAX))
    assert one.revocations() == two.revocations(), "one set, one digest"
    assert one.revoked() == sorted({signers[n].device for n in first + second})


def test_a_list_with_one_bad_entry_adds_nothing_unseen() -> None:
    """What was added is reported; what is not reported was not added."""
    held = roster()
    items = [revocation(), revocation(OTHER, by=OTHER)]
    assert fault_of(held.unite, items) is Fault.WRONG_ROLE
    assert held.revoked() == []
    assert [r.device for r in held.unite([revocation()])] == [DEVICE.device]


# --- fleet time ----------------------------------------------------------------------------------


def hear(clock: FleetClock, device: bytes, issued: int, now: float) -> None:
    """Two heads of `device`, the second signed while we watched, at `issued`."""
    clock.hear_issued(device, 1, issued, now)
    clock.hear_issued(device, 2, issued, now)


def test_a_clock_alone_is_believed() -> None:
    clock = FleetClock()
    clock.hear_wall(EPOCH, 5.0)
    assert clock.time(5.0) == NOW
    assert clock.time(65.0) == NOW + 60, "between two looks at the wall, monotonic time counts"


def test_a_board_that_boots_in_1970_stays_at_its_floor() -> None:
    clock = FleetClock()
    clock.raise_floor(NOW)
    clock.hear_wall(12.0, 0.0)
    assert clock.time(0.0) == NOW


def test_a_board_that_boots_in_1970_learns_the_time_from_the_fleet() -> None:
    clock = FleetClock()
    clock.raise_floor(NOW - DAY_S)
    for n in range(3):
        hear(clock, bytes([n]) * 16, NOW, 100.0)
    clock.hear_wall(12.0, 100.0)
    assert clock.time(100.0) == NOW
    assert clock.time(160.0) == NOW + 60


@pytest.mark.parametrize("off", [-400 * DAY_S, -2 * NEAR_S, 2 * NEAR_S, 400 * DAY_S])
def test_a_wall_clock_far_from_the_median_is_ignored(off: int) -> None:
    clock = FleetClock()
    for n in range(3):
        hear(clock, bytes([n]) * 16, NOW + n, 0.0)
    clock.hear_wall(EPOCH + off, 0.0)
    assert abs(clock.time(0.0) - NOW) <= 2


@pytest.mark.parametrize("off", [-NEAR_S, -10, 10, NEAR_S])
def test_a_wall_clock_near_the_median_is_believed(off: int) -> None:
    clock = FleetClock()
    for n in range(3):
        hear(clock, bytes([n]) * 16, NOW, 0.0)
    clock.hear_wall(EPOCH + off, 0.0)
    assert clock.time(0.0) == NOW + off


@pytest.mark.parametrize("lie", [2**40, NOW + 3650 * DAY_S, 0])
def test_one_lying_peer_moves_fleet_time_for_no_longer_than_it_is_alone(lie: int) -> None:
    """The floor never goes back: one head from the year 36812 would end every membership."""
    clock = FleetClock()
    clock.raise_floor(NOW - DAY_S)
    hear(clock, b"l" * 16, lie, 1.0)
    clock.hear_wall(EPOCH + 1, 1.0)
    assert clock.time(1.0) >= NOW - DAY_S
    assert clock.floor <= NOW + 1, "what is durable did not move"
    for n in range(2):
        hear(clock, bytes([n]) * 16, NOW + 2, 2.0)
    clock.hear_wall(EPOCH + 2, 2.0)
    assert clock.time(2.0) == NOW + 2


@pytest.mark.parametrize("lie", [2**40, 0])
def test_a_minority_of_liars_does_not_move_fleet_time(lie: int) -> None:
    clock = FleetClock()
    clock.hear_wall(EPOCH, 0.0)
    for n in range(7):
        hear(clock, bytes([n]) * 16, lie if n < 3 else NOW, 1.0)
    clock.hear_wall(EPOCH + 1, 1.0)
    assert abs(clock.time(1.0) - NOW) <= 1


def test_one_device_has_one_voice() -> None:
    clock = FleetClock()
    clock.hear_wall(EPOCH, 0.0)
    for n in range(3):
        hear(clock, bytes([n]) * 16, NOW, 0.0)
    for seq in range(1, 1_000):
        clock.hear_issued(b"l" * 16, seq, 2**40, 0.0)
    clock.hear_wall(EPOCH, 0.0)
    assert clock.time(0.0) == NOW


@pytest.mark.parametrize("days", [1, 3, 29])
def test_heads_from_before_a_whole_site_was_switched_off_do_not_turn_time_back(days: int) -> None:
    """Off from Friday to Monday, all clocks right. Nobody has signed anything since."""
    clock = FleetClock()
    clock.raise_floor(NOW - days * DAY_S)
    clock.hear_wall(EPOCH, 0.0)
    for n in range(5):
        clock.hear_issued(bytes([n]) * 16, 7, NOW - days * DAY_S, 1.0)
        clock.hear_wall(EPOCH + 1, 1.0)
        assert clock.time(1.0) == NOW + 1
    for n in range(5):
        clock.hear_issued(bytes([n]) * 16, 8, NOW + 30, 30.0)
    clock.hear_wall(EPOCH + 30, 30.0)
    assert clock.time(30.0) == NOW + 30
    assert clock.floor == NOW + 30, "heads that were signed meanwhile confirm it"


def test_a_head_is_no_voice_if_it_may_have_been_signed_long_before_it_came() -> None:
    """Its number grew, but nobody looked for a day: it may be from right after the last look."""
    clock = FleetClock()
    clock.hear_wall(EPOCH, 0.0)
    for n in range(3):
        clock.hear_issued(bytes([n]) * 16, 1, NOW, 0.0)
        clock.hear_issued(bytes([n]) * 16, 2, NOW + 60, float(DAY_S))
    clock.hear_wall(EPOCH + DAY_S, float(DAY_S))
    assert clock.time(float(DAY_S)) == NOW + DAY_S


def test_a_board_that_boots_in_1970_starts_no_earlier_than_what_others_have_signed() -> None:
    clock = FleetClock()
    clock.hear_wall(12.0, 0.0)
    for n in range(3):
        clock.hear_issued(bytes([n]) * 16, 7, NOW - n, 1.0)
    clock.hear_wall(13.0, 1.0)
    assert clock.time(1.0) == NOW - 1, "the median: one liar is one of three"


@pytest.mark.parametrize("lie", [2**40, NOW + 3650 * DAY_S])
@pytest.mark.parametrize("is_wall", [True, False])
def test_time_that_nobody_confirmed_ends_with_our_own_membership(lie: int, is_wall: bool) -> None:
    """One head from the year 36812, or our own wall clock: else all members would look expired,
    a policy of the future would count, and retention would drop the whole history."""
    clock = FleetClock(ceiling=NOW + 30 * DAY_S)
    clock.raise_floor(NOW)
    clock.hear_wall(float(lie) if is_wall else EPOCH, 0.0)
    if not is_wall:
        hear(clock, b"l" * 16, lie, 1.0)
        clock.hear_wall(EPOCH + 1, 1.0)
    assert clock.time(1.0) == NOW + 30 * DAY_S
    assert clock.floor == NOW


def test_liars_who_are_heard_first_do_not_raise_the_floor_above_our_own_membership() -> None:
    """Two of the first three: what is durable must leave a way back."""
    clock = FleetClock(ceiling=NOW + 30 * DAY_S)
    for n in range(3):
        hear(clock, bytes([n]) * 16, 2**40 if n else NOW, 0.0)
    clock.hear_wall(EPOCH, 0.0)
    clock.time(0.0)
    assert clock.floor <= NOW + 30 * DAY_S


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["wall", "issued", "floor", "look"]),
            st.integers(0, 2**40),
            st.floats(0.0, 1e6),
        ),
        max_size=40,
    )
)
def test_the_floor_of_fleet_time_never_goes_back(events: list[tuple[str, int, float]]) -> None:
    clock = FleetClock(ceiling=NOW + 30 * DAY_S)
    now, last = 0.0, 0
    for seq, (kind, value, after) in enumerate(events, 1):
        now += after
        match kind:
            case "wall":
                clock.hear_wall(float(value), now)
            case "issued":
                clock.hear_issued(bytes([value % 5]) * 16, seq, value, now)
            case "floor":
                clock.raise_floor(value % (2 * NOW))
        assert clock.time(now) >= clock.floor >= last
        last = clock.floor


def test_fleet_time_goes_on_from_its_floor_after_a_restart() -> None:
    before, after = FleetClock(), FleetClock()
    hear(before, b"p" * 16, NOW + 500, 0.0)
    before.hear_wall(EPOCH + 500, 0.0)
    before.time(0.0)
    after.raise_floor(before.floor)
    after.hear_wall(EPOCH, 0.0)
    assert after.time(0.0) == NOW + 500, "a clock set back does not renew what has expired"


def test_voices_are_bounded() -> None:
    """More voices than are kept: the honest majority of the newest ones decides."""
    clock = FleetClock()
    entropy = random.Random(1)
    for n in range(5 * HEARD_MAX):
        lie = n % 3 == 0
        hear(clock, entropy.randbytes(16), 2**40 if lie else NOW, 0.0)
    clock.hear_wall(EPOCH, 0.0)
    assert clock.time(0.0) == NOW


def test_digest_names_a_member() -> None:
    data = member()
    assert roster().admit(data).digest == digest(data)
