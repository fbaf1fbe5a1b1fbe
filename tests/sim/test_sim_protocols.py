"""The lock-step engine of the published protocols, on small data."""

from __future__ import annotations

import numpy as np
import pytest

from gossipfl.aggregation import merge_step
from sim.attacks import attack
from sim.bench.protocols import ONE_STEP, Fleet, cliques
from sim.data import blobs, split_iid


def fleet(devices: int = 6, one_step: bool = False) -> Fleet:
    data = blobs(1)
    parts = split_iid(data.train, devices, 1)
    return Fleet(parts, data.test, 1, ONE_STEP) if one_step else Fleet(parts, data.test, 1)


def test_cliques_are_whole_and_bridges_go_both_ways() -> None:
    graph = cliques(3, [(0, 4)])
    assert [sorted(near) for near in graph] == [
        *([1, 2, 4], [0, 2], [0, 1]),
        *([4, 5], [0, 3, 5], [3, 4]),
    ]


@pytest.mark.parametrize("one_step", [False, True], ids=["an epoch a round", "a batch a round"])
def test_whoever_merges_everybody_has_one_model_and_it_learns(one_step: bool) -> None:
    everybody = [[j for j in range(6) if j != i] for i in range(6)]
    learning = fleet(one_step=one_step)
    curve = learning.play(lambda _: everybody, "mean", 0, 12, measured=True)
    figures = learning.figures()
    assert figures["mean"] == pytest.approx(figures["averaged"], abs=1e-4)
    assert np.ptp(np.stack(learning.bases), axis=0).max() < 1e-5
    assert curve[-1] > 0.8
    assert curve[-1] > curve[0]


def test_liars_answer_everybody_and_each_victim_hears_its_own_lie() -> None:
    nobody: list[list[int]] = [[] for _ in range(6)]
    told = fleet()
    told.play(lambda _: nobody, "mean", 0, 1, attack("zero"), liars=1)
    alone = fleet()
    alone.play(lambda _: nobody, "mean", 0, 1)
    for one, other in zip(told.bases, alone.bases, strict=True):
        np.testing.assert_allclose(one, other / 2, rtol=1e-5, atol=1e-7)
    pushed = fleet()
    pushed.play(lambda _: nobody, "mean", 0, 1, attack("dissensus"), liars=2)
    pubs = np.stack(alone.bases)
    away = pubs + 1.5 * 3 * (pubs - pubs.mean(axis=0))
    for index, base in enumerate(pushed.bases):
        expected = merge_step("mean", pubs[index], [away[index], away[index]], 0).parameters
        np.testing.assert_allclose(base, expected, rtol=1e-3, atol=1e-5)
