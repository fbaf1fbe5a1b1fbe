"""Local differential privacy that can be claimed: mechanisms, accountant, ledger, statement.

Pure: numpy, hashlib and ChaCha20; entropy comes in as bytes. docs/explanation/privacy.md says what
is claimed and what is not.
"""

from __future__ import annotations

from gossipfl.privacy.protection import OFF, DevicePrivacy, Off, Protection, RecordPrivacy, Unit
from gossipfl.privacy.release import Noised, Publishable, Unprotected, unprotected, withheld

__all__ = [
    "OFF",
    "DevicePrivacy",
    "Noised",
    "Off",
    "Protection",
    "Publishable",
    "RecordPrivacy",
    "Unit",
    "Unprotected",
    "unprotected",
    "withheld",
]
