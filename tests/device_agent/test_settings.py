"""What a person sees who writes a config file: values, order, and errors with their place."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from device_agent.setting_files import load
from device_agent.setting_template import template
from device_agent.settings import ROWS, Settings
from gossipfl.errors import UserError


def write(folder: Path, text: str, name: str = "config.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_no_file_gives_the_defaults() -> None:
    settings = load(environment={})
    assert settings == Settings()
    assert settings.pace.preset == "lan"


def test_a_file_is_read_and_its_paths_are_relative_to_it(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        '[network]\nport = 7400\npeers = ["10.0.0.1:7400", "[fe80::1]:7400"]\n'
        '[job]\nbundle = "m.gfl"\n[data]\nsource = "shard"\ntest_share = 0.5\n',
    )
    settings = load([path], {})
    assert settings.network.port == 7400
    assert settings.network.peers == ("10.0.0.1:7400", "[fe80::1]:7400")
    assert settings.job.bundle == tmp_path / "m.gfl"
    assert settings.job.policy is None
    assert settings.data.source == str(tmp_path / "shard")
    assert settings.data.test_share == 0.5
    assert settings.device.state == tmp_path
    assert settings.socket == tmp_path / "agent.sock"


def test_an_entry_point_is_no_path(tmp_path: Path) -> None:
    path = write(tmp_path, '[data]\nsource = "my_sensors.window:load"\n')
    assert load([path], {}).data.source == "my_sensors.window:load"


def test_later_files_then_environment_then_flags_win(tmp_path: Path) -> None:
    first = write(tmp_path, '[pace]\npreset = "wan"\n[network]\nport = 1\n', "a.toml")
    second = write(tmp_path, "[network]\nport = 2\n", "b.toml")
    environment = {"GOSSIPFL_NETWORK__PORT": "3", "GOSSIPFL_HOME": "/x", "PATH": "/bin"}
    assert load([first, second], {}).network.port == 2
    assert load([tmp_path], {}).network.port == 2
    assert load([first], environment).network.port == 3
    settings = load([first], environment, {"network.port": "4", "discovery.enabled": "false"})
    assert settings.network.port == 4
    assert not settings.discovery.enabled
    sources = {name: source for name, _, source in settings.items()}
    assert sources["pace.preset"] == f"{first}:2"
    assert sources["network.port"] == "--set network.port"
    assert sources["logging.level"] == "default"


def test_lists_from_the_environment(tmp_path: Path) -> None:
    plain = load([], {"GOSSIPFL_NETWORK__PEERS": "a:1, b:2"})
    toml = load([], {"GOSSIPFL_NETWORK__PEERS": '["a:1", "b:2"]'})
    assert plain.network.peers == toml.network.peers == ("a:1", "b:2")


@pytest.mark.parametrize(
    ("text", "code", "told"),
    [
        ("[network]\n\nprot = 1\n", "GF101", r"config.toml:3: 'prot' .* did you mean 'port'\?"),
        ("[netwrok]\nport = 1\n", "GF101", r"config.toml:1: \[netwrok\].*mean 'network'\?"),
        ("[zzzzz]\n", "GF101", r"config.toml:1: \[zzzzz\] is not known; known: device"),
        ("port = 1\n", "GF101", r"config.toml:1: 'port' stands outside"),
        ('[network]\nport = "x"\n', "GF102", r"config.toml:2: .*'x' is not a whole number"),
        ("[network]\nport = true\n", "GF102", r"config.toml:2: .*True is not a whole number"),
        ("[network]\nport = 70000\n", "GF102", r"config.toml:2: .*allowed: 0 to 65535"),
        ("[discovery]\nenabled = 1\n", "GF102", r"config.toml:2: .*true or false"),
        ('[pace]\npreset = "fast"\n', "GF102", r"config.toml:2: .*allowed: lan, demo, wan, none"),
        ('[network]\npeers = ["10.0.0.1"]\n', "GF102", r"config.toml:2: .*not host:port"),
        ('[network]\npeers = ["fe80::1:7400"]\n', "GF102", r"not host:port"),
        ('[network]\npeers = "a:1"\n', "GF102", r"config.toml:2: .*list of texts"),
        ("[network\n", "GF103", r"config.toml: not TOML: .*line 1"),
    ],
)
def test_mistakes_are_told_with_their_place(
    tmp_path: Path, text: str, code: str, told: str
) -> None:
    with pytest.raises(UserError) as refused:
        load([write(tmp_path, text)], {})
    assert refused.value.code == code
    assert re.search(told, refused.value.cause), refused.value.cause


def test_mistakes_in_environment_and_flags_name_them() -> None:
    with pytest.raises(UserError, match="GOSSIPFL_NETWORK__PROT: 'prot'"):
        load([], {"GOSSIPFL_NETWORK__PROT": "1"})
    with pytest.raises(UserError, match=r"--set network\.port: network\.port = 'x'"):
        load([], {}, {"network.port": "x"})


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file") as refused:
        load([tmp_path / "none.toml"], {})
    assert refused.value.code == "GF103"


def test_the_written_file_says_everything_and_changes_nothing(tmp_path: Path) -> None:
    text = template({"device.state": Path()})
    path = write(tmp_path, text)
    settings = load([path], {})
    assert [value for name, value, _ in settings.items() if name != "device.state"] == [
        row.default for row in ROWS if row.name != "device.state"
    ]
    assert settings.device.state == tmp_path
    assert text.count("# default: ") == len(ROWS)
    assert max(map(len, text.splitlines())) <= 100


def test_every_example_in_the_written_file_is_valid(tmp_path: Path) -> None:
    text = re.sub(r"^# (\w+ = )", r"\1", template({}), flags=re.MULTILINE)
    assert sum(len(section) for section in tomllib.loads(text).values()) == len(ROWS)
    load([write(tmp_path, text)], {})


def test_settings_are_light_to_import() -> None:
    code = "import sys, device_agent.setting_files; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"numpy", "aiohttp", "onnxruntime", "asyncio", "msgspec", "nacl"}
    assert not heavy & set(done.stdout.split())
