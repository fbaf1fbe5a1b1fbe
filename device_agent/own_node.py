"""The node of this device: who it is, how fast it lives, what its owner demands, its chance."""

from __future__ import annotations

import secrets

from device_agent.demands import floors
from device_agent.settings import Settings
from gossipfl.config import PACES, Limits, NodeSettings
from gossipfl.fleet.stored import DeviceIdentity
from gossipfl.node import Identity, Node


def own_node(
    settings: Settings, identity: DeviceIdentity, limits: Limits, first_start: bool
) -> Node:
    node_settings = NodeSettings(
        pace=PACES[settings.pace.preset],
        limits=limits,
        capability=settings.device.capability,
        first_start=first_start,
    )
    return Node(
        Identity(identity.signer, identity.member_object, identity.root_key),
        node_settings,
        secrets.randbits(64),
        floors=floors(settings.privacy),
        secret=secrets.token_bytes,
    )
