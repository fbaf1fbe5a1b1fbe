"""The parts of the demo: its folder, ports, processes, table and verdict. The whole is in e2e."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gossipfl.bundle.archive import read_path
from gossipfl.errors import Exit, UserError
from gossipfl.messages import Training
from sim.attacks import attack
from sim.demo import places
from sim.demo.agents import Lie, command, shipped_bundle, trainers
from sim.demo.hub import Audit
from sim.demo.places import Job, Place, free_ports, own_folder, settle, shards
from sim.demo.processes import Children
from sim.demo.references import Accuracies, summarise, undefended
from sim.demo.summary import Outcome, data, words
from sim.demo.table import Row, Screen, lines, size
from sim.demo.watch import Watch, Watched

Call = Callable[..., tuple[int, str, str]]
JOB = Job(devices=7, liars=1, rounds=3, seed=1, training=Training(), pace="demo")


# --- folder, ports, places ----------------------------------------------------------------------


def test_a_second_demo_in_one_folder_is_refused(tmp_path: Path) -> None:
    with own_folder(tmp_path / "d"), pytest.raises(UserError, match="another demo is running"):
        own_folder(tmp_path / "d").__enter__()


def test_a_folder_that_no_demo_made_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("ten years of work")
    with pytest.raises(UserError, match="no demo made"), own_folder(tmp_path):
        pass
    assert (tmp_path / "thesis.txt").read_text() == "ten years of work"


def test_what_the_last_demo_left_is_gone(tmp_path: Path) -> None:
    with own_folder(tmp_path / "d") as folder:
        (folder / "device-1").mkdir()
        (folder / "policy").write_text("old")
    with own_folder(tmp_path / "d") as folder:
        assert [entry.name for entry in folder.iterdir()] == [places.MARK]


def test_a_busy_port_is_said_aloud_and_passed_over() -> None:
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        found = free_ports(2, said.append, first=port)
    assert port not in found
    assert len(set(found)) == 2
    assert len(said) == 1
    assert str(port) in said[0]


def test_honest_devices_share_out_all_digits_and_all_are_measured_on_the_same() -> None:
    parts, test = shards(JOB)
    assert [len(parts), len(test)] == [7, 360]
    assert sum(len(part) for part in parts[:6]) == 1437
    again, _ = shards(JOB)
    assert all(np.array_equal(a.x, b.x) for a, b in zip(parts, again, strict=True))


@pytest.fixture
def settled(tmp_path: Path) -> list[Place]:
    return settle(JOB, tmp_path, shipped_bundle("digits-mlp"), list(range(50_001, 50_008)))


def test_each_device_has_its_own_keys_and_a_config_that_the_agent_accepts(
    settled: list[Place],
) -> None:
    from device_agent.setting_files import load

    assert len({place.device for place in settled}) == 7
    assert [place.is_liar for place in settled] == [False] * 6 + [True]
    for place in settled:
        settings = load([place.config], environment={})
        assert settings.network.port == place.port
        assert settings.pace.preset == "demo"
        assert len(settings.network.peers) == 2
        assert settings.socket == place.socket
        secret = (place.folder / "signing.key").stat()
        assert secret.st_mode & 0o077 == 0


def test_only_the_liar_is_started_by_demo_code(settled: list[Place]) -> None:
    lie = Lie("foe", noise=0.3)
    assert command(settled[0], lie)[:3] == ["-m", "gossipfl", "run"]
    words = command(settled[-1], lie)
    assert words[:2] == ["-m", "sim.demo.liar"]
    assert " ".join(words).endswith(
        "--attack foe --noise 0.3 --rule collapse+nna --f 1 --liars 1 --seed 0 --number 0"
    )


def test_a_fleet_without_a_defence_is_ruined_by_one_liar(settled: list[Place]) -> None:
    bundle = read_path(shipped_bundle("digits-mlp"))
    honest = trainers(bundle, settled[:6])
    liars = trainers(bundle, settled[6:])
    training = Training(learning_rate=0.05, momentum=0.9)
    ruined = undefended(honest, liars, training, 6, 1, attack("foe"))
    clean = undefended(honest, [], training, 6, 1, attack("foe"))
    assert undefended(honest, liars, training, 2, 1, attack("nan")) == Accuracies(0.0, 0.0)
    assert clean.mean > 0.7
    assert ruined.mean < 0.4


# --- processes ----------------------------------------------------------------------------------


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "in vain"
        time.sleep(0.01)


DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(600)
"""


def test_children_are_gone_when_the_block_is_left(tmp_path: Path) -> None:
    def fail_in_the_middle() -> None:
        with children:
            children.start("a", ["-c", "while True: pass"], tmp_path / "a.log")
            stubborn = children.start("b", ["-c", DEAF], tmp_path / "b.log")
            wait_for(lambda: "deaf" in stubborn.last_words())
            raise RuntimeError("something else went wrong")

    children = Children(patience_s=0.3)
    with pytest.raises(RuntimeError):
        fail_in_the_middle()
    assert [child.is_alive for child in children.all] == [False, False]


def test_children_die_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    script = (
        "import time; from pathlib import Path; from sim.demo.processes import Children\n"
        "with Children() as c:\n"
        f"    log = Path({str(tmp_path)!r}) / 'log'\n"
        "    child = c.start('a', ['-c', 'import time; time.sleep(600)'], log)\n"
        "    print(child.pid, flush=True); time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    wait_for(lambda: _is_gone(pid))


def _is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_the_memory_and_time_of_a_child_are_read(tmp_path: Path) -> None:
    with Children() as children:
        child = children.start("a", ["-c", "while True: pass"], tmp_path / "log")
        wait_for(lambda: child.cpu_s() > 0.05)
        assert 1.0 < (child.rss_mb() or 0.0) < 200.0


# --- table --------------------------------------------------------------------------------------


def plain(text: str, *styles: str) -> str:
    return text


def row(**changes: Any) -> Row:
    given: dict[str, Any] = {
        "device": "abcd-efgh",
        "state": "training",
        "round": 3,
        "accuracy": 0.9,
        "alone": None,
        "reputation": 1.0,
        "peers": 6,
        "sent": 1_234_567,
        "note": "",
        "is_liar": False,
        "is_quarantined": False,
    }
    return Row(**{**given, **changes})


def test_the_table_has_a_line_for_each_device_and_fits_the_screen() -> None:
    table = lines([row(), row(note="x" * 300)], plain, width=120)
    assert len(table) == 3
    assert "0.900" in table[1]
    assert "1.2 MB" in table[1]
    assert all(len(line) <= 120 for line in table)


@pytest.mark.parametrize("width", [64, 80, 100, 200])
def test_a_note_is_never_cut_off(width: int) -> None:
    """Columns that matter less make way for it; the name, round and accuracy stay."""
    table = lines([row(note="quarantined by 6 of 6", accuracy=0.923), row()], plain, width=width)
    assert table[1].endswith("quarantined by 6 of 6")
    assert "abcd-efgh" in table[1]
    assert "0.923" in table[1]
    assert ("MB" in table[1]) == (width >= 100)


def test_without_a_terminal_there_are_plain_lines_and_no_repeats() -> None:
    stream = io.StringIO()
    screen = Screen(stream, plain)
    for _ in range(3):
        screen.draw([row(), row(device="liar", is_quarantined=True, note="lies")])
    screen.draw([row(round=4), row(device="liar", is_quarantined=True, note="lies")])
    text = stream.getvalue()
    assert "\x1b" not in text
    assert text.count("round 3") == 2
    assert text.count("round 4") == 1


def test_sizes_are_for_people() -> None:
    assert [size(n) for n in (0, 999, 38_400, 5_410_000, 3e9)] == [
        "0 B",
        "999 B",
        "38.4 kB",
        "5.4 MB",
        "3.00 GB",
    ]


# --- watch and verdict --------------------------------------------------------------------------


class Fleet:
    """Six honest devices and a liar, with statuses that a test sets."""

    def __init__(self, tmp_path: Path) -> None:
        self.statuses: dict[str, dict[str, Any] | None] = {}
        watched = []
        for number in range(7):
            name = f"d{number}"
            place = Place(name, name, tmp_path, tmp_path, tmp_path, 1, 0 if number == 6 else None)
            watched.append(Watched(place, FakeChild()))  # type: ignore[arg-type]
            self.statuses[name] = {
                "phase": "idle",
                "round": 20,
                "base_round": 20,
                "accuracy": 0.96,
                "alone_accuracy": 0.7,
                "bytes_sent": 1000,
                "peers": [],
            }
        self.watch = Watch(watched, lambda place: self.statuses[place.name])

    def accuse(self, observers: int, accused: str = "d6") -> None:
        for number in range(observers):
            status = self.statuses[f"d{number}"]
            assert status is not None
            status["peers"] = [
                {
                    "device": accused,
                    "state": "quarantined",
                    "why": "far off (88 s left)",
                    "reputation": 0.1,
                }
            ]

    def outcome(self, rounds: int = 20) -> Outcome:
        self.watch.look(12.0, rounds)
        return Outcome(
            honest=self.watch.honest,
            liars=self.watch.liars,
            undefended=Accuracies(0.1, 0.1),
            rounds=rounds,
            seconds_run=70.0,
            attack="foe",
        )


class FakeChild:
    is_alive = True
    pid = 1

    def rss_mb(self) -> float:
        return 80.0


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


def test_a_log_that_does_not_verify_is_no_success(fleet: Fleet) -> None:
    fleet.accuse(6)
    good = replace(fleet.outcome(), audit=Audit(entries=312, receipts=120, verified=True))
    assert good.is_good
    assert "audit log: 312 entries, verified" in words(good, plain)
    assert data(good)["audit"]["entries"] == 312
    bad = replace(good, audit=Audit(entries=312, problem="entry 7: it is no valid receipt"))
    assert not bad.is_good
    assert "audit log: NOT verified: entry 7: it is no valid receipt" in words(bad, plain)


def test_a_good_run_is_good_and_says_who_lied_and_why(fleet: Fleet) -> None:
    fleet.accuse(6)
    outcome = fleet.outcome()
    assert outcome.is_good
    figures = data(outcome)
    assert figures["liar_quarantined"] is True
    assert figures["together_accuracy"] == {"mean": pytest.approx(0.96), "worst": 0.96}
    liar = figures["devices"][-1]
    assert (liar["quarantined"], liar["quarantined_by"], liar["reason"]) == (True, 6, "far off")
    assert "quarantined by 6 of 6" in words(outcome, plain)
    assert "far off" in words(outcome, plain)


def test_a_liar_that_most_did_not_catch_is_no_success(fleet: Fleet) -> None:
    fleet.accuse(3)
    outcome = fleet.outcome()
    assert not outcome.is_good
    assert data(outcome)["liar_quarantined"] is False


def test_an_honest_device_shut_out_by_most_is_no_success(fleet: Fleet) -> None:
    fleet.accuse(6)
    outcome = fleet.outcome()
    fleet.accuse(6, accused="d5")
    fleet.watch.look(13.0, 20)
    assert outcome.is_good is False


def test_a_quarantine_that_ended_still_counts(fleet: Fleet) -> None:
    fleet.accuse(6)
    fleet.watch.look(5.0, 20)
    for status in fleet.statuses.values():
        assert status is not None
        status["peers"] = []
    assert data(fleet.outcome())["liar_quarantined"] is True
    assert data(fleet.outcome())["devices"][-1]["quarantined_after_s"] == 5.0


@pytest.mark.parametrize(
    "change",
    [{"base_round": 11}, {"accuracy": 0.4}, {"accuracy": 0.9}, {"accuracy": None}],
    ids=["late", "worse than alone", "disagrees", "never measured"],
)
def test_one_that_did_not_converge_is_no_success(fleet: Fleet, change: dict[str, Any]) -> None:
    fleet.accuse(6)
    status = fleet.statuses["d2"]
    assert status is not None
    status.update(change)
    outcome = fleet.outcome()
    assert not outcome.is_good
    assert "did NOT converge" in words(outcome, plain)


def test_the_first_quarantine_is_told_once_with_its_reason(fleet: Fleet) -> None:
    assert fleet.watch.look(1.0, 20) == []
    fleet.accuse(2)
    assert fleet.watch.look(9.0, 20) == ["after 9 s d6 is quarantined: far off"]
    fleet.accuse(6)
    assert fleet.watch.look(10.0, 20) == []
    assert fleet.watch.rows()[6].reputation == 0.0


def test_a_device_that_does_not_answer_is_shown_as_starting(fleet: Fleet) -> None:
    fleet.statuses["d0"] = None
    fleet.watch.look(1.0, 20)
    first = fleet.watch.rows()[0]
    assert (first.state, first.accuracy) == ("starting", None)


def test_nothing_measured_is_not_a_success() -> None:
    assert summarise([]) == Accuracies(0.0, 0.0)


# --- the verb -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv",
    [
        ("--attackers", "3"),
        ("--devices", "2"),
        ("--rounds", "0"),
        ("--attack", "bribery"),
        ("--noise", "-1"),
    ],
)
def test_numbers_that_make_no_fleet_are_wrong_use(gossipfl: Call, argv: tuple[str, ...]) -> None:
    code, _, err = gossipfl("demo", *argv)
    assert code == Exit.USAGE
    assert "GF100" in err


def test_attacks_are_listed_with_what_they_do(gossipfl: Call) -> None:
    code, out, _ = gossipfl("demo", "--attack", "list")
    assert code == Exit.OK
    assert len(out.splitlines()) == 18
    assert "mimic" in out
    assert "copy one honest device" in out


def test_an_unknown_attack_is_told_with_the_nearest(gossipfl: Call) -> None:
    code, _, err = gossipfl("demo", "--attack", "mimick")
    assert code == Exit.USAGE
    assert "'mimic'" in err
    assert "--attack list" in err
