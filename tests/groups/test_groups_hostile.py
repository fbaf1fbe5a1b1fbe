"""Two members of eight sign whatever they like: nothing falls over, and nobody is fooled."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from groupkit import Group, History, Tell, resign

pytest.importorskip("Crypto")

import numpy as np

from gossipfl.groups.messages import (
    Message,
    Signed,
    SumKeys,
    SumReveal,
    SumRoster,
    SumSet,
    SumShares,
    SumVector,
)
from gossipfl.groups.sealing import public


def noise(chance: random.Random, history: History, place: int) -> Message:
    """A well-formed message: random bytes, or true digests in the wrong place."""
    plan = history.plan
    own = (plan.id, plan.members[place])
    known = [signed.digest for signed in history.published] or [bytes(32)]

    def name() -> bytes:
        return chance.choice([b"", chance.randbytes(32), *chance.choices(known, k=6)])

    def names() -> list[bytes]:
        return [name() for _ in range(plan.size)]

    match chance.randrange(6):
        case 0:
            keys = (public(chance.randbytes(32)), public(chance.randbytes(32)))
            return SumKeys(*own, *keys, chance.randbytes(32))
        case 1:
            to = [n == place or chance.random() < 0.8 for n in range(plan.size)]
            return SumShares(
                *own,
                keys=[chance.choice(known) if yes else b"" for yes in to],
                sealed=[
                    chance.randbytes(80) if yes and n != place else b"" for n, yes in enumerate(to)
                ],
                marks=[chance.randbytes(64) if yes else b"" for yes in to],
            )
        case 2:
            return SumRoster(*own, names())
        case 3:
            return SumVector(*own, chance.choice(known), chance.choice(known))
        case 4:
            return SumSet(*own, chance.choice(known), names())
        case _:
            sets = [m.name for _, m in history.messages(SumSet) if isinstance(m, SumSet)]
            name_of = chance.choice([*sets, chance.randbytes(32)])
            return SumReveal(*own, name_of, names(), chance.choice([b"", chance.randbytes(32)]))


@pytest.mark.parametrize("seed", range(12))
def test_random_objects_by_two_members_fool_nobody(seed: int) -> None:
    chance = random.Random(seed)
    group = Group(8, seed=seed)
    liars = set(chance.sample(range(8), 2))
    running: list[History] = []

    def liar(place: int) -> Tell:
        def tell(signed: Signed, to: int) -> Iterable[Signed]:
            said = [] if chance.random() < 0.3 else [signed]
            said += [
                resign(group, running[0].plan, noise(chance, running[0], place))
                for _ in range(chance.randrange(3))
            ]
            return said

        return tell

    running.append(History(group, group.plan(), {}, {p: liar(p) for p in liars}, chance))
    history = running[0]
    history.run()
    honest = set(range(8)) - liars
    assert set(history.ends) >= honest
    sums = [history.sums[place] for place in sorted(honest & set(history.sums))]
    assert all(np.array_equal(sums[0], other) for other in sums)
    assert {place for place, _ in history.lies()} <= liars | {history.plan.proposer}
    for kind in (SumRoster, SumSet, SumReveal, SumVector):
        says = [place for place, _ in history.messages(kind) if place in honest]
        assert len(says) == len(set(says))
    for place, attempt in history.attempts.items():
        group.members[place].series.leave(attempt)
    for _ in range(8):  # the liars give up: sooner or later there is a sum of the rest at least
        group.number += 1
        group.renew()
        again = History(group, group.plan(), dict.fromkeys(liars, SumKeys), {})
        again.run()
        for place, attempt in again.attempts.items():
            group.members[place].series.leave(attempt)
        if honest <= set(again.sums):
            return
    pytest.fail("the honest never got a sum")
