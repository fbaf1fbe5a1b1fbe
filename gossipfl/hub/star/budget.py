"""Privacy budgets of star clients: what each may spend, and all together.

A client says, signed, how much noise it added; the hub counts with the accountants that devices
use. That is accounting, not proof: who lies about its noise harms its own examples. The global
budget is for people whose data may lie at several clients: it adds all clients' releases up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import msgspec

from gossipfl.messages import ChainRef, Privacy
from gossipfl.privacy.ledger import Ledger, Terms
from gossipfl.privacy.protection import DevicePrivacy, RecordPrivacy, Unit

Spec = DevicePrivacy | RecordPrivacy
Spends = dict[tuple[Unit, float, float], int]
"""(unit, z, sampling rate) -> steps"""

_NOBODY = ChainRef(1, bytes(32))


class Spent(msgspec.Struct, frozen=True, array_like=True):
    """One kind of release in its durable form."""

    unit: Unit
    z: float
    sample_rate: float
    steps: int


@dataclass(frozen=True, slots=True)
class Account:
    """What one client, or all together, have released. A value: `with_release` gives the next."""

    spends: Mapping[tuple[Unit, float, float], int]
    releases: int = 0

    @classmethod
    def load(cls, text: str, releases: int = 0) -> Account:
        rows = msgspec.json.decode(text or "[]", type=list[Spent])
        return cls({(r.unit, r.z, r.sample_rate): r.steps for r in rows}, releases)

    def dump(self) -> str:
        rows = [Spent(*kind, steps) for kind, steps in sorted(self.spends.items())]
        return msgspec.json.encode(rows).decode()

    def with_release(self, spec: Spec) -> Account:
        kind = _kind(spec)
        steps = spec.steps if isinstance(spec, RecordPrivacy) else 1
        spends = {**self.spends, kind: self.spends.get(kind, 0) + steps}
        return Account(spends, self.releases + 1)

    def refusal(self, spec: Spec, terms: Terms) -> str | None:
        """Why one more release does not fit into `terms`, in words, or None."""
        found = self._ledger.refusal(spec, terms)
        return None if found is None else found.value

    def spent(self, terms: Terms) -> float:
        """epsilon at the delta of `terms`."""
        return self._ledger.spent(terms.delta, terms.unit)

    def affordable(self, spec: Spec, terms: Terms) -> int:
        """How many more such releases fit."""
        return self._ledger.affordable(spec, terms)

    @property
    def _ledger(self) -> Ledger:
        return Ledger(b"", _NOBODY, self.releases, False, MappingProxyType(dict(self.spends)))


def terms_of(privacy: Privacy, epsilon: float | None = None) -> Terms | None:
    """What a policy lets each client spend, or, with `epsilon`, all together. None: mode off."""
    if privacy.mode == "off":
        return None
    budget = privacy.epsilon if epsilon is None else epsilon
    return Terms(budget, privacy.delta, privacy.z, Unit(privacy.unit))


def spec_of(privacy: Privacy) -> Spec:
    """The release that a policy asks for."""
    if privacy.unit == "device":
        return DevicePrivacy(privacy.clip, privacy.z)
    return RecordPrivacy(privacy.clip, privacy.z, privacy.sample_rate, privacy.steps, privacy.lot)


def _kind(spec: Spec) -> tuple[Unit, float, float]:
    match spec:
        case DevicePrivacy():
            return Unit.DEVICE, spec.z, 1.0
        case RecordPrivacy():
            return Unit.RECORD, spec.z, spec.sample_rate
