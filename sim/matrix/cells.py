"""What a matrix is made of: the options that all cells share, and the cells in their order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import msgspec

from sim.attacks import ATTACKS

Row = Literal["clean", "alone", "undefended", "attack"]
REFERENCES: tuple[Row, ...] = ("clean", "alone", "undefended")
CORE_ATTACKS = ("foe", "dissensus", "mimic", "sign_flip", "alie")
"""What the design's probes found hardest: these cells come first."""
CORE_NOISE = (0.0, 0.3)
NOISE = (0.0, 0.3, 0.7, 1.0)
WITHOUT_NOISE = frozenset({"zero", "nan", "inf", "stale_replay"})
"""Noise changes nothing that matters here: refused at once, or no model of its own."""


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What decides a cell's outcome beside the cell. Equal options, or another file."""

    devices: int = 100
    samples: int = 40
    """training examples per device"""
    rounds: int = 100
    data: Literal["mnist", "digits"] = "mnist"
    hidden: int = 32
    assumed: int = 33
    """attackers as the policy assumes in every row; s and f follow by the exact bound"""
    learning_rate: float = 0.2
    momentum: float = 0.9
    batch: int = 20
    sample: int | None = None
    """peers pulled; None: from the bound"""
    reputation: bool = True


class Cell(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One history. `attackers` really lie; of a reference row without liars it is 0."""

    row: Row
    rule: str
    attack: str = ""
    noise: float = 0.0
    attackers: int = 0
    alpha: float = 1.0
    seed: int = 1

    @property
    def words(self) -> str:
        told = f"{self.attack} noise {self.noise:g}, {self.attackers} liars, " * bool(self.attack)
        return f"{self.row} {self.rule}: {told}alpha {self.alpha:g}, seed {self.seed}"


@dataclass(frozen=True, slots=True)
class Axes:
    """Which cells are wanted. More of them may be asked for later, in the same file."""

    rules: tuple[str, ...]
    attacks: tuple[str, ...]
    noise: tuple[float, ...] = NOISE
    attackers: tuple[int, ...] = (20, 33)
    alphas: tuple[float, ...] = (1.0, 0.1)
    seeds: tuple[int, ...] = (1, 2)


def cells(axes: Axes) -> list[Cell]:
    """All of them, what tells most first: per seed the references, then the hardest attacks with
    most liars and least skew, then the rest."""
    found = [*_references(axes), *_attacks(axes)]
    return sorted(found, key=lambda cell: _importance(cell, axes))


def _references(axes: Axes) -> Iterator[Cell]:
    for seed in axes.seeds:
        for alpha in axes.alphas:
            yield Cell("alone", "none", alpha=alpha, seed=seed)
            for rule in axes.rules:
                yield Cell("clean", rule, alpha=alpha, seed=seed)
            for count in axes.attackers:
                yield Cell("undefended", "mean", axes.attacks[0], 0.0, count, alpha, seed)


def _attacks(axes: Axes) -> Iterator[Cell]:
    for seed in axes.seeds:
        for alpha in axes.alphas:
            for count in axes.attackers:
                for name in axes.attacks:
                    for noise in (0.0,) if name in WITHOUT_NOISE else axes.noise:
                        for rule in axes.rules:
                            yield Cell("attack", rule, name, noise, count, alpha, seed)


def _importance(cell: Cell, axes: Axes) -> tuple[object, ...]:
    is_rest = not (cell.attack in CORE_ATTACKS and cell.noise in CORE_NOISE)
    is_attack = cell.row == "attack"
    return (
        axes.seeds.index(cell.seed),
        is_attack and is_rest,
        axes.alphas.index(cell.alpha),
        is_attack,
        -cell.attackers if is_attack else REFERENCES.index(cell.row),
        axes.attacks.index(cell.attack) if cell.attack else -1,
        cell.noise,
        cell.rule,
        cell.attackers,
    )


def unknown_attack(names: tuple[str, ...]) -> str | None:
    """The first name that is no attack."""
    return next((name for name in names if name not in ATTACKS), None)
