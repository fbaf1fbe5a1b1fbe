"""Who sums with whom: groups from the policy's seed, and what one attempt of a group is.

Everybody computes the same groups from the same list of devices. The list is the policy's (a member
table differs from device to device), the seed is the policy's digest and the window's number.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from gossipfl.wire import pack

GROUP_MIN = 4  # below it a third of the members is nobody: no liar could be borne
GROUP_MAX = 16  # design; 16 members pull 15 vectors each
COUNT_MAX = 2**30  # parameters: 4 GiB a vector, as UpdateRef.size
ATTEMPTS_MAX = 64  # a window; guess


def threshold(members: int) -> int:
    """t = floor(2g / 3) + 1: two sets of t members share more than g / 3 of them."""
    return 2 * members // 3 + 1


def liars_borne(members: int) -> int:
    """The most liars with which everything promised holds: fewer than a third."""
    return (members - 1) // 3


def groups(devices: Sequence[bytes], seed: bytes, size: int) -> tuple[tuple[bytes, ...], ...]:
    """The devices in groups of about `size`, 4 to 16 each; the same for everybody.

    Order by SHA-256(seed || device), then cut evenly. Raises ValueError on fewer than 4 devices, a
    device named twice, or a size that is not 4 to 16.
    """
    if not GROUP_MIN <= size <= GROUP_MAX:
        raise ValueError(f"groups of {size}, allowed {GROUP_MIN} to {GROUP_MAX}")
    count = len(devices)
    if count < GROUP_MIN or len(set(devices)) != count:
        raise ValueError(f"{count} devices: at least {GROUP_MIN} are needed, each named once")
    order = sorted(devices, key=lambda device: hashlib.sha256(seed + device).digest())
    many = max(math.ceil(count / GROUP_MAX), count // size)
    cuts = [count * number // many for number in range(many + 1)]
    return tuple(tuple(sorted(order[a:b])) for a, b in pairwise(cuts))


def seed_of(policy: bytes, window: int) -> bytes:
    """The groups' seed of one window: groups change with each, so nobody chooses his company."""
    return hashlib.sha256(b"gossipfl groups 1" + policy + window.to_bytes(8, "big")).digest()


@dataclass(frozen=True)
class Plan:
    """One attempt of one group. Two plans that differ in anything have different ids.

    members: device ids in ascending order; a member's place is its index. count: parameters.
    reach: the largest absolute value that counts, in units of the parameters.
    """

    fleet: bytes
    policy: bytes
    window: int
    number: int  # of the attempt, from 0
    members: tuple[bytes, ...]
    count: int
    reach: float

    def __post_init__(self) -> None:
        if not GROUP_MIN <= len(self.members) <= GROUP_MAX:
            raise ValueError(f"a group of {len(self.members)}")
        if list(self.members) != sorted(set(self.members)):
            raise ValueError("members in ascending order, each once")
        if not (0 < self.count <= COUNT_MAX and 0 <= self.number < ATTEMPTS_MAX):
            raise ValueError(f"{self.count} parameters, attempt {self.number}")
        if not (math.isfinite(self.reach) and self.reach > 0):
            raise ValueError(f"values up to {self.reach}")

    @cached_property
    def id(self) -> bytes:
        """32 bytes that every object of this attempt carries."""
        parts = [self.fleet, self.policy, self.window, self.number, list(self.members)]
        packed = pack([*parts, self.count, float(self.reach)])
        return hashlib.sha256(b"gossipfl attempt 1" + packed).digest()

    @property
    def size(self) -> int:
        """g"""
        return len(self.members)

    @property
    def threshold(self) -> int:
        """t, of all members, whoever is missing."""
        return threshold(self.size)

    @property
    def proposer(self) -> int:
        """The place that proposes; the next attempt has the next one."""
        seed = hashlib.sha256(b"gossipfl proposer 1" + seed_of(self.policy, self.window)).digest()
        return (int.from_bytes(seed[:8], "big") + self.number) % self.size

    @property
    def vector_bytes(self) -> int:
        """The exact length of a masked vector."""
        return 4 * self.count
