"""A group in virtual time: attempts, what they publish, liars, members that vanish."""

from __future__ import annotations

import hashlib
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from gossipfl.groups import grid, masks, messages
from gossipfl.groups.attempt import Attempt
from gossipfl.groups.grid import Words
from gossipfl.groups.messages import Message, Signed
from gossipfl.groups.plan import Plan
from gossipfl.groups.sealing import Secrets, Shares
from gossipfl.groups.series import Series
from gossipfl.groups.steps import (
    Accuse,
    DeadlineReached,
    Effect,
    Ended,
    Event,
    Fetch,
    Journal,
    Lie,
    Masked,
    MaskVector,
    Persist,
    Publish,
    Received,
    Uncover,
    VectorHeld,
)
from gossipfl.identity import Signer
from gossipfl.objects import digest

STEP_S = 10.0
REACH = 8.0

Tell = Callable[[Signed, int], Iterable[Signed]]
"""(what a liar should say, to whom) -> what it says."""


def signers(size: int) -> list[Signer]:
    """In the order of their places."""
    drawn = [Signer(hashlib.sha256(bytes([n])).digest()) for n in range(size)]
    return sorted(drawn, key=lambda signer: signer.device)


@dataclass
class Member:
    """What a place keeps from one attempt to the next."""

    vector: Words
    series: Series
    journal: Journal = field(default_factory=lambda: Journal(window=0, attempt=0))  # on disk


@dataclass
class Group:
    size: int = 8
    count: int = 40
    seed: int = 1

    def __post_init__(self) -> None:
        self.signers = signers(self.size)
        self.rng = np.random.default_rng(self.seed)
        self.members = []
        for signer in self.signers:
            chance = random.Random(f"{self.seed} {signer.device.hex()}")
            series = Series(signer, chance.randbytes, STEP_S)
            self.members.append(Member(self.draw(), series))
        self.window, self.number = 1, 0
        self.objects: dict[bytes, bytes] = {}  # all that was ever published, by digest
        self.histories: list[History] = []

    def draw(self) -> Words:
        values = self.rng.normal(0, 1, self.count).astype(np.float32)
        return grid.quantise(values, REACH, self.size)

    def plan(self, number: int | None = None) -> Plan:
        devices = tuple(signer.device for signer in self.signers)
        place = self.number if number is None else number
        return Plan(bytes(32), bytes(32), self.window, place, devices, self.count, REACH)

    def attempt(
        self,
        gone: dict[int, type[Message]] | None = None,
        tell: dict[int, Tell] | None = None,
    ) -> History:
        """Runs the next attempt. gone: place -> it vanishes before it publishes this."""
        history = History(self, self.plan(), gone or {}, tell or {})
        history.run()
        self.histories.append(history)
        self.number += 1
        for place, attempt in history.attempts.items():
            self.members[place].series.leave(attempt)
        return history

    def next_window(self) -> None:
        self.window, self.number = self.window + 1, 0
        for member in self.members:
            member.vector = self.draw()

    def renew(self) -> None:
        """New vectors for those whose last ones have left: they trained again."""
        for member in self.members:
            if digest(grid.to_bytes(member.vector)) in member.journal.spent:
                member.vector = self.draw()


@dataclass
class History:
    """One attempt of all, and all that came of it."""

    group: Group
    plan: Plan
    gone: dict[int, type[Message]]
    tell: dict[int, Tell]
    chance: random.Random | None = None  # of the order in which things arrive

    def __post_init__(self) -> None:
        self.now = 0.0
        self.queue: deque[tuple[int, Event]] = deque()
        self.attempts: dict[int, Attempt] = {}
        self.alive = set(range(self.plan.size))
        self.published: list[Signed] = []
        self.said: dict[bytes, Signed] = {}
        self.accused: dict[int, list[Accuse]] = {}
        self.sums: dict[int, Words] = {}
        self.survivors: set[tuple[int, ...]] = set()
        self.ends: dict[int, Ended] = {}
        self.persisted: dict[int, list[Journal]] = {}
        self.secrets: dict[int, Secrets] = {}  # what a place that keeps everything would have
        self.held: dict[int, dict[int, Shares]] = {}
        self.vectors = [member.vector for member in self.group.members]

    def run(self) -> None:
        for place in range(self.plan.size):
            member = self.group.members[place]
            attempt = member.series.enter(self.plan, digest(grid.to_bytes(member.vector)))
            if attempt is None:
                raise ValueError(f"place {place} may not enter")
            self.attempts[place] = attempt
        for place, attempt in self.attempts.items():
            self.carry_out(place, attempt.start(self.now))
            if attempt._secrets is not None:
                self.secrets[place] = attempt._secrets
        self.started()
        while True:
            while self.queue:
                if self.chance is not None:
                    self.queue.rotate(self.chance.randrange(len(self.queue)))
                place, event = self.queue.popleft()
                self.give(place, event)
            waiting = [a.deadline for p, a in self.attempts.items() if p in self.alive]
            if not waiting or min(waiting) == float("inf"):
                return
            self.now = min(waiting)
            for place in sorted(self.alive):
                self.give(place, DeadlineReached())

    def started(self) -> None:
        """All have begun, nothing has arrived."""

    def give(self, place: int, event: Event) -> None:
        if place in self.alive:
            attempt = self.attempts[place]
            effects = attempt.handle(event, self.now)
            if attempt._held:
                self.held[place] = dict(attempt._held)
            self.carry_out(place, effects)

    def carry_out(self, place: int, effects: list[Effect]) -> None:
        for effect in effects:
            if place not in self.alive:
                return
            match effect:
                case Persist(journal):
                    self.group.members[place].journal = journal
                    self.persisted.setdefault(place, []).append(journal)
                case Publish(signed):
                    self.publish(place, signed)
                case MaskVector(chain):
                    words = masks.apply(self.group.members[place].vector, chain)
                    self.queue.append((place, Masked(self.store(grid.to_bytes(words)))))
                case Fetch(_, name, shape, _):
                    self.fetch(place, name, shape)
                case Accuse():
                    self.accused.setdefault(place, []).append(effect)
                case Uncover(survivors, names, chain):
                    rows = [grid.from_bytes(self.group.objects[n], self.plan.count) for n in names]
                    self.sums[place] = masks.uncover(rows, chain)
                    self.survivors.add(survivors)
                case Ended():
                    self.ends[place] = effect

    def store(self, data: bytes) -> bytes:
        name = digest(data)
        self.group.objects[name] = data
        return name

    def publish(self, place: int, signed: Signed) -> None:
        if self.gone.get(place) is type(signed.message):
            self.alive.discard(place)
            return
        for to in range(self.plan.size):
            if to == place:
                continue
            for said in self.tell.get(place, lambda signed, _: [signed])(signed, to):
                self.deliver(to, said)
        if place not in self.tell:
            self.note(signed)

    def note(self, signed: Signed) -> None:
        if signed.digest not in self.said:
            self.store(signed.data)
            self.published.append(signed)
            self.said[signed.digest] = signed

    def deliver(self, to: int, signed: Signed) -> None:
        """Through the bytes, as on the wire."""
        self.note(signed)
        kind = messages.NAMES[type(signed.message)]
        self.queue.append((to, Received(messages.read(signed.data, kind, self.plan))))

    def fetch(self, place: int, name: bytes, shape: type[Message] | None) -> None:
        if shape is None and name in self.group.objects:
            self.queue.append((place, VectorHeld(name)))
        elif name in self.said:
            self.deliver(place, self.said[name])

    def expected(self, survivors: Iterable[int]) -> Words:
        return masks.add_up([self.vectors[place] for place in survivors])

    def lies(self) -> set[tuple[int, Lie]]:
        """What honest members say of others."""
        honest = [rows for place, rows in self.accused.items() if place not in self.tell]
        return {(accused.place, accused.lie) for rows in honest for accused in rows}

    def messages(self, shape: type[Message]) -> list[tuple[int, Message]]:
        return [(s.place, s.message) for s in self.published if type(s.message) is shape]


def resign(group: Group, plan: Plan, message: Message) -> Signed:
    """What a liar makes of a message: signed with its own key."""
    place = plan.members.index(message.device)
    return messages.sign(message, plan, group.signers[place])


def assert_summed(history: History, survivors: Iterable[int], by: Iterable[int]) -> None:
    """Exactly this sum, with all of `by`."""
    wanted = tuple(sorted(survivors))
    assert history.survivors == {wanted}
    for place in by:
        assert np.array_equal(history.sums[place], history.expected(wanted)), place
