"""A policy switches the rule while the fleet learns: it spreads, and no round is lost by it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from gossipfl.aggregation import RULES, foreign, rule
from gossipfl.events import Effect, Event, MergeFailed, PolicyReceived, Start, StartMerge
from gossipfl.objects import digest
from sim.adversaries import FoeTrainer
from sim.checkers import all_checkers
from sim.checkers.base import Checker
from sim.device import SimDevice
from sim.scene import Scene, Setup

STEPPED = ("nnm+trimmed_mean", "nnm+krum", "collapse+nna", "collapse+nnm+geometric_median")
FOREIGN = "first_half"
ALL = (*(name for name in RULES if name != "nna"), *STEPPED, FOREIGN)
DEVICES, ATTACKERS = 8, 1
ROUNDS_MAX = 2  # merges that a device may still start by the rule before
STEP_S = 90.0

PACKAGE = '''
import numpy as np
from gossipfl.aggregation import Merge, RuleError


class FirstHalf:
    """The mean of own and of the first half of the others: a rule that nobody else has."""

    name = "first_half"

    def check(self, m, f):
        if m < 2 * f + 1:
            raise RuleError(f"first_half: {m} are too few for {f}")

    def __call__(self, own, received, f):
        half = received[: len(received) // 2]
        rows = [*([] if own is None else [own]), *half]
        share = 1.0 / len(rows)
        influence = [share] * len(half) + [0.0] * (len(received) - len(half))
        return Merge(np.mean(rows, axis=0, dtype=np.float32), tuple(influence))


rule = FirstHalf()
'''


class Used(Checker):
    """The rule of every merge that a device started, and what should not happen meanwhile."""

    def __init__(self) -> None:
        self.rules: dict[int, list[str]] = {}
        self.starts: dict[int, int] = {}
        self.failures: list[str] = []

    def on_event(self, device: SimDevice, event: Event) -> None:
        if isinstance(event, Start):
            self.starts[device.index] = self.starts.get(device.index, 0) + 1
        if isinstance(event, MergeFailed):
            self.failures.append(event.reason)

    def on_effects(self, device: SimDevice, event: Event, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, StartMerge):
                self.rules.setdefault(device.index, []).append(effect.rule)


class Switching:
    """A fleet, and a policy that is handed to one device at a time."""

    def __init__(self, seed: int, setup: Setup | None = None) -> None:
        self.used = Used()
        setup = setup or Setup(devices=DEVICES, attackers=ATTACKERS)
        self.scene = Scene(seed, setup, checkers=[*all_checkers(), self.used])
        self.policy, self.version = self.scene.policy, 1

    def issue(self, name: str, told: SimDevice) -> None:
        self.version += 1
        self.policy = self.scene.fleet.policy(
            self.scene.job,
            n=DEVICES,
            attackers=ATTACKERS,
            version=self.version,
            rule=name,
            prev=digest(self.policy),
            training=self.scene.setup.training,
        )
        self.scene.world.deliver(told, PolicyReceived(self.policy))

    def merged_by(self, device: SimDevice, name: str, since: int = 0) -> int | None:
        """How many merges it started by another rule before the first by this one; None: none."""
        rules = self.used.rules.get(device.index, [])[since:]
        return rules.index(name) if name in rules else None

    def switch(self, name: str, told: SimDevice, awake: Sequence[SimDevice]) -> dict[int, int]:
        """Runs until all who are awake have merged by the rule: how many merges each still started
        by the one before."""
        since = {d.index: len(self.used.rules.get(d.index, [])) for d in awake}
        self.issue(name, told)
        self.scene.world.run_until(
            lambda: all(self.merged_by(d, name, since[d.index]) is not None for d in awake), STEP_S
        )
        return {d.index: self.merged_by(d, name, since[d.index]) or 0 for d in awake}


@pytest.fixture
def foreign_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package with a rule, as an installed wheel leaves it."""
    (tmp_path / "half_rules.py").write_text(PACKAGE)
    info = tmp_path / "half_rules-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: half-rules\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[gossipfl.rules]\n{FOREIGN} = half_rules:rule\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    foreign.offered.cache_clear()
    rule.cache_clear()
    yield
    foreign.offered.cache_clear()
    rule.cache_clear()


@pytest.mark.usefixtures("foreign_rule")
def test_every_rule_takes_over_in_two_rounds_and_none_is_lost() -> None:
    fleet = Switching(61)
    scene, devices = fleet.scene.start(), fleet.scene.devices
    scene.run_rounds(3, limit_s=60.0)
    for turn, name in enumerate(ALL):
        late = fleet.switch(name, devices[turn % DEVICES], devices)
        assert max(late.values()) <= ROUNDS_MAX, f"{name}: {late}"
        scene.run_rounds(1, limit_s=60.0)
    assert fleet.used.failures == []
    assert set(fleet.used.starts.values()) == {1}, "no node was started again"
    assert scene.tally.unmerged == {}, "no round was lost"
    assert all(scene.view(d).below_quorum == 0 for d in devices)
    assert {scene.view(d).policy["run"] for d in devices} == {0}, "learning did not begin anew"
    fleet.switch("nna", devices[0], devices)
    scene.run_rounds(3, limit_s=60.0)
    assert min(scene.accuracies()) >= 0.9
    scene.world.finish()


def test_who_slept_through_a_switch_follows_once_awake() -> None:
    fleet = Switching(62)
    scene, devices = fleet.scene.start(), fleet.scene.devices
    scene.run_rounds(3, limit_s=60.0)
    sleeper, awake = devices[5], devices[:5] + devices[6:]
    scene.world.network.sleep(sleeper.index)
    late = fleet.switch("trimmed_mean", devices[0], awake)
    assert max(late.values()) <= ROUNDS_MAX
    scene.run_rounds(3, limit_s=120.0, who=awake)
    fleet.switch("krum", devices[1], awake)
    assert "krum" not in fleet.used.rules[sleeper.index]
    since = len(fleet.used.rules[sleeper.index])
    scene.world.network.wake(sleeper.index)
    scene.world.run_until(lambda: fleet.merged_by(sleeper, "krum", since) is not None, STEP_S)
    assert (fleet.merged_by(sleeper, "krum", since) or 0) <= ROUNDS_MAX
    assert fleet.used.starts[sleeper.index] == 1
    scene.world.finish()


def test_a_switch_stops_a_liar_whom_the_rule_before_let_in() -> None:
    """What it is for: the mean is poisoned, the operator answers, and the fleet recovers."""
    liar = ((7, FoeTrainer),)
    setup = Setup(devices=DEVICES, attackers=ATTACKERS, rule="mean", guard=False, poison=liar)
    fleet = Switching(63, setup)
    scene, devices = fleet.scene.start(), fleet.scene.devices
    honest = scene.honest()
    scene.run_rounds(5, limit_s=90.0, who=honest)
    poisoned = min(scene.accuracies())
    late = fleet.switch("nna", devices[0], honest)
    assert max(late.values()) <= ROUNDS_MAX
    scene.run_rounds(8, limit_s=120.0, who=honest)
    assert poisoned <= 0.7
    assert min(scene.accuracies()) >= 0.9
    scene.world.finish()
