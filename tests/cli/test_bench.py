"""The figures of the benchmarks mean what docs/how-to/measure.md says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from gossipfl.messages import Training
from sim.bench.fleet import measure
from sim.bench.report import envelope, table
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
