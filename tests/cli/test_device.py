"""`init`, `run`, `status`, `peers`, `predict`, `models` where no agent runs: files and errors."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from device_agent.setting_files import load

Cli = Callable[..., tuple[int, str, str]]


def test_init_writes_a_config_that_loads(gossipfl: Cli, tmp_path: Path) -> None:
    state = tmp_path / "state"
    code, out, _ = gossipfl("init", "--state", str(state), "--set", "pace.preset=demo")
    assert code == 0
    assert "gossipfl join LINE" in out
    assert state.stat().st_mode & 0o777 == 0o700
    settings = load([state / "config.toml"], {})
    assert settings.pace.preset == "demo"
    assert settings.device.state == state


def test_paths_given_to_init_are_where_one_stands(
    gossipfl: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = ("--set", "data.source=shard", "--set", "job.bundle=m.gfl")
    assert gossipfl("init", "--state", "box", *given)[0] == 0
    settings = load([tmp_path / "box" / "config.toml"], {})
    assert settings.data.source == str(tmp_path / "shard")
    assert settings.job.bundle == tmp_path / "m.gfl"


def test_init_does_not_overwrite(gossipfl: Cli, tmp_path: Path) -> None:
    assert gossipfl("init", "--state", str(tmp_path))[0] == 0
    (tmp_path / "config.toml").write_text("# mine\n")
    code, _, err = gossipfl("init", "--state", str(tmp_path))
    assert code == 3
    assert "is there already" in err
    assert (tmp_path / "config.toml").read_text() == "# mine\n"


@pytest.mark.parametrize("verb", ["status", "peers"])
def test_no_agent_is_told_with_its_own_exit_code(gossipfl: Cli, tmp_path: Path, verb: str) -> None:
    code, _, err = gossipfl(verb, "--state", str(tmp_path))
    assert code == 4
    assert "GF311" in err
    assert "gossipfl run" in err


def test_a_wrong_flag_names_itself(gossipfl: Cli, tmp_path: Path) -> None:
    code, _, err = gossipfl("status", "--state", str(tmp_path), "--set", "network.prot=1")
    assert code == 3
    assert "--set network.prot" in err
    assert gossipfl("status", "--state", str(tmp_path), "--set", "nonsense")[0] == 2


@pytest.mark.skipif(os.path.exists("/etc/gossipfl"), reason="an agent is installed here")  # noqa: PTH110
def test_without_a_config_it_asks_which_device(gossipfl: Cli) -> None:
    code, _, err = gossipfl("status")
    assert code == 3
    assert "--config FILE or --state DIR" in err


def test_predict_without_identity_or_model(gossipfl: Cli, tmp_path: Path) -> None:
    code, _, err = gossipfl("predict", "--state", str(tmp_path), "--input", "1.csv")
    assert code == 5
    assert "GF201" in err
