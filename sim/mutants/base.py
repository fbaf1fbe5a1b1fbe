"""What a mutant is, and what histories it is looked for in."""

from __future__ import annotations

from dataclasses import dataclass, field

from sim.mutate import Edit
from sim.plan import Focus


@dataclass(frozen=True, slots=True)
class Mutant:
    """`bug` in words, the edits that make it, what histories to look in. `known` is a seed that
    found it once: a quick hunt begins there."""

    name: str
    bug: str
    edits: tuple[Edit, ...]
    focus: Focus = field(default_factory=Focus)
    known: int = 1


def with_liars(*names: str) -> Focus:
    """Histories with these liars and few other faults."""
    return Focus(
        kinds=("crash", "partition", "sleep"),
        liars=names,
        liars_min=1,
        rules=("nna", "median", "trimmed_mean"),
    )


def full_of(*kinds: str) -> Focus:
    """Histories full of these faults."""
    return Focus(kinds=kinds, faults_min=8, rules=("nna",))
