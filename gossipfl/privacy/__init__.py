"""Local differential privacy that can be claimed: mechanisms, accountant, ledger, statement.

Pure: numpy, hashlib and ChaCha20; entropy comes in as bytes. docs/explanation/privacy.md says what
is claimed and what is not.
"""

from __future__ import annotations

from gossipfl.privacy.protection import (
    OFF,
    DevicePrivacy,
    GroupSum,
    Off,
    Protection,
    RecordPrivacy,
    Unit,
)
from gossipfl.privacy.release import (
    Hidden,
    Noised,
    Publishable,
    Summed,
    Unprotected,
    hidden,
    summed,
    unprotected,
    withheld,
)

__all__ = [
    "OFF",
    "DevicePrivacy",
    "GroupSum",
    "Hidden",
    "Noised",
    "Off",
    "Protection",
    "Publishable",
    "RecordPrivacy",
    "Summed",
    "Unit",
    "Unprotected",
    "hidden",
    "summed",
    "unprotected",
    "withheld",
]
