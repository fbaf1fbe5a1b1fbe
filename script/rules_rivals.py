"""What `bench_rules.py` measures against: plain numpy, byzfl on numpy, and Flower's formulas.

Plain numpy is the shortest way to write each rule. byzfl (0.0.11, MIT) is called as it is, with its
defaults. Flower's formulas are those of `flwr/server/strategy/aggregate.py` (1.42, Apache-2.0):
models as lists of layers, a weighted sum of copies, np.median, np.partition, and a double loop of
norms for Krum; written afresh here, one layer to a model.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache, reduce
from types import ModuleType
from typing import Any

import numpy as np

RADIUS = 100.0
"""Of centred clipping: byzfl's default, for all."""

Call = Callable[[np.ndarray, int], object]
"""float32[n, d] and f to whatever the rival returns."""

# --- plain numpy ----------------------------------------------------------------------------------


def squared_distances(x: np.ndarray) -> np.ndarray:
    squares = (x**2).sum(axis=1)
    return squares[:, None] + squares[None, :] - 2 * (x @ x.T)


def krum_order(x: np.ndarray, f: int) -> np.ndarray:
    return np.argsort(np.sort(squared_distances(x), axis=1)[:, 1 : len(x) - f - 1].sum(axis=1))


def nna(x: np.ndarray, f: int) -> np.ndarray:
    order = np.argsort(np.linalg.norm(x - x[0], axis=1))
    return x[order[: len(x) - f]].mean(axis=0)


def geometric_median(x: np.ndarray, f: int) -> np.ndarray:
    """Three steps, as byzfl does by default."""
    at = x.mean(axis=0)
    for _ in range(3):
        pull = 1 / np.maximum(np.linalg.norm(x - at, axis=1), 0.1)
        at = (x * pull[:, None]).sum(axis=0) / pull.sum()
    return at


def clipped(x: np.ndarray, radius: float) -> np.ndarray:
    away = x - x[0]
    lengths = np.maximum(np.linalg.norm(away, axis=1), 1e-12)
    return x[0] + (away * np.minimum(1, radius / lengths)[:, None]).mean(axis=0)


def cs_plus(x: np.ndarray, f: int) -> np.ndarray:
    lengths = np.sort(np.linalg.norm(x - x[0], axis=1))
    return clipped(x, lengths[len(x) - 2 * f - 1])


def balance(x: np.ndarray, f: int) -> np.ndarray:
    near = np.linalg.norm(x - x[0], axis=1) <= 0.3 * np.linalg.norm(x[0])
    near[0] = False
    return (x[0] + x[near].mean(axis=0)) / 2 if near.any() else x[0].copy()


def nnm(x: np.ndarray, f: int) -> np.ndarray:
    nearest = np.argsort(squared_distances(x), axis=1)[:, : len(x) - f]
    return x[nearest].mean(axis=1)


NAIVE: dict[str, Call] = {
    "mean": lambda x, f: x.mean(axis=0),
    "weighted_mean": lambda x, f: np.average(x, axis=0),
    "median": lambda x, f: np.median(x, axis=0),
    "trimmed_mean": lambda x, f: np.sort(x, axis=0)[f : len(x) - f].mean(axis=0),
    "krum": lambda x, f: x[krum_order(x, f)[0]],
    "multi_krum": lambda x, f: x[krum_order(x, f)[: len(x) - f]].mean(axis=0),
    "nna": nna,
    "geometric_median": geometric_median,
    "centered_clip": lambda x, f: clipped(x, RADIUS),
    "cs_plus": cs_plus,
    "balance": balance,
    "nnm": nnm,
}

# --- byzfl ----------------------------------------------------------------------------------------


def byzfl_aggregators() -> Any:
    """byzfl.aggregators without the rest of byzfl, which loads data sets; None if not installed."""
    spec = importlib.util.find_spec("byzfl")
    if spec is None or spec.submodule_search_locations is None:
        return None
    bare = ModuleType("byzfl")
    bare.__path__ = list(spec.submodule_search_locations)
    sys.modules["byzfl"] = bare
    return importlib.import_module("byzfl.aggregators")


@lru_cache(maxsize=1)
def byzfl_calls() -> dict[str, Call]:
    """byzfl's numpy rules by our names; empty if byzfl is not installed (extra [oracles])."""
    byzfl = byzfl_aggregators()
    if byzfl is None:
        return {}
    return {
        "mean": lambda x, f: byzfl.Average()(x),
        "median": lambda x, f: byzfl.Median()(x),
        "trimmed_mean": lambda x, f: byzfl.TrMean(f)(x),
        "krum": lambda x, f: byzfl.Krum(f)(x),
        "multi_krum": lambda x, f: byzfl.MultiKrum(f)(x),
        "nna": lambda x, f: byzfl.MoNNA(f, 0)(x),
        "geometric_median": lambda x, f: byzfl.GeometricMedian()(x),
        "centered_clip": lambda x, f: byzfl.CenteredClipping(tau=RADIUS)(x),
        "nnm": lambda x, f: byzfl.NNM(f)(x),
    }


# --- Flower's formulas ----------------------------------------------------------------------------


def flwr_average(models: Sequence[list[np.ndarray]]) -> list[np.ndarray]:
    """Weighted by examples, here one each: every layer times its weight, added up, divided."""
    weighted = [[layer * 1 for layer in layers] for layers in models]
    return [reduce(np.add, layers) / len(models) for layers in zip(*weighted, strict=True)]


def flwr_trimmed(x: np.ndarray, f: int) -> np.ndarray:
    parted = np.partition(np.asarray(list(x)), (f, len(x) - f - 1), 0)
    return np.mean(parted[f : len(x) - f], axis=0)


def flwr_krum_scores(x: np.ndarray, f: int) -> list[float]:
    flat = np.array([np.concatenate([layer], axis=None).ravel() for layer in x])
    between = np.zeros((len(x), len(x)))
    for i, left in enumerate(flat):
        for j, right in enumerate(flat):
            between[i, j] = np.linalg.norm(left - right) ** 2
    closest = [np.argsort(row)[1 : max(1, len(x) - f - 2) + 1] for row in between]
    return [float(np.sum(between[i, rows])) for i, rows in enumerate(closest)]


def flwr_multi_krum(x: np.ndarray, f: int) -> list[np.ndarray]:
    best = np.argsort(flwr_krum_scores(x, f))[: len(x) - f]
    return flwr_average([[x[index]] for index in best])


FLWR: dict[str, Call] = {
    "mean": lambda x, f: flwr_average([[row] for row in x]),
    "median": lambda x, f: np.median(np.asarray(list(x)), axis=0),
    "trimmed_mean": flwr_trimmed,
    "krum": lambda x, f: x[int(np.argmin(flwr_krum_scores(x, f)))],
    "multi_krum": flwr_multi_krum,
}
