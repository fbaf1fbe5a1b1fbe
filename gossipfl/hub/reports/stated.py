"""The statement on differential privacy that goes with a report, from the log alone: pure.

It says what the policy in force promises and what releases can have cost at most: each update that
a device's receipts name counts with the least noise that the policies before it allowed: a canary
may have followed the one on trial or the usual one. Each device's own ledger is more exact, and
stays on the device (`gossipfl privacy status`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from gossipfl.hub.reports.tally import Part, Tally, has_noise
from gossipfl.hub.star.budget import Spec, spec_of, terms_of
from gossipfl.messages import ChainRef, Policy
from gossipfl.privacy.ledger import Ledger, Terms
from gossipfl.privacy.protection import Unit
from gossipfl.privacy.statement import said

_NOBODY = ChainRef(1, bytes(32))
DIGITS = 4  # of an epsilon, rounded up: what differs between processors is far below
FROM_LOG = (
    "releases that no receipt in the log names",
    "noise that a device says it added and did not: its own examples are what it harms",
)

Count = Annotated[int, Meta(ge=0, le=2**53)]
Words = Annotated[str, Meta(max_length=600)]


class PrivacyStatement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All fields but the first five are null where no noise is promised. `epsilon`: spent at most
    by the device that spent most; null: no bound, `words` says why."""

    mode: Words
    words: Words
    devices: Count
    releases_all: Count
    releases_without_noise: Count
    epsilon: float | None = None
    epsilon_max: float | None = None
    delta: float | None = None
    unit: Words | None = None
    neighbours: Words | None = None
    adversary: Words | None = None
    mechanism: Words | None = None
    clip: float | None = None
    z: float | None = None
    sigma: float | None = None
    sample_rate: float | None = None
    steps: Count | None = None
    releases: Count | None = None
    releases_max: Count | None = None
    accountant: Words | None = None
    accountant_version: Count | None = None
    rng: Words | None = None
    not_covered: list[Words] = []


def stated(tally: Tally) -> PrivacyStatement:
    parts = [p for p in tally.parts.values() if p.releases]
    policy = tally.chronicle.policy
    bare = sum(p.bare for p in parts)
    plain = PrivacyStatement(
        mode=policy.privacy.mode if policy is not None else "none",
        words=_words(policy),
        devices=len(parts),
        releases_all=sum(p.releases for p in parts),
        releases_without_noise=bare,
    )
    if policy is None or not has_noise(policy.privacy):
        return plain
    return _noisy(plain, policy, parts)


def _words(policy: Policy | None) -> str:
    if policy is None:
        return "There is no policy in the log: nothing is promised."
    privacy = policy.privacy
    match privacy.mode:
        case "off":
            return "Privacy is off: models are published without noise, and nothing is promised."
        case "group-sum" if not has_noise(privacy):
            return (
                "Devices sum in groups: only a group's mean is seen. No noise is added to it, so "
                "no epsilon is claimed."
            )
        case "group-sum":
            return "Devices sum in groups, and each adds noise before; epsilon is of that noise."
    return "Each device adds noise before it publishes, and stops when its budget is spent."


def _noisy(plain: PrivacyStatement, policy: Policy, parts: Iterable[Part]) -> PrivacyStatement:
    spec, terms = spec_of(policy.privacy), terms_of(policy.privacy)
    if terms is None:
        return plain
    kinds = {_kind(part): part for part in parts} or {_kind(Part()): Part()}
    worst = max(kinds, key=lambda kind: (_spent(kind, terms.delta, terms.unit), kind[0]))
    told = _told(worst, spec, terms)
    words = plain.words
    if told["epsilon"] is None:
        why = "some releases had no noise, or noise of another unit"
        words += f" For what was published so far there is no bound: {why}."
    names = set(PrivacyStatement.__struct_fields__) - {"not_covered", "epsilon"}
    return msgspec.structs.replace(
        plain,
        **{name: told[name] for name in told.keys() & names},
        words=words,
        epsilon=None if told["epsilon"] is None else _up(told["epsilon"]),
        not_covered=[*told["not_covered"], *FROM_LOG],
    )


_Kind = tuple[int, bool, tuple[tuple[tuple[Unit, float, float], int], ...]]
"""(releases, whether some had no noise, spends): many devices have released the same."""


def _kind(part: Part) -> _Kind:
    return part.releases, part.bare > 0, tuple(sorted(part.spends.items()))


def _ledger(kind: _Kind) -> Ledger:
    return Ledger(b"", _NOBODY, kind[0], kind[1], MappingProxyType(dict(kind[2])))


@lru_cache(maxsize=4_096)
def _spent(kind: _Kind, delta: float, unit: Unit) -> float:
    """An accountant may take a second for many steps of unit=record."""
    return _ledger(kind).spent(delta, unit)


@lru_cache(maxsize=64)
def _told(kind: _Kind, spec: Spec, terms: Terms) -> Mapping[str, Any]:
    return MappingProxyType(said(_ledger(kind).account(spec, terms)).plain())


def _up(value: float) -> float:
    scale = 10.0**DIGITS
    return math.ceil(value * scale - 1e-6) / scale
