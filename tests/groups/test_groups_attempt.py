"""An attempt when all are honest: exact sums, members that vanish at any step, restarts."""

from __future__ import annotations

import itertools
import random
from functools import cache

import numpy as np
import pytest

pytest.importorskip("Crypto")

from groupkit import STEP_S, Group, History, assert_summed

from gossipfl.errors import PeerError
from gossipfl.groups import grid, messages
from gossipfl.groups.attempt import Attempt
from gossipfl.groups.messages import (
    Message,
    Signed,
    SumKeys,
    SumReveal,
    SumRoster,
    SumSet,
    SumShares,
    SumVector,
    sign,
)
from gossipfl.groups.plan import Plan
from gossipfl.groups.sealing import SEALED_BYTES
from gossipfl.groups.series import Series
from gossipfl.groups.steps import End, Fetch, Journal, Lie, Received
from gossipfl.wire import decode, encode

STEPS: tuple[type[Message], ...] = (SumKeys, SumShares, SumVector, SumSet, SumReveal)


@cache
def undisturbed(size: int) -> History:
    """One attempt of honest members: the largest takes seconds."""
    return Group(size).attempt()


@pytest.mark.parametrize("size", [4, 8, 16])
def test_the_sum_is_exact_and_takes_no_waiting(size: int) -> None:
    history = undisturbed(size)
    assert_summed(history, range(size), by=range(size))
    assert {ended.end for ended in history.ends.values()} == {End.SUMMED}
    assert history.now == 0.0
    assert history.lies() == set()


def test_the_mean_is_that_of_the_vectors() -> None:
    group = Group(8)
    rows = [group.rng.normal(0, 1, group.count).astype(np.float32) for _ in range(8)]
    for member, row in zip(group.members, rows, strict=True):
        member.vector = grid.quantise(row, 8.0, 8)
    history = group.attempt()
    mean = grid.mean(history.sums[0], 8.0, 8, 8)
    assert np.abs(mean - np.mean(rows, axis=0)).max() < 1e-6


@pytest.mark.parametrize(("first", "second"), list(itertools.product(STEPS, STEPS)))
def test_two_of_eight_may_vanish_at_any_step(first: type[Message], second: type[Message]) -> None:
    """The sum of those whose vectors came, or an abort in which nothing was revealed, and then
    the sum at the next attempt, without those two. One of the two is the proposer."""
    group = Group(8)
    proposer = group.plan().proposer
    gone = {proposer: first, (proposer + 3) % 8: second}
    history = group.attempt(gone=gone)
    left = set(range(8)) - set(gone)
    masked = {place for place, step in gone.items() if STEPS.index(step) > STEPS.index(SumVector)}
    if first in (SumKeys, SumShares, SumVector, SumSet):
        # Nobody else may propose; before its keys the proposer is missed just the same.
        assert {history.ends[place].end for place in left} <= {End.NO_ROSTER, End.NO_SET}
        assert history.messages(SumReveal) == []
        group.renew()
        again = group.attempt(gone={place: SumKeys for place in gone})
        assert_summed(again, left, by=left)
    else:
        assert_summed(history, left | masked, by=left)


@pytest.mark.parametrize("pair", list(itertools.combinations(range(8), 2))[::3])
def test_any_two_who_do_not_propose_cost_no_second_attempt(pair: tuple[int, int]) -> None:
    group = Group(8)
    group.number = next(n for n in range(8) if group.plan(n).proposer not in pair)
    history = group.attempt(gone={pair[0]: SumVector, pair[1]: SumSet})
    left = set(range(8)) - set(pair)
    assert_summed(history, left | {pair[1]}, by=left)


def test_three_of_eight_are_too_many_and_nothing_is_revealed() -> None:
    group = Group(8)
    proposer = group.plan().proposer
    gone = {(proposer + n) % 8: SumVector for n in (1, 2, 3)}
    history = group.attempt(gone=gone)
    assert history.sums == {}
    assert history.messages(SumReveal) == []
    assert history.ends[proposer].end is End.FEW_VECTORS
    assert history.now <= 6 * STEP_S


def test_a_vector_that_went_out_masked_takes_part_in_no_second_attempt() -> None:
    group = Group(8)
    proposer = group.plan().proposer
    group.attempt(gone={(proposer + n) % 8: SumVector for n in (1, 2, 3)})
    with pytest.raises(ValueError, match="may not enter"):
        group.attempt()
    group.renew()
    assert_summed(group.attempt(), range(8), by=range(8))


def test_an_attempt_that_a_restart_interrupts_is_not_entered_again() -> None:
    group = Group(4)
    history = group.attempt()
    for place, journals in history.persisted.items():
        kept = decode(encode(journals[0]), Journal)  # the first that was durable
        again = Series(group.signers[place], random.Random(1).randbytes, STEP_S, kept)
        assert again.enter(history.plan, bytes(32)) is None
        with pytest.raises(ValueError, match="entered before"):
            Attempt(history.plan, group.signers[place], bytes, STEP_S, kept, bytes(32))
        assert again.enter(group.plan(1), bytes(32)) is not None


def test_a_journal_on_disk_is_not_behind_what_was_done() -> None:
    group = Group(4)
    group.attempt()
    for member in group.members:
        assert member.journal == member.series.journal
        assert member.journal.set
        assert member.journal.spent


def test_what_is_signed_is_in_the_journal_first() -> None:
    history = Group(4).attempt()
    for place, message in history.messages(SumSet):
        assert isinstance(message, SumSet)
        assert history.persisted[place][-1].set == message.name
    entered = history.persisted[0][0]
    assert (entered.window, entered.attempt, entered.set) == (1, 0, b"")


def test_each_attempt_has_fresh_keys_seeds_and_masks() -> None:
    group = Group(4)
    seen: set[bytes] = set()
    for _ in range(3):
        history = group.attempt()
        found = [m for _, m in history.messages(SumKeys) if isinstance(m, SumKeys)]
        keys = {key for m in found for key in (m.mask_key, m.seal_key, m.commitment)}
        assert len(keys) == 12
        assert not keys & seen
        seen |= keys
        group.renew()


def test_secrets_are_gone_when_an_attempt_has_ended() -> None:
    history = Group(4).attempt()
    for attempt in history.attempts.values():
        assert attempt._secrets is None
        assert attempt._own is None
        assert attempt._held == {}


def test_every_object_stays_below_its_bound_at_the_largest_group() -> None:
    history = undisturbed(16)
    for place in range(16):
        sizes = [len(signed.data) for signed in history.published if signed.place == place]
        assert max(sizes) <= messages.SIGNED_BYTES_MAX
        assert sum(sizes) <= 8 * 1024


@pytest.mark.parametrize("kind", sorted(messages.TYPES))
def test_objects_of_others_attempts_or_shapes_are_refused(kind: str) -> None:
    history = Group(4).attempt()
    signed = next(s for s in history.published if type(s.message) is messages.TYPES[kind])
    plan = history.plan
    other = Plan(plan.fleet, plan.policy, 2, 0, plan.members, plan.count, plan.reach)
    with pytest.raises(PeerError, match="another attempt"):
        messages.read(signed.data, kind, other)
    for at in range(0, len(signed.data), 7):
        bent = bytearray(signed.data)
        bent[at] ^= 1
        with pytest.raises(PeerError):
            messages.read(bytes(bent), kind, plan)


def test_a_member_that_was_late_still_learns_the_sum() -> None:
    """Its keys come too late for the roster: it adds nothing, and computes the sum all the same."""
    group = Group(8)
    late = (group.plan().proposer + 1) % 8
    history = group.attempt(tell={late: lambda signed, to: []})
    assert_summed(history, set(range(8)) - {late}, by=range(8))


def test_the_masked_vectors_of_an_attempt_look_uniform() -> None:
    group = Group(4, count=60_000)
    for member in group.members:
        member.vector = np.zeros(group.count, np.uint32)
    history = group.attempt()
    found = [m for _, m in history.messages(SumVector) if isinstance(m, SumVector)]
    for message in found:
        data = np.frombuffer(group.objects[message.vector], np.uint8)
        seen = np.bincount(data, minlength=256)
        expected = len(data) / 256
        assert abs(((seen - expected) ** 2 / expected).sum() - 255) < 5 * (2 * 255) ** 0.5
    assert len({message.vector for message in found}) == 4


@pytest.mark.parametrize("kind", [*STEPS, SumRoster])
def test_who_reaches_only_half_splits_nobody(kind: type[Message]) -> None:
    """All who have a sum have the same one; if nobody has, nothing was revealed, and the next
    attempt has it."""
    group = Group(8)
    place = group.plan().proposer if kind is SumRoster else (group.plan().proposer + 1) % 8
    half = {(place + n) % 8 for n in range(4)}

    def tell(signed: Signed, to: int) -> list[Signed]:
        return [] if isinstance(signed.message, kind) and to in half else [signed]

    history = group.attempt(tell={place: tell})
    if not history.sums:
        assert history.messages(SumReveal) == []
        group.renew()
        history = group.attempt()
    (survivors,) = history.survivors
    assert_summed(history, survivors, by=history.sums)
    assert len(history.sums) >= 6


@pytest.mark.parametrize("seed", range(24))
def test_whatever_comes_when_and_whoever_vanishes_one_sum_or_none(seed: int) -> None:
    """Random order of arrival, up to g - t members vanish at random steps: one exact sum, or an
    abort without a reveal; no honest member reveals two kinds or signs two sets."""
    chance = random.Random(seed)
    group = Group(chance.choice([4, 5, 7]), seed=seed)
    spare = group.size - group.plan().threshold
    gone = {
        place: chance.choice(STEPS)
        for place in chance.sample(range(group.size), chance.randint(0, spare))
    }
    history = History(group, group.plan(), gone, {}, chance=chance)
    history.run()
    if history.sums:
        (survivors,) = history.survivors
        assert_summed(history, survivors, by=history.alive)
    else:
        assert history.messages(SumReveal) == []
    for kind in STEPS:
        says = [place for place, _ in history.messages(kind)]
        assert len(says) == len(set(says))
    assert len({m.set for _, m in history.messages(SumReveal) if isinstance(m, SumReveal)}) <= 1
    assert {lie for _, lie in history.lies()} <= {Lie.STALLED}


@pytest.mark.parametrize("shape", [SumShares, SumVector, SumSet])
def test_what_a_third_object_for_one_step_names_is_not_fetched(shape: type[Message]) -> None:
    """Each may name as many as the group has members: without end that would be a flood."""
    group = Group(size=4)
    plan, attempt = group.plan(), group.members[0].series.enter(group.plan(), bytes(32))
    assert attempt is not None
    attempt.start(0.0)
    wanted: list[bytes] = []
    for number in range(6):
        names = [bytes([number, place]) * 16 for place in range(4)]
        message = _naming(shape, names, plan, group.signers[1].device)
        effects = attempt.handle(Received(sign(message, plan, group.signers[1])), 1.0)
        wanted += [effect.digest for effect in effects if isinstance(effect, Fetch)]
    assert {name[0] for name in wanted} == {0, 1}


def test_a_set_that_names_a_vector_in_anothers_place_has_it_fetched_once() -> None:
    """It is never there: each time it comes it would be wanted again."""
    group = Group(size=4)
    plan, attempt = group.plan(), group.members[0].series.enter(group.plan(), bytes(32))
    assert attempt is not None
    attempt.start(0.0)
    vector = sign(_naming(SumVector, [bytes(32)], plan, plan.members[2]), plan, group.signers[2])
    names = [b"", vector.digest, b"", b""]
    misplaced = _naming(SumSet, names, plan, plan.members[1])
    attempt.handle(Received(sign(misplaced, plan, group.signers[1])), 1.0)
    wanted = [
        effect.digest
        for _ in range(5)
        for effect in attempt.handle(Received(vector), 1.0)
        if isinstance(effect, Fetch) and effect.shape is not None
    ]
    assert len(wanted) <= 1


def _naming(shape: type[Message], names: list[bytes], plan: Plan, device: bytes) -> Message:
    if shape is SumShares:
        sealed = [b"" if member == device else bytes(SEALED_BYTES) for member in plan.members]
        return SumShares(plan.id, device, keys=names, sealed=sealed, marks=[bytes(64)] * 4)
    if shape is SumVector:
        return SumVector(plan.id, device, roster=bytes(32), vector=names[0])
    return SumSet(plan.id, device, roster=bytes(32), vectors=names)
