"""What a liar passes off as fit to be published: no noise stands between its words and the wire.

Nobody can make a hostile device add noise, so the simulator's own do not. The only place outside
of `gossipfl.privacy` that clears a vector; nothing that ships to a device imports it.
"""

from __future__ import annotations

from gossipfl.parameters import Cleared, Vector
from gossipfl.privacy import (
    DevicePrivacy,
    GroupSum,
    Hidden,
    Noised,
    Off,
    Protection,
    Publishable,
    RecordPrivacy,
    unprotected,
)


def forged(protection: Protection | GroupSum, vector: Vector) -> Publishable | Hidden:
    """This vector as the answer to a training under `protection`."""
    if isinstance(protection, GroupSum):
        return Hidden(vector)
    if isinstance(protection, Off):
        return unprotected(protection, vector)
    return as_noised(protection, vector)


def as_noised(mode: DevicePrivacy | RecordPrivacy, vector: Vector) -> Noised:
    return Noised(Cleared(vector), mode)
