"""What an error code is, and the exit codes of the command."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of every verb (docs/reference/errors.md)."""

    OK = 0
    NO = 1
    USAGE = 2
    CONFIG = 3
    UNREACHABLE = 4
    IDENTITY = 5
    BUDGET = 6
    BUNDLE = 7
    BUG = 70
    INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class ErrorEntry:
    """One code: what it means (`title`) and what to do next (`hint`), for people."""

    title: str
    hint: str
    exit: Exit
