"""Requests under way: bounded, never twice, and gone when nobody wants them."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from gossipfl.config import Limits
from gossipfl.events import Address, Cancel, Effect, FetchHead, FetchObject
from gossipfl.pulls import Pending, Pulls, Purpose, weighted_sample

HERE = Address("10.0.0.1", 7000)
P = b"p" * 16


def pulls(**limits: int) -> Pulls:
    return Pulls(replace(Limits(), **limits))


def wanted(n: int, purpose: Purpose = Purpose.UPDATE, device: bytes | None = None) -> Pending:
    """Object n; each from another peer, unless one is named."""
    device = device or n.to_bytes(16, "big")
    return Pending(purpose, HERE, device, digest=n.to_bytes(32, "big"))


def numbers(effects: list[Effect]) -> list[int]:
    return [e.request for e in effects if isinstance(e, FetchObject | FetchHead | Cancel)]


def test_an_answer_is_taken_once() -> None:
    held = pulls()
    [fetch] = held.object(wanted(1), 100)
    assert isinstance(fetch, FetchObject)
    assert (fetch.digest, fetch.bytes_max) == ((1).to_bytes(32, "big"), 100)
    pending, _ = held.answered(fetch.request)
    assert pending == wanted(1)
    assert held.answered(fetch.request) == (None, [])
    assert held.answered(999) == (None, []), "nobody asked"


def test_one_object_is_asked_for_once() -> None:
    held = pulls(pulls_out=2)
    assert len(held.object(wanted(1), 10)) == 1
    assert held.object(wanted(1), 10) == []
    held.object(wanted(2), 10)
    held.object(wanted(3), 10)
    held.object(wanted(3), 10)
    assert held.size == 3, "nor is it queued twice"
    assert len(held.object(wanted(1, device=b"q" * 16), 10)) == 0
    assert held.size == 4, "from another peer it is another request"


def test_transfers_out_are_bounded_and_the_rest_waits_in_order() -> None:
    held = pulls(pulls_out=2)
    first = held.object(wanted(1), 10) + held.object(wanted(2), 10)
    assert held.object(wanted(3), 30) == held.object(wanted(4), 40) == []
    _, [third] = held.answered(numbers(first)[1])
    assert isinstance(third, FetchObject)
    assert (third.digest, third.bytes_max) == ((3).to_bytes(32, "big"), 30)
    _, [fourth] = held.answered(third.request)
    assert isinstance(fourth, FetchObject)
    assert fourth.digest == (4).to_bytes(32, "big")


def test_what_waits_is_bounded() -> None:
    held = pulls(pulls_out=2, pulls_queued=5)
    for n in range(100):
        held.object(wanted(n), 10)
    assert held.size == 7


def test_head_requests_have_a_bound_of_their_own() -> None:
    held = pulls(pulls_out=1, heads_out=3)
    for n in range(5):
        held.object(wanted(n), 10)
    asked = [held.head(Pending(Purpose.POLL, HERE, P), None) for _ in range(5)]
    assert [len(effects) for effects in asked] == [1, 1, 1, 0, 0]
    held.answered(numbers(asked[0])[0])
    assert len(held.head(Pending(Purpose.POLL, HERE, P), None)) == 1


def test_a_head_request_says_what_is_held_and_how_long_to_wait() -> None:
    held = pulls()
    [effect] = held.head(Pending(Purpose.COLLECT, HERE, P), b"e" * 32, 12.0, 500)
    assert effect == FetchHead(1, HERE, None, b"e" * 32, 12.0, 500)
    [effect] = held.head(Pending(Purpose.RECONCILE, HERE, P, about=b"o" * 16), None)
    assert effect == FetchHead(2, HERE, b"o" * 16, None, 0.0, 0)


def test_cancelled_requests_are_gone_and_others_start() -> None:
    held = pulls(pulls_out=2)
    out = held.object(wanted(1), 10) + held.object(wanted(2), 10)
    held.object(wanted(3), 10)
    held.object(wanted(4, Purpose.POLICY), 10)
    effects = held.cancel(frozenset({Purpose.UPDATE}))
    assert numbers(effects[:2]) == numbers(out)
    assert all(isinstance(e, Cancel) for e in effects[:2])
    [policy] = effects[2:]
    assert isinstance(policy, FetchObject)
    assert policy.digest == (4).to_bytes(32, "big")
    assert held.answered(numbers(out)[0]) == (None, []), "a late answer is ignored"
    assert held.size == 1


def test_a_peer_that_is_cut_off_is_asked_nothing_more() -> None:
    held = pulls(pulls_out=1)
    other = b"q" * 16
    held.object(wanted(1, device=P), 10)
    held.object(wanted(2, device=P), 10)
    held.object(wanted(3, device=other), 10)
    held.head(Pending(Purpose.POLL, HERE, P), None)
    effects = held.cancel_device(P)
    assert sum(isinstance(e, Cancel) for e in effects) == 2
    assert [e.digest for e in effects if isinstance(e, FetchObject)] == [(3).to_bytes(32, "big")]
    assert held.size == 1


def test_what_is_out_can_be_asked() -> None:
    held = pulls()
    held.head(Pending(Purpose.CONTACT, HERE, None), None)
    held.object(wanted(1, Purpose.BUNDLE, P), 10)
    assert held.out(Purpose.BUNDLE) == 1
    assert held.out(Purpose.POLL) == 0
    assert held.is_asked(P, Purpose.BUNDLE)
    assert not held.is_asked(P, Purpose.POLL)
    assert held.is_knocking(HERE)
    assert not held.is_knocking(Address("10.0.0.2", 1))


def test_one_peer_cannot_take_every_transfer() -> None:
    """Four are out at once; a peer that drips its answers holds two of them at most."""
    held = pulls(pulls_out=4)
    slow = [e for n in range(40) for e in held.object(wanted(n, device=P), 10)]
    assert len(slow) == 2
    assert held.size == 2 + 16, "and only so much of it waits"
    assert len(held.object(wanted(50), 10)) == 1, "others are asked all the same"


def test_models_come_before_lists() -> None:
    held = pulls(pulls_out=1)
    [first] = held.object(wanted(1), 10)
    held.object(wanted(2, Purpose.EVIDENCE), 10)
    held.object(wanted(3), 10)
    assert isinstance(first, FetchObject)
    _, [then] = held.answered(first.request)
    assert isinstance(then, FetchObject)
    assert then.digest == (3).to_bytes(32, "big")


def test_an_object_without_a_name_is_our_own_bug() -> None:
    with pytest.raises(ValueError, match="digest"):
        pulls().object(Pending(Purpose.UPDATE, HERE, P), 10)


def test_thousands_of_requests_leave_nothing_behind() -> None:
    held, entropy = pulls(pulls_out=3, pulls_queued=20, heads_out=5), random.Random(3)
    out: set[int] = set()
    for n in range(5_000):
        match entropy.randrange(5):
            case 0 | 1:
                effects = held.object(wanted(n % 50), 10)
            case 2:
                effects = held.head(Pending(Purpose.POLL, HERE, P), None)
            case 3 if out:
                request = entropy.choice(sorted(out))
                out.discard(request)
                _, effects = held.answered(request)
            case _:
                effects = held.cancel(frozenset({entropy.choice(list(Purpose))}))
        for effect in effects:
            if isinstance(effect, Cancel):
                out.discard(effect.request)
            elif isinstance(effect, FetchHead | FetchObject):
                out.add(effect.request)
        assert len(out) <= 8
        assert held.size <= 28
    for request in sorted(out):
        _, effects = held.answered(request)
        out.update(numbers(effects))
    while held.size:
        for request in list(held._pending):
            held.answered(request)
    assert held.size == 0


# --- sampling ------------------------------------------------------------------------------------

ITEMS = [bytes([n]) for n in range(10)]


def test_a_sample_has_k_different_items() -> None:
    entropy = random.Random(1)
    for k in range(15):
        chosen = weighted_sample(ITEMS, [1.0] * 10, k, entropy)
        assert len(chosen) == len(set(chosen)) == min(k, 10)


def test_weight_nought_is_never_sampled() -> None:
    entropy = random.Random(1)
    weights = [0.0, *([1.0] * 9)]
    for _ in range(200):
        assert ITEMS[0] not in weighted_sample(ITEMS, weights, 10, entropy)


def test_a_lower_weight_lowers_the_chance_in_proportion() -> None:
    entropy = random.Random(1)
    weights = [0.05, *([1.0] * 9)]
    counts = Counter(weighted_sample(ITEMS, weights, 1, entropy)[0] for _ in range(20_000))
    expected = 20_000 * 0.05 / 9.05
    assert counts[ITEMS[0]] == pytest.approx(expected, rel=0.35)
    assert counts[ITEMS[5]] == pytest.approx(20_000 / 9.05, rel=0.1)


def test_the_same_entropy_gives_the_same_sample() -> None:
    one, two = (weighted_sample(ITEMS, [1.0] * 10, 4, random.Random(9)) for _ in range(2))
    assert one == two
