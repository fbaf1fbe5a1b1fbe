"""What a member has seen of an attempt, and what follows from it: rosters, proposals, signatures.

Two objects of one type by one member in one attempt are proof of a lie. Of each type and member two
are held, so that a proposal that names the second can still be checked, and what is held is
bounded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from gossipfl.groups.messages import (
    Message,
    Signed,
    SumKeys,
    SumRoster,
    SumSet,
    SumShares,
    SumVector,
    places,
)
from gossipfl.groups.plan import Plan

HELD_MAX = 2

M = TypeVar("M", SumKeys, SumShares, SumRoster, SumVector, SumSet)


@dataclass(frozen=True, slots=True)
class Roster:
    """Whose masks there are: by place their keys and shares, all of which name each other."""

    digest: bytes
    keys: dict[int, SumKeys]
    shares: dict[int, SumShares]


@dataclass(slots=True)
class View:
    plan: Plan
    held: dict[tuple[type[Message], int], list[Signed]] = field(default_factory=dict)
    vectors: set[bytes] = field(default_factory=set)  # digests of masked vectors that are here

    def add(self, signed: Signed) -> Signed | None:
        """Keeps it; returns the other object that it contradicts, if there is one."""
        row = self.held.setdefault((type(signed.message), signed.place), [])
        if any(other.digest == signed.digest for other in row):
            return None
        other = row[0] if row else None
        if len(row) < HELD_MAX:
            row.append(signed)
        return other

    def holds(self, signed: Signed) -> bool:
        """Was it kept?"""
        row = self.held.get((type(signed.message), signed.place), [])
        return any(other.digest == signed.digest for other in row)

    def only(self, shape: type[M], place: int) -> M | None:
        """What this member says, if it says one thing."""
        row = self.held.get((shape, place), [])
        message = row[0].message if len(row) == 1 else None
        return message if isinstance(message, shape) else None

    def named(self, shape: type[M], place: int, digest: bytes) -> M | None:
        """The object of this digest, if it is here and of this type and member."""
        for signed in self.held.get((shape, place), []):
            if signed.digest == digest and isinstance(signed.message, shape):
                return signed.message
        return None

    def digest_of(self, shape: type[M], place: int) -> bytes:
        """The digest of the one object that `only` gives, or nothing."""
        return self.held[shape, place][0].digest if self.only(shape, place) is not None else b""

    def said(self, shape: type[M]) -> dict[int, M]:
        """By place: the messages of members that said one thing."""
        found = {place: self.only(shape, place) for place in range(self.plan.size)}
        return {place: message for place, message in found.items() if message is not None}

    @property
    def keys_seen(self) -> dict[bytes, bytes]:
        """All public keys of this attempt, and who said so: no later one may use them."""
        found: dict[bytes, bytes] = {}
        for row in self.held.values():
            for signed in row:
                if isinstance(signed.message, SumKeys):
                    found[signed.message.mask_key] = signed.data
                    found[signed.message.seal_key] = signed.data
        return found

    def signed(self, shape: type[Message], place: int) -> tuple[bytes, ...]:
        """The envelopes that are held, as proof."""
        return tuple(signed.data for signed in self.held.get((shape, place), []))

    def wanted(self, signed: Signed) -> list[tuple[int, bytes, type[Message] | None, int]]:
        """What it names that is not here, and as the last who says so. Of a vector also who else
        has signed that it is there."""
        if not self.holds(signed):
            return []  # a third object for one step: what it names is of no use
        sources = [signed]
        if isinstance(signed.message, SumVector):
            for place in range(self.plan.size):
                sources += self.held.get((SumSet, place), [])
        return [(*found, s.place) for s in sources for found in self.missing(s.message)]

    def missing(self, message: Message) -> list[tuple[int, bytes, type[Message] | None]]:
        """What a message names that is not here: place, digest, type (None: a masked vector).

        Who signs a set says that the vectors of all in it are there too."""
        names: list[bytes] = []
        shape: type[Message] = SumShares
        match message:
            case SumVector():
                here = message.vector in self.vectors
                place = self.plan.members.index(message.device)
                return [] if here else [(place, message.vector, None)]
            case SumShares():
                names, shape = message.keys, SumKeys
            case SumRoster():
                names = message.shares
            case SumSet():
                names, shape = message.vectors, SumVector
        found: list[tuple[int, bytes, type[Message] | None]] = []
        for place, name in enumerate(names):
            rows = self.held.get((shape, place), [])
            held = next((signed.message for signed in rows if signed.digest == name), None)
            if name and held is None:
                found.append((place, name, shape))
            elif isinstance(held, SumVector) and held.vector not in self.vectors:
                found.append((place, held.vector, None))
        return found

    def propose_roster(self, refused: Iterable[int]) -> list[bytes] | None:
        """SumShares to name: of members that all used the same keys of each other.

        The worst covered goes first, until all cover all; ties by place. None: fewer than t.
        """
        shares = self.said(SumShares)
        keys = {place: self.digest_of(SumKeys, place) for place in range(self.plan.size)}
        left = {
            place
            for place, message in shares.items()
            if keys[place] and message.keys[place] == keys[place]
        } - set(refused)
        while left:
            covered = {
                place: sum(
                    shares[other].keys[place] == keys[place]
                    and shares[place].keys[other] == keys[other]
                    for other in left
                )
                for place in sorted(left)
            }
            worst = min(covered, key=lambda place: covered[place])
            if covered[worst] == len(left):
                break
            left.discard(worst)
        if len(left) < self.plan.threshold:
            return None
        return [
            self.digest_of(SumShares, place) if place in left else b""
            for place in range(self.plan.size)
        ]

    def roster(self, digest: bytes, message: SumRoster) -> Roster | None:
        """The roster that a proposal means, if all of it is here and all cover all; else None."""
        named = sorted(places(message.shares))
        if len(named) < self.plan.threshold:
            return None
        shares: dict[int, SumShares] = {}
        keys: dict[int, SumKeys] = {}
        for place in named:
            share = self.named(SumShares, place, message.shares[place])
            if share is None:
                return None
            key = self.named(SumKeys, place, share.keys[place])
            if key is None:
                return None
            shares[place], keys[place] = share, key
        for place in named:
            for other in named:
                if shares[place].keys[other] != shares[other].keys[other]:
                    return None
        return Roster(digest, keys, shares)

    def propose_set(self, roster: Roster) -> list[bytes] | None:
        """SumVectors whose vectors are here. None: fewer than t."""
        said = self.said(SumVector)
        ready = {
            place
            for place, message in said.items()
            if place in roster.shares
            and message.roster == roster.digest
            and message.vector in self.vectors
        }
        if len(ready) < self.plan.threshold:
            return None
        return [
            self.digest_of(SumVector, place) if place in ready else b""
            for place in range(self.plan.size)
        ]

    def summed(self, message: SumSet, roster: Roster) -> dict[int, SumVector] | None:
        """By place what a set sums, if it holds: t or more, of this roster, all of it here."""
        named = places(message.vectors)
        if message.roster != roster.digest or len(named) < self.plan.threshold:
            return None
        found: dict[int, SumVector] = {}
        for place in sorted(named):
            vector = self.named(SumVector, place, message.vectors[place])
            if vector is None or vector.roster != roster.digest or place not in roster.shares:
                return None
            if vector.vector not in self.vectors:
                return None
            found[place] = vector
        return found

    def can_never_be(self, message: SumSet, roster: Roster) -> bool:
        """Whatever else arrives, this is no set of the roster."""
        named = places(message.vectors)
        few = len(named) < self.plan.threshold
        return few or message.roster != roster.digest or not named <= set(roster.shares)

    def certified(self, roster: Roster) -> SumSet | None:
        """The set that t of the roster signed. Who signed two counts for none."""
        signers: dict[bytes, list[SumSet]] = {}
        for place, message in self.said(SumSet).items():
            if place in roster.shares:
                signers.setdefault(message.name, []).append(message)
        for agreed in signers.values():
            if len(agreed) >= self.plan.threshold:
                return agreed[0]
        return None
