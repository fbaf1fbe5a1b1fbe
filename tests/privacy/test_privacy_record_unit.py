"""unit=record: who is sampled, what noise is added, what one example can change."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gossipfl.parameters import Vector
from gossipfl.privacy import RecordPrivacy
from gossipfl.privacy.record_unit import (
    SLACK,
    Chosen,
    Descent,
    Sum,
    grid_of,
    noised_mean,
    poisson,
    train,
)
from gossipfl.privacy.stream import Stream

MODE = RecordPrivacy(clip=1.0, z=1.0, sample_rate=0.1, steps=5, lot=10)


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


class Pulls:
    """Each example pulls its own coordinate by the clip; remembers who was taken."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.taken: list[list[int]] = []

    def __call__(self, parameters: Vector, chosen: Chosen, clip: float) -> Sum:
        self.taken.append(chosen.tolist())
        total = np.zeros(self.count)
        total[chosen] = clip
        return total


def test_each_example_is_taken_with_the_rate_and_independently() -> None:
    stream = Stream(key(1))
    rounds = 2_000
    seen = np.zeros((rounds, 50))
    for number in range(rounds):
        seen[number, poisson(50, 0.1, stream)] = 1.0
    assert np.abs(seen.mean(0) - 0.1).max() < 4.5 * math.sqrt(0.09 / rounds)
    sizes = seen.sum(1)
    assert sizes.var() == pytest.approx(50 * 0.09, rel=0.15)  # a fixed size would have none
    correlation = np.corrcoef(seen.T) - np.eye(50)
    assert np.abs(correlation).max() < 5.0 / math.sqrt(rounds)
    assert np.abs(np.corrcoef(sizes[:-1], sizes[1:])[0, 1]) < 4.5 / math.sqrt(rounds)


def test_at_rate_one_all_are_taken() -> None:
    assert poisson(7, 1.0, Stream(key(2))).tolist() == list(range(7))
    assert poisson(0, 0.5, Stream(key(2))).tolist() == []


def test_the_samples_are_secret_and_new_each_time() -> None:
    first, second = Pulls(500), Pulls(500)
    base = np.zeros(500, np.float32)
    train(MODE, base, 500, first, Descent(0.1), key(3))
    train(MODE, base, 500, second, Descent(0.1), key(4))
    assert len(first.taken) == MODE.steps
    assert len({tuple(taken) for taken in first.taken + second.taken}) == 2 * MODE.steps


@pytest.mark.parametrize("z", [0.25, 1.0, 4.0])
def test_the_noise_of_a_step_is_z_times_the_clip_and_a_little(z: float) -> None:
    mode = RecordPrivacy(clip=0.5, z=z, sample_rate=0.1, steps=1, lot=20)
    mean = noised_mean(np.zeros(400_000), mode, Stream(key(5)))
    assert float(np.std(mean)) * 20 == pytest.approx(z * 0.5 * (1 + SLACK), rel=0.006)
    assert float(np.std(mean)) * 20 > z * 0.5 * 0.999


def test_the_mean_is_over_the_lot_and_not_over_who_was_taken() -> None:
    """The number taken, and the number that a device has, stay secret."""
    mode = RecordPrivacy(clip=1.0, z=0.25, sample_rate=0.5, steps=1, lot=100)
    total = np.full(10_000, 3.0)
    assert noised_mean(total, mode, Stream(key(6))).mean() == pytest.approx(0.03, abs=1e-3)


def test_a_sum_is_on_the_grid_before_the_noise() -> None:
    mode = RecordPrivacy(clip=1.0, z=1.0, sample_rate=0.5, steps=1, lot=1)
    total = np.random.default_rng(7).standard_normal(1000)
    grid = grid_of(1000)
    steps = noised_mean(total, mode, Stream(key(7))).astype(float) * grid
    assert (steps == np.rint(steps)).all()
    assert math.sqrt(1000) / grid < SLACK / 4  # what the grid moves a sum, both ways


def test_the_steps_are_those_of_sgd_with_momentum_and_prox() -> None:
    """Against the same steps written out, on the same stream."""
    descent = Descent(learning_rate=0.5, momentum=0.9, prox=0.1)
    base = np.linspace(-1, 1, 30).astype(np.float32)
    out = train(MODE, base, 30, Pulls(30), descent, key(8)).vector
    stream, pulls = Stream(key(8)), Pulls(30)
    flat, velocity = base.astype(float), np.zeros(30)
    for _ in range(MODE.steps):
        total = pulls(base, poisson(30, MODE.sample_rate, stream), 1.0)
        step = noised_mean(total, MODE, stream) + 0.1 * (flat - base)
        velocity = 0.9 * velocity + step
        flat = flat - 0.5 * velocity
    assert out == pytest.approx(flat, abs=1e-4)


def test_noise_goes_out_even_if_nobody_was_taken() -> None:
    base = np.zeros(100, np.float32)
    out = train(MODE, base, 0, Pulls(100), Descent(0.1), key(9)).vector
    assert (out != 0).mean() > 0.9


def test_steps_that_diverge_end_where_they_began() -> None:
    base = np.ones(10, np.float32)
    descent = Descent(learning_rate=1e30, prox=1e30)
    assert (train(MODE, base, 10, Pulls(10), descent, key(10)).vector == base).all()


@pytest.mark.parametrize(
    "changes",
    [{"sample_rate": 0.0}, {"sample_rate": 1.5}, {"steps": 0}, {"lot": 0}, {"z": 0.0}],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, float]) -> None:
    fields = {"clip": 1.0, "z": 1.0, "sample_rate": 0.1, "steps": 1, "lot": 1, **changes}
    with pytest.raises(ValueError, match="allowed"):
        RecordPrivacy(**fields)  # type: ignore[arg-type]
