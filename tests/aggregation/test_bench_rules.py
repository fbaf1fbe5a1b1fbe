"""`script/bench rules` on models so small that no figure means anything: it runs and judges."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from gossipfl.aggregation import RULES


@pytest.fixture
def bench(root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(root / "script"))
    module = importlib.import_module("bench_rules")
    monkeypatch.setattr(module.report, "MAIN", (6, 2000))
    return module


def test_every_rule_is_timed_and_every_target_is_judged(
    bench: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stem = tmp_path / "rules"
    stem.with_suffix(".md").write_text("old figures\n\n## What was tried\n\nMuch.\n")
    argv = ["--json", "--main", "--no-small-pages", "--runs", "1", "--save", str(stem)]
    assert bench.main(argv) == 0
    data = json.loads(capsys.readouterr().out.splitlines()[-1])["data"]
    [case] = data["cases"]
    assert (case["n"], case["d"], case["f"]) == (6, 2000, 1)
    assert set(RULES) < set(case["rules"])
    for name, row in case["rules"].items():
        assert row["ms"] > 0, name
        assert ("over_naive" in row) == (name not in ("collapse+nna", "defence")), name
    assert len(data["targets"]) == 10
    judged = {line["verdict"] for line in data["targets"] if "byzfl" not in line["what"]}
    assert judged <= {"ok", "missed"}
    assert json.loads(stem.with_suffix(".json").read_text())["data"] == data
    page = stem.with_suffix(".md").read_text()
    assert "| the whole default defence: ms | <= 40 |" in page
    assert page.endswith("\n\n## What was tried\n\nMuch.\n")
    assert "old figures" not in page


def test_a_target_is_missed_by_the_wrong_side(bench: Any) -> None:
    faster = {name: {f"over_{rival}_cpu": 5.8 for rival in ("naive", "byzfl")} for name in RULES}
    rules = {**faster, "nnm": {}, "defence": {"cpu_ms": 40.5}}
    rules["nna"] = {"read_passes_cpu": 2.0}
    lines = {
        line["what"]: line["verdict"] for line in bench.report.verdicts({"rules": rules}, None)
    }
    assert lines["krum: times faster than naive"] == "ok"
    assert lines["krum: times faster than byzfl"] == "missed"
    assert lines["multi_krum: times faster than byzfl"] == "ok"
    assert lines["nnm: times faster than byzfl"] == "not measured"
    assert lines["nna: read passes"] == "ok"
    assert lines["the whole default defence: ms"] == "missed"
