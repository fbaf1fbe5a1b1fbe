"""What needs a person, as plain values: the page and alerts are made of the same."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How loud something is. Each has its own shape and word on the page, not only a colour."""

    GOOD = "good"
    NOTE = "note"
    WARNING = "warning"
    ALARM = "alarm"


class Kind(StrEnum):
    """What something that needs a person is about: cards of the page, and alerts."""

    QUARANTINE = "quarantine"
    BUDGET = "budget"
    CONVERGENCE = "convergence"
    SILENCE = "silence"
    DISK = "disk"
    LOG = "log"
    TASK = "task"
    POLICY = "policy"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that needs a person. `subject`: a device's name, or whatever else it is about.
    `at_once`: it cannot pass by itself, or has passed: there is nothing to wait for."""

    kind: Kind
    subject: str
    level: Level
    title: str
    words: str
    link: str = ""
    command: str = ""
    at_once: bool = False

    @property
    def key(self) -> tuple[Kind, str]:
        return self.kind, self.subject

    @property
    def headline(self) -> tuple[Level, str]:
        """What makes it another message than before; words may tell of ages."""
        return self.level, self.title


@dataclass(frozen=True, slots=True)
class AlertLine:
    """An alert that was sent and has not ended."""

    id: str
    level: Level
    title: str
    link: str
    since: int
    acknowledged: int | None
    acknowledged_by: str
    problem: str  # why somebody has not got it yet


@dataclass(frozen=True, slots=True)
class Need:
    """A card of "Needs you"."""

    level: Level
    title: str
    words: str
    link: str = ""
    command: str = ""
    names_devices: bool = False
