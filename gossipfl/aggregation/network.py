"""Sorting networks that keep only what an order statistic needs.

A sorting network sorts n wires by a fixed list of comparators. For a median or a trimmed mean most
wires are never read, so the list is walked backwards and a comparator stays only if an output that
is read depends on it, and only with the half (smaller or larger) that is read. What is left is
compiled to min/max steps over registers, which run on whole chunks of coordinates at once.

Two kinds of network are tried and the shorter result is taken. Batcher's merge exchange (Knuth, The
Art of Computer Programming vol. 3, 5.2.2, Algorithm M) fits any n. The pairwise network (Parberry,
Parallel Processing Letters 1992) sorts a power of two and leaves less to do when only some ranks
are read (Zazon-Ivry and Codish, SAT 2012): the median of 20 takes 126 steps instead of 144. For
another n it is cut out of the next power of two, as if the wires left out held infinities.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

Comparator = tuple[int, int]

CUTS = 8
"""Places where n wires are cut out of the next power of two, evenly spread. Counted for 3 to 60
models: the steps are within 5 % of those at the best place."""


class Half(Enum):
    """Which outputs of a comparator are read."""

    BOTH = "both"
    SMALLER = "smaller"
    LARGER = "larger"


class Want(Enum):
    """What is asked of a wire: its very rank, a rank of the kept group in any order, nothing."""

    RANK = "rank"
    GROUP = "group"
    NOTHING = "nothing"


class Step(NamedTuple):  # a tuple, because a merge unpacks 10^4 of them
    """registers[out] = smaller (or larger) of registers[left] and registers[right]."""

    smaller: bool
    left: int
    right: int
    out: int


@dataclass(frozen=True, slots=True)
class Program:
    """Steps that leave ranks low..high-1 of n inputs in registers `kept`.

    Registers 0..n-1 are the inputs, which no step writes; `scratch` more follow. kept[0] holds the
    lowest rank and kept[-1] the highest; those between are in no order.
    """

    steps: tuple[Step, ...]
    kept: tuple[int, ...]
    scratch: int


def merge_exchange(n: int) -> Iterator[Comparator]:
    """Comparators (i, j), i < j, that sort n wires when applied in order; the smaller goes to i."""
    top = 1 << max((n - 1).bit_length() - 1, 0)
    block = top
    while block > 0 and n > 1:
        distance, phase, merge = block, 0, top
        while True:
            for wire in range(n - distance):
                if wire & block == phase:
                    yield wire, wire + distance
            if merge == block:
                break
            distance, phase, merge = merge - block, block, merge // 2
        block //= 2


def pairwise(wires: Sequence[int]) -> Iterator[Comparator]:
    """Comparators (i, j) that sort these wires, a power of two of them; the smaller goes to i."""
    if len(wires) < 2:
        return
    smaller, larger = wires[0::2], wires[1::2]
    yield from zip(smaller, larger, strict=True)
    yield from pairwise(smaller)
    yield from pairwise(larger)
    reach = len(wires) // 2
    while reach > 1:  # each larger one against the smaller one some pairs above
        for place in range(1, len(wires) - reach + 1, 2):
            yield wires[place], wires[place + reach - 1]
        reach //= 2


def cut(network: Iterable[Comparator], below: int, n: int) -> list[Comparator]:
    """The network of n wires that is left if `below` wires hold -inf and those above hold inf.

    Such a wire keeps its value, since the smaller value goes to the wire with the lower number.
    """
    kept = range(below, below + n)
    return [(i - below, j - below) for i, j in network if i in kept and j in kept]


def networks(n: int) -> Iterator[list[Comparator]]:
    """Some that sort n wires."""
    yield list(merge_exchange(n))
    whole = 1 << (n - 1).bit_length()
    paired = list(pairwise(range(whole)))
    spare = whole - n
    for below in sorted({spare * part // CUTS for part in range(CUTS + 1)}):
        yield cut(paired, below, n)


def prune(
    network: Sequence[Comparator], n: int, low: int, high: int
) -> list[tuple[int, int, Half]]:
    """The comparators of a sorting network that ranks low..high-1 need, in order.

    The wires of the lowest and the highest rank hold exactly these; the wires between may hold
    their ranks in any order, because they are only summed.
    """
    wants = [Want.GROUP if low <= wire < high else Want.NOTHING for wire in range(n)]
    wants[low] = wants[high - 1] = Want.RANK
    kept = []
    for i, j in reversed(network):
        if wants[i] == wants[j] != Want.RANK:
            continue  # swapping two unread wires, or two of the same group, changes nothing
        if Want.NOTHING not in (wants[i], wants[j]):
            half = Half.BOTH
        else:
            half = Half.SMALLER if wants[j] is Want.NOTHING else Half.LARGER
        kept.append((i, j, half))
        wants[i] = wants[j] = Want.RANK
    return kept[::-1]


def _steps(comparators: Sequence[tuple[int, int, Half]]) -> int:
    return len(comparators) + sum(half is Half.BOTH for _, _, half in comparators)


@lru_cache(maxsize=64)  # a fleet meets few (n, f); 64 programs are about 2 MB
def program(n: int, low: int, high: int) -> Program:
    """Min/max steps for ranks low..high-1 (counted from 0) of n inputs."""
    if not 0 <= low < high <= n:
        raise ValueError(f"ranks {low}..{high - 1} of {n} inputs")
    register = list(range(n))  # of each wire
    free: list[int] = []
    size = n
    steps = []

    def output(*reusable: int) -> int:
        """A register to write: one of these if it is scratch, else a free one, else a new one."""
        nonlocal size
        for candidate in reusable:
            if candidate >= n:
                return candidate
        if free:
            return free.pop()
        size += 1
        return size - 1

    pruned = (prune(network, n, low, high) for network in networks(n))
    for i, j, half in min(pruned, key=_steps):  # the first of the shortest
        left, right = register[i], register[j]
        if half is Half.BOTH:
            register[i] = output()  # both inputs are read once more below
            steps.append(Step(True, left, right, register[i]))
        target = output(left, right)
        steps.append(Step(half is Half.SMALLER, left, right, target))
        free += [old for old in (left, right) if old >= n and old != target]
        register[i if half is Half.SMALLER else j] = target
    return Program(tuple(steps), tuple(register[low:high]), size - n)
