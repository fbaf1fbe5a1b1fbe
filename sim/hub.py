"""A hub in the simulated world: a real node that trains nothing, and a log that grows beside it.

Its lies are a log's: a history rewritten, or two histories kept for two audiences. Its heads are
chained as they should be, so that nothing but the log gives it away.
"""

from __future__ import annotations

from gossipfl.audit.entries import EntryKind
from gossipfl.audit.memory import MemoryLog, digest_of
from gossipfl.events import CheckpointMade, ResourcesChanged
from gossipfl.messages import Head, Role
from gossipfl.shelf import Served
from gossipfl.wire import decode, open_envelope
from sim.adversaries import Adversary
from sim.device import SimDevice
from sim.fleet import EPOCH
from sim.scene import Scene

HEAD_BYTES_MAX = 4_096


class SimHub:
    """Adds a hub to a scene that has not started yet. `interval_s`: between checkpoints."""

    def __init__(self, scene: Scene, interval_s: float = 6.0) -> None:
        world = scene.world
        keys = scene.fleet.admit(Role.HUB)
        self.scene = scene
        self.interval_s = interval_s
        self.device = world.add(scene.fleet, keys, scene.job, scene.devices[0].trainer)
        self.log = self._new_log()
        self.two_faced: TwoFaced | None = None
        self.told: list[bytes] = []  # digests of the objects that its heads have named

    def _new_log(self) -> MemoryLog:
        return MemoryLog(self.device.keys.signer, lambda: self.device.random.randbytes(32))

    def start(self) -> None:
        """To be called once the scene has started."""
        self.scene.world.start(self.device)
        self.scene.world.deliver(self.device, ResourcesChanged(False, "a hub trains nothing"))
        self._tick()

    def _tick(self) -> None:
        world = self.scene.world
        self.grow(self.log, b"honest")
        self._show(self.log)
        if self.two_faced is not None:
            self.grow(self.two_faced.other, b"other")
            world.after(self.interval_s / 2, self.device, self._show, self.two_faced.other)
        world.after(self.interval_s, self.device, self._tick)

    def grow(self, log: MemoryLog, word: bytes) -> None:
        """Two entries and a checkpoint."""
        now = int(EPOCH + self.scene.world.now)
        for _ in range(2):
            log.append(EntryKind.LOGIN, now, self.device.device[:16], word)
        log.publish(now)

    def _show(self, log: MemoryLog) -> None:
        data = log.linked(len(log.checkpoints))
        self.told.append(digest_of(data))
        self.scene.world.deliver(self.device, CheckpointMade(data))

    def rewrite(self) -> None:
        """Another history of equal length, signed anew from the first checkpoint on."""
        self.scene.world.corrupt(self.device, Adversary())
        count = len(self.log.checkpoints)
        self.log = self._new_log()
        for _ in range(count):
            self.grow(self.log, b"rewritten")

    def divide(self) -> TwoFaced:
        """From now on there are two histories with one beginning: devices of even index see one of
        them, the others the other. Neither audience sees a contradiction."""
        self.two_faced = TwoFaced(self, self.log.branched())
        self.scene.world.corrupt(self.device, self.two_faced)
        return self.two_faced


class TwoFaced(Adversary):
    """Of the hub's heads, all in one honest chain, each audience is shown those that name its own
    history."""

    def __init__(self, hub: SimHub, other: MemoryLog) -> None:
        self._hub = hub
        self.other = other
        self._shown: dict[bool, Served] = {}  # the newest head that names the other history or not

    def serve_head(
        self, device: SimDevice, asker: SimDevice, which: bytes | None, served: Served | None
    ) -> Served | None:
        if which not in (None, device.device) or served is None:
            return served
        head = decode(open_envelope(served.envelope, "head", HEAD_BYTES_MAX).payload, Head)
        objects = {digest_of(self.other.linked(n)) for n in range(1, self._count() + 1)}
        self._shown[head.checkpoint in objects] = served
        return self._shown.get(asker.index % 2 == 1, served if not objects else None)

    def _count(self) -> int:
        return len(self.other.checkpoints)
