"""Random histories: every seed draws a plan of a fleet, a network, liars and faults, and plays it.

A seed that fails says so with its plan, which `sim.shrink` can make small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from sim.history import History
from sim.plan import FOCUSES, Plan, draw_plan
from sim.workers import in_order
from sim.world import WorldError

HOUR_S = 3_600.0


@dataclass(slots=True)
class Failure:
    """What broke, and the plan that shows it again. `checker` names the invariant."""

    seed: int
    checker: str
    cause: str
    report: str  # with options and the tail of the trace
    plan: Plan


@dataclass(slots=True)
class Played:
    """What came of one plan."""

    plan: Plan
    virtual_s: float
    device_rounds: int
    entries: int  # events and effects
    digest: str  # of the trace
    faults: dict[str, int]
    forkers: int  # who signed two chains
    proven: int  # of them, against whom every honest device has proof in the end
    failure: Failure | None


@dataclass(slots=True)
class Summary:
    first_seed: int
    seeds: int = 0
    virtual_s: float = 0.0
    device_s: float = 0.0  # virtual seconds times devices
    device_rounds: int = 0
    entries: int = 0
    forkers: int = 0
    proven: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    @property
    def device_hours(self) -> float:
        return self.device_s / HOUR_S

    @property
    def injected(self) -> int:
        """Faults that happened, each liar counted as one."""
        return sum(self.faults.values())

    def add(self, played: Played) -> None:
        self.seeds += 1
        self.virtual_s += played.virtual_s
        self.device_s += played.virtual_s * played.plan.devices
        self.device_rounds += played.device_rounds
        self.entries += played.entries
        self.forkers += played.forkers
        self.proven += played.proven
        for name, count in played.faults.items():
            self.faults[name] = self.faults.get(name, 0) + count
        if played.failure is not None:
            self.failures.append(played.failure)


def play(plan: Plan) -> Played:
    """One history from beginning to end."""
    history = History(plan)
    failure = None
    try:
        history.run()
    except WorldError as error:
        failure = Failure(plan.seed, error.checker, error.cause, str(error), plan)
    world, tally = history.scene.world, history.scene.tally
    return Played(
        plan,
        world.now,
        tally.ended,
        world.trace.entries,
        world.trace.digest(),
        history.counts,
        *history.forkers(),
        failure,
    )


def soak(
    seeds: int,
    first_seed: int = 1,
    enough: Callable[[], bool] = lambda: False,
    *,
    workers: int = 1,
    focus: str = "any",
) -> Summary:
    """Plays up to `seeds` histories from `first_seed` on, about a second each, and starts none any
    more once `enough` says so. The same summary whatever the number of `workers`."""

    def plans() -> Iterator[Plan]:
        for seed in range(first_seed, first_seed + seeds):
            if enough():
                return
            yield draw_plan(seed, FOCUSES[focus])

    summary = Summary(first_seed)
    for played in in_order(play, plans(), workers):
        summary.add(played)
    return summary
