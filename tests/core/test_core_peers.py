"""The address book: hints, proof by device, breakers, and bounds."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossipfl.config import PACES, Limits
from gossipfl.events import Address, Source
from gossipfl.peers import BREAKER_DOUBLINGS_MAX, BREAKER_FAILURES, PeerBook

PACE = PACES["lan"]
P, Q = b"p" * 16, b"q" * 16


def at(n: int) -> Address:
    return Address(f"10.0.{n // 256}.{n % 256}", 7000)


def book(**limits: int) -> PeerBook:
    return PeerBook(PACE, replace(Limits(), **limits))


def fail(held: PeerBook, address: Address, times: int, now: float) -> None:
    for _ in range(times):
        held.unreached(address, now)


# --- hints ---------------------------------------------------------------------------------------


def test_a_hint_is_tried_at_once_and_only_once() -> None:
    held = book()
    assert held.see(at(1), Source.MDNS, 5.0)
    assert not held.see(at(1), Source.RECORD, 5.0)
    assert list(held.due(5.0)) == [at(1)]
    assert held.next_due(4.0) == 5.0


def test_a_hint_that_fails_is_tried_more_and_more_rarely() -> None:
    held = book()
    held.see(at(1), Source.MDNS, 0.0)
    now, pauses = 0.0, []
    for _ in range(BREAKER_DOUBLINGS_MAX + 3):
        held.unreached(at(1), now)
        pauses.append(held.next_due(now) - now)
        now = held.next_due(now)
    longest = PACE.breaker_s * 2**BREAKER_DOUBLINGS_MAX
    assert pauses[:3] == [PACE.breaker_s, 2 * PACE.breaker_s, 4 * PACE.breaker_s]
    assert pauses[-3:] == [longest] * 3


def test_hints_are_bounded_and_the_worst_goes_first() -> None:
    held = book(candidates=3)
    for n in range(3):
        held.see(at(n), Source.MDNS, 0.0)
    fail(held, at(1), 2, 0.0)
    held.see(at(9), Source.MDNS, 0.0)
    assert set(held.candidates) == {at(0), at(2), at(9)}


def test_a_flood_of_hints_does_not_push_out_static_peers() -> None:
    held = book(candidates=4)
    for n in range(3):
        held.see(at(n), Source.STATIC, 0.0)
        fail(held, at(n), 9, 0.0)
    for n in range(100, 400):
        held.see(at(n), Source.MDNS, 0.0)
    assert {at(0), at(1), at(2)} <= set(held.candidates)
    assert len(held.candidates) == 4


def test_more_static_peers_than_room_refuse_hints() -> None:
    held = book(candidates=2)
    for n in range(2):
        held.see(at(n), Source.STATIC, 0.0)
    assert not held.see(at(5), Source.MDNS, 0.0)


def test_our_own_address_is_no_peer() -> None:
    held = book()
    held.see(at(1), Source.MDNS, 0.0)
    held.is_self(at(1))
    assert not held.candidates
    assert not held.see(at(1), Source.MDNS, 1.0)


def test_goodbyes() -> None:
    held = book()
    held.see(at(1), Source.MDNS, 0.0)
    held.see(at(2), Source.STATIC, 0.0)
    held.gone(at(1))
    held.gone(at(2))
    held.gone(at(3))
    assert set(held.candidates) == {at(2)}, "a static peer is never forgotten"


# --- devices -------------------------------------------------------------------------------------


def test_a_device_is_live_once_it_proved_itself() -> None:
    held = book()
    held.see(at(1), Source.MDNS, 0.0)
    held.bind(at(1), P, 1.0)
    assert not held.candidates
    assert [p.device for p in held.live(1.0)] == [P]
    assert held.is_live(P, 1.0 + PACE.live_s)
    assert not held.is_live(P, 1.1 + PACE.live_s)
    assert [p.device for p in held.away(1.1 + PACE.live_s)] == [P]


def test_a_new_address_comes_first_and_the_old_ones_stay() -> None:
    held = book()
    held.bind(at(1), P, 0.0)
    held.bind(at(2), P, 0.0)
    assert held.peers[P].addresses == [at(2), at(1)]
    held.bind(at(1), P, 0.0)
    assert held.peers[P].addresses == [at(1), at(2)]


def test_addresses_of_a_device_are_bounded_and_the_oldest_is_free_again() -> None:
    held = book(addresses_per_device=2)
    for n in range(5):
        held.bind(at(n), P, 0.0)
    assert held.peers[P].addresses == [at(4), at(3)]
    assert held.see(at(0), Source.MDNS, 0.0), "somebody else may live there now"


def test_an_address_that_changed_hands_belongs_to_the_newcomer() -> None:
    """A DHCP lease moved on: no fault of either."""
    held = book()
    held.bind(at(1), P, 0.0)
    held.bind(at(1), Q, 1.0)
    assert held.peers[Q].addresses == [at(1)]
    assert held.peers[P].addresses == []
    assert [p.device for p in held.live(1.0)] == [Q]
    assert held.unreached(at(1), 2.0) == Q
    held.bind(at(2), P, 3.0)
    assert [p.device for p in held.live(3.0)] == [P, Q]


def test_a_goodbye_of_a_known_device_is_no_departure() -> None:
    """mDNS labels rotate daily: the old one says goodbye, the device is still there."""
    held = book()
    held.bind(at(1), P, 0.0)
    held.gone(at(1))
    assert held.is_live(P, 1.0)


def test_a_dropped_device_leaves_nothing_behind() -> None:
    held = book()
    held.bind(at(1), P, 0.0)
    held.bind(at(2), P, 0.0)
    held.drop(P)
    assert not held.peers
    assert held.unreached(at(1), 1.0) is None
    assert held.see(at(1), Source.MDNS, 1.0)
    held.drop(P)


# --- breaker -------------------------------------------------------------------------------------


def test_a_peer_that_does_not_answer_is_left_alone_for_a_while() -> None:
    held = book()
    held.bind(at(1), P, 0.0)
    fail(held, at(1), BREAKER_FAILURES - 1, 10.0)
    assert held.is_live(P, 10.0)
    fail(held, at(1), 1, 10.0)
    assert not held.is_live(P, 10.0)
    assert list(held.away(10.0)) == []
    assert held.is_live(P, 10.0 + PACE.breaker_s)


def test_the_pause_doubles_and_one_answer_ends_it() -> None:
    held = book()
    held.bind(at(1), P, 0.0)
    fail(held, at(1), BREAKER_FAILURES, 0.0)
    pauses = []
    for _ in range(BREAKER_DOUBLINGS_MAX + 2):
        pauses.append(held.peers[P].open_until)
        fail(held, at(1), 1, 0.0)
    assert pauses[:3] == [PACE.breaker_s, 2 * PACE.breaker_s, 4 * PACE.breaker_s]
    assert pauses[-1] == PACE.breaker_s * 2**BREAKER_DOUBLINGS_MAX
    held.reached(P, 1.0)
    assert held.is_live(P, 1.0)


def test_an_announcement_ends_the_pause() -> None:
    held = book()
    held.bind(at(1), P, 0.0)
    fail(held, at(1), 2 * BREAKER_FAILURES, 0.0)
    assert not held.is_live(P, 1.0)
    held.see(at(1), Source.MDNS, 1.0)
    assert held.is_live(P, 1.0)


def test_every_address_is_tried_before_a_peer_is_left_alone() -> None:
    held = book()
    for n in range(3):
        held.bind(at(n), P, 0.0)
    tried = set()
    while held.is_live(P, 1.0):
        address = held.peers[P].addresses[0]
        tried.add(address)
        held.unreached(address, 1.0)
    assert tried == {at(0), at(1), at(2)}


def test_a_failure_at_an_address_of_nobody() -> None:
    held = book()
    assert held.unreached(at(1), 0.0) is None
    held.reached(P, 0.0)
    assert not held.peers


ACTS = st.tuples(
    st.sampled_from(["see", "gone", "bind", "unreached", "reached", "drop", "self"]),
    st.integers(0, 5),
    st.integers(0, 3),
)


@given(st.lists(ACTS, max_size=80))
def test_the_book_agrees_with_itself(acts: list[tuple[str, int, int]]) -> None:
    """Whatever happens in whatever order: one device per address, and both ways the same."""
    held = book(candidates=4, addresses_per_device=2)
    for now, (act, n, who) in enumerate(acts):
        device = bytes([who]) * 16
        match act:
            case "see":
                held.see(at(n), list(Source)[who % 3], float(now))
            case "gone":
                held.gone(at(n))
            case "bind":
                held.bind(at(n), device, float(now))
            case "unreached":
                held.unreached(at(n), float(now))
            case "reached":
                held.reached(device, float(now))
            case "drop":
                held.drop(device)
            case "self":
                held.is_self(at(n))
        listed = [(a, p.device) for p in held.peers.values() for a in p.addresses]
        assert dict(listed) == held._bound
        assert len(listed) == len(held._bound)
        assert not set(held._bound) & set(held.candidates)
        assert len(held.candidates) <= 4
        assert all(p.addresses for p in held.live(float(now)))


@pytest.mark.parametrize("text", ["10.0.0.1:7000", "[fe80::1%eth0]:7000"])
def test_an_address_reads_like_one(text: str) -> None:
    host, _, port = text.rpartition(":")
    assert str(Address(host.strip("[]"), int(port))) == text


# --- a view of some of the fleet ------------------------------------------------------------------


def test_a_full_book_looks_for_nobody_else_but_takes_whom_a_person_names() -> None:
    held = book(peers=2)
    assert held.see(at(1), Source.MDNS, 0.0)
    held.bind(at(1), b"a" * 16, 0.0)
    assert held.see(at(2), Source.RECORD, 0.0)
    assert held.is_full
    assert not held.see(at(3), Source.MDNS, 0.0)
    assert held.see(at(4), Source.STATIC, 0.0)
    held.drop(b"a" * 16)
    held.gone(at(2))
    assert held.see(at(3), Source.MDNS, 1.0), "there is room again"


def test_no_knock_is_due_while_all_wait_and_a_new_hint_ends_that() -> None:
    held = book()
    held.see(at(1), Source.MDNS, 0.0)
    held.knocked(at(1), 0.0)
    assert held.next_due(0.0) == PACE.breaker_s
    assert list(held.due(0.0)) == []
    held.see(at(2), Source.MDNS, 0.1)
    assert list(held.due(0.1)) == [at(2)]
    assert held.next_due(0.1) == 0.1
