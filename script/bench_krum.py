"""Whether Krum picks the right model where two are nearly tied: against a float64 reference.

Each case has seven models of d parameters around a common one: two whose distances to all others
differ by a few parts in 10^9, and five placed so that the two are the best. The reference sums all
in float64. For contrast the same is asked of one float32 Gram matrix over the raw models, which is
how the rule is mostly written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from gossipfl.aggregation import merge_step

F = 2
CHUNK = 1 << 16
LEVELS = (3.0, -3.0, 10.0, -10.0, 30.0)
"""Where the other models lie, in each coordinate: far from the two, who are nearest to all."""


def near_tied(d: int, cases: int) -> Iterator[list[np.ndarray]]:
    """Seven models; the two candidates are rows 1 and 5.

    A vector and the same values backwards have equal distances to all that is constant; a few
    values a shade nearer to zero, and the rounding that comes with the common model, break the tie.
    """
    common = np.random.default_rng(0).standard_normal(d, dtype=np.float32)
    for case in range(cases):
        rng = np.random.default_rng(case + 1)
        one = rng.standard_normal(d, dtype=np.float32)
        other = one[::-1].copy()
        (one if case % 2 else other)[: 1 + d // 5000] *= np.float32(0.9999)
        rows = [common + np.float32(level) for level in LEVELS]
        rows.insert(1, common + one)
        rows.insert(5, common + other)
        yield rows


def krum_scores(squared: np.ndarray, f: int = F) -> np.ndarray:
    return np.sort(squared, axis=1)[:, 1 : len(squared) - f - 1].sum(axis=1)


def exact_distances(rows: Sequence[np.ndarray]) -> np.ndarray:
    squared = np.zeros((len(rows), len(rows)))
    for start in range(0, rows[0].size, CHUNK):
        wide = [row[start : start + CHUNK].astype(np.float64) for row in rows]
        for i, j in combinations(range(len(rows)), 2):
            difference = wide[i] - wide[j]
            squared[i, j] += difference.dot(difference)
    return squared + squared.T


def float32_distances(rows: Sequence[np.ndarray]) -> np.ndarray:
    matrix = np.stack(rows)
    gram = matrix @ matrix.T
    lengths = np.diag(gram)
    squared = lengths[:, None] + lengths - 2 * gram
    np.fill_diagonal(squared, 0)
    return squared


def picked(rows: Sequence[np.ndarray]) -> int:
    """The row that our krum returns, found by its influence; 0 is own, which has the rest."""
    influence = merge_step("krum", rows[0], rows[1:], F).influence
    return influence.index(1.0) + 1 if 1.0 in influence else 0


def run(d: int, cases: int) -> dict[str, Any]:
    """{"d", "cases", "ours_right", "float32_gram_right", "gap_median", "gap_largest"}."""
    ours = float32 = 0
    gaps = []
    for rows in near_tied(d, cases):
        scores = krum_scores(exact_distances(rows))
        best, second = np.sort(scores)[:2]
        gaps.append(float((second - best) / best))
        winner = int(np.argmin(scores))
        ours += picked(rows) == winner
        float32 += int(np.argmin(krum_scores(float32_distances(rows)))) == winner
    return {
        "d": d,
        "cases": cases,
        "ours_right": ours,
        "float32_gram_right": float32,
        "gap_median": float(np.median(gaps)),
        "gap_largest": max(gaps),
    }
