"""The figures of the benchmarks mean what docs/how-to/measure.md says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from gossipfl.messages import Training
from sim.attacks import ATTACKS
from sim.bench import reputation
from sim.bench.fleet import measure
from sim.bench.report import envelope, table
from sim.bench.reputation import Task, Told, attacked, play
from sim.demo.places import Job

JOB = Job(devices=2, liars=0, rounds=10, seed=1, training=Training(), pace="none")


def status(first_training: float, first: float, last: float, rss: float) -> dict[str, object]:
    return {
        "seconds_to_first_training": first_training,
        "seconds_to_first_round": first,
        "seconds_to_last_round": last,
        "bytes_sent": 100_000,
        "updates_served": 2,
        "together_accuracy": 0.9,
        "base_round": 10,
        "rss_mb": rss,
    }


def test_times_count_from_the_first_process_and_to_the_slowest_node() -> None:
    figures = measure(JOB, [0.0, 1.0], [status(2.0, 3.0, 5.0, 90), status(2.0, 3.5, 6.0, 100)], 4)
    assert figures["seconds_to_first_round"] == 4.5  # the second: started a second later
    assert figures["seconds_per_round"] == 0.5  # (7.0 - 2.0) / 10
    assert figures["rss_mb_per_agent"] == 100
    assert figures["bytes_sent_per_node"] == 100_000
    assert figures["bytes_over_model_bytes"] == round(200_000 / (9_610 * 4 * 4), 4)


def test_the_answer_is_one_line_of_json() -> None:
    figures = {"accuracy": 0.9, "imports": []}
    text = envelope(figures)
    assert "\n" not in text
    assert json.loads(text) == {"schema": 1, "status": "ok", "data": figures}
    assert "accuracy" in table(figures)


def test_help_names_every_benchmark(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sim.bench", "--help"], capture_output=True, text=True, cwd=root
    )
    assert done.returncode == 0
    assert all(name in done.stdout for name in ("fleet", "idle", "cli"))


def test_a_seed_counts_as_flagged_if_every_liar_is_called_so_by_half_of_its_victims() -> None:
    on = [
        Told(Task("foe", 1, 40), rounds=40, influence=0.0, accuracy=0.9, worst=0.8, flagged=[1.0]),
        Told(Task("foe", 2, 40), rounds=40, influence=0.1, accuracy=0.9, worst=0.7, flagged=[0.4]),
    ]
    off = Told(Task("foe", 1, 40, reputation=False), rounds=7, influence=0.3, flagged=[0.0])
    row = attacked([*on, off])
    assert (row["seeds"], row["flagged_seeds"]) == (2, 1)
    assert (row["influence_on"], row["influence_off"]) == (0.05, 0.3)
    assert row["worst_on"] == 0.7
    assert (row["stuck_on"], row["stuck_off"]) == (0, 1)


def test_liars_of_the_reputation_bench_may_begin_when_the_fleet_has_learnt() -> None:
    fleet = {"devices": 6, "liars": 1, "assumed": 1, "since": 6}
    told = play(Task("gaussian", 1, 8, **fleet))  # type: ignore[arg-type]
    assert told.rounds == 14
    assert told.flagged == [1.0]
    assert told.framed == 0
    assert play(Task("gaussian", 1, 1, **fleet)).flagged == [0.0]  # type: ignore[arg-type]


def test_every_attack_of_the_reputation_bench_has_causes_that_are_true_of_it() -> None:
    assert set(reputation.ATTACKS) <= set(reputation.RIGHT) <= set(ATTACKS)
