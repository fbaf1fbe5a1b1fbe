"""The only way from a trained model to one that may be published.

Whatever encodes and publishes takes a `Publishable`, and only this room makes one: `unprotected`
needs an `Off`, which nobody has who has a privacy policy, and the other ways add noise. Inside, the
vector is `Cleared`, a type that mypy does not confuse with a plain vector. A test walks the source
and fails if another room casts to it.
"""

from __future__ import annotations

from dataclasses import dataclass

from gossipfl.parameters import Cleared, Vector
from gossipfl.privacy.protection import DevicePrivacy, GroupSum, Off, RecordPrivacy


@dataclass(frozen=True, slots=True)
class Unprotected:
    """A model as training left it. Made by `unprotected` alone."""

    vector: Cleared


@dataclass(frozen=True, slots=True)
class Noised:
    """A model that may leave under `spec`, once: the ledger entry and this go out together."""

    vector: Cleared
    spec: DevicePrivacy | RecordPrivacy


Publishable = Unprotected | Noised


@dataclass(frozen=True, slots=True)
class Hidden:
    """A model that leaves masked, in a sum of its group's, or not at all. `noised`: the release
    that goes out with it, where the policy asks for noise beside the sum."""

    vector: Vector
    noised: Noised | None = None

    def __repr__(self) -> str:
        return "Hidden(...)"


@dataclass(frozen=True, slots=True)
class Summed:
    """The mean of a group's models. Made by `summed` alone."""

    vector: Cleared


def hidden(mode: GroupSum, model: Publishable) -> Hidden:
    """What training under a policy with group sums gives."""
    del mode
    return Hidden(model.vector, model if isinstance(model, Noised) else None)


def summed(mean: Vector, members: int, threshold: int) -> Summed:
    """A group's mean may be published: of so many members, `threshold` at least.

    Raises ValueError below that: the mean of one would be its model.
    """
    if members < max(2, threshold):
        raise ValueError(f"a sum of {members}, at least {threshold}")
    return Summed(Cleared(mean))


def withheld(noised: Noised, base: Vector) -> Noised:
    """The public base instead of a release that no peer would take: it is spent all the same, for
    it was looked at."""
    return Noised(Cleared(base), noised.spec)


def unprotected(mode: Off, vector: Vector) -> Unprotected:
    """Without a privacy policy a model leaves as it is. `mode` is the proof that there is none."""
    del mode
    return Unprotected(Cleared(vector))
