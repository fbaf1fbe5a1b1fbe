"""Data for simulated devices: digits (scikit-learn's copy of the UCI set) and made-up blobs.

Splits follow the usual conventions: IID shuffles and deals; Dirichlet(alpha) draws, per class, the
share that each device gets (Hsu, Qi and Brown 2019, arXiv 1909.06335), smaller alpha more skew.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt

Inputs = npt.NDArray[np.float32]
"""float32[examples, features]"""
Labels = npt.NDArray[np.int64]
"""int64[examples]"""

DIGITS_TRAIN = 1_437  # docs: the fleet benchmark splits 1,797 digits into 1,437 and 360


@dataclass(frozen=True, slots=True)
class Examples:
    """`x` float32[n, ...], `y` int64[n] in range(classes), `groups` int64[n]: who made it."""

    x: Inputs
    y: Labels
    classes: int
    groups: Labels | None = None

    def __len__(self) -> int:
        return len(self.y)

    def take(self, rows: npt.NDArray[np.int64]) -> Examples:
        groups = None if self.groups is None else self.groups[rows]
        return Examples(np.ascontiguousarray(self.x[rows]), self.y[rows], self.classes, groups)

    def first(self, count: int) -> Examples:
        """At most so many."""
        return self if count >= len(self) else self.take(np.arange(count))


@dataclass(frozen=True, slots=True)
class Split:
    train: Examples
    test: Examples

    def scaled(self, factor: float) -> Split:
        """The same examples with inputs times `factor`."""
        if factor == 1.0:
            return self
        times = np.float32(factor)
        return Split(
            replace(self.train, x=self.train.x * times), replace(self.test, x=self.test.x * times)
        )

    def flat(self) -> Split:
        """Every input as one row of features."""
        return Split(
            replace(self.train, x=self.train.x.reshape(len(self.train), -1)),
            replace(self.test, x=self.test.x.reshape(len(self.test), -1)),
        )


@cache
def digits(seed: int = 0) -> Split:
    """1,437 training and 360 test images of 8x8 digits, scaled to 0..1. Needs scikit-learn."""
    from sklearn.datasets import load_digits  # an extra: only demo and tests have it

    raw = load_digits()
    everything = Examples((raw.data / 16.0).astype(np.float32), raw.target.astype(np.int64), 10)
    order = np.random.default_rng(seed).permutation(len(everything))
    return Split(everything.take(order[:DIGITS_TRAIN]), everything.take(order[DIGITS_TRAIN:]))


@cache
def blobs(
    seed: int = 0, examples: int = 480, features: int = 8, classes: int = 4, spread: float = 0.9
) -> Split:
    """Gaussian clouds around random centres; three quarters train. Learnt to 90 % in a few steps
    by softmax regression, so tests of the protocol need no real data."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(0.0, 1.5, (classes, features))
    y = generator.integers(0, classes, examples)
    x = centres[y] + generator.normal(0.0, spread, (examples, features))
    everything = Examples(x.astype(np.float32), y.astype(np.int64), classes)
    cut = examples * 3 // 4
    rows = np.arange(examples)
    return Split(everything.take(rows[:cut]), everything.take(rows[cut:]))


def split_iid(data: Examples, parts: int, seed: int) -> list[Examples]:
    """Equal random parts; what is left over goes one each to the first."""
    order = np.random.default_rng(seed).permutation(len(data))
    return [data.take(rows) for rows in np.array_split(order, parts)]


def split_dirichlet(
    data: Examples, parts: int, alpha: float, seed: int, examples_min: int = 8
) -> list[Examples]:
    """Per class, shares from Dirichlet(alpha). A part below `examples_min` takes examples from the
    largest, so that every device can train at all."""
    if parts * examples_min > len(data):
        raise ValueError(f"{len(data)} examples are too few for {parts} parts of {examples_min}")
    generator = np.random.default_rng(seed)
    rows: list[list[int]] = [[] for _ in range(parts)]
    for label in range(data.classes):
        of_class = generator.permutation(np.flatnonzero(data.y == label))
        shares = generator.dirichlet([alpha] * parts)
        cuts = np.round(np.cumsum(shares)[:-1] * len(of_class)).astype(np.int64)
        for part, chunk in zip(rows, np.split(of_class, cuts), strict=True):
            part.extend(int(row) for row in chunk)
    for part in rows:
        while len(part) < examples_min:
            largest = max(rows, key=len)
            part.append(largest.pop())
    return [data.take(generator.permutation(np.array(part, dtype=np.int64))) for part in rows]


def split_mixed(data: Examples, parts: int, size: int, alpha: float, seed: int) -> list[Examples]:
    """`size` examples for each part. Each draws its own mix of classes from Dirichlet(alpha), and
    its examples from all that there are of a class: parts may share some."""
    generator = np.random.default_rng(seed)
    of_class = [np.flatnonzero(data.y == label) for label in range(data.classes)]
    found = []
    for _ in range(parts):
        counts = generator.multinomial(size, generator.dirichlet([alpha] * data.classes))
        drawn = [generator.choice(of_class[label], n) for label, n in enumerate(counts) if n]
        found.append(data.take(generator.permutation(np.concatenate(drawn).astype(np.int64))))
    return found


def split_by_class(data: Examples, parts: int, classes: int, seed: int) -> list[Examples]:
    """Each part has examples of `classes` classes only, dealt in turn (McMahan 2017's shards).

    A class goes in equal shares to all parts that have it."""
    classes = min(classes, data.classes)
    generator = np.random.default_rng(seed)
    order = generator.permutation(data.classes)
    has = [
        [int(order[(part * classes + k) % data.classes]) for k in range(classes)]
        for part in range(parts)
    ]
    rows: list[list[int]] = [[] for _ in range(parts)]
    for label in range(data.classes):
        owners = [part for part in range(parts) if label in has[part]]
        of_class = generator.permutation(np.flatnonzero(data.y == label))
        for owner, chunk in zip(
            owners, np.array_split(of_class, max(1, len(owners))), strict=False
        ):
            rows[owner].extend(int(row) for row in chunk)
    return [data.take(generator.permutation(np.array(part, dtype=np.int64))) for part in rows]


def split_by_group(data: Examples, parts: int, seed: int) -> list[Examples]:
    """Each part has examples of as few groups (speakers) as can be: one each if there are as many
    groups as parts. Raises ValueError if the data do not say whose they are."""
    if data.groups is None:
        raise ValueError("these data do not say who made them: no split by speaker")
    generator = np.random.default_rng(seed)
    names = generator.permutation(np.unique(data.groups))
    if parts <= len(names):
        held = [np.isin(data.groups, some) for some in np.array_split(names, parts)]
        return [data.take(generator.permutation(np.flatnonzero(mask))) for mask in held]
    found: list[Examples] = []
    for number, name in enumerate(names):
        shares = len(range(number, parts, len(names)))
        rows = generator.permutation(np.flatnonzero(data.groups == name))
        found += [data.take(chunk) for chunk in np.array_split(rows, shares)]
    return found


def hold_out(data: Examples, share: float, seed: int) -> Split:
    """One device's own train and test examples; at least one of each."""
    order = np.random.default_rng(seed).permutation(len(data))
    test = min(max(1, round(len(data) * share)), len(data) - 1)
    return Split(data.take(order[test:]), data.take(order[:test]))
