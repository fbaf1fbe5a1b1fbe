"""Every rule and step in a few lines of float64 numpy, the own model first: what is meant."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gossipfl.parameters import Matrix, Vector

Wide = np.ndarray[Any, Any]


def by_definition(name: str, x: Matrix, f: int) -> Vector:
    """float32[d]: the rule, with its steps, of the rows x."""
    wide = x.astype(np.float64)
    *steps, last = name.split("+")
    for step in steps:
        if step == "nnm":
            wide = mixed(wide, f)
        else:
            kept, f, _ = collapsed(wide, f)
            wide = wide[kept]
    return np.asarray(PLAIN[last](wide, f), np.float32)


def squared_distances(wide: Wide) -> Wide:
    return np.array([[np.dot(a - b, a - b) for b in wide] for a in wide])


def krum_scores(wide: Wide, f: int) -> Wide:
    return np.asarray(
        np.sort(squared_distances(wide), axis=1)[:, 1 : len(wide) - f - 1].sum(axis=1)
    )


def multi_krum(wide: Wide, f: int) -> Wide:
    best = np.argsort(krum_scores(wide, f), kind="stable")[: len(wide) - f]
    return np.asarray(wide[best].mean(axis=0))


def from_own(wide: Wide) -> Wide:
    return np.asarray(np.linalg.norm(wide - wide[0], axis=1))


def nna(wide: Wide, f: int) -> Wide:
    nearest = np.argsort(from_own(wide), kind="stable")[: len(wide) - f]
    return np.asarray(wide[nearest].mean(axis=0))


def geometric_median(wide: Wide, f: int) -> Wide:
    """Weiszfeld on the vectors themselves, long enough to settle."""
    between = np.sqrt(squared_distances(wide))
    scale = np.sort(between[np.argmin(between.sum(axis=1))])[len(wide) // 2]
    at = wide.mean(axis=0)
    for _ in range(2000):
        pull = 1 / np.maximum(np.linalg.norm(wide - at, axis=1), max(1e-3 * scale, 1e-300))
        last, at = at, pull @ wide / pull.sum()
        if np.abs(at - last).max() <= 1e-12 * scale:
            break
    return np.asarray(at)


def clipped(wide: Wide, radius: float) -> Wide:
    """own - mean of Clip(own - x_j, radius)."""
    away = wide[0] - wide
    lengths = np.maximum(np.linalg.norm(away, axis=1), 1e-300)
    return np.asarray(wide[0] - (away * np.minimum(1, radius / lengths)[:, None]).mean(axis=0))


def centered_clip(wide: Wide, f: int) -> Wide:
    near = np.sort(from_own(wide))[: len(wide) - f]
    return clipped(wide, math.sqrt((near**2).sum() / f) if f else math.inf)


def cs_plus(wide: Wide, f: int) -> Wide:
    return clipped(wide, np.sort(from_own(wide))[len(wide) - 2 * f - 1] if f else math.inf)


def balance(
    wide: Wide,
    f: int,
    gamma: float = 0.3,
    kappa: float = 1,
    alpha: float = 0.5,
    progress: float = 0,
) -> Wide:
    limit = gamma * math.exp(-kappa * progress) * np.linalg.norm(wide[0])
    accepted = [row for row, far in zip(wide[1:], from_own(wide)[1:], strict=True) if far <= limit]
    if not accepted:
        return np.asarray(wide[0])
    return np.asarray(alpha * wide[0] + (1 - alpha) * np.mean(accepted, axis=0))


def mixed(wide: Wide, f: int) -> Wide:
    """nnm: each row the mean of its m'-f nearest."""
    order = np.argsort(squared_distances(wide), axis=1, kind="stable")[:, : len(wide) - f]
    return np.array([wide[nearest].mean(axis=0) for nearest in order])


def collapsed(wide: Wide, f: int) -> tuple[list[int], int, list[int]]:
    """Rows that keep a vote, attackers left to assume, rows that cluster; for rules with 2f + 1."""
    n, between, own = len(wide), np.sqrt(squared_distances(wide)), from_own(wide)
    far = [bool(d > 3 * np.sort(own[1:])[(n - 2) // 2]) for d in own] if n > 1 else [False]
    first = [next(j for j in range(n) if between[i, j] == 0) for i in range(n)]
    equal = sorted((i for i in range(n) if first[i] != i), key=lambda i: (own[i], i))
    different = [i for i in range(1, n) if first[i] == i]
    scale = 0.0
    near = [i for i in different if not far[i]]
    if len(different) >= 12 and len(near) >= 2:
        quarter = max(1, len(near) // 4)
        scale = float(np.median([sorted(between[i, j] for j in near)[quarter] for i in near]))
    stays: list[int] = []
    gone: list[tuple[float, int]] = []
    for i in sorted(different, key=lambda i: (own[i], i)):
        to_closest = min([between[i, j] for j in stays], default=math.inf)
        alike = sum(between[i, j] < scale / 4 for j in different)  # itself is one of them
        if to_closest < scale / 4 and alike >= 3:
            gone.append((to_closest, i))
        else:
            stays.append(i)
    out = [*equal, *[i for _, i in sorted(gone)]][:f]
    while True:
        kept = [i for i in range(n) if i not in out]
        left = min(f, max(-(-n // 8), f - len(out), sum(far[i] for i in kept)))
        if not out or len(kept) >= 2 * left + 1:
            break
        out.pop()
    tight = {i for i in different if sum(between[i, j] < 0.6 * scale for j in different) >= 3}
    return kept, left, [i for i in range(1, n) if first[i] in tight]


PLAIN: dict[str, Any] = {
    "mean": lambda wide, f: wide.mean(axis=0),
    "weighted_mean": lambda wide, f: wide.mean(axis=0),
    "median": lambda wide, f: np.median(wide, axis=0),
    "trimmed_mean": lambda wide, f: np.sort(wide, axis=0)[f : len(wide) - f].mean(axis=0),
    "krum": lambda wide, f: wide[np.argmin(krum_scores(wide, f))],
    "multi_krum": multi_krum,
    "nna": nna,
    "geometric_median": geometric_median,
    "centered_clip": centered_clip,
    "cs_plus": cs_plus,
    "balance": balance,
}
