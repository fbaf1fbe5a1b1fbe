"""`status` and `peers`: what a person reads, at 80 columns, and what a program gets."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from typing import Any

import pytest

from device_agent import status
from device_agent.progress import Progress
from device_agent.status_text import duration, peers_text, size, status_text
from gossipfl.interfaces import Evaluation
from gossipfl.view import PeerView, View

PEER = PeerView(
    device="abcd-efgh-ijkl-mnop-qrst-uvwx-yz23-4",
    addresses=("192.168.100.100:47600",),
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
)
VIEW = View(
    device="zzzz-efgh-ijkl-mnop-qrst-uvwx-yz23-4",
    fleet="ab" * 32,
    phase="idle",
    round=3,
    seq=12,
    merges=3,
    below_quorum=0,
    listen_only="",
    waiting_for="",
    finished=False,
    policy={
        "term": 0,
        "version": 1,
        "run": 1,
        "rule": "nna",
        "n": 7,
        "attackers": 1,
        "codec": "f32",
        "rounds": None,
    },
    bundle="cd" * 32,
    base="ef" * 32,
    base_round=3,
    accuracy=0.958,
    loss=0.2,
    sample=6,
    f=1,
    peers=(PEER,),
    candidates=0,
    revoked=(),
    evidence=0,
    fleet_time=1_800_000_000,
    requests=0,
)


class Local:
    examples = (100, 25)
    alone_is_done = True
    problem = ""

    def __init__(self, alone: Evaluation | None, measured: Evaluation | None = None) -> None:
        self.alone = alone
        self._measured = measured

    def measured(self, model: str | None) -> Evaluation | None:
        return self._measured if model == VIEW.base else None


ALONE = Local(Evaluation(1.2, 0.672, 25))
TRAFFIC = {"bytes_sent": 1_234_567, "bytes_received": 999, "updates_served": 18}


def built(view: View = VIEW, local: Local | None = ALONE, **more: Any) -> dict[str, Any]:
    progress = Progress(ready_s=0.7, first_training_s=1.0, first_round_s=2.5, last_round_s=9.0)
    return status.build(view, TRAFFIC, progress, local, {"store_problem": "", **more})


def plain(text: str, *_: str) -> str:
    return text


def test_programs_get_both_accuracies_and_json_types_only() -> None:
    found = json.loads(json.dumps(built(), allow_nan=False))
    assert (found["together_accuracy"], found["alone_accuracy"]) == (0.958, 0.672)
    assert found["seconds_to_first_round"] == 2.5
    assert found["bytes_sent"] == 1_234_567
    assert 5 < found["rss_mb"] < 2_000
    assert found["uptime_s"] > 0
    assert found["peers"][0]["state"] == "live"


def test_a_device_without_data_has_no_nan_in_its_json() -> None:
    found = built(replace(VIEW, accuracy=None, loss=math.nan), None)
    assert found["loss"] is None
    assert "no data here" in status_text(found, plain)


def test_figures_measured_before_a_restart_are_shown_for_that_model_only() -> None:
    local = Local(None, Evaluation(0.3, 0.91, 25))
    assert built(replace(VIEW, accuracy=None, loss=None), local)["accuracy"] == 0.91
    other = replace(VIEW, accuracy=None, loss=None, base="00" * 32)
    assert built(other, local)["accuracy"] is None


def test_people_see_how_far_the_models_are_apart_and_why_it_is_finished() -> None:
    view = replace(
        VIEW,
        finished=True,
        finished_why="no better model in 9 rounds",
        stopping={"cause": "patience"},
        convergence={
            "distance": 0.4567,
            "relative": 0.0321,
            "slope": -0.041,
            "step_norm": 0.123,
            "update_norm": 1.5,
        },
    )
    text = re.sub(r"\s+", " ", status_text(built(view), plain))
    assert "finished after 3 rounds, head 12: no better model in 9 rounds" in text
    assert "models 0.457 apart, 3.2% of the way come, -4.1% a round" in text
    assert "the base moved 0.123, own training moved 1.5" in text
    assert built(view)["convergence"]["relative"] == 0.0321
    assert "consensus not known yet" in re.sub(r"\s+", " ", status_text(built(), plain))


def test_people_see_what_the_fleet_is_worth() -> None:
    text = status_text(built(), plain)
    assert "95.8% together, 67.2% alone (+28.6%), on 25 held-out examples" in re.sub(
        r"\s+", " ", text
    )
    assert "rule nna, 7 devices, 1 assumed attackers" in text
    assert "1.2 MB sent" in text


def test_people_see_which_fleet_it_is_and_how_many_addresses_it_has_seen() -> None:
    """What the troubleshooting page tells them to compare."""
    text = status_text(built(replace(VIEW, candidates=2)), plain)
    assert re.search(rf"^fleet +{'ab' * 32}$", text, re.MULTILINE)
    words = re.sub(r"\s+", " ", text)
    assert "3 addresses seen, 2 of them unanswered" in words
    alone = re.sub(r"\s+", " ", status_text(built(), plain))
    assert "1 address seen, 0 of them unanswered" in alone


def test_problems_and_what_it_waits_for_are_said() -> None:
    view = replace(VIEW, policy=None, base=None, waiting_for="a policy", listen_only="no data: x")
    text = status_text(built(view, store_problem="the disk is full"), plain)
    assert "waits for a policy" in text
    assert "listening no data: x" in text
    assert "problem: the disk is full" in text


def test_a_regression_is_told_by_its_loss() -> None:
    view = replace(VIEW, accuracy=None, loss=0.25)
    text = status_text(built(view, Local(Evaluation(0.5, None, 25))), plain)
    assert "held-out loss 0.25 together, alone 0.5" in text


LIAR = replace(
    PEER,
    device="liar-efgh-ijkl-mnop-qrst-uvwx-yz23-4",
    state="quarantined",
    why="its updates lie far from ours " * 10,
    reputation=0.1,
    last_seen_s=None,
    round=None,
    distance=None,
    addresses=(),
    faults={"bad signature": 3},
)


def test_the_table_of_peers_says_who_is_shut_out_and_why_first() -> None:
    found = built(replace(VIEW, peers=(PEER, LIAR)))
    lines = peers_text(found["peers"], plain).splitlines()
    assert lines[1].startswith("liar-efgh  quarantined  0.10")
    assert "its updates lie far from ours" in lines[2]
    live = next(line for line in lines if line.startswith("abcd-efgh  live"))
    assert live.endswith("  192.168.100.100:47600")


LONG = replace(PEER, addresses=("[2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff]:47600",))


@pytest.mark.parametrize("peers", [(), (PEER,), (PEER, LIAR) * 20, (LONG,)])
def test_nothing_is_wider_than_a_terminal(peers: tuple[PeerView, ...]) -> None:
    found = built(replace(VIEW, peers=peers, waiting_for="something " * 30, seq=999_999))
    for text in (status_text(found, plain), peers_text(found["peers"], plain)):
        assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.96, "10 s"), (99, "99 s"), (100, "2 min"), (7_200, "2 h"), (4e5, "5 d")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1_000, "1.0 kB"), (2.5e12, "2500.0 GB")]
)
def test_sizes(count: float, text: str) -> None:
    assert size(count) == text
