"""One device's witness of one log: what it has seen, and whether what it is shown now follows.

Pure. Checkpoint objects come in from anybody, each verified on its own; a walk along their links
joins a new one to what is held. Where a walk ends at another text than the one held, the log has
two histories, and two of its signatures say so. Only numbers above those held are ever cosigned.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto

from gossipfl.audit.checkpoints import parse_checkpoint
from gossipfl.audit.forks import contradiction
from gossipfl.audit.linked import Linked, open_linked
from gossipfl.audit.notes import Key, parse_note
from gossipfl.audit.refused import AuditRefused
from gossipfl.wire import pack, unpack

HELD_MAX = 64  # notes held to compare others' with: as many as heads (protocol K)
KNOWN_MAX = 1_024  # digests of objects that were met on the way: not fetched again
WALKS_MAX = 8  # under way at once
STEPS_MAX = 512  # of one walk: the square of 22 bits of number, about eight years of minutes
STATE_BYTES_MAX = 1024 * 1024


class Verdict(Enum):
    KNOWN = auto()  # nothing new
    FOLLOWS = auto()  # a newer one that follows: to be cosigned
    AGREES = auto()  # an older or equal one that is on our history
    FETCH = auto()  # the object of this digest is wanted to go on
    FORK = auto()  # two signed notes that contradict each other


@dataclass(frozen=True, slots=True)
class Finding:
    """What an object led to. `object`: FETCH, the digest wanted. `notes`: FORK, the proof."""

    verdict: Verdict
    object: bytes | None = None
    notes: tuple[bytes, bytes] | None = None


@dataclass(slots=True)
class _Walk:
    """From `top` down to checkpoint `goal`, whose note is `note`. `wanted` is the next object, of
    the checkpoint with this `text`."""

    top: Linked
    goal: int
    note: bytes
    data: bytes  # of `top`, to be stored if it is accepted
    wanted: bytes = b""
    text: bytes = b""
    steps: int = 0


@dataclass(slots=True)
class Witness:
    """`key` is the log's. Nothing held: the first checkpoint is taken as it is."""

    key: Key
    newest: Linked | None = None
    data: bytes | None = None  # the newest's object
    _notes: dict[int, bytes] = field(default_factory=dict)  # number -> signed note
    _known: dict[bytes, None] = field(default_factory=dict)
    _walks: list[_Walk] = field(default_factory=list)

    def knows(self, name: bytes) -> bool:
        """Was the object of this digest met before, and found on our history?"""
        return name in self._known

    def wants(self) -> list[bytes]:
        """Digests of the objects that walks wait for."""
        return [walk.wanted for walk in self._walks]

    def receive(self, data: bytes, *, adopt: bool = True) -> Finding:
        """An object of this log. Raises AuditRefused, LogInconsistent where its links are false.

        `adopt`: the hub's own head names it, so it may become the newest. Others' are compared
        only: their links, which nobody signed, may be anybody's work.
        """
        this = open_linked(data, self.key)
        if self.newest is None:
            return self._accept(this, data) if adopt else Finding(Verdict.KNOWN)
        walk = next((w for w in self._walks if w.wanted == this.digest), None)
        if walk is not None:
            return self._step(walk, this)
        newer = this.checkpoint.number > self.newest.checkpoint.number
        if this.digest in self._known and not (adopt and newer):
            return Finding(Verdict.KNOWN)
        held = self._notes.get(this.checkpoint.number)
        for note in (held, self.newest.note):
            if note is not None and _contradict(note, this.note):
                return Finding(Verdict.FORK, notes=_in_order(note, this.note))
        if held is not None and not (adopt and newer):
            self._remember(this)
            return Finding(Verdict.AGREES)
        if newer:
            goal, note = self.newest.checkpoint.number, self.newest.note
            return self._start(this, data if adopt else b"", goal, note)
        return self._start(self.newest, b"", this.checkpoint.number, this.note)

    def give_up(self, name: bytes) -> None:
        """Nobody hands out the object of this digest."""
        self._walks = [walk for walk in self._walks if walk.wanted != name]

    def _start(self, top: Linked, data: bytes, goal: int, note: bytes) -> Finding:
        walk = _Walk(top, goal, note, data)
        self._walks.append(walk)
        del self._walks[:-WALKS_MAX]
        return self._step(walk, top)

    def _step(self, walk: _Walk, here: Linked) -> Finding:
        """`here` is on the way down from the walk's top, by links that were verified."""
        walk.steps += 1
        if here is not walk.top and here.checkpoint.text() != walk.text:
            self._walks.remove(walk)
            raise AuditRefused("a link leads to another checkpoint than it says")
        if here.checkpoint.number == walk.goal:
            # Fetched only because its text differs from the goal's.
            self._walks.remove(walk)
            if _contradict(here.note, walk.note):
                return Finding(Verdict.FORK, notes=_in_order(here.note, walk.note))
            return Finding(Verdict.KNOWN)
        link = here.towards(walk.goal)
        if link is None or walk.steps > STEPS_MAX:
            self._walks.remove(walk)
            raise AuditRefused(f"no link of checkpoint {here.checkpoint.number} leads down")
        goal = parse_note(walk.note).text
        if link.checkpoint.number == walk.goal and link.text == goal:
            self._walks.remove(walk)
            return self._joined(walk)
        if _contradict(here.note, walk.note):
            self._walks.remove(walk)
            return Finding(Verdict.FORK, notes=_in_order(here.note, walk.note))
        walk.wanted, walk.text = link.object, link.text
        return Finding(Verdict.FETCH, object=link.object)

    def _joined(self, walk: _Walk) -> Finding:
        if walk.data:
            return self._accept(walk.top, walk.data)
        self._notes[walk.goal] = walk.note
        self._remember(walk.top)
        return Finding(Verdict.AGREES)

    def _accept(self, this: Linked, data: bytes) -> Finding:
        if self.newest is not None and this.checkpoint.number <= self.newest.checkpoint.number:
            self._remember(this)  # another walk got here first
            return Finding(Verdict.AGREES)
        self.newest, self.data = this, data
        self._remember(this)
        return Finding(Verdict.FOLLOWS)

    def _remember(self, this: Linked) -> None:
        self._notes[this.checkpoint.number] = this.note
        while len(self._notes) > HELD_MAX:
            del self._notes[min(self._notes)]
        # Not those of its links: whoever lies may name there what others are shown.
        self._known[this.digest] = None
        while len(self._known) > KNOWN_MAX:
            del self._known[next(iter(self._known))]

    # --- over restarts -----------------------------------------------------------------------

    def dump(self) -> bytes:
        return pack([self.key.public, self.data or b"", list(self._notes.values())])

    def load(self, data: bytes) -> None:
        """What `dump` wrote; signatures are verified again. Raises AuditRefused, PeerError."""
        match unpack(data, STATE_BYTES_MAX):
            case [bytes(), bytes() as newest, [*notes]]:
                pass
            case _:
                raise AuditRefused("not a witness's state")
        if newest:
            self._accept(open_linked(newest, self.key), newest)
        for note in notes:
            parsed = parse_note(note)
            parsed.require(self.key)
            self._notes.setdefault(parse_checkpoint(parsed.text).number, note)


def _contradict(one: bytes, other: bytes) -> bool:
    first, second = (parse_checkpoint(parse_note(note).text) for note in (one, other))
    return contradiction(first, second) is not None


def _in_order(one: bytes, other: bytes) -> tuple[bytes, bytes]:
    """Lower number first, then lower bytes: everybody makes the same proof of the same two."""

    def rank(note: bytes) -> tuple[int, bytes]:
        return parse_checkpoint(parse_note(note).text).number, note

    first, second = sorted((one, other), key=rank)
    return first, second
