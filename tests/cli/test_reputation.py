"""`reputation show` and `quarantine list|release` as a person uses them, with an agent that answers
from a script."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from gossipfl.errors import UserError
from gossipfl.view import PeerView

Cli = Callable[..., tuple[int, str, str]]

GOOD = PeerView(
    device="abcd-efgh-ijkl-mnop-qrst-uvwx-yz23-4",
    addresses=("192.168.1.4:47600",),
    state="live",
    why="",
    reputation=1.0,
    influence=0.14,
    distance=1.1,
    last_seen_s=0.4,
    seq=12,
    round=3,
    sampled=True,
    faults={},
    available=0.98,
    latency_s=2.1,
    update_age_s=4.0,
    share=0.13,
    served_bytes=1_234_567,
    contribution=0.6,
    evidence={"apart": 0.0, "alike": 0.0},
)
LIAR = replace(
    GOOD,
    device="abzz-efgh-ijkl-mnop-qrst-uvwx-yz23-4",
    state="quarantined",
    cause="direction",
    why="its updates point the other way (312 s left)",
    reputation=0.0,
    weight=0.0,
    quarantines=2,
    quarantine_left_s=312.0,
    contribution=0.05,
    evidence={"apart": 4.0, "alike": 0.0},
    faults={"bad signature": 3},
    history=((1_800_000_000, "direction", "its updates point the other way"),),
)
FORKER = replace(
    GOOD,
    device="cccc-efgh-ijkl-mnop-qrst-uvwx-yz23-4",
    state="condemned",
    cause="equivocation",
    why="equivocated (equal seq): two signed heads prove it",
    reputation=0.0,
    weight=0.0,
)


class Agent:
    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def call(self, path: Path, verb: str, /, **fields: Any) -> dict[str, Any]:
        self.asked.append((verb, fields))
        if verb == "peers":
            return {"peers": json.loads(json.dumps([asdict(p) for p in (GOOD, LIAR, FORKER)]))}
        if verb == "release":
            return {"taken": True, "said": ["abzz-efgh is released"]}
        raise UserError("GF312", verb)


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Agent:
    found = Agent()
    monkeypatch.setattr("device_agent.local_api.call", found.call)
    return found


def test_show_puts_the_suspects_first_with_cause_and_reason(
    gossipfl: Cli, tmp_path: Path, agent: Agent
) -> None:
    code, out, _ = gossipfl("reputation", "show", "--state", str(tmp_path))
    assert code == 0
    rows = [line for line in out.splitlines() if line[:4] in ("abcd", "abzz", "cccc")]
    assert [row[:4] for row in rows] == ["abzz", "cccc", "abcd"]
    assert "direction" in rows[0]
    assert "its updates point the other way" in out
    assert rows[2].split()[-2:] == ["60.0%", "-"]
    assert max(map(len, out.splitlines())) <= 80


def test_show_one_says_all_that_is_known_of_it(gossipfl: Cli, tmp_path: Path, agent: Agent) -> None:
    code, out, _ = gossipfl("reputation", "show", "ABZZ-e", "--state", str(tmp_path))
    assert code == 0
    for words in (
        "it is not asked",
        "direction: its updates point the other way",
        "apart 4.00",
        "2 times in quarantine",
        "3 x bad signature",
        "1.2 MB served",
        "2027-01-15 08:00:00Z direction: its updates point the other way",
    ):
        assert words in " ".join(out.split()), words
    assert max(map(len, out.splitlines())) <= 80


def test_json_names_the_cause_for_programs(gossipfl: Cli, tmp_path: Path, agent: Agent) -> None:
    _, out, _ = gossipfl("reputation", "show", "abzz", "--state", str(tmp_path), "--json")
    data = json.loads(out.splitlines()[-1])["data"]
    assert (data["cause"], data["quarantine_left_s"]) == ("direction", 312.0)
    _, out, _ = gossipfl("quarantine", "list", "--state", str(tmp_path), "--json")
    listed = json.loads(out.splitlines()[-1])["data"]["peers"]
    assert [(p["device"][:4], p["cause"], p["quarantine_left_s"]) for p in listed] == [
        ("abzz", "direction", 312.0),
        ("cccc", "equivocation", None),
    ]


def test_list_says_who_why_and_for_how_long(gossipfl: Cli, tmp_path: Path, agent: Agent) -> None:
    _, out, _ = gossipfl("quarantine", "list", "--state", str(tmp_path))
    assert "abcd" not in out
    [row] = [line for line in out.splitlines() if line.startswith("abzz")]
    assert "5 min" in row
    assert "two signed heads prove it" in out


def test_release_hands_the_full_id_over(gossipfl: Cli, tmp_path: Path, agent: Agent) -> None:
    code, out, _ = gossipfl("quarantine", "release", "abzz", "--state", str(tmp_path))
    assert (code, out.strip()) == (0, "abzz-efgh is released")
    assert agent.asked[-1] == ("release", {"device": LIAR.device})


@pytest.mark.parametrize(
    ("peer", "code", "words"),
    [
        ("abcd", "GF703", "nothing to release it from"),
        ("cccc", "GF703", "enrolled again"),
        ("ab", "GF100", "may be abcd-efgh-ijkl, abzz-efgh-ijkl"),
        ("zz", "GF100", "no peer's id begins with 'zz'"),
    ],
)
def test_what_cannot_be_released(
    gossipfl: Cli, tmp_path: Path, agent: Agent, peer: str, code: str, words: str
) -> None:
    exit_, _, err = gossipfl("quarantine", "release", peer, "--state", str(tmp_path))
    assert exit_ == 2
    assert code in err
    assert words in err
    assert [verb for verb, _ in agent.asked] == ["peers"], "nothing was changed"
