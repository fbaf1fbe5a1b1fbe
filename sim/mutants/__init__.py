"""Who checks the checkers: known bugs, put back into the node, must break a history.

Each mutant is a guard taken out, or a bug that the project once had. It is found if some seed's
history breaks an invariant with it and holds all of them without it. One that survives means that
an invariant is asleep.
"""

from __future__ import annotations

from dataclasses import dataclass

from sim.mutants.base import Mutant
from sim.mutants.bytes import BYTES
from sim.mutants.ledger import LEDGER
from sim.mutants.rounds import ROUNDS
from sim.mutants.state import STATE
from sim.mutants.sums import SUMS
from sim.mutate import mutated
from sim.plan import Plan, draw_plan
from sim.soak import Failure, play

SEEDS_MAX = 500  # design: each is found within so many

MUTANTS: tuple[Mutant, ...] = (*BYTES, *STATE, *ROUNDS, *LEDGER, *SUMS)


@dataclass(frozen=True, slots=True)
class Hunt:
    """What to look for and where: one task of a worker."""

    name: str
    seeds: int = SEEDS_MAX
    first_seed: int = 1
    quick: bool = False  # look at the known seed first


@dataclass(frozen=True, slots=True)
class Caught:
    """`failure` None: it survived. `tried` histories were played with it."""

    name: str
    bug: str
    tried: int
    failure: Failure | None


def by_name(name: str) -> Mutant:
    """Raises KeyError."""
    return {mutant.name: mutant for mutant in MUTANTS}[name]


def hunt(task: Hunt) -> Caught:
    """Plays seeds until a history breaks that holds without the mutant."""
    mutant = by_name(task.name)
    seeds = [*range(task.first_seed, task.first_seed + task.seeds)]
    if task.quick:
        seeds = [mutant.known, *(seed for seed in seeds if seed != mutant.known)][: task.seeds]
    for tried, seed in enumerate(seeds, start=1):
        plan = draw_plan(seed, mutant.focus)
        failure = _with(mutant, plan)
        if failure is not None and play(plan).failure is None:
            return Caught(mutant.name, mutant.bug, tried, failure)
    return Caught(mutant.name, mutant.bug, len(seeds), None)


def _with(mutant: Mutant, plan: Plan) -> Failure | None:
    with mutated(mutant.edits):
        return play(plan).failure
