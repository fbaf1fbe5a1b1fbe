"""What the policy asks and the device's owner demands, together: how releases are made, and within
which terms. An owner can be stricter than the policy, never looser.
"""

from __future__ import annotations

from dataclasses import dataclass

from gossipfl.messages import Privacy
from gossipfl.privacy.ledger import Floors, Spec, Terms, open_ledger
from gossipfl.privacy.protection import DevicePrivacy, RecordPrivacy, Unit

NO_FLOORS = Floors()


@dataclass(frozen=True, slots=True)
class Agreed:
    spec: Spec
    terms: Terms


def agreed(privacy: Privacy, floors: Floors = NO_FLOORS) -> Agreed | None:
    """None without privacy, or where group sums go without noise. Raises ValueError if the policy's
    numbers are none.

    Where the owner wants more noise than the policy, there is more: z is the larger of both.
    """
    if privacy.mode == "off" or (privacy.sums is not None and not privacy.sums.noise):
        return None
    unit = Unit(privacy.unit)
    z = max(privacy.z, floors.z or 0.0)
    terms = Terms(privacy.epsilon, privacy.delta, privacy.z, unit).stricter(floors)
    if unit is Unit.DEVICE:
        return Agreed(DevicePrivacy(privacy.clip, z), terms)
    spec = RecordPrivacy(privacy.clip, z, privacy.sample_rate, privacy.steps, privacy.lot)
    return Agreed(spec, terms)


def affordable(privacy: Privacy) -> int:
    """How many publications the policy pays for, for a device that has spent nothing yet."""
    found = agreed(privacy)
    if found is None:
        raise ValueError("a policy without privacy has no budget")
    ledger, _ = open_ledger(bytes(16))
    return ledger.affordable(found.spec, found.terms)
