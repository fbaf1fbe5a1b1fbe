"""Plans of histories: data that can be written down, played again and made small."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from sim.history import LIARS as KNOWN
from sim.history import History
from sim.plan import (
    FOCUSES,
    KINDS,
    LIARS,
    USUAL,
    Crash,
    Partition,
    Plan,
    Revoke,
    Sleep,
    draw_plan,
    kind_of,
)
from sim.shrink import shrink
from sim.soak import Failure, play, soak

Call = Callable[..., tuple[int, str, str]]


def test_a_plan_goes_through_json_and_comes_back_the_same() -> None:
    kinds = set()
    for seed in range(300):
        plan = draw_plan(seed)
        assert plan == draw_plan(seed)
        assert Plan.from_json(plan.to_json()) == plan
        kinds |= {kind_of(fault) for fault in plan.faults} | set(plan.liars)
    assert kinds == set(KINDS) | set(LIARS)


def test_every_liar_and_kind_that_is_drawn_can_be_played() -> None:
    assert set(LIARS) == set(KNOWN)
    assert set(USUAL) == set(KINDS)
    for focus in FOCUSES.values():
        assert set(focus.liars) <= set(KNOWN)
        assert set(focus.kinds) <= set(KINDS)


def test_a_plan_read_back_gives_the_same_history() -> None:
    plan = draw_plan(4)
    assert play(Plan.from_json(plan.to_json())).digest == play(plan).digest


def test_workers_change_nothing() -> None:
    assert asdict(soak(4, 20, workers=2)) == asdict(soak(4, 20))


PLAN = Plan(
    seed=1,
    devices=7,
    liars=("foe", "silent"),
    alpha=0.3,
    faults=(
        Sleep(3.0, 1, 2.0),
        Crash(4.0, 4, 1.0),
        Partition(5.0, (0, 4, 6), 3.0),
        Revoke(6.0, 6, 4),
        Crash(7.0, 0, 1.0, True),
        Sleep(8.0, 4, 5.0),
    ),
)


def needs(plan: Plan) -> Failure | None:
    """Breaks if one device crashes and sleeps later, beside a silent liar."""
    crashed = {f.device for f in plan.faults if isinstance(f, Crash)}
    slept = {f.device for f in plan.faults if isinstance(f, Sleep)}
    if crashed & slept and "silent" in plan.liars:
        return Failure(plan.seed, "RoundsEnd", "stuck", "", plan)
    return None


def test_a_failing_plan_is_made_small() -> None:
    first = needs(PLAN)
    assert first is not None
    small = shrink(first, 200, needs).failure.plan
    assert [kind_of(f) for f in small.faults] == ["crash", "sleep"]
    assert small.liars == ("silent",)
    assert small.devices == 4
    assert small.alpha is None
    assert small.faulty_s == 9.0
    assert Plan.from_json(small.to_json()) == small


def test_another_failure_is_not_taken_for_this_one() -> None:
    def other(plan: Plan) -> Failure | None:
        found = needs(plan)
        if found is not None and len(plan.faults) < 4:
            found.checker = "NobodyFramed"
        return found

    first = needs(PLAN)
    assert first is not None
    assert len(shrink(first, 200, other).failure.plan.faults) == 4


def test_the_number_of_replays_is_bounded() -> None:
    first = needs(PLAN)
    assert first is not None
    assert shrink(first, 3, needs).replays == 3


def test_a_plan_file_is_played(tmp_path: Path, gossipfl: Call) -> None:
    file = tmp_path / "plan.json"
    file.write_text(draw_plan(3).to_json())
    code, out, _ = gossipfl("sim", "soak", "--plan", str(file), "--json")
    data = json.loads(out.splitlines()[-1])["data"]
    assert (code, data["seeds"], data["first_seed"]) == (0, 1, 3)
    assert data["device_hours"] > 0


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "no plan"),
        ('{"seed": 1, "devices": 5, "more": 1}', "more"),
        ('{"seed": 1, "devices": 5, "liars": ["thief"]}', "thief"),
        ('{"seed": 1, "devices": 2, "liars": ["foe", "foe"]}', "honest device"),
        ('{"seed":1,"devices":5,"faults":[{"fault":"move","at":1,"device":5,"net":1}]}', "names"),
        ('{"seed":1,"devices":5,"faults":[{"fault":"disk","at":1,"device":1,"after":0,"how":"x"}]}',
         "no way"),
        (None, "No such file"),
    ],
)  # fmt: skip
def test_what_is_no_plan_is_refused(
    text: str | None, why: str, tmp_path: Path, gossipfl: Call
) -> None:
    file = tmp_path / "plan.json"
    if text is not None:
        file.write_text(text)
    code, out, err = gossipfl("sim", "soak", "--plan", str(file))
    assert code == 2
    assert why in out + err


def test_a_failure_is_shrunk_on_request_and_can_be_played_again(
    tmp_path: Path, gossipfl: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fleet that never merges: the invariant is liveness."""
    monkeypatch.setattr("gossipfl.merger.Merger.merged", lambda merger, event: None)
    monkeypatch.setattr("sim.history.RECOVERY_S", 5.0)
    file = tmp_path / "small.json"
    code, out, _ = gossipfl(
        *("sim", "soak", "--seeds", "1", "--first-seed", "5"),
        *("--shrink", "--replays", "2", "--out", str(file), "--json"),
    )
    data = json.loads(out.splitlines()[-1])["data"]
    assert code == 1
    assert data["replays"] == 2
    assert data["commit"]
    assert Plan.from_json(data["plan"]) == Plan.from_json(file.read_text())
    code, out, _ = gossipfl("sim", "soak", "--plan", str(file))
    assert code == 1
    assert f"again: gossipfl sim soak --plan {file}" in out


def test_the_tail_of_a_history_can_be_read() -> None:
    history = History(draw_plan(3))
    history.run()
    lines = history.scene.world.trace.tail().splitlines()
    assert len(lines) == 60
    assert not any("\\x" in line for line in lines), "bytes are named, not printed"
    assert any("HeadReceived(request=" in line for line in lines)
