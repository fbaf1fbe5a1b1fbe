"""Data splits and numpy learners: what they promise to simulated devices."""

from __future__ import annotations

import numpy as np
import pytest

from gossipfl.messages import Training
from sim.data import Examples, Split, blobs, digits, hold_out, split_dirichlet, split_iid
from sim.learners import Learner, Mlp, Model, Softmax

MODELS: list[Model] = [Softmax(6, 3), Mlp(6, 5, 3)]


def rows(data: Examples) -> set[bytes]:
    return {row.tobytes() for row in data.x}


@pytest.mark.parametrize("alpha", [None, 1.0, 0.1])
def test_splits_lose_and_double_nothing(alpha: float | None) -> None:
    data = blobs().train
    parts = split_iid(data, 7, 1) if alpha is None else split_dirichlet(data, 7, alpha, 1)
    assert sum(len(part) for part in parts) == len(data)
    assert set().union(*map(rows, parts)) == rows(data)
    assert min(len(part) for part in parts) >= 8


def test_smaller_alpha_is_more_skewed() -> None:
    def largest_share(alpha: float) -> float:
        parts = split_dirichlet(digits().train, 8, alpha, 3)
        return float(np.mean([np.bincount(p.y).max() / len(p) for p in parts]))

    assert largest_share(0.1) > largest_share(1.0) > largest_share(100.0)


def test_too_many_parts_are_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        split_dirichlet(blobs(examples=40).train, 10, 1.0, 1)


def test_digits_are_the_benchmark_split() -> None:
    data = digits()
    assert (len(data.train), len(data.test), data.train.x.shape[1]) == (1_437, 360, 64)
    assert 0.0 <= data.train.x.min() < data.train.x.max() <= 1.0


@pytest.mark.parametrize("model", MODELS)
def test_gradients_are_those_of_the_loss(model: Model) -> None:
    generator = np.random.default_rng(4)
    x = generator.normal(size=(9, 6)).astype(np.float32)
    y = generator.integers(0, 3, 9)
    data = Split(Examples(x, y, 3), Examples(x, y, 3))
    learner = Learner(model, data)
    p = generator.normal(size=model.layout.count).astype(np.float32)
    found = np.empty_like(p)
    model.gradient(p, x, y, found)
    for i in range(0, len(p), 5):
        step = np.zeros_like(p)
        step[i] = 1e-2
        slope = (learner.loss(p + step) - learner.loss(p - step)) / 2e-2
        assert found[i] == pytest.approx(slope, abs=2e-3)


def test_training_learns_is_repeatable_and_leaves_its_base_alone() -> None:
    learner = Learner(Softmax(8, 4), blobs())
    base = learner.initial.copy()
    once = learner.train(base, Training(epochs=3), seed=1)
    again = learner.train(base, Training(epochs=3), seed=1)
    other = learner.train(base, Training(epochs=3), seed=2)
    assert np.array_equal(once, again)
    assert not np.array_equal(once, other)
    assert np.array_equal(base, learner.initial)
    accuracy = learner.evaluate(once).accuracy
    assert accuracy is not None
    assert accuracy >= 0.9
    assert learner.loss(once) < learner.loss(base)


def test_prox_keeps_training_near_its_base() -> None:
    learner = Learner(Softmax(8, 4), blobs())
    free = learner.train(learner.initial, Training(), 1)
    held = learner.train(learner.initial, Training(prox=10.0), 1)
    assert np.linalg.norm(held) < np.linalg.norm(free)


def test_hold_out_keeps_both_sides_filled() -> None:
    data = blobs().train
    small = data.take(np.arange(3))
    split = hold_out(small, 0.01, 1)
    assert (len(split.train), len(split.test)) == (2, 1)
