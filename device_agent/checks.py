"""What a check of the doctor says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    OK = "ok"
    NOTE = "note"  # to know, nothing to do
    PROBLEM = "PROBLEM"


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    state: State
    what: str
    fix: str = ""
