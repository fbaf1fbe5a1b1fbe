"""Who is accused, and who is cut off: never the honest."""

from __future__ import annotations

from collections.abc import Sequence

from gossipfl.events import CutOff, Effect, Event, Notice, Topic
from gossipfl.identity import device_name
from sim.checkers.base import Checker
from sim.device import SimDevice


class NobodyFramed(Checker):
    """No honest, unrevoked device is ever condemned, cut off or accused by an honest one."""

    kinds = frozenset({CutOff, Notice})

    def _innocent(self, accuser: SimDevice, accused: bytes | None) -> SimDevice | None:
        fleet = accuser.fleet
        if accused is None or not accuser.honest or accused in fleet.revoked | fleet.blocked:
            return None
        return next((d for d in self.world.devices if d.device == accused and d.honest), None)

    def on_effects(self, device: SimDevice, event: Event, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case CutOff(accused) | Notice(Topic.EVIDENCE, _, accused):
                    pass
                case _:
                    continue
            if (framed := self._innocent(device, accused)) is not None:
                raise self.broken(f"device {device.index} accuses honest device {framed.index}")

    def at_end(self) -> None:
        by_name = {device_name(d.device): d for d in self.world.devices if d.honest}
        for device in self.world.devices:
            if not device.honest or device.node is None:
                continue
            for peer in device.node.view().peers:
                framed = by_name.get(peer.device)
                if framed and peer.state == "condemned":
                    raise self.broken(f"device {device.index} condemned honest {framed.index}")
