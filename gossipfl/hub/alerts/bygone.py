"""Whoever was erased while findings were made from what was read before: no alert names them."""

from __future__ import annotations

from collections.abc import Iterable

from gossipfl.hub import pseudonyms
from gossipfl.hub.alerts.tracking import Changes, Incident
from gossipfl.hub.database import Transaction
from gossipfl.identity import parse_device_name


async def without_erased(tx: Transaction, changes: Changes) -> Changes:
    """The changes that are about nobody who was erased. `tx` writes; no erasure comes between."""
    incidents = [*changes.begun, *changes.changed, *(i for i, _ in changes.told)]
    devices = {device: name for name in _subjects(incidents) if (device := _device(name))}
    if not devices:
        return changes
    await tx.lock(pseudonyms.LOCK)
    gone = {devices[device] for device in await pseudonyms.erased(tx, devices)}
    return Changes(
        begun=[i for i in changes.begun if i.finding.subject not in gone],
        changed=[i for i in changes.changed if i.finding.subject not in gone],
        dropped=changes.dropped,
        told=[(i, event) for i, event in changes.told if i.finding.subject not in gone],
    )


def _subjects(incidents: Iterable[Incident]) -> set[str]:
    return {incident.finding.subject for incident in incidents}


def _device(subject: str) -> bytes | None:
    """None for what is no device: a disk, the log."""
    try:
        return parse_device_name(subject)
    except ValueError:
        return None
