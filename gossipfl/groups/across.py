"""Robustness with group sums: a rule over the groups' means, and how many attackers that bears.

Inside a group nobody sees a single vector, so no rule can refuse one: one attacker spoils the mean
of its whole group. The rule works on group means, and each attacker costs it one of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gossipfl.groups.plan import groups, liars_borne


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What a fleet of `devices` bears in groups of about `size`.

    attackers: the most that the rule bears wherever they sit: fewer than a third of the groups.
    liars: the most in one group with which its sum stays secret and exact.
    """

    devices: int
    size: int
    number: int  # of groups
    attackers: int
    liars: int

    @property
    def share(self) -> float:
        """(1/3) / g: what `attackers` comes to in a large fleet, as a share of the devices."""
        return 1.0 / (3.0 * self.size)

    @property
    def warning(self) -> str:
        """The sentence for `doctor`, `status` and the documentation."""
        return (
            f"group sums hide attackers too: one spoils the mean of its whole group. In groups of "
            f"{self.size} a fleet bears about {self.share:.1%} attackers, a third divided by the "
            f"group's size, instead of 33 %; this one of {self.devices} devices in {self.number} "
            f"{'group' if self.number == 1 else 'groups'} bears {self.attackers}"
        )


def tolerance(devices: int, size: int) -> Tolerance:
    """Raises ValueError where `groups` does."""
    made = groups([n.to_bytes(16, "big") for n in range(devices)], bytes(32), size)
    least = min(len(group) for group in made)
    return Tolerance(devices, size, len(made), (len(made) - 1) // 3, (least - 1) // 3)


def agreed_mean(named: Mapping[bytes, bytes], members: Sequence[bytes]) -> bytes | None:
    """Which object holds a group's mean, for devices of other groups: one that more members name
    than may lie, so that one of them is honest, and the honest all have the same.

    named: device -> digest that its head names. None: not known yet, or there are two such, which
    takes more liars than are borne.
    """
    counts = Counter(named[device] for device in members if device in named)
    enough = [name for name, count in counts.items() if count > liars_borne(len(members))]
    return enough[0] if len(enough) == 1 else None
