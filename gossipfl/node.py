"""The node: a pure state machine. Events and the instant in, effects out, one deadline.

It never awaits, never reads a clock, and draws only from the generator it was given. The asyncio
driver and the simulator are two interpreters of the same effects, so what is simulated is what
ships.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from gossipfl.addresses import Addresses
from gossipfl.budget import Budget
from gossipfl.collector import Collector
from gossipfl.config import NodeSettings
from gossipfl.core import Core, Identity
from gossipfl.cycle import Cycle
from gossipfl.documents import restore
from gossipfl.errors import PeerError
from gossipfl.events import (
    BundleGiven,
    CheckpointMade,
    DataChanged,
    DeadlineReached,
    Effect,
    Event,
    FetchFailed,
    HeadReceived,
    JobFailed,
    JobReady,
    Loaded,
    Measured,
    MergeFailed,
    MergeFinished,
    ObjectReceived,
    OwnAddresses,
    PeerGone,
    PeerSeen,
    PolicyReceived,
    Reckoned,
    Release,
    ResourcesChanged,
    RevocationReceived,
    Start,
    Stop,
    Stored,
    StoreFailed,
    SumMasked,
    SumUncovered,
    Topic,
    TrainingFailed,
    TrainingFinished,
)
from gossipfl.groups.shamir import Entropy
from gossipfl.halt import Halt
from gossipfl.held import held
from gossipfl.holdings import Holdings, Spread, holdings, spread
from gossipfl.identity import short_name
from gossipfl.inheritance import Inheritance
from gossipfl.intake import Intake
from gossipfl.merger import Merger
from gossipfl.messages import Lineage
from gossipfl.parameters import Vector
from gossipfl.parcels import Parcels
from gossipfl.privacy.agreed import NO_FLOORS
from gossipfl.privacy.ledger import Floors
from gossipfl.privacy.statement import Statement
from gossipfl.publisher import Publisher
from gossipfl.pure import Pure, call
from gossipfl.report import pulse, report
from gossipfl.restorer import Restorer
from gossipfl.shelf import Shelf
from gossipfl.steering import Steering
from gossipfl.sums.part import GroupSums
from gossipfl.trial import Serving, Trial
from gossipfl.upkeep import Upkeep
from gossipfl.view import Pulse, View
from gossipfl.watch import Watch
from gossipfl.witnessing import Witnessing

__all__ = ["Identity", "Node"]


class Node:
    """One device's protocol state. `seed` is entropy for sampling and jitter, not keys. `secret`
    is for the keys of group sums: so many bytes, of the operating system. `pure` runs checks of
    bytes: only who holds many nodes gives another one."""

    def __init__(
        self,
        identity: Identity,
        settings: NodeSettings,
        seed: int,
        pure: Pure = call,
        floors: Floors = NO_FLOORS,
        secret: Entropy | None = None,
    ) -> None:
        core = Core(identity, settings, seed, pure)
        core.budget = Budget(core, floors)
        core.inheritance = Inheritance(core)
        core.sums = GroupSums(core, secret)
        core.publisher = Publisher(core)
        core.steering = Steering(core)
        core.addresses = Addresses(core)
        core.collector = Collector(core)
        core.merger = Merger(core)
        core.restorer = Restorer(core)
        core.cycle = Cycle(core)
        core.halt = Halt(core)
        core.trial = Trial(core)
        core.upkeep = Upkeep(core)
        core.watch = Watch(core)
        core.witnessing = Witnessing(core)
        core.intake = Intake(core)
        core.parcels = Parcels(core)
        self._core = core
        self._started = False
        self._stopped = False
        self._handlers: dict[type, Callable[[Any], None]] = {
            Start: self._on_start,
            Stop: self._on_stop,
            DeadlineReached: self._on_deadline,
            PeerSeen: self._on_peer_seen,
            PeerGone: self._on_peer_gone,
            OwnAddresses: self._on_own_addresses,
            HeadReceived: self._on_head,
            ObjectReceived: core.parcels.object,
            FetchFailed: core.intake.failed,
            TrainingFinished: core.cycle.trained,
            TrainingFailed: core.cycle.training_failed,
            MergeFinished: core.merger.merged,
            MergeFailed: core.merger.merge_failed,
            Measured: self._on_measured,
            Reckoned: core.budget.reckoned,
            Stored: self._on_stored,
            StoreFailed: self._on_store_failed,
            Loaded: self._on_loaded,
            PolicyReceived: self._on_policy,
            RevocationReceived: self._on_revocation,
            CheckpointMade: self._on_checkpoint,
            BundleGiven: self._on_bundle,
            JobReady: core.steering.ready,
            JobFailed: core.steering.failed,
            ResourcesChanged: self._on_resources,
            DataChanged: lambda _: core.halt.data_changed(),
            Release: self._on_release,
            SumMasked: core.sums.masked,
            SumUncovered: core.sums.uncovered,
        }

    # --- the interface ---------------------------------------------------------------------

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take one event at monotonic instant `now`; effects are to be executed in order."""
        core = self._core
        if now > core.now:
            core.now = now
        core.out = []
        self._handlers[type(event)](event)
        if self._started and not self._stopped:
            core.upkeep.advance()
            core.cycle.advance()
            core.sums.advance()
            core.publisher.advance()
        return core.out

    @property
    def deadline(self) -> float:
        """The next instant at which the node wants DeadlineReached."""
        core = self._core
        if not self._started or self._stopped:
            return math.inf
        return min(core.rounds.wake_at(), core.sums.due, core.publisher.due, core.upkeep.due())

    @property
    def shelf(self) -> Shelf:
        """What may be served. Only durable things are on it."""
        return self._core.shelf

    @property
    def base(self) -> Vector | None:
        """The merge from which the next training starts: status, predict and export use it."""
        return self._core.job.base

    @property
    def base_round(self) -> int:
        return self._core.job.base_round

    @property
    def serving(self) -> Serving | None:
        """The model to answer with. It is the base, but while another job proves itself."""
        return self._core.trial.serving

    @property
    def is_at_rest(self) -> bool:
        """Whether a condition of the policy holds, so that no round starts."""
        return self._core.halt.cause is not None

    @property
    def lineage(self) -> Lineage | None:
        return self._core.job.lineage

    def device_of_tls(self, tls_key: bytes) -> bytes | None:
        """The member that a TLS key (SHA-256 of its SPKI) belongs to, if known."""
        return self._core.roster.device_of_tls(tls_key)

    def refused(self, tls_key: bytes, not_after: int | None = None) -> str | None:
        """Why this TLS key is not served any more, or None. `not_after` is its certificate's end,
        in seconds since the epoch: it gates those too whose member object never came here."""
        core = self._core
        device = core.roster.device_of_tls(tls_key)
        revocation = core.roster.revocation_of(device, tls_key)
        if revocation is not None:
            return f"revoked: {revocation.reason}"
        if not_after is not None and core.time() > not_after:
            return "its certificate has ended"
        if device is None:
            return None
        if core.roster.is_over(device):
            return "enrolled again under another key"
        known = core.roster.by_device(device)
        if known is not None and core.time() > known.member.not_after:
            return "its membership has ended"
        if device in core.blocked:
            return "blocked by the fleet's policy"
        standing = core.reputation.of(device)
        return standing.why if standing.condemned else None

    def view(self) -> View:
        return report(self._core)

    def statement(self) -> Statement | None:
        """What this device can promise of its privacy now; None without a policy that asks."""
        return self._core.budget.statement()

    def pulse(self) -> Pulse:
        return pulse(self._core)

    def holdings(self) -> Holdings:
        """What it knows of the fleet, for who records it."""
        return holdings(self._core)

    def spread(self, policy: bytes) -> Spread:
        """How far the policy with this digest has come."""
        return spread(self._core, policy)

    def held(self) -> dict[str, tuple[int, int]]:
        """What it holds of all that peers can fill, and the bound of each."""
        return held(self._core)

    # --- handlers --------------------------------------------------------------------------

    def _on_start(self, event: Start) -> None:
        core = self._core
        core.clock.hear_wall(event.wall, core.now)
        restore(core, event.snapshot)
        self._started = True
        core.upkeep.start()
        core.notice(
            Topic.LIFECYCLE, f"device {short_name(core.device)} starts at head {core.own.seq}"
        )

    def _on_stop(self, _: Stop) -> None:
        self._stopped = True
        core = self._core
        core.publisher.touch("reputation", "clock")
        core.publisher.save_now()
        core.notice(Topic.LIFECYCLE, f"device {short_name(core.device)} stops")

    def _on_deadline(self, event: DeadlineReached) -> None:
        self._core.clock.hear_wall(event.wall, self._core.now)

    def _on_peer_seen(self, event: PeerSeen) -> None:
        self._core.book.see(event.address, event.source, self._core.now)

    def _on_peer_gone(self, event: PeerGone) -> None:
        self._core.book.gone(event.address)

    def _on_own_addresses(self, event: OwnAddresses) -> None:
        self._core.addresses.own(event.addresses)

    def _on_head(self, event: HeadReceived) -> None:
        self._core.intake.head(event)

    def _on_stored(self, event: Stored) -> None:
        self._core.publisher.stored(event.commit)

    def _on_store_failed(self, event: StoreFailed) -> None:
        self._core.publisher.failed(event.commit, event.reason)

    def _on_loaded(self, event: Loaded) -> None:
        self._core.publisher.reloaded(event.snapshot)

    def _on_measured(self, event: Measured) -> None:
        if not self._core.trial.measured(event):
            self._core.halt.measured(event)

    def _on_policy(self, event: PolicyReceived) -> None:
        self._locally("policy", lambda: self._core.steering.receive(event.data))

    def _on_revocation(self, event: RevocationReceived) -> None:
        def revoke() -> None:
            revocation = self._core.roster.revoke(event.data)
            if revocation is not None:
                self._core.upkeep.revoked([revocation])

        self._locally("revocation", revoke)

    def _locally(self, what: str, take: Callable[[], object]) -> None:
        """What a person hands over may be wrong too; nobody is blamed, it is said."""
        try:
            take()
        except PeerError as error:
            self._core.notice(Topic.REFUSED, f"the {what} is refused: {error}", warning=True)

    def _on_checkpoint(self, event: CheckpointMade) -> None:
        self._core.witnessing.made(event.data)

    def _on_bundle(self, event: BundleGiven) -> None:
        self._core.steering.give(event.data)

    def _on_resources(self, event: ResourcesChanged) -> None:
        core = self._core
        why = "" if event.may_train else event.reason or "not now"
        if event.of_data:
            core.restraint.data = why
        else:
            core.restraint.resources = why
        if core.restraint.why == why != "":
            core.notice(Topic.LIFECYCLE, f"only listening: {why}")

    def _on_release(self, event: Release) -> None:
        core = self._core
        if core.reputation.release(event.device):
            core.publisher.touch("reputation")
            core.reputation.record(event.device, core.time(), "released by a person")
            core.notice(Topic.QUARANTINE, f"{short_name(event.device)} is released", event.device)
