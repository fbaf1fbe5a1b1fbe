"""Attacks by name: what liars publish, in a lock-step engine, a simulated world or a real agent.

`attack("foe", noise=0.3, rule="nna", f=10, seed=1)` is one conspiracy, shared by all liars of a
fleet; `vector(sight)` is what one of them publishes. No attack code is in the product.
"""

from __future__ import annotations

import difflib

from sim.attacks.adaptive import Adaptive
from sim.attacks.base import Attack, Sight
from sim.attacks.poisons import Backdoor, LabelFlip, poisoned, stamped, triggered
from sim.attacks.vectors import (
    Alie,
    Dissensus,
    Equivocation,
    Foe,
    FreeRider,
    Gaussian,
    Infinite,
    Mimic,
    NotANumber,
    SelectiveSilence,
    SignFlip,
    SignFlipStep,
    SlowDrip,
    StaleReplay,
    Zero,
)

__all__ = [
    "ATTACKS",
    "Attack",
    "Sight",
    "attack",
    "in_words",
    "poisoned",
    "stamped",
    "triggered",
]

ATTACKS: dict[str, type[Attack]] = {
    kind.name: kind
    for kind in (
        SignFlip,
        SignFlipStep,
        Alie,
        Foe,
        Dissensus,
        Mimic,
        LabelFlip,
        Backdoor,
        Gaussian,
        Zero,
        NotANumber,
        Infinite,
        StaleReplay,
        Equivocation,
        FreeRider,
        SelectiveSilence,
        SlowDrip,
        Adaptive,
    )
}
"""Every attack. The first line of a class's docstring says in words what its liars do."""


def attack(name: str, noise: float = 0.0, rule: str = "nna", f: int = 1, seed: int = 0) -> Attack:
    """A conspiracy of that name. Raises ValueError, with the nearest name, if there is none."""
    kind = ATTACKS.get(name)
    if kind is None:
        near = difflib.get_close_matches(name, ATTACKS, n=1, cutoff=0.0)
        raise ValueError(f"no attack is called {name!r}; the nearest name is {near[0]!r}")
    return kind(noise=noise, rule=rule, f=f, seed=seed)


def in_words(name: str) -> str:
    """What the liars do, in one line."""
    return (ATTACKS[name].__doc__ or "").strip().splitlines()[0]
