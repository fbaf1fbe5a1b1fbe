"""Fleets under a policy with privacy: what is released was entered, whatever happens to a disk.

The checker `LedgerGoesOn` watches every history here.
"""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from gossipfl.memory import StoreFault
from gossipfl.messages import Privacy, Training
from gossipfl.privacy.agreed import affordable
from gossipfl.privacy.entries import Released, parse_entry
from gossipfl.privacy.ledger import Refusal, replay
from sim.budgets import privacy_of
from sim.checkers import LedgerGoesOn, Violation
from sim.device import SimDevice
from sim.history import History
from sim.mutants import Hunt, hunt
from sim.plan import BUDGETS, FOCUSES, Focus, Reinstall, draw_plan
from sim.scene import Scene, Setup

LOCAL = Privacy(mode="local", unit="device", epsilon=8.0, delta=1e-5, clip=0.1, z=6.0)
RECORD = Privacy(
    mode="local", unit="record", epsilon=8.0, clip=1.0, z=1.2, sample_rate=0.2, steps=3, lot=10
)
ROUNDS = 3


def scene(privacy: Privacy = LOCAL, seed: int = 1) -> Scene:
    return Scene(seed, Setup(devices=4, policy={"privacy": privacy})).start()


def released(device: SimDevice) -> list[bytes]:
    entries = [parse_entry(row.data) for row in device.store.load().ledger]
    return [entry.released for entry in entries if isinstance(entry, Released)]


def commits() -> int:
    made = scene()
    made.run_rounds(ROUNDS, 120.0)
    return made.devices[0].store.commits


COMMITS = commits()


@pytest.mark.parametrize("privacy", [LOCAL, RECORD], ids=["device", "record"])
def test_a_fleet_runs_and_everybody_enters_what_it_releases(privacy: Privacy) -> None:
    made = scene(privacy)
    made.run_rounds(ROUNDS, 120.0)
    for device in made.devices:
        assert len(released(device)) >= ROUNDS
        assert len(set(released(device))) == len(released(device))
    blobs = [name for device in made.devices for name in released(device)]
    assert len(set(blobs)) == len(blobs)


def test_dp_sgd_still_learns() -> None:
    """Blobs are easy: what this shows is that noise is where it belongs, and no more of it."""
    made = Scene(
        3,
        Setup(
            devices=4,
            policy={"privacy": RECORD},
            training=Training(learning_rate=0.5, momentum=0.0),
        ),
    ).start()
    made.run_rounds(10, 400.0)
    assert np.mean(made.accuracies()) > 0.6


@pytest.mark.parametrize("fault", list(StoreFault))
@pytest.mark.parametrize("index", range(COMMITS))
def test_whatever_a_disk_does_at_any_commit_no_release_is_missing(
    index: int, fault: StoreFault
) -> None:
    made = scene()
    device = made.devices[0]
    device.store.faults = [*([None] * index), fault]
    made.run_rounds(ROUNDS, 240.0)
    made.run_rounds(1, 240.0, [device])
    assert len(released(device)) >= 2
    replay(device.store.load().ledger)


def test_a_restored_disk_releases_nothing_more() -> None:
    made = scene()
    device = made.devices[0]
    made.run_rounds(1, 60.0)
    backup = device.store.copy()
    count = len(released(device))
    made.run_rounds(2, 120.0)
    made.world.crash(device)
    made.world.restore(device, backup)
    made.world.start(device)
    made.tell(device)
    others = [d for d in made.devices if d is not device]
    made.run_rounds(4, 240.0, others)
    assert len(released(device)) == count
    assert "enrol it again" in made.view(device).listen_only


def test_spent_devices_listen_and_the_others_go_on() -> None:
    poor = Privacy(mode="local", unit="device", epsilon=1.0, delta=1e-5, clip=0.1, z=5.6)
    made = scene(poor)
    made.world.run_until(lambda: all(made.view(d).listen_only for d in made.devices if d.up), 300.0)
    assert {made.view(d).listen_only for d in made.devices} == {Refusal.SPENT.value}
    assert {len(released(d)) for d in made.devices} == {2}


def test_the_checker_sees_a_ledger_that_lost_a_row() -> None:
    made = scene()
    device = made.devices[0]
    made.run_rounds(1, 60.0)
    (checker,) = [c for c in made.world.checkers if isinstance(c, LedgerGoesOn)]
    assert device.node is not None
    served = device.node.shelf.head(None)
    assert served is not None
    checker.on_serve_head(device, None, served)
    device.store._snapshot = type(device.store._snapshot)(ledger=device.store.load().ledger[:1])
    with pytest.raises(Violation, match="not in its ledger"):
        checker.on_serve_head(device, None, served)


@pytest.mark.parametrize("seed", range(1, 9))
def test_random_histories_of_faults_and_liars_hold_with_privacy_too(seed: int) -> None:
    history = History(draw_plan(seed, FOCUSES["privacy"]))
    history.run()
    assert sum(len(released(device)) for device in history.scene.devices) > 0


@pytest.mark.parametrize("budget", BUDGETS)
def test_a_plans_budget_pays_for_as_many_releases_as_it_says(budget: int) -> None:
    plan = msgspec.structs.replace(draw_plan(1), budget=budget)
    privacy = privacy_of(plan)
    assert privacy is not None
    assert affordable(privacy) == budget


def test_some_of_a_soaks_seeds_have_a_budget_and_are_else_what_they_were() -> None:
    plans = {seed: draw_plan(seed) for seed in range(1, 201)}
    private = [seed for seed, plan in plans.items() if plan.budget]
    assert 10 <= len(private) <= 45
    for seed in private:
        plain = draw_plan(seed, Focus())
        assert (plain.devices, plain.rule, plain.wire) == (
            *(plans[seed].devices, plans[seed].rule),
            plans[seed].wire,
        )
        assert [type(f) for f in plain.faults] == [type(f) for f in plans[seed].faults]


def test_the_checker_counts_a_machine_over_all_of_its_keys() -> None:
    """Enrolled again without a ledger, with the budget given back: the mutant, in one seed."""
    found = hunt(Hunt("lost-ledger-is-empty", seeds=3, quick=True))
    assert found.failure is not None
    assert found.failure.checker == "BudgetKept"


def test_an_old_disk_of_an_old_key_is_in_the_histories() -> None:
    plans = [draw_plan(seed, FOCUSES["privacy"]) for seed in range(1, 30)]
    copies = [f for plan in plans for f in plan.faults if isinstance(f, Reinstall)]
    assert any(fault.copied_at is None for fault in copies)
    assert any(fault.copied_at == fault.at for fault in copies)
    assert any(fault.copied_at is not None and fault.copied_at < fault.at for fault in copies)
