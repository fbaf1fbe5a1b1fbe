"""One test a lie: what a member may try, and that it learns nothing by it.

What a coalition could compute is computed: all stored objects, and all that liars ever held.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Collection, Iterable
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from groupkit import Group, History, Tell, assert_summed, resign

pytest.importorskip("Crypto")

from gossipfl.groups import grid, masks
from gossipfl.groups.masks import Mask
from gossipfl.groups.messages import (
    Message,
    Signed,
    SumKeys,
    SumReveal,
    SumRoster,
    SumSet,
    SumShares,
    SumVector,
    places,
)
from gossipfl.groups.recovery import pair_masks
from gossipfl.groups.sealing import commitment, public, self_key
from gossipfl.groups.shamir import combine
from gossipfl.groups.steps import End, Lie


class Coalition:
    """Members who keep all secrets, and all objects that anybody stored of one attempt."""

    def __init__(self, history: History, liars: Collection[int]) -> None:
        self.history, self.liars, self.plan = history, set(liars), history.plan
        rosters = [a._roster for a in history.attempts.values() if a._roster is not None]
        self.roster = rosters[0] if rosters else None
        self.sets = {m.name: m for _, m in history.messages(SumSet) if isinstance(m, SumSet)}

    def _shares(self, dealer: int, seed: bool) -> dict[int, bytes]:
        found = {}
        for liar in self.liars:
            shares = self.history.held.get(liar, {}).get(dealer)
            if shares is not None:
                found[liar] = shares.seed if seed else shares.key
        for place, message in self.history.messages(SumReveal):
            assert isinstance(message, SumReveal)
            summed = dealer in places(self.sets[message.set].vectors)
            if message.shares[dealer] and summed is seed:
                found[place] = message.shares[dealer]
        return found

    def _secret(self, dealer: int, seed: bool) -> bytes | None:
        assert self.roster is not None
        found, t = self._shares(dealer, seed), self.plan.threshold
        if dealer in self.liars:
            kept = self.history.secrets[dealer]
            return kept.seed if seed else kept.mask_key
        own = [
            m.seed
            for p, m in self.history.messages(SumReveal)
            if isinstance(m, SumReveal) and p == dealer and m.seed
        ]
        if seed and own:
            return own[0]
        # With too few shares the best that is left is a guess.
        secret = combine(dict(sorted(found.items())[:t]), t) if len(found) >= t else None
        keys = self.roster.keys[dealer]
        if secret is None:
            return None
        if seed:
            mine = commitment(self.plan.id, self.plan.members[dealer], secret)
            return secret if mine == keys.commitment else None
        return secret if public(secret) == keys.mask_key else None

    def seed(self, dealer: int) -> bytes | None:
        return self._secret(dealer, seed=True)

    def mask_key(self, dealer: int) -> bytes | None:
        return self._secret(dealer, seed=False)

    def uncovered(self, victim: int) -> bool:
        """Takes off the victim's vector every mask that the coalition knows: is it bare?"""
        roster, plan = self.roster, self.plan
        if roster is None or victim not in roster.shares:
            return False
        chain: list[Mask] = []
        seed = self.seed(victim)
        if seed is not None:
            chain.append(Mask(self_key(seed, plan.id, roster.digest), added=True))
        for other in set(roster.shares) - {victim}:
            key = self.mask_key(other)
            if key is not None:
                both = pair_masks(plan, roster, other, key, {victim})
                chain += [mask.undone() for mask in both]
        mine = self.mask_key(victim)
        if mine is not None:
            known = {o for o in roster.shares if o != victim and self.mask_key(o) is None}
            chain += pair_masks(plan, roster, victim, mine, known)
        true = self.history.vectors[victim]
        for _, message in self.history.messages(SumVector):
            if isinstance(message, SumVector) and message.device == plan.members[victim]:
                words = grid.from_bytes(self.history.group.objects[message.vector], plan.count)
                if np.array_equal(masks.uncover([words], chain), true):
                    return True
        return False


def assert_nothing_learnt(history: History, liars: Collection[int]) -> None:
    coalition = Coalition(history, liars)
    for victim in set(range(history.plan.size)) - set(liars):
        assert not coalition.uncovered(victim), victim
        if coalition.roster is not None and victim in coalition.roster.shares:
            assert None in (coalition.seed(victim), coalition.mask_key(victim)), victim


def only(kinds: type[Message], to: Iterable[int], say: Tell) -> Tell:
    """A liar that lies in one kind of object, to some, and is honest otherwise."""
    victims = set(to)

    def tell(signed: Signed, whom: int) -> Iterable[Signed]:
        if isinstance(signed.message, kinds) and whom in victims:
            return say(signed, whom)
        return [signed]

    return tell


def test_the_coalition_of_these_tests_finds_what_there_is_to_find() -> None:
    """t members, and all others' key shares: bare. Else the tests below would prove nothing."""
    history = Group(4).attempt()
    assert Coalition(history, {0, 1, 2}).uncovered(3)
    assert not Coalition(history, {0, 1}).uncovered(3)


@pytest.mark.parametrize("liars", [2, 3])
def test_who_asks_for_both_shares_by_two_sets_gets_one_kind_at_most(liars: int) -> None:
    """The proposer and its accomplices sign two sets, one for each half: in one the victim is
    summed, in the other it is not. Two of eight are borne; it still holds with one more."""
    group = Group(8)
    liar = group.plan().proposer
    gang = {(liar + n) % 8 for n in range(liars)}
    victim = (liar + liars) % 8
    half = {(liar + n) % 8 for n in (5, 6, 7)}

    def without(signed: Signed, _: int) -> Iterable[Signed]:
        message = signed.message
        assert isinstance(message, SumSet)
        names = [b"" if place == victim else name for place, name in enumerate(message.vectors)]
        return [resign(group, group.plan(), msgspec.structs.replace(message, vectors=names))]

    history = group.attempt(tell={place: only(SumSet, half, without) for place in gang})
    assert_nothing_learnt(history, gang)
    signed = {p: m.name for p, m in history.messages(SumSet) if isinstance(m, SumSet)}
    honest = [p for p, _ in history.messages(SumSet) if p not in gang]
    assert len(set(signed[place] for place in honest)) == 2, "the lie reached both halves"
    assert len(honest) == len(set(honest)), "an honest member signed two sets"
    for place, message in history.messages(SumReveal):
        if place not in gang:
            assert isinstance(message, SumReveal)
            assert message.set == signed[place]
    group.renew()
    after = group.attempt()
    assert_summed(after, next(iter(after.survivors)), by=set(range(8)) - gang)


def test_who_signed_one_set_does_nothing_for_another_with_enough_signatures() -> None:
    """The proposer shows one member another set than all the rest, who then do agree."""
    group = Group(8)
    liar = group.plan().proposer
    fooled, victim = (liar + 1) % 8, (liar + 2) % 8

    def without(signed: Signed, _: int) -> Iterable[Signed]:
        message = signed.message
        assert isinstance(message, SumSet)
        names = [b"" if place == victim else name for place, name in enumerate(message.vectors)]
        return [resign(group, group.plan(), msgspec.structs.replace(message, vectors=names))]

    history = group.attempt(tell={liar: only(SumSet, [fooled], without)})
    assert [place for place, _ in history.messages(SumSet)].count(fooled) == 1
    assert fooled not in {place for place, _ in history.messages(SumReveal)}
    assert_summed(history, range(8), by=set(range(8)) - {liar})
    assert_nothing_learnt(history, {liar})


def test_who_signs_two_sets_counts_for_none_and_is_shown() -> None:
    group = Group(8)
    liar = (group.plan().proposer + 1) % 8

    def two(signed: Signed, _: int) -> Iterable[Signed]:
        message = signed.message
        assert isinstance(message, SumSet)
        names = [b"" if place == liar else name for place, name in enumerate(message.vectors)]
        other = resign(group, group.plan(), msgspec.structs.replace(message, vectors=names))
        return [signed, other]

    history = group.attempt(tell={liar: only(SumSet, range(8), two)})
    assert_summed(history, range(8), by=set(range(8)) - {liar})
    assert (liar, Lie.EQUIVOCATION) in history.lies()
    proofs = [a.proof for rows in history.accused.values() for a in rows]
    assert all(len(proof) == 2 and proof[0] != proof[1] for proof in proofs)
    assert_nothing_learnt(history, {liar})


def test_a_double_signer_is_missed_where_one_signature_would_have_been_enough() -> None:
    group = Group(8)
    proposer = group.plan().proposer
    liar, gone = (proposer + 1) % 8, {(proposer + 2) % 8: SumSet, (proposer + 3) % 8: SumSet}

    def two(signed: Signed, _: int) -> Iterable[Signed]:
        message = signed.message
        assert isinstance(message, SumSet)
        names = [b"" if place == liar else name for place, name in enumerate(message.vectors)]
        other = resign(group, group.plan(), msgspec.structs.replace(message, vectors=names))
        return [other, signed]

    history = group.attempt(gone=dict(gone), tell={liar: only(SumSet, range(8), two)})
    assert {place for place, _ in history.messages(SumReveal)} <= {liar}
    assert {history.ends[p].end for p in history.alive - {liar}} == {End.NO_SET}


def test_a_roster_of_members_who_saw_different_keys_is_refused() -> None:
    """One shows two keys, the proposer names all: masks would not cancel."""
    group = Group(8)
    proposer = group.plan().proposer
    liar = (proposer + 1) % 8
    half = {(liar + n) % 8 for n in (1, 2, 3)}

    def second(signed: Signed, _: int) -> Iterable[Signed]:
        key = public(bytes([9]) * 32)
        return [resign(group, group.plan(), msgspec.structs.replace(signed.message, mask_key=key))]

    def everybody(signed: Signed, _: int) -> Iterable[Signed]:
        message = signed.message
        assert isinstance(message, SumRoster)
        names = [b""] * 8
        for said in running[0].published:
            if isinstance(said.message, SumShares):
                names[said.place] = said.digest
        return [resign(group, group.plan(), msgspec.structs.replace(message, shares=names))]

    tell = {
        liar: only(SumKeys, half, second),
        proposer: only(SumRoster, range(8), everybody),
    }
    running = [History(group, group.plan(), {}, tell)]
    history = running[0]
    history.run()
    honest = set(range(8)) - {liar, proposer}
    assert not honest & {place for place, _ in history.messages(SumVector)}
    assert {history.ends[place].end for place in honest} == {End.NO_ROSTER}


def test_a_set_that_names_a_vector_which_is_nowhere_is_not_signed() -> None:
    group = Group(8)
    proposer = group.plan().proposer
    liar = (proposer + 1) % 8

    def nowhere(signed: Signed, _: int) -> Iterable[Signed]:
        name = bytes([8]) * 32
        return [resign(group, group.plan(), msgspec.structs.replace(signed.message, vector=name))]

    def named(signed: Signed, _: int) -> Iterable[Signed]:
        message = signed.message
        assert isinstance(message, SumSet)
        said = next(
            s for s in running[0].published if s.place == liar and isinstance(s.message, SumVector)
        )
        names = list(message.vectors)
        names[liar] = said.digest
        return [resign(group, group.plan(), msgspec.structs.replace(message, vectors=names))]

    tell = {
        liar: only(SumVector, range(8), nowhere),
        proposer: only(SumSet, range(8), named),
    }
    running = [History(group, group.plan(), {}, tell)]
    history = running[0]
    history.run()
    assert {place for place, _ in history.messages(SumSet)} <= {liar, proposer}
    assert history.messages(SumReveal) == []


def test_a_key_that_was_used_before_is_refused_and_the_rest_sum_without_it() -> None:
    group = Group(8)
    first = group.attempt()
    group.renew()
    liar = (group.plan().proposer + 1) % 8
    old = next(m for p, m in first.messages(SumKeys) if p == liar)
    assert isinstance(old, SumKeys)

    def again(signed: Signed, _: int) -> Iterable[Signed]:
        fields = {"mask_key": old.mask_key, "seal_key": old.seal_key}
        return [resign(group, group.plan(), msgspec.structs.replace(signed.message, **fields))]

    history = group.attempt(tell={liar: only(SumKeys, range(8), again)})
    assert (liar, Lie.REUSED_KEY) in history.lies()
    rest = set(range(8)) - {liar}
    assert_summed(history, rest, by=rest)


def _false_set(group: Group, change: str) -> Tell:
    def say(signed: Signed, _: int) -> Iterable[Signed]:
        message = signed.message
        assert isinstance(message, SumSet)
        names = list(message.vectors)
        place = group.plan().members.index(message.device)
        if change == "invented":
            names[(place + 1) % 8] = bytes([7]) * 32
        elif change == "too few":
            names = [name if other < 5 else b"" for other, name in enumerate(names)]
        elif change == "others":
            names[(place + 1) % 8] = names[(place + 2) % 8]
        return [resign(group, group.plan(), msgspec.structs.replace(message, vectors=names))]

    return only(SumSet, range(8), say)


@pytest.mark.parametrize("change", ["invented", "too few", "others"])
def test_nobody_signs_a_false_set_and_the_next_proposer_has_his_turn(change: str) -> None:
    group = Group(8)
    liar = group.plan().proposer
    history = group.attempt(tell={liar: _false_set(group, change)})
    honest = set(range(8)) - {liar}
    assert {history.ends[place].end for place in honest} == {End.NO_SET}
    assert {place for place, _ in history.messages(SumSet)} == {liar}
    assert history.messages(SumReveal) == []
    assert ((liar, Lie.FALSE_SET) in history.lies()) is (change == "too few")
    assert_nothing_learnt(history, {liar})
    group.renew()
    assert honest <= set(group.attempt().sums)


def test_who_is_left_out_of_a_set_though_it_answered_stays_covered_by_its_own_mask() -> None:
    group = Group(8)
    liar = group.plan().proposer
    victim = (liar + 1) % 8

    def drop(signed: Signed, _: int) -> Iterable[Signed]:
        message = signed.message
        assert isinstance(message, SumSet)
        names = [b"" if place == victim else name for place, name in enumerate(message.vectors)]
        return [resign(group, group.plan(), msgspec.structs.replace(message, vectors=names))]

    history = group.attempt(tell={liar: only(SumSet, range(8), drop)})
    rest = set(range(8)) - {victim}
    assert history.survivors == {tuple(sorted(rest))}
    coalition = Coalition(history, {liar, (liar + 2) % 8})
    assert coalition.mask_key(victim) is not None
    assert coalition.seed(victim) is None
    assert_nothing_learnt(history, {liar, (liar + 2) % 8})


@pytest.mark.parametrize("kind", [SumRoster, SumSet])
def test_a_proposer_that_stalls_costs_one_attempt(kind: type[Message]) -> None:
    group = Group(8)
    liar = group.plan().proposer
    history = group.attempt(tell={liar: only(kind, range(8), lambda signed, whom: [])})
    assert (liar, Lie.STALLED) in history.lies()
    assert {history.ends[p].end for p in range(8) if p != liar} <= {End.NO_ROSTER, End.NO_SET}
    assert_nothing_learnt(history, {liar})
    group.renew()
    assert_summed(group.attempt(), range(8), by=range(8))


def test_a_wrong_share_at_the_end_is_seen_and_spoils_nothing() -> None:
    group = Group(8)
    liar, dead = (group.plan().proposer + 1) % 8, (group.plan().proposer + 2) % 8

    def bend(signed: Signed, _: int) -> Iterable[Signed]:
        message = signed.message
        assert isinstance(message, SumReveal)
        shares = [bytes([share[0] ^ 1]) + share[1:] if share else b"" for share in message.shares]
        return [resign(group, group.plan(), msgspec.structs.replace(message, shares=shares))]

    history = group.attempt(gone={dead: SumVector}, tell={liar: only(SumReveal, range(8), bend)})
    assert (liar, Lie.WRONG_REVEAL) in history.lies()
    left = set(range(8)) - {dead}
    assert_summed(history, left, by=left - {liar})


def test_a_bad_sealed_share_is_seen_by_its_receiver_and_spoils_nothing() -> None:
    group = Group(8)
    liar = (group.plan().proposer + 1) % 8
    victim = (liar + 1) % 8

    def bend(signed: Signed, _: int) -> Iterable[Signed]:
        message = signed.message
        assert isinstance(message, SumShares)
        sealed = list(message.sealed)
        sealed[victim] = bytes(80)
        return [resign(group, group.plan(), msgspec.structs.replace(message, sealed=sealed))]

    history = group.attempt(tell={liar: only(SumShares, range(8), bend)})
    assert history.lies() == {(liar, Lie.BAD_SHARE)}
    assert set(history.accused) - {liar} == {victim}
    assert len(history.sums) >= 7


def test_shares_that_make_no_secret_cost_one_attempt_and_their_dealer_its_place() -> None:
    """Marks and shares fit each other, but the keys that were published are others'."""
    group = Group(8)
    liar = (group.plan().proposer + 1) % 8
    wrong = public(bytes([3]) * 32)

    def other(signed: Signed, _: int) -> Iterable[Signed]:
        return [
            resign(group, group.plan(), msgspec.structs.replace(signed.message, mask_key=wrong))
        ]

    def shares(signed: Signed, whom: int) -> Iterable[Signed]:
        message = signed.message
        if isinstance(message, SumKeys):
            return [resign(group, group.plan(), msgspec.structs.replace(message, mask_key=wrong))]
        if isinstance(message, SumShares):
            keys = next(s for s in history_of(group) if s.place == liar and is_keys(s))
            names = list(message.keys)
            names[liar] = keys.digest
            return [resign(group, group.plan(), msgspec.structs.replace(message, keys=names))]
        return [signed] if not isinstance(message, SumVector) else []

    running: list[History] = []

    def history_of(_: Group) -> list[Signed]:
        return running[0].published

    history = History(group, group.plan(), {}, {liar: shares})
    running.append(history)
    history.run()
    group.number += 1
    rest = set(range(8)) - {liar}
    assert {history.ends[place].end for place in rest} == {End.BAD_DEALING}
    assert (liar, Lie.BAD_DEALING) in history.lies()
    assert_nothing_learnt(history, {liar})
    for place, attempt in history.attempts.items():
        group.members[place].series.leave(attempt)
    group.renew()
    assert rest <= set(group.attempt().sums)


def test_a_seed_that_is_not_the_one_committed_to_ends_the_attempt() -> None:
    """Its dealer is summed, goes, and what it dealt makes another seed."""
    group = Group(8)
    liar = (group.plan().proposer + 1) % 8

    class Swapping(History):
        """The liar deals shares of another seed, and masks with it."""

        def started(self) -> None:
            secrets = self.attempts[liar]._secrets
            assert secrets is not None
            other = replace(secrets, seed=bytes([6]) * 32)
            self.attempts[liar]._secrets = other

    silent = only(SumReveal, range(8), lambda signed, to: [])
    history = Swapping(group, group.plan(), {}, {liar: silent})
    history.run()
    rest = set(range(8)) - {liar}
    assert rest & set(history.sums) == set()
    assert {history.ends[place].end for place in rest} == {End.BAD_DEALING}
    assert (liar, Lie.BAD_DEALING) in history.lies()


def is_keys(signed: Signed) -> bool:
    return isinstance(signed.message, SumKeys)


def test_two_masked_vectors_of_one_member_are_shown_and_one_of_them_is_summed() -> None:
    group = Group(8)
    liar = (group.plan().proposer + 1) % 8
    half = {(liar + n) % 8 for n in (1, 2, 3)}
    second = grid.to_bytes(np.arange(group.count, dtype=np.uint32))

    def another(signed: Signed, _: int) -> Iterable[Signed]:
        message = signed.message
        assert isinstance(message, SumVector)
        name = running[0].store(second)
        return [resign(group, group.plan(), msgspec.structs.replace(message, vector=name))]

    running = [History(group, group.plan(), {}, {liar: only(SumVector, half, another)})]
    history = running[0]
    history.run()
    assert (liar, Lie.EQUIVOCATION) in history.lies()
    sums = list(history.sums.values())
    assert len(sums) >= 6
    assert all(np.array_equal(sums[0], other) for other in sums)
    assert_nothing_learnt(history, {liar})


@pytest.mark.parametrize(("size", "attempts"), [(4, 100), (8, 6)])
def test_stored_objects_of_many_attempts_bare_no_vector_to_fewer_than_t(
    size: int, attempts: int
) -> None:
    """Coalitions of t - 1 that kept every secret. Where only one other is summed the sum less the
    own vectors is that one's: no protocol for sums can help it."""
    group, chance, looked = Group(size, count=16), random.Random(1), 0
    for number in range(attempts):
        plan = group.plan()
        dead = (plan.proposer + 1 + number % (size - 1)) % size
        steps: list[dict[int, type[Message]]] = [{}, {dead: SumVector}, {dead: SumReveal}]
        history = group.attempt(gone=steps[number % 3])
        assert history.sums
        summed = set(next(iter(history.survivors)))
        gangs = list(itertools.combinations(range(size), plan.threshold - 1))
        for liars in chance.sample(gangs, min(6, len(gangs))):
            if len(summed - set(liars)) >= 2:
                assert_nothing_learnt(history, liars)
                looked += 1
        group.next_window()
    assert looked > attempts
    assert len({history.plan.id for history in group.histories}) == attempts
