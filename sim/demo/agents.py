"""How the demo starts an agent, asks it, and rebuilds its trainer in this process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

import gossipfl
from device_agent.data import DataSource, DataSpec
from device_agent.local_api import call
from device_agent.settings import DataSection
from device_agent.trainer import OnnxTrainer
from gossipfl.bundle.archive import Bundle
from gossipfl.errors import UserError
from gossipfl.fleet.documents import DEFAULT_RULE
from gossipfl.interfaces import Trainer
from sim.attacks import Attack, attack
from sim.demo.places import Place

BUNDLES = Path(gossipfl.__file__).parent / "bundles"


def shipped_bundle(name: str) -> Path:
    """A bundle that comes with the package."""
    return BUNDLES / f"{name}.gfl"


@dataclass(frozen=True, slots=True)
class Lie:
    """What the liars of a demo do, and what they know of the fleet that they lie to."""

    attack: str
    noise: float = 0.0
    rule: str = DEFAULT_RULE
    f: int = 1
    liars: int = 1
    seed: int = 0

    def conspiracy(self) -> Attack:
        return attack(self.attack, self.noise, self.rule, self.f, self.seed)

    def words(self, number: int) -> list[str]:
        """Arguments of `python -m sim.demo.liar` for one of the liars."""
        told = {**asdict(self), "number": number}
        return [word for key, value in told.items() for word in (f"--{key}", str(value))]


def command(place: Place, lie: Lie | None = None) -> list[str]:
    """Arguments for the interpreter: the product's agent, or for a liar the poisoned one."""
    config = ["--config", str(place.config)]
    if lie is not None and place.liar is not None:
        return ["-m", "sim.demo.liar", *config, *lie.words(place.liar)]
    return ["-m", "gossipfl", "run", *config]


def ask(place: Place) -> dict[str, Any] | None:
    """A device's status with its peers; None while it does not answer."""
    try:
        return call(place.socket, "status")
    except UserError:
        return None


def trainers(bundle: Bundle, places: Sequence[Place]) -> list[Trainer]:
    """The trainers that these devices' agents run, over the same files."""
    return [_trainer(bundle, place) for place in places]


def _trainer(bundle: Bundle, place: Place) -> Trainer:
    spec = DataSpec.from_manifest(msgspec.to_builtins(bundle.manifest))
    data = DataSource(DataSection(source=str(place.folder / "data")), spec).load()
    return OnnxTrainer(bundle, data.train_x, data.train_y, data.test_x, data.test_y)
