"""Makes a failing plan small: fewer faults, fewer liars, fewer devices, a simpler network.

Delta debugging (Zeller and Hildebrandt 2002, "ddmin") over the faults, then one device or liar at a
time, then each setting back to its default. A smaller plan counts if the same invariant breaks; the
sentence may differ, for it names devices and numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from msgspec import structs

from sim.plan import DEVICES_MIN, Fault, Partition, Plan, Wire
from sim.soak import Failure, play

REPLAYS_MAX = 60
"""Histories played to make one small: guess, a minute or so."""


@dataclass(slots=True)
class Shrunk:
    failure: Failure  # of the smallest plan found
    replays: int


class _Spent(Exception):
    """The number of replays is used up."""


def shrink(
    failure: Failure,
    replays_max: int = REPLAYS_MAX,
    play_one: Callable[[Plan], Failure | None] | None = None,
) -> Shrunk:
    """The smallest failing plan that `replays_max` replays find; at worst the one that came."""
    search = _Search(failure, replays_max, play_one or (lambda plan: play(plan).failure))
    with suppress(_Spent):
        search.run()
    return Shrunk(search.best, search.replays)


class _Search:
    def __init__(
        self, failure: Failure, replays_max: int, play_one: Callable[[Plan], Failure | None]
    ) -> None:
        self.best = failure
        self.replays = 0
        self._left = replays_max
        self._play = play_one

    def _fails(self, plan: Plan) -> bool:
        """Does the same invariant break? If so, this is the best so far."""
        if self.replays >= self._left:
            raise _Spent
        self.replays += 1
        found = self._play(plan)
        if found is None or found.checker != self.best.checker:
            return False
        self.best = found
        return True

    def run(self) -> None:
        smaller = True
        while smaller:
            before = self.best.plan
            self._faults()
            self._first(_without_device)
            self._first(_simpler)
            smaller = self.best.plan != before

    def _faults(self) -> None:
        """ddmin: try without ever smaller chunks of the faults."""
        chunks = 1
        while (count := len(self.best.plan.faults)) and chunks <= count:
            for part in _chunks(self.best.plan.faults, chunks):
                kept = tuple(f for f in self.best.plan.faults if f not in part)
                if self._fails(structs.replace(self.best.plan, faults=kept)):
                    chunks = max(1, chunks - 1)
                    break
            else:
                chunks = count + 1 if chunks == count else min(count, chunks * 2)

    def _first(self, candidates: Callable[[Plan], Iterator[Plan]]) -> None:
        """Takes the first smaller plan that still fails, again and again."""
        found = True
        while found:
            found = any(self._fails(plan) for plan in candidates(self.best.plan))


def _chunks(faults: Sequence[Fault], count: int) -> Iterator[Sequence[Fault]]:
    size = -(-len(faults) // count)
    for start in range(0, len(faults), size):
        yield faults[start : start + size]


def _without_device(plan: Plan) -> Iterator[Plan]:
    """One liar less, or one honest device less, with all that happens to it."""
    if plan.devices <= DEVICES_MIN:
        return
    for index in reversed(range(plan.devices)):
        liars = plan.liars
        if index >= plan.honest:
            liars = liars[: index - plan.honest] + liars[index - plan.honest + 1 :]
        faults = tuple(g for f in plan.faults if (g := _renumbered(f, index)) is not None)
        yield structs.replace(plan, devices=plan.devices - 1, liars=liars, faults=faults)


def _renumbered(fault: Fault, gone: int) -> Fault | None:
    """The fault in a fleet without that device; None if it was about it."""
    changes: dict[str, object] = {}
    for name in ("device", "told", "sender", "receiver"):
        index = getattr(fault, name, None)
        if index == gone:
            return None
        if index is not None and index > gone:
            changes[name] = index - 1
    if isinstance(fault, Partition):
        group = tuple(i - (i > gone) for i in fault.group if i != gone)
        if not group:
            return None
        changes["group"] = group
    return structs.replace(fault, **changes)


def _simpler(plan: Plan) -> Iterator[Plan]:
    """One setting each back to its default, the faults' window cut to the last of them."""
    if plan.wire != Wire():
        yield structs.replace(plan, wire=Wire())
    for name in Wire.__struct_fields__:
        if getattr(plan.wire, name) != getattr(Wire(), name):
            wire = structs.replace(plan.wire, **{name: getattr(Wire(), name)})
            yield structs.replace(plan, wire=wire)
    if plan.alpha is not None:
        yield structs.replace(plan, alpha=None)
    if plan.rule != "nna":
        yield structs.replace(plan, rule="nna")
    if plan.wall_skew_s != 1.0:
        yield structs.replace(plan, wall_skew_s=1.0)
    last = max((fault.at for fault in plan.faults), default=0.0)
    if plan.faulty_s > last + 1.0:
        yield structs.replace(plan, faulty_s=last + 1.0)
