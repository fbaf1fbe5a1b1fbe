"""What a node says to people: one line at a time, sorted by topic."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Topic(StrEnum):
    LIFECYCLE = "lifecycle"
    MEMBERSHIP = "membership"
    PEER = "peer"
    ROUND = "round"
    MERGE = "merge"
    POLICY = "policy"
    REFUSED = "refused"
    QUARANTINE = "quarantine"
    EVIDENCE = "evidence"
    STORE = "store"
    RESTORE = "restore"
    PRIVACY = "privacy"


@dataclass(frozen=True, slots=True)
class Notice:
    """One line for people: logs, status, the live table. `device` is whom it is about."""

    topic: Topic
    text: str
    device: bytes | None = None
    warning: bool = False
