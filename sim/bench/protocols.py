"""Published protocols on MNIST digits, with the product's own rules, in lock-step rounds.

dumbbell: He, Karimireddy and Jaggi 2022 (arXiv 2202.01545): two cliques of five joined by one edge,
one half of the classes each, nobody lies. two-worlds: Gaucher et al. 2025 (ICML): 26 honest devices
in two cliques joined by few edges, liars connected to all. epidemic: de Vos et al. 2023 (NeurIPS):
random pulls against a fixed regular graph of the same degree.

Lock-step, since the protocols are: all train, all publish, all merge with their neighbours. The
data are 5,000 digits (`examples/fetch_mnist.py`) in place of 60,000, so the papers' figures are not
to be met to the point; who beats whom is.
"""

from __future__ import annotations

import argparse
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gossipfl.aggregation import merge_step
from gossipfl.messages import Training
from gossipfl.parameters import Vector
from sim.attacks import Attack, Sight, attack
from sim.bench.report import Figures, progress
from sim.data import Examples, Split, split_dirichlet, split_iid
from sim.datasets import stored
from sim.learners import Learner, Mlp

TRAINING = Training(epochs=1, learning_rate=0.1, momentum=0.9, batch=64)  # Gaucher 2025
ONE_STEP = Training(epochs=1, learning_rate=0.1, momentum=0.0, batch=32)
STEPS_PER_ROUND = 25  # dumbbell: a merge after each step, so as many more of them
HIDDEN = 32
Neighbours = Callable[[int], Sequence[Sequence[int]]]
"""neighbours(round)[i]: the honest devices that i pulls."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=60, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="N")


def run(args: Namespace) -> Figures:
    """Every protocol; mean and worst accuracy of honest devices on 1,000 held-out digits."""
    began = time.monotonic()
    data = stored("mnist", args.seed)
    found: dict[str, Any] = {"rounds": args.rounds, "seed": args.seed}
    found |= dumbbell(data, args.rounds, args.seed)
    found |= two_worlds(data, args.rounds, args.seed)
    found |= epidemic(data, args.rounds, args.seed)
    found["seconds"] = round(time.monotonic() - began, 1)
    return found


# --- the protocols ------------------------------------------------------------------------------


def dumbbell(data: Split, rounds: int, seed: int) -> dict[str, Any]:
    """Each half knows five classes, a merge after each step; f = 1 is assumed, so a rule may drop
    the one bridge. The paper's figures are of the averaged model."""
    halves = [data.train.take(np.flatnonzero(data.train.y // 5 == half)) for half in (0, 1)]
    parts = [part for half in halves for part in split_iid(half, 5, seed)]
    graph = cliques(5, [(0, 5)])
    found = {}
    for rule in ("mean", "cs_plus", "centered_clip", "nna", "geometric_median", "trimmed_mean"):
        fleet = Fleet(parts, data.test, seed, ONE_STEP)
        f = 0 if rule == "mean" else 1
        fleet.play(lambda _: graph, rule, f, rounds * STEPS_PER_ROUND)
        found[f"dumbbell {rule}"] = fleet.figures()
        progress(f"dumbbell {rule}: {found[f'dumbbell {rule}']}")
    return found


def two_worlds(data: Split, rounds: int, seed: int) -> dict[str, Any]:
    """26 honest devices, Dirichlet 1, three edges between the cliques, 3 or 6 liars at each."""
    parts = split_dirichlet(data.train, 26, 1.0, seed)
    graph = cliques(13, [(0, 13), (1, 14), (2, 15)])
    found = {}
    for liars in (3, 6):
        for rule in ("cs_plus", "nna", "collapse+nna"):
            for name in ("foe", "alie", "dissensus"):
                fleet = Fleet(parts, data.test, seed)
                lie = attack(name, rule=rule, f=liars, seed=seed)
                fleet.play(lambda _: graph, rule, liars, rounds, lie, liars)
                key = f"two-worlds f={liars} {rule} {name}"
                found[key] = fleet.figures()
                progress(f"{key}: {found[key]}")
    return found


def epidemic(data: Split, rounds: int, seed: int) -> dict[str, Any]:
    """96 devices, seven pulls each, plain mean, Dirichlet 0.1; 7 is log2 of 96, rounded up."""
    parts = split_dirichlet(data.train, 96, 0.1, seed)
    draw = np.random.default_rng(seed)
    ring = draw.permutation(96)
    steps = (1, 2, 3, 48, 93, 94, 95)  # a circulant graph: 7-regular and both ways
    static: list[list[int]] = [[] for _ in range(96)]
    for at, device in enumerate(ring):
        static[int(device)] = [int(ring[(at + step) % 96]) for step in steps]

    def random_pulls(number: int) -> list[list[int]]:
        turn = np.random.default_rng([seed, number])
        pulls = [turn.choice(95, 7, replace=False) for _ in range(96)]
        return [[int(p) + (p >= i) for p in row] for i, row in enumerate(pulls)]

    found: dict[str, Any] = {}
    curves = {}
    for name, graph in (("static", lambda _: static), ("random", random_pulls)):
        fleet = Fleet(parts, data.test, seed)
        curves[name] = fleet.play(graph, "mean", 0, rounds, measured=True)
        found[f"epidemic {name}"] = fleet.figures()
        progress(f"epidemic {name}: {found[f'epidemic {name}']}")
    goal = curves["static"][-1]
    reached = next((k for k, value in enumerate(curves["random"]) if value >= goal), rounds) + 1
    found["epidemic rounds to the static graph's end"] = f"{reached} of {rounds}"
    return found


def cliques(size: int, bridges: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Neighbours in two cliques of `size`, and across the bridges."""
    graph = [
        [j for j in range(2 * size) if j != i and j // size == i // size] for i in range(2 * size)
    ]
    for a, b in bridges:
        graph[a].append(b)
        graph[b].append(a)
    return graph


# --- the engine ---------------------------------------------------------------------------------


class Fleet:
    """Honest devices in lock-step. With ONE_STEP a round is one batch, else an epoch."""

    def __init__(
        self,
        parts: Sequence[Examples],
        test: Examples,
        seed: int,
        training: Training = TRAINING,
    ) -> None:
        self._training = training
        model = Mlp(parts[0].x[0].size, HIDDEN, 10)
        self.learners = [Learner(model, Split(part, test).flat(), seed) for part in parts]
        self.bases: list[Vector] = [learner.initial for learner in self.learners]

    def play(
        self,
        graph: Neighbours,
        rule: str,
        f: int,
        rounds: int,
        lie: Attack | None = None,
        liars: int = 0,
        measured: bool = False,
    ) -> list[float]:
        """`liars` of them answer everybody. The mean accuracy after each round, if measured."""
        curve = []
        for number in range(rounds):
            pubs = [self._trained(index, number) for index in range(len(self.learners))]
            sight = None
            if lie is not None:
                before: Vector = np.stack(self.bases).mean(axis=0, dtype=np.float32)
                sight = Sight(np.stack(pubs), before, before, before, number, attackers=liars)
            near = graph(number)
            self.bases = [
                self._merged(index, pubs, near[index], rule, f, lie, sight)
                for index in range(len(pubs))
            ]
            if measured:
                curve.append(float(np.mean(self.accuracies())))
        return curve

    def _trained(self, index: int, number: int) -> Vector:
        learner, base, seed = self.learners[index], self.bases[index], 1_000 * number + index
        if self._training is ONE_STEP:
            data = learner.data
            rows = np.random.default_rng(seed).integers(0, len(data.train), 32)
            learner = learner.with_data(Split(data.train.take(rows), data.test))
        return learner.train(base, self._training, seed)

    @staticmethod
    def _merged(
        index: int,
        pubs: Sequence[Vector],
        near: Sequence[int],
        rule: str,
        f: int,
        lie: Attack | None,
        sight: Sight | None,
    ) -> Vector:
        received = [pubs[j] for j in near]
        if lie is not None and sight is not None:
            told = [lie.vector(sight.at(k, index)) for k in range(sight.attackers)]
            received += [vector for vector in told if vector is not None]
        return merge_step(rule, pubs[index], received, f).parameters

    def accuracies(self) -> list[float]:
        pairs = zip(self.learners, self.bases, strict=True)
        return [learner.evaluate(base).accuracy or 0.0 for learner, base in pairs]

    def figures(self) -> dict[str, float]:
        """`averaged` is of the mean of all models, which nobody has: what some papers show."""
        found = self.accuracies()
        averaged: Vector = np.stack(self.bases).mean(axis=0, dtype=np.float32)
        return {
            "mean": round(float(np.mean(found)), 4),
            "worst": round(min(found), 4),
            "averaged": round(self.learners[0].evaluate(averaged).accuracy or 0.0, 4),
        }
