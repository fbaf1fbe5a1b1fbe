"""What a device has spent: append-only, chained, and it refuses what does not fit any more.

A `Ledger` is a value: releasing gives another one and the row that has to be durable before a byte
of the release is served. Heads commit to `ref`, so a ledger that was cut or rewritten is found out.
There is no way to enter a release that the terms do not allow.

Units: what is spent for one example (unit=record) includes releases of unit=device, which hide
examples too. The other way round there is no bound: after a release of unit=record nothing is
claimed for the whole device.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from gossipfl.messages import ChainRef
from gossipfl.privacy.entries import (
    ROWS_MAX,
    START,
    Enrolled,
    Entry,
    LedgerError,
    Opened,
    Released,
    Row,
    entry_bytes,
    link_of,
    parse_entry,
    released,
)
from gossipfl.privacy.protection import DevicePrivacy, RecordPrivacy, Unit

AFFORDABLE_MAX = 1_000_000  # a count above it is shown as this one

Spec = DevicePrivacy | RecordPrivacy
_Kind = tuple[Unit, float, float]  # unit, z, sampling rate


class Refusal(StrEnum):
    """Why a release may not go out. The value is what status shows."""

    SPENT = "the privacy budget is spent"
    TOO_LITTLE_NOISE = "z is below what is allowed here"
    WRONG_UNIT = "this device protects all its data, the policy single examples only"
    UNKNOWN = "what the device spent before is not known"
    FULL = "the ledger is full"


class BudgetError(Exception):
    """The release does not fit; the node listens only. `refusal` says why."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.value)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class Floors:
    """What a device's owner demands beyond the policy. None: what the policy says."""

    epsilon: float | None = None
    delta: float | None = None
    z: float | None = None
    unit: Unit | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """What may be spent: at most `epsilon` at `delta` in all, `z` or more noise in each release."""

    epsilon: float
    delta: float
    z: float
    unit: Unit

    def __post_init__(self) -> None:
        if not (
            math.isfinite(self.epsilon)
            and self.epsilon > 0.0
            and 0.0 < self.delta < 1.0
            and self.z >= 0.0
        ):
            raise ValueError(f"no terms: {self}")

    def stricter(self, floors: Floors) -> Terms:
        """Both together: a device may be stricter than the policy, never looser."""
        return Terms(
            epsilon=self.epsilon if floors.epsilon is None else min(self.epsilon, floors.epsilon),
            delta=self.delta if floors.delta is None else min(self.delta, floors.delta),
            z=self.z if floors.z is None else max(self.z, floors.z),
            unit=Unit.DEVICE if Unit.DEVICE in (self.unit, floors.unit) else Unit.RECORD,
        )


@dataclass(frozen=True, slots=True)
class Ledger:
    """The sum of all entries. Made by `open_ledger` and `replay`."""

    device: bytes
    ref: ChainRef  # number of entries, newest link
    releases: int
    unknown: bool
    spends: Mapping[_Kind, int]  # steps

    def spent(self, delta: float, unit: Unit) -> float:
        """epsilon at `delta` of everything released so far, from above. Infinite: no bound.

        The true value never falls; the bound for unit=record is within a thousandth of it.
        """
        return _spent(self.spends, self.unknown, delta, unit)

    def refusal(self, spec: Spec, terms: Terms) -> Refusal | None:
        """Why one more release under `spec` may not go out, or None if it fits."""
        return self.barred(spec, terms) or self._spent_after(spec, terms)

    def barred(self, spec: Spec, terms: Terms) -> Refusal | None:
        """What needs no accountant: why no release under `spec` may go out, whatever is left."""
        unit, z, _ = _kind(spec)
        if self.ref.number >= ROWS_MAX:
            return Refusal.FULL
        if self.unknown:
            return Refusal.UNKNOWN
        if unit is Unit.RECORD and terms.unit is Unit.DEVICE:
            return Refusal.WRONG_UNIT
        if z < terms.z:
            return Refusal.TOO_LITTLE_NOISE
        return None

    def _spent_after(self, spec: Spec, terms: Terms) -> Refusal | None:
        after = _spent(_added(self.spends, spec), False, terms.delta, terms.unit)
        return None if after <= terms.epsilon else Refusal.SPENT

    def account(self, spec: Spec, terms: Terms, before: Account | None = None) -> Account:
        """What is spent and what is left, for releases under `spec`. Takes a second for many steps
        of unit=record; some milliseconds if `before` is the account of the release before."""
        barred = self.barred(spec, terms)
        if before is not None and not before.is_next(self, spec, terms):
            before = None
        known = before.after if before is not None else None
        spent = known if known is not None else self.spent(terms.delta, terms.unit)
        if barred is not None:
            return Account(self, spec, terms, spent, None, 0, barred)
        after = _spent(_added(self.spends, spec), False, terms.delta, terms.unit)
        if after > terms.epsilon:
            return Account(self, spec, terms, spent, after, 0, Refusal.SPENT)
        left = max(1, before.affordable - 1) if before else self.affordable(spec, terms)
        return Account(self, spec, terms, spent, after, left, None)

    def release(
        self, spec: Spec, digest: bytes, terms: Terms, account: Account | None = None
    ) -> tuple[Ledger, Row]:
        """Enter one release of what `digest` names. Raises BudgetError if it does not fit.

        `account` saves asking the accountant again, if it is about this very release."""
        if account is not None and account.is_of(self, spec, terms):
            refusal = account.refusal
        else:
            refusal = self.refusal(spec, terms)
        if refusal is not None:
            raise BudgetError(refusal)
        return self._enter(released(self.releases + 1, spec, digest))

    def enrol(self, device: bytes) -> tuple[Ledger, Row]:
        """The same device under a new key: its spent budget goes with it. Raises LedgerError."""
        if self.ref.number >= ROWS_MAX:
            raise LedgerError(Refusal.FULL.value)
        return self._enter(Enrolled(device))

    def affordable(self, spec: Spec, terms: Terms) -> int:
        """How many more releases under `spec` fit, AFFORDABLE_MAX at most."""
        if self.refusal(spec, terms) is not None:
            return 0

        def fits(count: int) -> bool:
            after = _added(self.spends, spec, count)
            return _spent(after, False, terms.delta, terms.unit) <= terms.epsilon

        low, high = 1, 2
        while high <= AFFORDABLE_MAX and fits(high):
            low, high = high, 2 * high
        high = min(high, AFFORDABLE_MAX + 1)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        return min(low, ROWS_MAX - self.ref.number)

    def _enter(self, entry: Entry) -> tuple[Ledger, Row]:
        data = entry_bytes(entry)
        row = Row(self.ref.number + 1, data, link_of(self.ref.digest, data))
        return self._with(entry, row), row

    def _with(self, entry: Entry, row: Row) -> Ledger:
        ref = ChainRef(row.number, row.link)
        match entry:
            case Enrolled():
                return dataclasses.replace(self, device=entry.device, ref=ref)
            case Released():
                if entry.number != self.releases + 1:
                    raise LedgerError(f"release {entry.number} after {self.releases}")
                kind = (entry.unit, entry.z, entry.sample_rate)
                spends = dict(self.spends)
                spends[kind] = spends.get(kind, 0) + entry.steps
                return dataclasses.replace(
                    self, ref=ref, releases=entry.number, spends=MappingProxyType(spends)
                )
            case Opened():
                raise LedgerError("a ledger is opened once")


@dataclass(frozen=True, slots=True)
class Account:
    """What the accountant says of one state of a ledger. Made by `Ledger.account`."""

    ledger: Ledger
    spec: Spec
    terms: Terms
    spent: float  # epsilon at the terms' delta; infinite: no bound
    after: float | None  # the same after one more release; None: not looked at
    affordable: int  # releases that still fit
    refusal: Refusal | None  # why the next one does not

    def is_of(self, ledger: Ledger, spec: Spec, terms: Terms) -> bool:
        """Is it about the next release of this very ledger?"""
        return (self.ledger.ref, self.spec, self.terms) == (ledger.ref, spec, terms)

    def is_next(self, ledger: Ledger, spec: Spec, terms: Terms) -> bool:
        """Is `ledger` this one with exactly one more release under the same spec?"""
        return (
            self.after is not None
            and (self.spec, self.terms) == (spec, terms)
            and ledger.releases == self.ledger.releases + 1
            and not ledger.unknown
            and ledger.spends == _added(self.ledger.spends, spec)
        )


def open_ledger(
    device: bytes, replaces: bytes | None = None, unknown: bool = False
) -> tuple[Ledger, Row]:
    """A new ledger and its first row.

    With `unknown`, `replaces` spent from a ledger that nobody has any more: nothing may be spent.
    """
    entry = Opened(device, replaces, unknown)
    data = entry_bytes(entry)
    row = Row(1, data, link_of(START, data))
    return _opened(entry, row), row


def _opened(entry: Opened, row: Row) -> Ledger:
    ref = ChainRef(row.number, row.link)
    return Ledger(entry.device, ref, 0, entry.unknown, MappingProxyType({}))


def replay(rows: Iterable[Row], committed: ChainRef | None = None) -> Ledger:
    """The ledger that these rows make. Raises LedgerError if a row is not what its link says.

    `committed` is what the newest own head says: that ledger, or one that has grown since.
    """
    ledger: Ledger | None = None
    found = committed is None
    for number, row in enumerate(rows, 1):
        if row.number != number or number > ROWS_MAX:
            raise LedgerError(f"row {row.number} in place {number}")
        before = ledger.ref.digest if ledger else START
        if link_of(before, row.data) != row.link:
            raise LedgerError(f"row {number} is not what its link says")
        entry = parse_entry(row.data)
        if ledger is not None:
            ledger = ledger._with(entry, row)
        elif isinstance(entry, Opened):
            ledger = _opened(entry, row)
        else:
            raise LedgerError("the first entry opens a ledger")
        found = found or ledger.ref == committed
    if ledger is None:
        raise LedgerError("no entries")
    if not found:
        raise LedgerError("not the ledger that the newest head commits to")
    return ledger


def _kind(spec: Spec) -> _Kind:
    match spec:
        case DevicePrivacy():
            return Unit.DEVICE, spec.z, 1.0
        case RecordPrivacy():
            return Unit.RECORD, spec.z, spec.sample_rate


def _added(spends: Mapping[_Kind, int], spec: Spec, count: int = 1) -> Mapping[_Kind, int]:
    after = dict(spends)
    steps = spec.steps if isinstance(spec, RecordPrivacy) else 1
    after[_kind(spec)] = after.get(_kind(spec), 0) + count * steps
    return after


def _spent(spends: Mapping[_Kind, int], unknown: bool, delta: float, unit: Unit) -> float:
    # Every device can keep a ledger; who has none does not load the accountants.
    from gossipfl.privacy.gaussian import epsilon_of
    from gossipfl.privacy.pld import Spend, epsilon_of_steps

    if unknown:
        return math.inf
    if unit is Unit.RECORD:
        return epsilon_of_steps(
            delta, [Spend(z, rate, steps) for (_, z, rate), steps in spends.items()]
        )
    if any(each is Unit.RECORD for each, _, _ in spends):
        return math.inf
    return epsilon_of(delta, math.sqrt(math.fsum(n / z**2 for (_, z, _), n in spends.items())))
