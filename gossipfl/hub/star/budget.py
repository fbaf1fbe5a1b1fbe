"""Privacy budgets of star clients: what each may spend, and all together.

A client says, signed, how much noise it added; the hub counts with the accountants that devices
use. That is accounting, not proof: who lies about its noise harms its own examples. The global
budget is for people whose data may lie at several clients: it adds all clients' releases up.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import msgspec

from gossipfl.messages import ChainRef, Privacy
from gossipfl.privacy.ledger import Ledger, Refusal, Terms
from gossipfl.privacy.protection import DevicePrivacy, RecordPrivacy, Unit

Spec = DevicePrivacy | RecordPrivacy
Spends = dict[tuple[Unit, float, float], int]
"""(unit, z, sampling rate) -> steps"""

KINDS_MAX = 64  # guess: of one account; four policies, each with noise of all sizes
CEILINGS_MAX = 1_024  # guess: of accounts that differ in what else they spent
Z_STEPS, Z_OCTAVES = 4, 4.0  # of more noise than was asked for: up to 16 times, in 17 sizes

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
        spends = {**self.spends, kind: self.spends.get(kind, 0) + _steps(spec)}
        return Account(spends, self.releases + 1)

    def barred(self, spec: Spec, terms: Terms) -> str | None:
        """Why no such release may go out, whatever is left: what needs no accountant."""
        found = self._ledger.barred(spec, terms)
        if found is None and _kind(spec) not in self.spends and len(self.spends) >= KINDS_MAX:
            return f"there are {KINDS_MAX} kinds of noise in this account already"
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


class Unasked(Exception):
    """The accountant has to be asked first, outside of any transaction."""

    def __init__(self, account: Account, spec: Spec, terms: Terms) -> None:
        super().__init__("the accountant was not asked yet")
        self.asked = account, spec, terms


class Ceilings:
    """How many steps of one kind fit beside all else that was spent.

    The accountant takes up to a second, and an update's transaction must not wait for it. What it
    says holds for as long as nothing of another kind is spent, for everybody alike: so it is asked
    once for each policy, not with each update.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[object, int] = OrderedDict()

    def refusal(self, account: Account, spec: Spec, terms: Terms) -> str | None:
        """Why one more release does not fit into `terms`, in words, or None. Raises Unasked."""
        barred = account.barred(spec, terms)
        if barred is not None:
            return barred
        most = self._known.get(_place(account, spec, terms))
        if most is None:
            raise Unasked(account, spec, terms)
        fits = account.spends.get(_kind(spec), 0) + _steps(spec) <= most
        return None if fits else Refusal.SPENT.value

    def ask(self, account: Account, spec: Spec, terms: Terms) -> None:
        """Takes up to a second of a core: for a thread. Of many that wait, the first one asks."""
        place = _place(account, spec, terms)
        if place in self._known:
            return
        most = account.spends.get(_kind(spec), 0)
        most += account.affordable(spec, terms) * _steps(spec)
        self._known[place] = most
        while len(self._known) > CEILINGS_MAX:
            self._known.popitem(last=False)


def counted(noise: DevicePrivacy | RecordPrivacy, privacy: Privacy) -> Spec:
    """What a release with this noise counts as. It is the policy's, but for more noise, which
    counts in steps of a quarter of an octave: so that an account has few kinds. Raises ValueError
    if it is another one: the policy's noise is what the budget was made for."""
    asked = spec_of(privacy)
    if isinstance(noise, DevicePrivacy):  # it protects records as well
        asked = DevicePrivacy(privacy.clip, privacy.z)
    if noise.z < asked.z or type(noise) is not type(asked):
        raise ValueError(f"the policy asks for {asked}, the update says {noise}")
    if replace(noise, z=asked.z) != asked:
        raise ValueError(f"the policy asks for {asked}, the update says {noise}")
    more = min(Z_OCTAVES, math.floor(math.log2(noise.z / asked.z) * Z_STEPS) / Z_STEPS)
    return replace(asked, z=asked.z * 2.0**more)


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


def _steps(spec: Spec) -> int:
    return spec.steps if isinstance(spec, RecordPrivacy) else 1


def _place(account: Account, spec: Spec, terms: Terms) -> object:
    """All that a ceiling depends on."""
    kind = _kind(spec)
    others = tuple(sorted(item for item in account.spends.items() if item[0] != kind))
    return kind, _steps(spec), terms, others


def _kind(spec: Spec) -> tuple[Unit, float, float]:
    match spec:
        case DevicePrivacy():
            return Unit.DEVICE, spec.z, 1.0
        case RecordPrivacy():
            return Unit.RECORD, spec.z, spec.sample_rate
