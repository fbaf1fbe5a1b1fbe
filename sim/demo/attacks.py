"""Which lie the demo's liars tell, by name. The lies themselves are in `sim.adversaries`."""

from __future__ import annotations

from collections.abc import Callable

from gossipfl.interfaces import Trainer
from sim.adversaries import FoeTrainer, NoiseTrainer, SignFlipTrainer

Wrap = Callable[[Trainer], Trainer]

ATTACKS: dict[str, Wrap] = {
    "foe": FoeTrainer,
    "sign-flip": SignFlipTrainer,
    "noise": NoiseTrainer,
}

IN_WORDS: dict[str, str] = {
    "foe": "trains honestly, then publishes a model that walked the other way",
    "sign-flip": "publishes the negative of its model",
    "noise": "adds noise to its model",
}
