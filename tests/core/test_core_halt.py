"""A node at rest: what it still does, what it does no more, and what gets it going again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness import Device, Table

from gossipfl.events import (
    DataChanged,
    FetchHead,
    FetchObject,
    HeadReceived,
    Measure,
    PolicyReceived,
    StartMerge,
    StartTraining,
)
from gossipfl.interfaces import Evaluation
from gossipfl.messages import Head, Receipt, Stop, Training, UpdateRef
from gossipfl.objects import digest
from gossipfl.stopping import ALONE_ROUNDS, WINDOW
from gossipfl.view import View
from gossipfl.wire import decode, open_envelope

ROUND_S = 33.0  # of the lan pace, with its jitter
TARGET = Stop(distance=0.02)  # the toys' goals differ by a hundredth


def fleet(count: int = 3, stop: Stop = TARGET, **policy: Any) -> Table:
    table = Table(n=count, stop=stop, **policy)
    for _ in range(count):
        table.device()
    table.introduce()
    table.employ()
    return table


def at_rest(table: Table, *devices: Device, limit_s: float = 40 * ROUND_S) -> None:
    who = devices or tuple(table.devices)
    table.until(lambda: all(d.node.view().finished for d in who), limit_s)


def rested(count: int = 3, stop: Stop = TARGET, **policy: Any) -> Table:
    """A fleet that has been at rest for a while."""
    table = fleet(count, stop, **policy)
    at_rest(table)
    table.advance(5 * ROUND_S)
    return table


def view(device: Device) -> View:
    return device.node.view()


def cause(device: Device) -> object:
    return view(device).stopping["cause"]


def trainings(table: Table) -> list[int]:
    return [len(d.sent(StartTraining)) for d in table.devices]


def follow(table: Table, **changes: Any) -> bytes:
    settings = {"rule": "mean", "n": len(table.devices), "prev": digest(table.policy), **changes}
    return table.fleet.policy(table.job, version=2, **settings)


# --- at rest ------------------------------------------------------------------------------------


def test_at_rest_it_serves_and_polls_and_merges_nothing() -> None:
    table = fleet()
    at_rest(table)
    me, other = table.devices[:2]
    assert [cause(d) for d in table.devices] == ["distance"] * 3
    assert "0.02 of the way" in view(me).finished_why
    before = [(trainings(table), len(d.sent(StartMerge)), d.node.base_round) for d in table.devices]
    objects, polls = len(me.sent(FetchObject)), len(me.sent(FetchHead))
    table.advance(20 * ROUND_S)
    after = [(trainings(table), len(d.sent(StartMerge)), d.node.base_round) for d in table.devices]
    assert after == before
    assert len(me.sent(FetchHead)) > polls + 100, "it goes on polling"
    assert len(me.sent(FetchObject)) == objects
    answer = me.serve(FetchHead(0, me.address, None, None, 0.0, 1_000_000))
    assert isinstance(answer, HeadReceived)
    assert answer.update is not None, "its last update can still be had"
    assert view(other).peers[0].state == "live"


def test_the_figures_are_of_published_models_and_fall() -> None:
    table = fleet()
    me = table.devices[0]
    table.until(lambda: me.node.base_round >= 1, 200.0)
    first = view(me).convergence
    at_rest(table)
    last = view(me).convergence
    assert set(last) == {"distance", "relative", "slope", "step_norm", "update_norm"}
    for key in ("relative", "step_norm", "update_norm"):
        early, late = first[key], last[key]
        assert early is not None
        assert late is not None
        assert 0.0 <= late < early
    assert last["relative"] is not None
    assert last["relative"] <= TARGET.distance  # type: ignore[operator]


@pytest.mark.parametrize(
    ("stop", "why", "rounds"),
    [
        (Stop(rounds=4), "rounds", 4),
        (Stop(epochs=6), "epochs", 3),
        (Stop(slope=1.0), "slope", WINDOW),
        (Stop(patience=6), "patience", 7),  # nothing of it changes, see below
    ],
)
def test_each_condition_ends_rounds(stop: Stop, why: str, rounds: int) -> None:
    table = fleet(stop=stop, training=Training(epochs=2))
    for device in table.devices:
        device.trainer.evaluate = lambda _: Evaluation(1.0, 0.5, 10)  # type: ignore[method-assign]
    at_rest(table)
    assert [cause(d) for d in table.devices] == [why] * 3
    assert [d.node.base_round for d in table.devices] == [rounds] * 3


def test_the_byte_budget_counts_what_it_published_and_pulled() -> None:
    table = fleet(stop=Stop(bytes=2_000))
    at_rest(table)
    for device in table.devices:
        ref = table_update(device)
        used = view(device).stopping["bytes"]
        assert isinstance(used, int)
        assert 2_000 <= used < 2_000 + 3 * ref.size, "no more than the last round's above it"
        assert used % ref.size == 0
        published = view(device).round * ref.size
        assert used >= published + 2 * (view(device).round - 2) * ref.size, "and of two peers"


def table_update(device: Device) -> UpdateRef:
    served = device.node.shelf.head(None)
    assert served is not None
    head = decode(open_envelope(served.envelope, "head", 4_096).payload, Head)
    assert head.update is not None
    return head.update


def test_the_last_to_train_does_not_train_on_alone() -> None:
    """The others' patience ends; one gets better for ever."""
    table = fleet(stop=Stop(patience=4))
    lucky = table.devices[2]
    lucky.trainer.evaluate = improving()  # type: ignore[method-assign]
    at_rest(table, *table.devices[:2])
    when = lucky.node.base_round
    at_rest(table)
    assert cause(lucky) == "quiet"
    assert view(lucky).round - when <= ALONE_ROUNDS + 1


def test_who_is_left_alone_rests_with_the_newest_merge() -> None:
    """Its rounds without the others would specialise its model further and further."""
    table = fleet(stop=Stop(distance=1e-9))
    me, *others = table.devices
    table.until(lambda: me.node.base_round == 4, 300.0)
    merge = me.node.base
    assert merge is not None
    for device in others:
        device.down = True
    table.until(lambda: me.node.base is not merge, 8 * ROUND_S)
    at_rest(table, me)
    assert cause(me) == "quiet"
    assert me.node.base is not None
    assert me.node.base_round > 4 or np.array_equal(me.node.base, merge)
    assert view(me).round > me.node.base_round, "rounds without a merge came last"
    newest = me.store.load().receipt
    assert newest is not None
    receipt = decode(open_envelope(newest, "receipt", 65_536).payload, Receipt)
    assert view(me).base == receipt.base.hex()
    table.advance(15.0)
    table.restart(me)
    table.until(lambda: view(me).base is not None, 30.0)
    assert view(me).base == receipt.base.hex()


def improving() -> Any:
    count = iter(range(10_000))
    return lambda parameters: Evaluation(1.0, next(count) / 10_000, 10)


def test_a_restart_of_the_process_does_not_end_a_rest() -> None:
    table = rested()
    me = table.devices[0]
    before = trainings(table), view(me).convergence, view(me).round
    table.advance(30.0)
    table.restart(me)
    table.introduce()
    at_rest(table, me, limit_s=60.0)
    table.advance(5 * ROUND_S)
    assert (trainings(table), view(me).convergence, view(me).round) == before
    assert cause(me) == "distance"


# --- on again -----------------------------------------------------------------------------------


def test_new_data_get_a_device_and_then_its_fleet_going_again() -> None:
    table = rested()
    me = table.devices[0]
    before = [d.node.base_round for d in table.devices]
    table.send(me, DataChanged())
    assert not view(me).finished, "at once"
    table.until(lambda: not any(view(d).finished for d in table.devices), 2 * ROUND_S)
    assert any("new local data" in n.text for n in me.notices)
    assert any("1 peers train again" in n.text for n in table.devices[1].notices)
    at_rest(table)
    gained = [d.node.base_round - b for d, b in zip(table.devices, before, strict=True)]
    assert all(WINDOW <= g <= WINDOW + ALONE_ROUNDS for g in gained), gained


def test_as_many_as_may_lie_cannot_wake_the_others() -> None:
    """One of them may be a liar: its call is not followed. A second one's is."""
    table = rested(5, attackers=1)
    first, second, *rest = table.devices
    table.send(first, DataChanged())
    table.advance(3 * ROUND_S)
    assert all(view(d).finished for d in (second, *rest))
    at_rest(table)
    assert cause(first) == "quiet"
    table.advance(5 * ROUND_S)
    table.send(first, DataChanged())
    table.send(second, DataChanged())
    table.until(lambda: not any(view(d).finished for d in table.devices), 2 * ROUND_S)


def test_a_peer_that_never_rested_wakes_nobody() -> None:
    """It publishes each round; that is no call, however long the others rest."""
    table = fleet(stop=Stop(patience=5))
    restless = table.puppet()
    table.introduce(restless)
    rounds = [0, 0, 0]
    for number in range(30):
        model = np.full(table.count, 1.0 + number / 100, np.float32)
        restless.publish_update(table.lineage, model)
        table.advance(30.0)
        if number == 10:
            assert all(view(d).finished for d in table.devices)
            rounds = [view(d).round for d in table.devices]
    assert [view(d).round for d in table.devices] == rounds
    assert all(view(d).finished for d in table.devices)


def test_new_data_do_not_outlive_the_policys_rounds() -> None:
    table = rested(stop=Stop(rounds=3))
    table.send(table.devices[0], DataChanged())
    table.advance(3 * ROUND_S)
    assert [view(d).round for d in table.devices] == [3] * 3
    assert not [n for n in table.devices[0].notices if "goes on" in n.text]


def test_new_data_while_it_trains_renew_its_patience() -> None:
    table = fleet(stop=Stop(patience=6))
    for device in table.devices:
        device.trainer.evaluate = lambda _: Evaluation(1.0, 0.5, 10)  # type: ignore[method-assign]
    me = table.devices[0]
    table.until(lambda: me.node.base_round == 6, 400.0)
    table.send(me, DataChanged())
    table.until(lambda: me.node.base_round == 7, 60.0)
    table.advance(1.0)
    assert not view(me).finished, "it would rest after its seventh"
    assert all(view(d).finished or d is me for d in table.devices)


def test_a_policy_may_leave_new_data_to_the_drift_of_the_loss() -> None:
    stop = Stop(distance=0.02, new_data=False, drift=0.5, drift_checks=3)
    table = rested(stop=stop)
    me = table.devices[0]
    checks = len(me.sent(Measure))
    assert checks >= 4, "one a round interval"
    table.send(me, DataChanged())
    table.advance(ROUND_S)
    assert view(me).finished, "the same loss on the new data"
    loss = view(me).loss
    me.trainer.goal = me.trainer.goal + np.float32(2.0)  # the world has changed
    table.send(me, DataChanged())
    table.advance(1.0)
    assert view(me).loss == pytest.approx(4.0, abs=0.2) != loss, "measured at once"
    table.until(lambda: not view(me).finished, 3 * ROUND_S)
    assert any("loss on local data rose by more than 0.5" in n.text for n in me.notices)
    at_rest(table)
    assert abs(view(me).convergence["relative"] or 0.0) <= 0.5


def test_a_passing_doubt_is_no_drift() -> None:
    stop = Stop(distance=0.02, drift=0.5, drift_checks=3)
    table = rested(stop=stop)
    me = table.devices[0]
    for _ in range(3):
        me.trainer.goal = me.trainer.goal + np.float32(2.0)
        table.advance(1.5 * ROUND_S)
        me.trainer.goal = me.trainer.goal - np.float32(2.0)
        table.advance(1.5 * ROUND_S)
    assert view(me).finished


def test_without_drift_in_the_policy_nothing_is_measured_at_rest() -> None:
    table = rested()
    assert not table.devices[0].sent(Measure)


@pytest.mark.parametrize("stop", [TARGET, Stop(distance=0.001), Stop()])
def test_another_policy_ends_a_rest(stop: Stop) -> None:
    """Even one with the same conditions: what it changes has to show."""
    table = rested()
    me = table.devices[0]
    rounds = [d.node.base_round for d in table.devices]
    table.send(me, PolicyReceived(follow(table, stop=stop, rule="median")))
    table.until(
        lambda: all(d.node.base_round > r + 2 for d, r in zip(table.devices, rounds, strict=True)),
        6 * ROUND_S,
    )
    assert me.sent(StartMerge)[-1].rule == "median"


def test_a_new_run_starts_with_a_clean_sheet() -> None:
    table = rested(stop=Stop(distance=0.02, epochs=500))
    me = table.devices[0]
    assert view(me).stopping["epochs"] != 1
    table.send(me, PolicyReceived(follow(table, run=1, stop=Stop(distance=0.02, epochs=500))))
    table.until(lambda: me.node.lineage is not None and me.node.lineage.run == 1, 10.0)
    assert view(me).stopping["epochs"] == 1, "its first training is over already"
    assert not view(me).finished
    assert view(me).convergence["distance"] is None
