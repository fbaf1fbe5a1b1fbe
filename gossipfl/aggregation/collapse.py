"""collapse, a step before a rule anchored on own: near-duplicate models get one vote together.

Attackers who all send the same vector with little noise lie nearest to everyone, and so win every
rule that goes by distance. One vote for all of them forces each to carry noise of honest size. This
module says which models are duplicates, how many attackers are left to assume, and, for sampling
reputation, which models cluster more tightly than honest ones do.

The scale of what is close is s_k: the median, over the models received, of the distance to the
(m/4)-th nearest other, models far from own left out. A third of colluders cannot move it, while the
median distance between pairs or to own can be moved.

What bounds the harm. At most f models collapse, since no more of them can be an attacker's, and
those that collapse count towards f. But honest models can be duplicates too (devices that have not
trained yet, or merged the same models), and then all attackers are still there. So f never falls
below the number of models that lie far from own, nor below an eighth of N: a model that lies
farther out than honest ones cannot enter because others collapsed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gossipfl.aggregation.distances import Squares
from gossipfl.aggregation.models import Models
from gossipfl.aggregation.selecting import first_equals

DUPLICATE = 0.25
"""Models closer than this share of s_k are duplicates. At a half noisy sign flip once made honest
updates collapse, and averaging stopped (probes with 100 devices on MNIST)."""

CLUSTER = 0.6
"""Models closer than this share of s_k to two others cluster (same probes)."""

CLUSTER_MIN = 3
"""How many make a cluster, and from how many on near-duplicates collapse: two devices may be alike
by chance, and where data are skewed some pairs always are (docs/decisions/0004-collapse.md)."""

FAR = 3.0
"""Farther from own than this many median distances is far. At 2 honest outliers suffer where data
are skewed (same probes)."""

RECEIVED_MIN = 12
"""Fewer different models received than this say too little of s_k; only equal ones collapse."""

NEIGHBOUR_SHARE = 4
"""s_k looks at the (m/4)-th nearest other: a third of colluders reach beyond it, two thirds of
honest models do not, and their median is what counts."""

FLOOR_SHARE = 8
"""At least m'/8 attackers stay assumed however many collapse, never more than f (same probes)."""

Fits = Callable[[int, int], bool]
"""Whether the rule that follows can work with so many models and f."""

Places = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Collapse:
    """What became of N; places are those in N.

    kept: the models that keep their vote, the first one among them. collapsed: the others.
    twins: for each model the first one that is equal to it, its own place if there is none.
    clusters: models in a cluster; equal models count as one in finding it.
    f: how many attackers to assume among the kept.
    """

    kept: tuple[int, ...]
    collapsed: tuple[int, ...]
    twins: tuple[int, ...]
    clusters: tuple[int, ...]
    f: int

    def spread(self, shares: Sequence[float]) -> tuple[float, ...]:
        """Shares of the kept models to shares of N: equal models divide theirs evenly."""
        given = dict(zip(self.kept, shares, strict=True))
        alike: dict[int, list[int]] = {}
        for place, twin in enumerate(self.twins):
            alike.setdefault(twin, []).append(place)
        total = {twin: sum(given.get(p, 0.0) for p in places) for twin, places in alike.items()}
        return tuple(total[twin] / len(alike[twin]) for twin in self.twins)


def collapse(models: Models, f: int, fits: Fits) -> Collapse:
    """Finds the duplicates among the received models; the first model is own and stays.

    Needs 2f + 1 models. Equal models collapse first, the own one included, then near-duplicates,
    closest first, until f have. What the rule that follows could not work with is taken back.
    """
    squared = models.pairwise()
    n = len(models)
    twins = first_equals(squared)
    distinct = np.array([place for place in range(1, n) if twins[place] == place], np.intp)
    far = _far(squared[0])
    near = distinct[~far[distinct]]
    reach = scale(squared, near) if len(distinct) >= RECEIVED_MIN else 0.0
    copies = [place for place in range(n) if twins[place] != place]
    copies.sort(key=lambda place: (squared[0, place], place))
    copies = [*copies, *_duplicates(squared, distinct, DUPLICATE * reach)][:f]
    while True:
        kept = tuple(place for place in range(n) if place not in copies)
        far_kept = int(np.count_nonzero(far[list(kept)]))
        left = min(f, max(math.ceil(n / FLOOR_SHARE), f - len(copies), far_kept))
        if not copies or fits(len(kept), left):
            break
        copies.pop()
    tight = set(_clustered(squared, distinct, CLUSTER * reach))
    clusters = tuple(place for place in range(1, n) if twins[place] in tight)
    return Collapse(kept, tuple(sorted(copies)), twins, clusters, left)


def _far(from_own: Squares) -> npt.NDArray[np.bool_]:
    """Which models lie far from own. The lower median: half of the received cannot lift it."""
    received = np.sort(from_own[1:])
    if not received.size:
        return np.zeros(from_own.size, np.bool_)
    return np.asarray(from_own > FAR**2 * received[(received.size - 1) // 2])


def scale(squared: Squares, near: Places) -> float:
    """s_k, over the models at these places, those that are far left out; 0 if there are too few.

    squared float64[n, n]: squared distances between models.
    """
    if near.size < 2:
        return 0.0
    ordered = np.sort(squared[np.ix_(near, near)], axis=1)  # column 0 is the model itself
    neighbour = max(1, near.size // NEIGHBOUR_SHARE)
    return float(np.median(np.sqrt(ordered[:, neighbour])))


def _duplicates(squared: Squares, distinct: Places, reach: float) -> list[int]:
    """Models within reach of one that stays, closest pair first, where CLUSTER_MIN are alike.

    Models nearer to own stay before those farther away, so the order received does not matter.
    """
    alike = np.count_nonzero(squared[np.ix_(distinct, distinct)] < reach**2, axis=1)
    crowded = set(distinct[alike >= CLUSTER_MIN].tolist())  # each is inside its own reach
    standing: list[int] = []
    found: list[tuple[float, int]] = []
    for place in sorted(distinct.tolist(), key=lambda place: (squared[0, place], place)):
        closest = min((float(squared[place, other]) for other in standing), default=math.inf)
        if closest < reach**2 and place in crowded:
            found.append((closest, place))
        else:
            standing.append(place)
    return [place for _, place in sorted(found)]


def _clustered(squared: Squares, distinct: Places, reach: float) -> list[int]:
    """Models with at least CLUSTER_MIN - 1 others within reach."""
    inside = squared[np.ix_(distinct, distinct)] < reach**2
    crowded = np.count_nonzero(inside, axis=1) >= CLUSTER_MIN  # each is inside its own reach
    return [int(place) for place in distinct[crowded]]
