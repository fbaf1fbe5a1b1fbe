"""What must hold in every history, whatever the faults: each invariant is a class.

Checkers see every event, effect, commit and answer. They recompute from the bytes with nothing but
the wire and the fleet's own registry, so a hole in the node's checks is not hidden by the same
hole here. A broken invariant raises Violation, which the world turns into a WorldError with the
seed and the options.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gossipfl.config import Limits
from gossipfl.events import (
    Batch,
    CutOff,
    DeadlineReached,
    Effect,
    Event,
    FetchHead,
    FetchObject,
    HeadReceived,
    Notice,
    ObjectReceived,
    StartMerge,
    Topic,
)
from gossipfl.identity import device_name
from gossipfl.messages import Head
from gossipfl.objects import digest
from gossipfl.shelf import Served
from gossipfl.wire import check_signature, decode, open_envelope
from sim.device import SimDevice
from sim.rows import Rows

if TYPE_CHECKING:
    from sim.world import World

EFFECTS_MAX = 1_024  # at one event: guess, a sample of 64 with objects and cancels stays far below


class Violation(Exception):
    """An invariant does not hold."""


class Checker:
    """Hooks that do nothing. `bind` comes first, `at_end` last."""

    def bind(self, world: World) -> None:
        self.world = world

    def on_event(self, device: SimDevice, event: Event) -> None:
        """About to be handled."""

    def on_effects(self, device: SimDevice, event: Event, effects: Sequence[Effect]) -> None:
        """Asked for by the node in answer to the event; none is executed yet."""

    def on_commit(self, device: SimDevice, batch: Batch, done: bool) -> None:
        """`done`: it is durable, whatever the node was told."""

    def on_restore(self, device: SimDevice) -> None:
        """Its disk was replaced by an older copy."""

    def on_serve_head(self, server: SimDevice, asked: bytes | None, served: Served) -> None:
        """An honest device answers a head request; `asked` None: with its own."""

    def on_serve_object(self, server: SimDevice, name: bytes, data: bytes) -> None:
        """An honest device answers an object request."""

    def at_end(self) -> None:
        """The history is over."""


class Heads:
    """Decoded heads by envelope; None for what no member of the fleet signed as it stands."""

    def __init__(self) -> None:
        self._known: dict[bytes, Head | None] = {}

    def get(self, envelope: bytes, members: set[bytes]) -> Head | None:
        if envelope not in self._known:
            self._known[envelope] = self._read(envelope, members)
        return self._known[envelope]

    @staticmethod
    def _read(data: bytes, members: set[bytes]) -> Head | None:
        try:
            envelope = open_envelope(data, "head", Limits().head_bytes)
            check_signature(envelope)
            head = decode(envelope.payload, Head)
        except Exception:  # hostile bytes: whatever is wrong, it is no head
            return None
        known = head.device == envelope.device and head.device in members
        return head if known else None


class MergesVerified(Checker):
    """Every merged model is an update that a signed head of a member named, one per device."""

    def __init__(self) -> None:
        self._heads = Heads()
        self._rows = Rows()
        self._named: dict[tuple[int, bytes], dict[bytes, Head]] = {}
        self.merges = 0
        self.rows = 0

    def on_event(self, device: SimDevice, event: Event) -> None:
        if isinstance(event, ObjectReceived):
            self._rows.saw(event.data)
        if not isinstance(event, HeadReceived) or event.head is None:
            return
        self._rows.saw(event.update)
        head = self._heads.get(event.head, device.fleet.members)
        if head is not None and head.update is not None and head.fleet == device.fleet.id:
            named = self._named.setdefault((device.index, head.update.digest), {})
            named[head.device] = head

    def on_effects(self, device: SimDevice, event: Event, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, StartMerge):
                self._check(device, effect)

    def _check(self, device: SimDevice, effect: StartMerge) -> None:
        used: dict[bytes, int] = {}
        lineages = [device.job.lineage(run) for run in range(device.fleet.runs)]
        self.merges += 1
        self.rows += len(effect.received)
        for row in effect.received:
            for lineage, name in self._rows.names(row, lineages):
                named = self._named.get((device.index, name), {})
                if any(head.lineage == lineage for head in named.values()):
                    break
            else:
                raise Violation(f"device {device.index} merges what no signed head named")
            used[name] = used.get(name, 0) + 1
            if used[name] > len(named):
                raise Violation(f"device {device.index} merges one update twice in a round")


class OneHeadPerSeq(Checker):
    """An honest device's seq strictly grows, `prev` chains, and one seq has one public digest."""

    def __init__(self) -> None:
        self._heads = Heads()
        self._public: dict[tuple[bytes, int], bytes] = {}
        self._durable: dict[bytes, tuple[int, bytes]] = {}
        self.heads = 0

    def on_restore(self, device: SimDevice) -> None:
        self._durable.pop(device.device, None)

    def on_commit(self, device: SimDevice, batch: Batch, done: bool) -> None:
        if not done or batch.head is None or not device.honest:
            return
        head = self._heads.get(batch.head, device.fleet.members)
        if head is None:
            raise Violation(f"device {device.index} stores a head that it did not sign")
        self.heads += 1
        before = self._durable.get(device.device)
        if before is not None and not batch.adopt:
            if head.seq != before[0] + 1:
                raise Violation(f"device {device.index}: head {head.seq} after {before[0]}")
            if head.prev != before[1]:
                raise Violation(f"device {device.index}: head {head.seq} does not chain")
        self._durable[device.device] = (head.seq, digest(batch.head))

    def on_serve_head(self, server: SimDevice, asked: bytes | None, served: Served) -> None:
        if asked is not None:
            return
        head = self._heads.get(served.envelope, server.fleet.members)
        if head is None:
            raise Violation(f"device {server.index} serves a head that no member signed")
        first = self._public.setdefault((server.device, head.seq), served.digest)
        if first != served.digest:
            raise Violation(f"device {server.index} served two heads with seq {head.seq}")


class DurableBeforePublic(Checker):
    """An honest device serves its own head only when it, its update and its receipt are durable."""

    def __init__(self) -> None:
        self._heads = Heads()
        self._passed: set[tuple[int, bytes]] = set()

    def on_serve_head(self, server: SimDevice, asked: bytes | None, served: Served) -> None:
        if asked is not None or (server.index, served.digest) in self._passed:
            return
        head = self._heads.get(served.envelope, server.fleet.members)
        named = [served.digest]
        if head is not None:
            named += [ref.digest for ref in (head.update, head.receipts) if ref is not None]
        for name in named:
            if name not in server.durable:
                raise Violation(
                    f"device {server.index} serves {name.hex()[:12]} before it is durable"
                )
        if served.update is not None and digest(served.update) not in named:
            raise Violation(f"device {server.index} lets another update ride along")
        self._passed.add((server.index, served.digest))

    def on_serve_object(self, server: SimDevice, name: bytes, data: bytes) -> None:
        if digest(data) != name:
            raise Violation(f"device {server.index} serves other bytes than {name.hex()[:12]}")


class Bounded(Checker):
    """Requests out, held requests and effects of one event stay within their limits."""

    def on_event(self, device: SimDevice, event: Event) -> None:
        if not isinstance(event, DeadlineReached):
            return
        limits = device.settings.limits
        heads = sum(isinstance(e.effect, FetchHead) for e in device.exchanges.values())
        objects = sum(isinstance(e.effect, FetchObject) for e in device.exchanges.values())
        if heads > limits.heads_out:
            raise Violation(f"device {device.index}: {heads} head requests are out")
        if objects > limits.pulls_out:
            raise Violation(f"device {device.index}: {objects} object requests are out")

    def on_effects(self, device: SimDevice, event: Event, effects: Sequence[Effect]) -> None:
        if len(effects) > EFFECTS_MAX:
            raise Violation(f"device {device.index}: {len(effects)} effects of one event")


class NobodyFramed(Checker):
    """No honest, unrevoked device is ever condemned, cut off or accused by an honest one."""

    def _innocent(self, accuser: SimDevice, accused: bytes | None) -> SimDevice | None:
        if accused is None or not accuser.honest or accused in accuser.fleet.revoked:
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
                raise Violation(f"device {device.index} accuses honest device {framed.index}")

    def at_end(self) -> None:
        by_name = {device_name(d.device): d for d in self.world.devices if d.honest}
        for device in self.world.devices:
            if not device.honest or device.node is None:
                continue
            for peer in device.node.view().peers:
                framed = by_name.get(peer.device)
                if framed and peer.state == "condemned":
                    raise Violation(f"device {device.index} condemned honest {framed.index}")


class RoundsEnd(Checker):
    """A round never outlives its deadline, and the next one begins when it should.

    The bound is the pace's: a deadline, half of one more when training was long, and what training,
    merging and storing take here.
    """

    def __init__(self, slack_s: float = 0.5) -> None:
        self._slack_s = slack_s
        self._begun: dict[tuple[int, int], tuple[int, float]] = {}
        self.longest_s = 0.0

    def bind(self, world: World) -> None:
        super().bind(world)
        self._every_s = world.options.settings.pace.round_deadline_s
        world.schedule(self._every_s, self._look)

    def _bound(self, device: SimDevice) -> float:
        pace, costs = device.settings.pace, self.world.options.costs
        work = costs.train_s_per_example * device.examples + costs.merge_s_per_model * 64
        interval = pace.round_interval_s * (1 + pace.round_jitter)
        return (
            max(interval, pace.round_deadline_s * 1.5)
            + pace.round_deadline_s
            + pace.join_wait_s
            + work * device.slowness
            + costs.commit_s * 8
            + self._slack_s
        )

    def _look(self) -> None:
        now = self.world.now
        for device in self.world.devices:
            if device.node is None or not device.honest:
                continue
            view = device.node.view()
            key = (device.index, device.incarnation)
            number, since = self._begun.get(key, (-1, now))
            if view.round != number or view.waiting_for or view.finished:
                self._begun[key] = (view.round, now)
                continue
            self.longest_s = max(self.longest_s, now - since)
            if now - since > self._bound(device) + self._every_s:
                raise Violation(
                    f"device {device.index}: round {number} ({view.phase}) has lasted "
                    f"{now - since:.1f} s, above {self._bound(device):.1f} s"
                )
        self.world.schedule(now + self._every_s, self._look)


class Tally(Checker):
    """Counts how rounds of honest devices end: with a merge, or with a notice why not."""

    def __init__(self) -> None:
        self.merged = 0
        self.joined = 0
        self.unmerged: dict[str, int] = {}

    def on_effects(self, device: SimDevice, event: Event, effects: Sequence[Effect]) -> None:
        if not device.honest:
            return
        for effect in effects:
            match effect:
                case StartMerge():
                    self.merged += effect.own is not None
                    self.joined += effect.own is None
                case Notice(Topic.ROUND, text, _, True):
                    why = text.split(": ", 1)[-1]
                    self.unmerged[why] = self.unmerged.get(why, 0) + 1

    @property
    def ended(self) -> int:
        return self.merged + sum(self.unmerged.values())

    @property
    def completed(self) -> float:
        """Share of ended rounds that merged."""
        return self.merged / max(1, self.ended)


def all_checkers() -> list[Checker]:
    return [
        MergesVerified(),
        OneHeadPerSeq(),
        DurableBeforePublic(),
        Bounded(),
        NobodyFramed(),
        RoundsEnd(),
    ]
