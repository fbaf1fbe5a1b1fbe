"""The audit: what ships passes, every planted bug is found, and the bound itself is a bound."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import numpy as np
import pytest
from planted import BUGS, FINDS

from device_agent.canary import canary
from gossipfl.privacy import Unit
from gossipfl.privacy.canaries import GAMES, Audit, Game, Subject
from gossipfl.privacy.onerun import correct_guesses, epsilon_bound

Call = Callable[..., tuple[int, str, str]]
ONE = Audit(runs=1)  # the command plays five runs and takes the median
HALF = Audit(runs=1, canaries=10_000)  # enough to show that there is nothing to be found


def entropy() -> Callable[[int], bytes]:
    """The same coins and noise every time: a bug that shows by a hair today shows tomorrow."""
    return random.Random(1).randbytes


def test_the_claim_at_z_two_is_1_99() -> None:
    for unit in Unit:
        assert Audit().claim(unit) == pytest.approx(1.99, abs=0.005)


@pytest.mark.parametrize(
    ("correct", "epsilon"),
    [(200, 0.0), (215, 0.0), (260, 0.4), (320, 1.0), (380, 2.4), (400, 4.0)],
)
def test_more_right_guesses_prove_more(correct: int, epsilon: float) -> None:
    assert epsilon_bound(20_000, 400, correct, 1e-5) == pytest.approx(epsilon, abs=0.35)


def test_the_bound_is_above_the_truth_as_rarely_as_it_says() -> None:
    """Randomised response tells each coin with chance e^eps / (1 + e^eps): epsilon exactly."""
    rng = np.random.default_rng(1)
    truth, above, runs = 1.0, 0, 300
    chance = np.exp(truth) / (1 + np.exp(truth))
    for _ in range(runs):
        correct = int(rng.binomial(400, chance))
        above += epsilon_bound(400, 400, correct, 0.0) > truth
    assert above <= runs * 0.05 + 3 * np.sqrt(runs * 0.05)


def test_a_large_delta_excuses_right_guesses() -> None:
    assert epsilon_bound(20_000, 400, 390, 1e-2) < epsilon_bound(20_000, 400, 390, 1e-6)


def test_guesses_are_of_the_most_extreme_and_ties_help_nobody() -> None:
    coins = np.array([True, False, True, False])
    assert correct_guesses(np.array([9.0, -9.0, 1.0, 0.0]), coins, 2) == 2
    assert correct_guesses(np.array([-9.0, 9.0, 1.0, 0.0]), coins, 2) == 0
    rng = np.random.default_rng(2)
    many = rng.random(10_000) < 0.5
    assert abs(correct_guesses(np.zeros(10_000), many, 400) - 200) < 50


def test_more_right_than_guessed_is_refused() -> None:
    with pytest.raises(ValueError, match="right of"):
        epsilon_bound(100, 10, 11, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("unit", "game"), [(unit, game) for unit, games in GAMES.items() for game in games]
)
def test_what_ships_stays_within_its_claim(unit: Unit, game: Game) -> None:
    found = HALF.play(unit, game, Subject(), entropy(), canary() if unit is Unit.RECORD else None)
    assert found.holds, found


@pytest.mark.slow
@pytest.mark.parametrize(("unit", "bug", "game"), FINDS)
def test_planted_bugs_are_found(unit: Unit, bug: str, game: Game) -> None:
    subject = BUGS[bug]
    found = ONE.play(unit, game, subject, entropy(), canary() if unit is Unit.RECORD else None)
    assert not found.holds, found


@pytest.mark.slow
def test_data_or_no_data_does_not_see_noise_made_for_one_clip() -> None:
    """The reason why there is a game of opposite changes."""
    subject = BUGS["noise for C, not 2 C"]
    assert ONE.play(Unit.DEVICE, Game.PRESENT, subject, entropy(), None).holds


def test_the_command_says_what_was_shown(gossipfl: Call) -> None:
    code, out, _ = gossipfl(
        *("privacy", "audit", "--canaries", "200", "--runs", "1", "--unit", "device", "--json")
    )
    data = json.loads(out)["data"]
    assert code == 0
    assert data["holds"] is True
    assert {row["game"] for row in data["findings"]} == {game.value for game in GAMES[Unit.DEVICE]}
    assert data["claim"]["device"] == pytest.approx(1.99, abs=0.005)


def test_an_audit_that_can_show_nothing_is_refused(gossipfl: Call) -> None:
    code, _, err = gossipfl("privacy", "audit", "--canaries", "10")
    assert code == 2
    assert "GF601" in err
