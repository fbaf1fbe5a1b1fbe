"""What the owner of a device demands of privacy beyond the policy, from the settings."""

from __future__ import annotations

from device_agent.settings import PrivacySection
from gossipfl.privacy import Unit
from gossipfl.privacy.ledger import Floors


def floors(section: PrivacySection) -> Floors:
    """An empty setting demands nothing."""
    return Floors(
        epsilon=section.epsilon_max or None,
        delta=section.delta_max or None,
        z=section.z_min or None,
        unit=Unit(section.unit) if section.unit else None,
    )
