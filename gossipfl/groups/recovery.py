"""After the survivor set is signed: what a member reveals, and what revealed shares give.

Nothing is believed: a share is checked against its dealer's mark, a recovered mask key against the
public key, a recovered seed against its commitment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gossipfl.groups.masks import Mask
from gossipfl.groups.messages import Signed, SumReveal, SumSet, places
from gossipfl.groups.plan import Plan
from gossipfl.groups.sealing import (
    Secrets,
    Shares,
    commitment,
    mark,
    pair_key,
    public,
    self_key,
)
from gossipfl.groups.shamir import combine
from gossipfl.groups.views import Roster, View


class BadDealing(Exception):
    """Shares that carry their dealer's marks do not make the secret that it committed to."""

    def __init__(self, place: int) -> None:
        super().__init__(f"the shares of place {place} are no sharing of its secret")
        self.place = place


def own_masks(plan: Plan, roster: Roster, place: int, secrets: Secrets) -> tuple[Mask, ...]:
    """The masks on the vector of `place`: its own, and one with each other of the roster."""
    masks = [Mask(self_key(secrets.seed, plan.id, roster.digest), added=True)]
    masks += pair_masks(plan, roster, place, secrets.mask_key, set(roster.keys) - {place})
    return tuple(masks)


def pair_masks(
    plan: Plan, roster: Roster, place: int, mask_key: bytes, others: set[int]
) -> list[Mask]:
    """What `place` puts on for the others: added for those after it, taken away for those before,
    so that each pair's masks cancel in the sum."""
    found = []
    for other in sorted(others):
        low, up = min(place, other), max(place, other)
        key = pair_key(mask_key, roster.keys[other].mask_key, plan.id, roster.digest, low, up)
        found.append(Mask(key, added=other > place))
    return found


def reveal(
    plan: Plan, roster: Roster, agreed: SumSet, held: Mapping[int, Shares], own: tuple[int, bytes]
) -> SumReveal:
    """One share of each in the roster, never both. own: the place and its seed."""
    summed = places(agreed.vectors)
    shares = [b""] * plan.size
    for place in roster.shares:
        if place in held:
            shares[place] = held[place].seed if place in summed else held[place].key
    device, seed = plan.members[own[0]], own[1] if own[0] in summed else b""
    return SumReveal(attempt=plan.id, device=device, set=agreed.name, shares=shares, seed=seed)


def is_true(plan: Plan, roster: Roster, agreed: SumSet, place: int, message: SumReveal) -> bool:
    """Does every share in it carry its dealer's mark, and the seed its commitment?"""
    summed = places(agreed.vectors)
    for dealer in places(message.shares):
        if dealer not in roster.shares:
            return False
        what, half = (b"seed", slice(32, 64)) if dealer in summed else (b"key ", slice(0, 32))
        expected = roster.shares[dealer].marks[place][half]
        if mark(plan.id, dealer, place, what, message.shares[dealer]) != expected:
            return False
    if not message.seed:
        return True
    found = commitment(plan.id, plan.members[place], message.seed)
    return place in summed and found == roster.keys[place].commitment


@dataclass(slots=True)
class Recovery:
    """Collects true reveals of one set until every secret that it needs is known."""

    plan: Plan
    roster: Roster
    agreed: SumSet
    shares: dict[int, dict[int, bytes]] = field(default_factory=dict)  # dealer -> place -> share
    seeds: dict[int, bytes] = field(default_factory=dict)
    counted: set[bytes] = field(default_factory=set)

    def read(self, view: View) -> list[Signed]:
        """Takes in the reveals of this set that are new; returns those that are false."""
        false = []
        for place in self.roster.shares:
            for signed in view.held.get((SumReveal, place), []):
                message = signed.message
                if signed.digest in self.counted or not isinstance(message, SumReveal):
                    continue
                self.counted.add(signed.digest)
                if message.set != self.agreed.name:
                    continue
                if is_true(self.plan, self.roster, self.agreed, place, message):
                    self.add(place, message)
                else:
                    false.append(signed)
        return false

    def add(self, place: int, message: SumReveal) -> None:
        """A reveal of which `is_true` holds."""
        for dealer in places(message.shares):
            self.shares.setdefault(dealer, {})[place] = message.shares[dealer]
        if message.seed:
            self.seeds[place] = message.seed

    @property
    def missing(self) -> set[int]:
        """Places whose secret is not known yet."""
        t = self.plan.threshold
        return {
            place
            for place in self.roster.shares
            if place not in self.seeds and len(self.shares.get(place, {})) < t
        }

    def masks(self) -> tuple[Mask, ...]:
        """What lies on the sum of the set's masked vectors. Raises BadDealing."""
        summed = places(self.agreed.vectors)
        found: list[Mask] = []
        for place in sorted(summed):
            seed = self.seeds.get(place) or self._seed(place)
            found.append(Mask(self_key(seed, self.plan.id, self.roster.digest), added=True))
        for place in sorted(set(self.roster.shares) - summed):
            # What the dropped one would have put on, its partners did the other way round.
            pairs = pair_masks(self.plan, self.roster, place, self._mask_key(place), summed)
            found += [mask.undone() for mask in pairs]
        return tuple(found)

    def _secret(self, place: int) -> bytes:
        t, shares = self.plan.threshold, self.shares[place]
        return combine({other: shares[other] for other in sorted(shares)[:t]}, t)

    def _seed(self, place: int) -> bytes:
        seed = self._secret(place)
        expected = self.roster.keys[place].commitment
        if commitment(self.plan.id, self.plan.members[place], seed) != expected:
            raise BadDealing(place)
        return seed

    def _mask_key(self, place: int) -> bytes:
        key = self._secret(place)
        if public(key) != self.roster.keys[place].mask_key:
            raise BadDealing(place)
        return key
