"""What the parts of a node share: its rooms, the instant, the effects so far, and blame."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gossipfl.chains import Chains
from gossipfl.codecs import Publication
from gossipfl.config import NodeSettings
from gossipfl.errors import Fault, PeerError
from gossipfl.events import CutOff, Effect, Notice, Topic
from gossipfl.fleettime import FleetClock
from gossipfl.identity import DeviceId, Signer, short_name
from gossipfl.membership import Roster
from gossipfl.messages import Lineage, Policy, Record
from gossipfl.objects import Listing, pack_list
from gossipfl.ownchain import OwnChain
from gossipfl.parameters import Layout, Vector
from gossipfl.peers import PeerBook
from gossipfl.policies import Accepted, Policies
from gossipfl.pulls import Pulls
from gossipfl.pure import Pure, call
from gossipfl.reputation import Reputation
from gossipfl.rounds import Rounds
from gossipfl.shelf import Shelf

if TYPE_CHECKING:
    from gossipfl.addresses import Addresses
    from gossipfl.budget import Budget
    from gossipfl.collector import Collector
    from gossipfl.cycle import Cycle
    from gossipfl.halt import Halt
    from gossipfl.inheritance import Inheritance
    from gossipfl.intake import Intake
    from gossipfl.merger import Merger
    from gossipfl.parcels import Parcels
    from gossipfl.publisher import Publisher
    from gossipfl.restorer import Restorer
    from gossipfl.steering import Steering
    from gossipfl.sums.part import GroupSums
    from gossipfl.trial import Trial
    from gossipfl.upkeep import Upkeep
    from gossipfl.watch import Watch
    from gossipfl.witnessing import Witnessing

# Faults of the link, not of anybody's bytes: counted for liveness, not written into receipts.
LINK_FAULTS = frozenset({Fault.UNREACHABLE, Fault.STALLED, Fault.REFUSED})


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this device is. `member` is its own member object, `root_key` the fleet's raw key."""

    signer: Signer
    member: bytes
    root_key: bytes


@dataclass(slots=True)
class Job:
    """The bundle in use and where training stands. `lineage` is None until it is loaded."""

    policy: Policy | None = None
    lineage: Lineage | None = None
    layout: Layout | None = None
    initial: Vector | None = None
    base: Vector | None = None
    merged: Vector | None = None  # the newest merge: the base, if no round below quorum came since
    base_round: int = 0
    pub: Vector | None = None  # our published model, as everyone decodes it
    pub_digest: bytes | None = None
    sent: Publication | None = None  # what a partial codec builds the next update on
    unsent: Vector | None = None  # what training changed and no update has carried yet
    accuracy: float | None = None
    loss: float | None = None
    failed: str = ""
    loading: bytes | None = None  # bundle id being validated


@dataclass(slots=True)
class Restraint:
    """Why this node does not publish. Empty strings: no reason."""

    resources: str = ""
    data: str = ""  # no examples to train on; counts only while no policy asks for privacy
    private: bool = False
    budget: str = ""  # the next release does not fit, or is not allowed here
    conflict: str = ""  # somebody else signs with our key, or our state cannot be restored
    blocked: str = ""  # the policy blocks this device
    reconciled: bool = False

    @property
    def why(self) -> str:
        """With privacy on, local data decide nothing that can be seen: noise goes out then."""
        why = self.conflict or self.blocked or self.budget or self.resources
        return why or ("" if self.private else self.data)


class Core:
    addresses: Addresses
    budget: Budget
    collector: Collector
    cycle: Cycle
    halt: Halt
    inheritance: Inheritance
    intake: Intake
    merger: Merger
    parcels: Parcels
    publisher: Publisher
    restorer: Restorer
    steering: Steering
    sums: GroupSums
    trial: Trial
    upkeep: Upkeep
    watch: Watch
    witnessing: Witnessing

    def __init__(
        self, identity: Identity, settings: NodeSettings, seed: int, pure: Pure = call
    ) -> None:
        limits = settings.limits
        self.pure = pure
        self.settings = settings
        self.limits = limits
        self.pace = settings.pace
        self.entropy = random.Random(seed)
        self.signer: Signer = identity.signer
        self.device: DeviceId = identity.signer.device
        self.roster = Roster(identity.root_key, limits, pure)
        self.fleet = self.roster.fleet
        self.me = self.roster.admit(identity.member)
        self.clock = FleetClock(ceiling=self.me.member.not_after)
        # Our issuer's word on the time is the first trusted lower bound.
        self.clock.raise_floor(self.me.member.issued)
        self.book = PeerBook(self.pace, limits)
        self.pulls = Pulls(limits)
        self.chains = Chains(limits)
        self.reputation = Reputation(self.pace.round_interval_s, enabled=settings.reputation)
        self.rounds = Rounds(self.pace)
        self.policies = Policies(
            self.fleet,
            limits,
            self.roster.verify_chain,
            lambda device: self.roster.revocation(device) is not None,
        )
        self.own = OwnChain(self.signer, self.fleet, limits)
        self.shelf = Shelf(limits.cache_bytes, limits.devices)
        self.job = Job()
        self.restraint = Restraint()
        self.evidence: dict[tuple[bytes, str], bytes] = {}
        self.records: dict[bytes, tuple[Record, bytes]] = {}
        self.in_force: Accepted | None = None
        self.blocked: frozenset[bytes] = frozenset()  # devices, by the policy, until another one
        self.refused: dict[bytes, Fault] = {}  # in this round, for the receipt
        self.now = 0.0
        self.out: list[Effect] = []
        self.shelf.pin(self.me.digest, self.me.data)
        self.shelf.member = self.me.digest

    # --- saying things ---------------------------------------------------------------------

    def emit(self, *effects: Effect) -> None:
        self.out.extend(effects)

    def notice(
        self, topic: Topic, text: str, device: bytes | None = None, warning: bool = False
    ) -> None:
        # Peers' words may be in it: nobody may write a line of our log, or to a terminal.
        plain = "".join(c if c.isprintable() else "?" for c in text)
        self.out.append(Notice(topic, plain, device, warning))

    def time(self) -> int:
        """Fleet time, seconds since the epoch."""
        return self.clock.time(self.now)

    # --- blame -----------------------------------------------------------------------------

    def carrier(self, asked: bytes | None, tls_key: bytes | None) -> bytes | None:
        """Who brought it: the owner of the TLS key, where the transport knows it. Addresses change
        hands, and may be taken over to give somebody else a bad name."""
        return self.roster.device_of_tls(tls_key) if tls_key is not None else asked

    def blame(self, device: bytes | None, error: PeerError) -> None:
        """Charge a fault to whom it belongs. Never to ourselves, never to nobody."""
        if device is None or device == self.device:
            if error.fault not in LINK_FAULTS:
                self.notice(Topic.REFUSED, str(error))
            return
        if error.fault not in LINK_FAULTS:
            self.refused[device] = error.fault
            self.notice(Topic.REFUSED, f"{short_name(device)}: {error}", device)
            self.publisher.touch("reputation")
        reason = self.reputation.fault(device, error.fault, self.now)
        if reason:
            self.quarantined(device, reason)

    def quarantined(self, device: bytes, reason: str) -> None:
        self.notice(
            Topic.QUARANTINE, f"{short_name(device)} is quarantined: {reason}", device, True
        )
        self.reputation.record(device, self.time())
        self.publisher.touch("reputation")

    def expel(self, device: bytes) -> None:
        """Revoked or condemned: nothing of it is used or asked for from now on."""
        self.book.drop(device)
        self.records.pop(device, None)
        self.shelf.retire_head(device)
        self.witnessing.barred(device)
        self.shun(device)

    def shun(self, device: bytes) -> None:
        """Blocked for now: where it is stays known, for it may be let in again."""
        known = self.roster.by_device(device)
        self.rounds.inbox.pop(device, None)
        self.rounds.settle(device, self.now)
        self.emit(*self.pulls.cancel_device(device))
        if known is not None and known.member.tls is not None:
            self.emit(CutOff(device, known.member.tls))

    @property
    def condemned(self) -> int:
        """How many members are proven liars: each is one of the attackers that are assumed.

        Not who was revoked or replaced: a policy issued since then no longer counts it among them,
        and proofs against stolen devices of old must not switch the defence off.
        """
        return len({d for d, _ in self.evidence if not self.roster.is_over(d)})

    def is_barred(self, device: bytes) -> bool:
        """Condemned by evidence, revoked, enrolled again under another key, or blocked."""
        is_out = self.reputation.is_condemned(device) or self.roster.is_over(device)
        return is_out or device in self.blocked

    # --- lists that heads name -------------------------------------------------------------

    def evidence_object(self) -> bytes | None:
        if not self.evidence:
            return None
        return pack_list([self.evidence[key] for key in sorted(self.evidence)])

    def evidence_listing(self) -> Listing | None:
        """As heads name it."""
        if not self.evidence:
            return None
        entries = {device + kind.encode(): data for (device, kind), data in self.evidence.items()}
        return Listing.of(entries, self.limits.list_bytes)
