"""What goes into an attempt and what comes out: events, effects, lies, ends, and the journal."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from gossipfl.groups.masks import Mask
from gossipfl.groups.messages import Message, Signed
from gossipfl.groups.plan import Plan
from gossipfl.messages import Count, Digest

SPENT_MAX = 64  # guess: vectors remembered; each window has a new one
KEYS_SEEN_MAX = 1_024  # guess: of 16 members 32 attempts; with each its envelope of 300 bytes


class Phase(IntEnum):
    """What is awaited. The value: after how many steps' time the waiting is over."""

    KEYS = 1
    ROSTER = 3  # the proposer makes it after two at the latest
    SET = 5  # the proposer makes it after four at the latest
    REVEALS = 6
    ENDED = 7


PROPOSING_STEPS = 1  # that much earlier than the others give up: it has to reach them


class Lie(StrEnum):
    """What a member did wrong."""

    EQUIVOCATION = "two different objects for one step"
    REUSED_KEY = "a key that another attempt has seen"
    BAD_SHARE = "a sealed share without its mark"  # its receiver alone sees that: no proof
    WRONG_REVEAL = "a revealed share without its mark"
    BAD_DEALING = "shares that make no secret"
    FALSE_SET = "a survivor set that cannot be"
    STALLED = "a proposal that did not come"  # or not here: no proof


class End(StrEnum):
    """How an attempt ended for this member. All but SUMMED are aborts."""

    SUMMED = "summed"
    FEW_KEYS = "too few members published keys"
    NO_ROSTER = "no roster that all of it could check"
    FEW_VECTORS = "too few masked vectors"
    NO_SET = "no survivor set with enough signatures"
    FEW_REVEALS = "too few shares were revealed"
    BAD_DEALING = "shares that make no secret"


@dataclass(frozen=True, slots=True)
class Received:
    """An object of a member, verified by `messages.read`."""

    signed: Signed


@dataclass(frozen=True, slots=True)
class VectorHeld:
    """The object of this digest is here, has the exact length, and hashes to its name."""

    digest: bytes


@dataclass(frozen=True, slots=True)
class Masked:
    """The own masked vector is stored under this digest."""

    digest: bytes


@dataclass(frozen=True, slots=True)
class DeadlineReached:
    """`Attempt.deadline` is over."""


Event = Received | VectorHeld | Masked | DeadlineReached


class Journal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a member must not forget, or it could be made to do it twice. On disk before public.

    A new device begins with window 0 and attempt 0; windows count from 1.

    An attempt that a restart interrupts is over for this member: its secrets lived in memory only,
    and the journal never lets it in again. So it signs one object a step, one set an attempt.
    """

    window: Count
    attempt: Count
    set: Annotated[bytes, Meta(max_length=32)] = b""  # the name of the set that it signed
    spent: Annotated[list[Digest], Meta(max_length=SPENT_MAX)] = []

    def may_enter(self, plan: Plan, vector: bytes) -> bool:
        """Is the attempt later than all that were entered, and the vector one that never left?

        A vector that went out masked may be part of a sum that others learnt, whatever this member
        saw. In a second sum with other survivors, the difference of the two could be one vector.
        """
        return (plan.window, plan.number) > (self.window, self.attempt) and (
            vector not in self.spent
        )

    def entered(self, plan: Plan) -> Journal:
        return msgspec.structs.replace(self, window=plan.window, attempt=plan.number, set=b"")

    def signing(self, name: bytes) -> Journal:
        return msgspec.structs.replace(self, set=name)

    def spending(self, vector: bytes) -> Journal:
        return msgspec.structs.replace(self, spent=[*self.spent, vector][-SPENT_MAX:])


@dataclass(frozen=True, slots=True)
class Persist:
    """Durable before the effects after it are carried out; if that fails they are dropped."""

    journal: Journal


@dataclass(frozen=True, slots=True)
class Publish:
    """To be served as an object, durably."""

    signed: Signed


@dataclass(frozen=True, slots=True)
class MaskVector:
    """`masks.apply(own words, masks)`, store the bytes, then `Masked`. A heavy step."""

    masks: tuple[Mask, ...]


@dataclass(frozen=True, slots=True)
class Fetch:
    """An object of this member is wanted, from its signer or from `namer`, who says that there is
    one, and has it if he is honest. `shape` None: a masked vector, exactly `Plan.vector_bytes`;
    then `VectorHeld`."""

    place: int
    digest: bytes
    shape: type[Message] | None
    namer: int


@dataclass(frozen=True, slots=True)
class Accuse:
    """`proof`: what it signed. Two objects for one step show the lie by themselves, and so does a
    key in two attempts; the others need what they name, which all members hold. Empty: a local
    observation."""

    place: int
    lie: Lie
    proof: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Uncover:
    """`masks.uncover(the vectors, masks)` is the sum over `survivors`. A heavy step."""

    survivors: tuple[int, ...]
    vectors: tuple[bytes, ...]
    masks: tuple[Mask, ...]


@dataclass(frozen=True, slots=True)
class Ended:
    end: End


Effect = Persist | Publish | MaskVector | Fetch | Accuse | Uncover | Ended
