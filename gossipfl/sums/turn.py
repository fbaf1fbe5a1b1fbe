"""Attempts of one window, one after the other: started, fed, carried out, and what they leave."""

from __future__ import annotations

import math
from enum import Enum

from gossipfl.chains import pack_evidence
from gossipfl.core import Core
from gossipfl.errors import Fault, PeerError
from gossipfl.events import SumMask, SumMasked, SumUncover, Topic
from gossipfl.groups import proofs, shamir
from gossipfl.groups.attempt import Attempt
from gossipfl.groups.messages import Signed, kind_of, read
from gossipfl.groups.plan import Plan, liars_borne
from gossipfl.groups.schedule import Schedule
from gossipfl.groups.series import Series
from gossipfl.groups.steps import (
    Accuse,
    DeadlineReached,
    Effect,
    End,
    Ended,
    Event,
    Fetch,
    Journal,
    Lie,
    Masked,
    MaskVector,
    Persist,
    Phase,
    Publish,
    Received,
    Uncover,
    VectorHeld,
)
from gossipfl.identity import short_name
from gossipfl.messages import Evidence, EvidenceKind, SumRef
from gossipfl.objects import digest
from gossipfl.parameters import to_bytes
from gossipfl.privacy import Hidden
from gossipfl.pulls import Purpose
from gossipfl.sums.exchange import Exchange
from gossipfl.wire import decode, encode, pack, unpack

DOCUMENT_BYTES_MAX = 16 * 1024  # a journal of 64 digests, and eight names
PROVEN = {
    Lie.EQUIVOCATION: EvidenceKind.SUM_EQUIVOCATION,
    Lie.REUSED_KEY: EvidenceKind.SUM_KEY,
}


class Turn(Enum):
    """What is going on."""

    RUNS = "an attempt runs, or its sum is being made"
    OVER = "no attempt of this window is left"
    SPENT = "the model went out masked in vain: another attempt needs another one"


class Turns:
    def __init__(self, core: Core, exchange: Exchange, secret: shamir.Entropy | None) -> None:
        self._core, self._exchange, self._secret = core, exchange, secret
        self._journal = Journal(window=0, attempt=0)
        self._series: Series | None = None
        self._schedule: Schedule | None = None
        self._window = 0
        self._number = 0  # the next attempt
        self._attempt: Attempt | None = None
        self._model: Hidden | None = None
        self._named: tuple[Hidden, bytes] | None = None  # a model and its digest
        self._next: tuple[tuple[int, int], Plan | None] | None = None
        self._renewed = 0  # the attempt for which was trained again
        self._making: Plan | None = None  # whose sum is being uncovered
        self._job = 0  # the heavy step that is awaited
        self._plan: Plan | None = None  # whose objects the head names
        self._objects: list[bytes] = []
        self._names: list[bytes] = []  # all that is stored for it
        self.ends: list[str] = []  # of this window's attempts, in words
        self.sums = 0  # attempts that gave a sum, since the start

    @property
    def problem(self) -> str:
        """Why this device can take part in no sum at all, or ""."""
        if self._secret is None:
            return "it has no source of secret bytes"
        return "" if shamir.is_installed() else "PyCryptodome is not installed"

    # --- attempts ----------------------------------------------------------------------------

    def window(self, schedule: Schedule, window: int) -> None:
        """A window begins."""
        self.drop()
        self._schedule, self._window, self._number = schedule, window, 0
        self.ends, self._renewed, self._named = [], 0, None

    def advance(self, model: Hidden | None, count: int, time: float) -> Turn | float:
        """What is going on, or the fleet time at which the next attempt begins."""
        core, schedule = self._core, self._schedule
        if self._making is not None:
            return Turn.RUNS
        if self._attempt is not None:
            if core.now >= self._attempt.deadline:
                self._give(DeadlineReached())
            if self._attempt is not None:
                self._exchange.advance(self._attempt.deadline)
            if self._attempt is not None or self._making is not None:
                return Turn.RUNS
        if schedule is None:
            return Turn.OVER
        if model is None:
            return self._others_begin(schedule, time)
        while self._number < schedule.sums.attempts:
            if self._name_of(model) in self._journal.spent and self._renewed != self._number:
                if not schedule.sums.noise:
                    return Turn.OVER  # the next would differ from this one by its seed alone
                self._renewed = self._number
                return Turn.SPENT
            at = schedule.attempt_at(self._window, self._number)
            if time < at and not self._has_begun(schedule, count):
                return float(at)
            number, self._number = self._number, self._number + 1
            if time < at + schedule.sums.step_s and self._enter(schedule, number, model, count):
                return self.advance(model, count, time)
        return Turn.OVER

    def _has_begun(self, schedule: Schedule, count: int) -> bool:
        """Do more members than may lie take part in the next attempt already? Clocks differ."""
        key = (self._window, self._number)
        if self._next is None or self._next[0] != key:
            plan = schedule.plan(*key, self._core.device, count)
            self._next = (key, plan)
        plan = self._next[1]
        if plan is None:
            return False
        peers = [self._core.book.peers.get(device) for device in plan.members]
        refs = [peer.head.group for peer in peers if peer is not None and peer.head is not None]
        begun = sum(ref is not None and ref.attempt == plan.id for ref in refs)
        return begun > liars_borne(plan.size)

    def _name_of(self, model: Hidden) -> bytes:
        """The digest of a model: stays here, in the journal."""
        if self._named is None or self._named[0] is not model:
            self._named = (model, digest(to_bytes(model.vector)))
        return self._named[1]

    def _others_begin(self, schedule: Schedule, time: float) -> Turn | float:
        """Who takes no part listens from when there may be a first sum."""
        at = schedule.attempt_at(self._window, 0)
        return float(at) if time < at else Turn.OVER

    @property
    def due(self) -> float:
        if self._attempt is None:
            return math.inf
        return min(self._attempt.deadline, self._exchange.due)

    def _enter(self, schedule: Schedule, number: int, model: Hidden, count: int) -> bool:
        core = self._core
        plan = schedule.plan(self._window, number, core.device, count)
        if plan is None or self._secret is None:
            return False
        step_s = float(schedule.sums.step_s)
        if self._series is None:
            self._series = Series(core.signer, self._secret, step_s, self._journal)
        self._series.step_s, self._series.window_s = step_s, schedule.window_s
        barred = [device for device in plan.members if core.is_barred(device)]
        attempt = self._series.enter(plan, self._name_of(model), barred)
        if attempt is None:
            return False
        self._retire()
        self._attempt, self._model, self._plan = attempt, model, plan
        self._exchange.open(plan, step_s)
        self._carry_out(attempt.start(core.now))
        return True

    def _retire(self) -> None:
        """Nobody needs the objects of the attempt before any more."""
        core = self._core
        for name in self._names:
            core.shelf.unpin(name)
        core.publisher.retire(*self._names)
        self._names, self._objects, self._plan = [], [], None

    def drop(self) -> None:
        """Whatever runs is given up; what it has said stays said."""
        attempt, self._attempt = self._attempt, None
        self._making, self._model, self._job, self._schedule = None, None, 0, None
        if attempt is not None and self._series is not None:
            self._series.leave(attempt)
        self._exchange.close()

    # --- events ------------------------------------------------------------------------------

    def expects(self, job: int) -> bool:
        return job == self._job and job != 0

    def awaits_vector(self, job: int) -> bool:
        """Is this the masked vector of the attempt that runs, and still in time for it?"""
        attempt = self._attempt
        return self.expects(job) and attempt is not None and attempt.phase is Phase.SET

    def masked(self, event: SumMasked) -> None:
        """The own masked vector: durable with the head that names it."""
        core = self._core
        core.publisher.keeper.objects[event.name] = event.data
        core.publisher.touch("sums")
        self._names.append(event.name)
        self._exchange.vectors[event.name] = event.data
        self._give(Masked(event.name))

    def finished(self) -> Plan | None:
        """The sum is made: whose it is."""
        plan, self._making, self._job = self._making, None, 0
        self.sums += plan is not None
        return plan

    def object(self, purpose: Purpose, name: bytes, data: bytes) -> None:
        """An object came that was asked for. Raises PeerError."""
        attempt = self._attempt
        if attempt is None:
            return
        self._exchange.arrived(purpose, name)
        if purpose is Purpose.SUM_VECTOR:
            if len(data) != attempt.plan.vector_bytes:
                raise PeerError(Fault.WRONG_LENGTH, f"a masked vector of {len(data)} bytes")
            self._exchange.vectors[name] = data
            self._core.shelf.put(name, data)
            self._give(VectorHeld(name))
            return
        signed = read(data, kind_of(data), attempt.plan)
        self._core.shelf.put(name, data)
        self._give(Received(signed))

    def _give(self, event: Event) -> None:
        if self._attempt is not None:
            self._carry_out(self._attempt.handle(event, self._core.now))

    # --- effects -----------------------------------------------------------------------------

    def _carry_out(self, effects: list[Effect]) -> None:
        core = self._core
        for effect in effects:
            match effect:
                case Persist(journal):
                    self._journal = journal
                    core.publisher.touch("sums")
                case Publish(signed):
                    self._publish(signed)
                case MaskVector(masks):
                    if self._model is not None and self._attempt is not None:
                        job = self._next_job()
                        vector, plan = self._model.vector, self._attempt.plan
                        core.emit(SumMask(job, vector, masks, plan))
                case Fetch():
                    self._fetch(effect)
                case Accuse(place, lie, proof):
                    self._accuse(place, lie, proof)
                case Uncover(_, names, masks):
                    self._uncover(names, masks)
                case Ended(end):
                    self._ended(end)

    def _next_job(self) -> int:
        self._core.rounds.job += 1
        self._job = self._core.rounds.job
        return self._job

    def _publish(self, signed: Signed) -> None:
        """Durable with the next head, which is issued at once and names it."""
        core = self._core
        core.publisher.store(signed.data)
        core.publisher.touch("sums")
        self._names.append(signed.digest)
        self._objects.append(signed.digest)
        core.publisher.want_head(now=True)

    def _fetch(self, wanted: Fetch) -> None:
        if self._attempt is not None:
            purpose = Purpose.SUM_VECTOR if wanted.shape is None else Purpose.SUM_OBJECT
            members = self._attempt.plan.members
            signer, namer = members[wanted.place], members[wanted.namer]
            self._exchange.want(wanted.digest, purpose, signer, namer)

    def _uncover(self, names: tuple[bytes, ...], masks: tuple) -> None:  # type: ignore[type-arg]
        if self._attempt is None:
            return
        vectors = tuple(self._exchange.vectors[name] for name in names)
        self._making = self._attempt.plan
        self._core.emit(SumUncover(self._next_job(), vectors, masks, self._making))

    def _ended(self, end: End) -> None:
        core, attempt = self._core, self._attempt
        if attempt is None or self._series is None:
            return
        self._attempt, self._model = None, None
        self._series.leave(attempt)
        self._exchange.close()
        self.ends.append(end.value)
        if end is not End.SUMMED:
            text = f"attempt {attempt.plan.number + 1} at a group sum: {end.value}"
            core.notice(Topic.ROUND, text, warning=True)

    def _accuse(self, place: int, lie: Lie, proof: tuple[bytes, ...]) -> None:
        core = self._core
        if self._attempt is None:
            return
        device = self._attempt.plan.members[place]
        kind, known = PROVEN.get(lie), core.roster.by_device(device)
        if kind is not None and known is not None and len(proof) == 2:
            first, second = sorted(proof)
            if self._holds(kind, first, second, device):
                evidence = Evidence(kind, first, second, known.data)
                core.parcels.condemn(evidence, device, pack_evidence(evidence))
                return
        if lie is Lie.STALLED:
            text = f"group sum: {short_name(device)}: {lie.value}"
            core.notice(Topic.ROUND, text, device)
            return
        core.blame(device, PeerError(Fault.FALSE_SUM, lie.value, device))

    def _holds(self, kind: EvidenceKind, first: bytes, second: bytes, device: bytes) -> bool:
        known = self._core.roster.by_device(device)
        try:
            return known is not None and proofs.proves(kind, first, second, known.member)
        except PeerError:
            return False  # a key that another device had before: a lie, but not proven by these

    # --- the own head, the disk --------------------------------------------------------------

    @property
    def names(self) -> list[bytes]:
        """Own objects that the newest head names, and the masked vector."""
        return self._names

    @property
    def ref(self) -> SumRef | None:
        plan = self._plan
        if plan is None or not self._objects:
            return None
        return SumRef(plan.id, plan.window, plan.number, list(self._objects))

    def dump(self) -> bytes:
        return pack([encode(self._journal), self._names])

    def restore(self, data: bytes) -> None:
        """At start. An attempt that was under way is over, its objects leave the store."""
        journal, names = unpack(data, DOCUMENT_BYTES_MAX)
        self._journal = decode(journal, Journal, DOCUMENT_BYTES_MAX)
        self._core.publisher.retire(*names)
