"""When groups sum: windows and attempts on the fleet's clock, the same for everybody.

A window bears the second at which it begins as its number, so numbers grow under every policy. It
has time to train, then attempts one after the other, then time to collect the other groups' means.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gossipfl.groups.plan import COUNT_MAX, Plan, groups, seed_of
from gossipfl.messages import Privacy, Sums

ATTEMPT_STEPS = 6  # the last thing awaited, `attempt.Phase.REVEALS`, is over then
COLLECT_STEPS = 4  # guess: a head and an object from each group, and the merge


def require_sense(privacy: Privacy, codec: str) -> None:
    """Raises ValueError if the policy's group sums could never be."""
    sums = privacy.sums
    if (privacy.mode == "group-sum") != (sums is not None):
        raise ValueError("mode group-sum and its `sums` go together")
    if sums is None:
        return
    groups(sums.devices, bytes(32), sums.size)
    if codec.startswith("partial:"):
        raise ValueError("group sums need a codec without parts: all of a group publish the same")


@dataclass(frozen=True, slots=True)
class Schedule:
    """Of one policy. Times are seconds of fleet time."""

    fleet: bytes
    policy: bytes  # digest
    begins: int
    sums: Sums

    @property
    def window_s(self) -> int:
        sums = self.sums
        return sums.train_s + (sums.attempts * ATTEMPT_STEPS + COLLECT_STEPS) * sums.step_s

    def window(self, time: float) -> int | None:
        """The window of this instant; None before the first."""
        since = math.floor(time) - self.begins
        return None if since < 0 else self.begins + since // self.window_s * self.window_s

    def next_window(self, time: float) -> int:
        found = self.window(time)
        return self.begins if found is None else found + self.window_s

    def attempt_at(self, window: int, number: int) -> int:
        return window + self.sums.train_s + number * ATTEMPT_STEPS * self.sums.step_s

    def over_at(self, window: int) -> int:
        """When a member has to have collected, so that it can merge before the next window."""
        return window + self.window_s - self.sums.step_s

    def groups(self, window: int) -> tuple[tuple[bytes, ...], ...]:
        return groups(self.sums.devices, seed_of(self.policy, window), self.sums.size)

    def group(self, window: int, device: bytes) -> tuple[bytes, ...]:
        """The members of its group, or nobody if the policy does not list it."""
        return next((found for found in self.groups(window) if device in found), ())

    def plan(self, window: int, number: int, device: bytes, count: int) -> Plan | None:
        """What this device would take part in; None if it is in no group."""
        members = self.group(window, device)
        if not members or not 0 < count <= COUNT_MAX:
            return None
        reach = self.sums.reach
        return Plan(self.fleet, self.policy, window, number, members, count, reach)
