"""The soak itself, and the verbs that start it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from sim.plan import Plan, draw_plan
from sim.soak import soak
from sim.world import World


def test_random_histories_hold_their_invariants() -> None:
    """A few seeds here; `gossipfl sim soak --seeds N` plays as many as there is time for."""
    summary = soak(6, first_seed=1_000)
    assert summary.failures == []
    assert summary.seeds == 6
    assert len(summary.faults) >= 8  # kinds of faults that happened
    assert summary.device_rounds > 300


def test_a_random_history_is_one_history_whatever_the_hash_seed() -> None:
    """In this one what is saved of reputation came in the order of a set."""
    program = (
        "from sim.soak import play\n"
        "from sim.plan import FOCUSES, draw_plan\n"
        "print(play(draw_plan(19, FOCUSES['any'])).digest)\n"
    )

    def run(hash_seed: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    assert len({run(hash_seed) for hash_seed in ("1", "2", "3")}) == 1


def test_a_soak_stops_when_time_is_up() -> None:
    assert soak(100, 1, enough=lambda: True).seeds == 0


def test_a_failing_seed_is_named_with_how_to_run_it_again(
    monkeypatch: pytest.MonkeyPatch, gossipfl: Callable[..., tuple[int, str, str]]
) -> None:
    """A broken disk that forgets what it said was durable: the checkers see it."""
    run_for = World.run_for

    def forgetful(world: World, seconds: float) -> None:
        run_for(world, seconds)
        for device in world.devices:
            device.durable.clear()

    monkeypatch.setattr(World, "run_for", forgetful)
    code, out, _ = gossipfl("sim", "soak", "--seeds", "1", "--first-seed", "77")
    assert code == 1
    assert "before it is durable" in out
    assert "invariant: DurableBeforePublic; code: " in out
    assert "sim soak --seeds 1 --first-seed 77" in out
    plan = out.split("plan: ", 1)[1].splitlines()[0]
    assert Plan.from_json(plan) == draw_plan(77)
