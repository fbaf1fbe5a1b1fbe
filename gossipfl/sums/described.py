"""A policy's privacy as plain data for people and programs, with what group sums cost."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from msgspec import structs

from gossipfl.groups.across import Tolerance, tolerance
from gossipfl.messages import Privacy


@lru_cache(maxsize=8)
def borne(devices: int, size: int) -> Tolerance:
    """`across.tolerance`; asked each time somebody looks at a node's state."""
    return tolerance(devices, size)


def described(privacy: Privacy) -> dict[str, Any]:
    """The fields of `messages.Privacy`; of group sums how many devices, not which."""
    found = structs.asdict(privacy)
    sums = privacy.sums
    if sums is None:
        return found
    bears = borne(len(sums.devices), sums.size)
    found["sums"] = structs.asdict(sums) | {
        "devices": len(sums.devices),
        "groups": bears.number,
        "attackers_borne": bears.attackers,
        "share_borne": bears.share,
        "warning": bears.warning,
    }
    return found
