"""`gossipfl privacy plan`: the figures are the accountant's, the sentence fits them."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable

import pytest

from gossipfl.privacy import Unit
from gossipfl.privacy.gaussian import epsilon_of
from gossipfl.privacy.plan import Verdict, Wish, plan
from gossipfl.privacy.pld import Spend, epsilon_of_steps

Call = Callable[..., tuple[int, str, str]]
DEVICE = Wish(rounds=10, epsilon=8.0, delta=1e-5, unit=Unit.DEVICE)
RECORD = Wish(
    rounds=20, epsilon=8.0, delta=1e-5, unit=Unit.RECORD, sample_rate=0.1, steps=10, lot=40
)


@pytest.mark.parametrize("wish", [DEVICE, RECORD])
def test_the_noise_is_enough_and_hardly_more(wish: Wish) -> None:
    found = plan(wish)
    assert 0.95 * wish.epsilon < found.epsilon <= wish.epsilon
    if wish.unit is Unit.DEVICE:
        assert found.epsilon == epsilon_of(1e-5, math.sqrt(10) / found.z)
        assert found.sigma == 2 * found.z * wish.clip
    else:
        assert found.epsilon == epsilon_of_steps(1e-5, [Spend(found.z, 0.1, 200)])
        assert found.sigma == found.z * wish.clip


@pytest.mark.parametrize("wish", [DEVICE, RECORD])
def test_rounds_affordable_is_the_last_that_fits(wish: Wish) -> None:
    found = plan(dataclasses.replace(wish, z=4.0))

    def cost(rounds: int) -> float:
        if wish.unit is Unit.DEVICE:
            return epsilon_of(1e-5, math.sqrt(rounds) / 4.0)
        return epsilon_of_steps(1e-5, [Spend(4.0, 0.1, 10 * rounds)])

    assert cost(found.rounds_affordable) <= 8.0 * (1 + 1e-9)
    assert cost(math.ceil(found.rounds_affordable * 1.01) + 1) > 8.0


def test_a_planned_number_of_rounds_is_affordable() -> None:
    for rounds in (1, 10, 100, 200, 1000):
        for epsilon in (0.5, 1.0, 4.0, 8.0):
            wish = dataclasses.replace(DEVICE, rounds=rounds, epsilon=epsilon)
            assert plan(wish).rounds_affordable >= rounds


@pytest.mark.parametrize(
    ("wish", "devices", "parameters", "verdict"),
    [
        (DEVICE, 50, 10_000, Verdict.USELESS),
        (DEVICE, 1000, 200, Verdict.DOUBTFUL),
        (DEVICE, 50_000, 1000, Verdict.PART),
        (RECORD, 50, 7_850, Verdict.GOOD),
        (RECORD, 1, 7_850, Verdict.PART),
        (RECORD, 1, 10_000_000, Verdict.USELESS),
    ],
)
def test_the_verdict_says_whether_it_can_work(
    wish: Wish, devices: int, parameters: int, verdict: Verdict
) -> None:
    found = plan(dataclasses.replace(wish, devices=devices, parameters=parameters))
    assert found.verdict is verdict
    assert found.sentence.startswith(
        {
            Verdict.USELESS: "This cannot work",
            Verdict.DOUBTFUL: "This will hardly work",
            Verdict.PART: "This can work, with a worse model",
            Verdict.GOOD: "This can work, and noise",
        }[verdict]
    )


def test_the_devices_needed_are_enough() -> None:
    found = plan(dataclasses.replace(DEVICE, devices=50, parameters=1000))
    assert found.devices_needed is not None
    again = plan(dataclasses.replace(DEVICE, devices=found.devices_needed, parameters=1000))
    assert again.verdict is Verdict.PART


def test_a_budget_that_ends_early_is_said() -> None:
    text = plan(dataclasses.replace(DEVICE, rounds=100, z=2.0)).sentence
    assert "pays for 11 of the 100 rounds" in text
    assert "listen" in text


def test_a_large_epsilon_is_called_weak() -> None:
    assert "weak" in plan(dataclasses.replace(DEVICE, epsilon=12.0)).sentence
    assert "weak" not in plan(DEVICE).sentence


@pytest.mark.parametrize("unit", ["device", "record"])
def test_the_command_answers_in_json(gossipfl: Call, unit: str) -> None:
    code, out, _ = gossipfl(
        *("privacy", "plan", "--rounds", "10", "--epsilon", "8", "--unit", unit, "--json"),
        *("--devices", "10", "--parameters", "100"),
    )
    data = json.loads(out)["data"]
    assert code == (1 if data["verdict"] == "useless" else 0)
    assert data["unit"] == unit
    assert data["z"] > 0
    assert data["sigma"] > 0
    assert data["rounds_affordable"] >= 10
    assert data["signal_to_noise"] > 0
    assert data["sentence"]
    assert data["clip_advice"]


def test_a_plan_that_cannot_work_has_the_exit_code_of_no(gossipfl: Call) -> None:
    code, out, _ = gossipfl("privacy", "plan", "--rounds", "10", "--epsilon", "1", "--z", "1")
    assert code == 1
    assert "does not pay for a single round" in out


@pytest.mark.parametrize(
    "words",
    [
        ("--rounds", "0", "--epsilon", "1"),
        ("--rounds", "1", "--epsilon", "-1"),
        ("--rounds", "1", "--epsilon", "nan"),
        ("--rounds", "1", "--epsilon", "1", "--delta", "1"),
        ("--rounds", "1", "--epsilon", "1", "--z", "0.01"),
        ("--rounds", "1", "--epsilon", "1", "--unit", "record", "--sample-rate", "2"),
        ("--rounds", "1000000", "--epsilon", "1", "--unit", "record", "--steps", "10"),
    ],
)
def test_values_out_of_range_are_named(gossipfl: Call, words: tuple[str, ...]) -> None:
    code, _, err = gossipfl("privacy", "plan", *words)
    assert code == 2
    assert "GF601" in err
    assert "allowed" in err
