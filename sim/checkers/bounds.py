"""Bounds: requests, queues and effects; and that every round ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gossipfl.events import DeadlineReached, Effect, Event, FetchHead, FetchObject
from sim.checkers.base import Checker
from sim.device import SimDevice

if TYPE_CHECKING:
    from sim.world import World

HELD_EVERY = 16  # deadlines between two looks at what a device holds: some of it is counted
EFFECTS_MAX = 1_024  # at one event: guess, a sample of 64 with objects and cancels stays far below


class Bounded(Checker):
    """Requests out, effects of one event, and all that peers can fill stay within their limits."""

    events = frozenset({DeadlineReached})

    def __init__(self) -> None:
        self._looks: dict[int, int] = {}

    def on_event(self, device: SimDevice, event: Event) -> None:
        if not isinstance(event, DeadlineReached):
            return
        limits = device.settings.limits
        heads = sum(isinstance(e.effect, FetchHead) for e in device.exchanges.values())
        objects = sum(isinstance(e.effect, FetchObject) for e in device.exchanges.values())
        if heads > limits.heads_out:
            raise self.broken(f"device {device.index}: {heads} head requests are out")
        if objects > limits.pulls_out:
            raise self.broken(f"device {device.index}: {objects} object requests are out")
        self._looks[device.index] = looks = self._looks.get(device.index, 0) + 1
        if looks % HELD_EVERY == 0:
            self._look(device)

    def _look(self, device: SimDevice) -> None:
        held: dict[str, tuple[int, int]] = getattr(device.node, "held", dict)()
        for name, (count, bound) in held.items():
            if count > bound:
                raise self.broken(f"device {device.index}: {count} {name}, at most {bound}")

    def at_end(self) -> None:
        for device in self.world.devices:
            self._look(device)

    def on_effects(self, device: SimDevice, event: Event, effects: Sequence[Effect]) -> None:
        if len(effects) > EFFECTS_MAX:
            raise self.broken(f"device {device.index}: {len(effects)} effects of one event")


class RoundsEnd(Checker):
    """A round never outlives its deadline, and the next one begins when it should.

    The bound is the pace's: a deadline, half of one more when training was long, and what training,
    merging and storing take here.
    """

    def __init__(self, slack_s: float = 0.5) -> None:
        self._slack_s = slack_s
        self.window_s = 0.0  # of group sums: a round waits for the next, and lasts as long
        self._begun: dict[tuple[int, int], tuple[int, float]] = {}
        self.longest_s = 0.0

    def bind(self, world: World) -> None:
        super().bind(world)
        self._every_s = world.options.settings.pace.round_deadline_s
        world.schedule(self._every_s, self._look)

    def _bound(self, device: SimDevice) -> float:
        pace, costs = device.settings.pace, self.world.options.costs
        work = costs.train_s_per_example * device.examples + costs.merge_s_per_model * 64
        interval = pace.round_interval_s * (1 + pace.round_jitter)
        return (
            max(interval, pace.round_deadline_s * 1.5)
            + pace.round_deadline_s
            + pace.join_wait_s
            + work * device.slowness
            + costs.commit_s * 8
            + self._slack_s
            + 2.0 * self.window_s
        )

    def _look(self) -> None:
        now = self.world.now
        for device in self.world.devices:
            if device.node is None or not device.honest:
                continue
            pulse = device.node.pulse()
            key = (device.index, device.incarnation)
            number, since = self._begun.get(key, (-1, now))
            if pulse.round != number or pulse.rests or device.asleep:
                self._begun[key] = (pulse.round, now)
                continue
            self.longest_s = max(self.longest_s, now - since)
            if now - since > self._bound(device) + self._every_s:
                raise self.broken(
                    f"device {device.index}: round {number} ({pulse.phase}) has lasted "
                    f"{now - since:.1f} s, above {self._bound(device):.1f} s"
                )
        self.world.schedule(now + self._every_s, self._look)
