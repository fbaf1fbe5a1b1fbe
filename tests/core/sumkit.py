"""Fleets of real nodes under group sums, and liars among them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from gossipfl.events import Commit
from gossipfl.groups.grid import quantise
from gossipfl.groups.messages import Message, Signed, sign
from gossipfl.groups.plan import Plan
from gossipfl.groups.schedule import Schedule
from gossipfl.messages import Head, Policy, Privacy, Sums
from gossipfl.objects import digest, unpack_vouched
from gossipfl.parameters import Vector
from gossipfl.wire import decode, open_envelope
from tests.core.harness import Device, Table, Toy

TRAIN_S, STEP_S = 4, 2
ATTEMPT_S = 6 * STEP_S


class Dice(Toy):
    """A toy that comes out elsewhere with each seed, as training does."""

    def train(self, base: Vector, training: Any, seed: int) -> Vector:
        noise = np.random.default_rng(seed).normal(0, 0.01, len(base)).astype(np.float32)
        return super().train(base, training, seed) + noise


class Summing(Table):
    """`count` nodes in groups of `size`, all known to each other. `trained`: what each trained."""

    def __init__(
        self,
        count: int = 8,
        size: int = 4,
        attempts: int = 2,
        budget: dict[str, float] | None = None,
        **policy: Any,
    ) -> None:
        """`budget`: of noise beside the sums."""
        super().__init__(pace="demo", n=count, count=6)
        keys = sorted((self.fleet.admit() for _ in range(count)), key=lambda k: k.device)
        noise = budget is not None
        sums = Sums([k.device for k in keys], size, TRAIN_S, STEP_S, attempts, noise=noise)
        settings: dict[str, Any] = {"rule": "nna", **policy}
        privacy = Privacy(mode="group-sum", sums=sums, **(budget or {}))
        self.policy = self.fleet.policy(self.job, n=count, privacy=privacy, **settings)
        self.trained: dict[bytes, list[Vector]] = {}
        for number, key in enumerate(keys):
            device = self.device(keys=key)
            device.trainer = _Watched(6, number, self.trained.setdefault(device.id, []))
        self.introduce()
        self.employ()

    @property
    def schedule(self) -> Schedule:
        envelope = open_envelope(
            unpack_vouched(self.policy, self.limits).envelope, "policy", 65_536
        )
        policy = decode(envelope.payload, Policy)
        assert policy.privacy.sums is not None
        return Schedule(policy.fleet, digest(self.policy), policy.issued, policy.privacy.sums)

    @property
    def window_s(self) -> int:
        return self.schedule.window_s

    def plan(self, device: Device, number: int = 0) -> Plan:
        """What this device takes part in now."""
        schedule = self.schedule
        window = schedule.window(self.wall)
        assert window is not None
        plan = schedule.plan(window, number, device.id, self.count)
        assert plan is not None
        return plan

    def proposer(self, device: Device, number: int = 0) -> Device:
        """Of this device's group."""
        plan = self.plan(device, number)
        return self.by_id(plan.members[plan.proposer])

    def by_id(self, device: bytes) -> Device:
        return next(d for d in self.devices if d.id == device)

    def group_of(self, device: Device) -> list[Device]:
        return [self.by_id(member) for member in self.plan(device).members]

    def merged(self, times: int, who: Iterable[Device] = (), windows: int = 4) -> None:
        """Until each of these (all that are up) has merged so often."""
        devices = list(who) or [d for d in self.devices if not d.down]
        self.until(
            lambda: all(d.node.view().merges >= times for d in devices), windows * self.window_s
        )

    def summed(self, device: Device) -> int:
        return device.node._core.sums.turns.sums


class _Watched(Dice):
    def __init__(self, count: int, goal: int, log: list[Vector]) -> None:
        super().__init__(count, goal)
        self._log = log

    def train(self, base: Vector, training: Any, seed: int) -> Vector:
        trained = super().train(base, training, seed)
        self._log.append(trained)
        return trained


def objects(device: Device) -> list[bytes]:
    """All that this device ever stored to be served."""
    found = [data for c in device.sent(Commit) for _, data in c.batch.objects]
    return found + [c.batch.head for c in device.sent(Commit) if c.batch.head]


def heads(device: Device) -> list[Head]:
    envelopes = [c.batch.head for c in device.sent(Commit) if c.batch.head]
    return [decode(open_envelope(e, "head", 4_096).payload, Head) for e in envelopes]


def words(vector: Vector, plan: Plan) -> npt.NDArray[np.uint32]:
    return quantise(vector, plan.reach, plan.size)


def says(device: Device, tell: Callable[[Signed], Iterable[Message]]) -> None:
    """From now on this device signs what `tell` makes of each of its objects, in their place."""
    turns = device.node._core.sums.turns
    honest = turns._publish

    def publish(signed: Signed) -> None:
        attempt = turns._attempt
        assert attempt is not None
        for message in tell(signed):
            honest(sign(message, attempt.plan, device.keys.signer))

    turns._publish = publish  # type: ignore[method-assign]
