"""What reports need of a log, taken in entry by entry: pure, bounded, and the same for the same
entries, whoever reads them and in what portions."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from gossipfl.aggregation import RULES, STEPS
from gossipfl.audit.entries import EntryKind, unpack_erasure
from gossipfl.audit.refused import AuditRefused
from gossipfl.errors import Fault
from gossipfl.hub.page.chronicle import MENTIONED_MAX, OTHER, Chronicle, Known, Logged
from gossipfl.hub.reports.timeline import Durations, Timeline
from gossipfl.messages import Privacy, Receipt
from gossipfl.privacy.protection import Unit

SAMPLES = 2  # of the first and of the last entries of each kind that are proven: guess
DIGESTS_MAX = 65_536  # updates whose time is remembered: of a fleet of 1,000, an hour of preset lan
FAULTS = frozenset(fault.value for fault in Fault)
"""What a receipt may give as a cause. Anything else is a device's own text, and is not repeated."""
DEVICE_ROLES = frozenset({"", "device"})

Spends = dict[tuple[Unit, float, float], int]  # unit, z, sampling rate -> steps


@dataclass(frozen=True, slots=True)
class Seen:
    """An entry's place and time."""

    index: int
    time: int


@dataclass(slots=True)
class KindFacts:
    """How often a kind of entry is in the log, its first ones and its last ones."""

    count: int = 0
    first: list[Seen] = field(default_factory=list)
    last: deque[Seen] = field(default_factory=lambda: deque(maxlen=SAMPLES))

    def samples(self) -> list[Seen]:
        """Rising, each once."""
        return sorted({s.index: s for s in (*self.first, *self.last)}.values(), key=_index)


@dataclass(slots=True)
class Part:
    """What one device gave and got."""

    influence: float = 0.0  # sum over the merges of others
    merged: int = 0  # by others
    pulled: int = 0
    refused: int = 0  # of it, by others
    releases: int = 0  # updates that it published, as far as its receipts name them
    bare: int = 0  # of those, without noise
    spends: Spends = field(default_factory=dict)
    last_own: bytes | None = None
    last_issued: int | None = None
    bit: int | None = None  # of `Bin.active`, from its first receipt on


class Tally:
    """Feed it the log from the beginning, in order."""

    def __init__(self) -> None:
        self.chronicle = Chronicle(on_receipt=self._receipt)
        self.kinds: dict[EntryKind, KindFacts] = {}
        self.timeline = Timeline()
        self.rounds = Durations()  # between two receipts of a device
        self.logging = Durations()  # from a merge to its place in the log
        self.ages = Durations()  # of merged models, since their publisher's own merge of them
        self.parts: dict[bytes, Part] = {}
        self._mentioned: dict[bytes, Part] = {}  # of `chronicle.mentioned`
        self._bits = 0
        self.rules: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.pulls = 0
        self.receipts = 0
        self.erased = 0  # payloads that ERASURE entries name
        self._published: dict[bytes, int] = {}
        self._awaited: dict[bytes, list[int]] = {}
        self._waiting = 0

    @property
    def size(self) -> int:
        return self.chronicle.size

    def fed(self, entries: Iterable[Logged]) -> None:
        for entry in entries:
            seen = Seen(entry.index, entry.time)
            facts = self.kinds.setdefault(entry.kind, KindFacts())
            facts.count += 1
            if len(facts.first) < SAMPLES:
                facts.first.append(seen)
            facts.last.append(seen)
            if entry.kind is EntryKind.ALARM:
                self.timeline.at(entry.time).alarms += 1
            elif entry.kind is EntryKind.ERASURE and entry.data is not None:
                self._erasure(entry.data)
            self.chronicle.fed((entry,))

    def count(self, *kinds: EntryKind) -> int:
        return sum(self.kinds[kind].count for kind in kinds if kind in self.kinds)

    def devices(self) -> list[Known]:
        """Devices that have an entry of their own, hubs left out, by their ids."""
        known = self.chronicle.devices
        return [known[d] for d in sorted(known) if known[d].role in DEVICE_ROLES]

    def part(self, device: bytes) -> Part:
        """Of a device, or of whoever others only name."""
        return self.parts.get(device) or self._mentioned.get(device) or Part()

    # --- one entry -----------------------------------------------------------------------------

    def _erasure(self, data: bytes) -> None:
        try:
            self.erased += sum(end - first for first, end in unpack_erasure(data))
        except AuditRefused:
            return  # the verifier names it; a report only counts

    def _receipt(self, entry: Logged, receipt: Receipt) -> None:
        part = self._part(receipt.device)
        if part.bit is None:
            part.bit, self._bits = self._bits, self._bits + 1
        self.receipts += 1
        self.rules[receipt.rule if _is_rule(receipt.rule) else OTHER] += 1
        self.pulls += len(receipt.merged)
        part.pulled += len(receipt.merged)
        # A device may claim any time: within the log's own it does no harm.
        first = self.chronicle.first if self.chronicle.first is not None else entry.time
        now = self.timeline.at(max(first, min(receipt.issued, entry.time)))
        now.receipts += 1
        now.merged += len(receipt.merged)
        now.refused += len(receipt.refused)
        now.active |= 1 << part.bit
        if part.last_issued is not None and receipt.issued >= part.last_issued:
            gap = receipt.issued - part.last_issued
            self.rounds.add(gap)
            now.gaps += 1
            now.gap_s += gap
        part.last_issued = receipt.issued
        self.logging.add(entry.time - receipt.issued)
        # Whatever a receipt claims, one merge is worth one.
        whole = max(1.0, sum(merged.influence for merged in receipt.merged))
        for merged in receipt.merged:
            self._age(merged.update, receipt.issued)
            if merged.device != receipt.device:
                other = self._part(merged.device)
                other.influence += merged.influence / whole
                other.merged += merged.influence > 0.0
        for refused in receipt.refused:
            self.faults[refused.fault if refused.fault in FAULTS else OTHER] += 1
            self._part(refused.device).refused += 1
        self._release(part, receipt, entry.time)

    def _release(self, part: Part, receipt: Receipt, logged: int) -> None:
        """One publication: an own update that no receipt before has named."""
        if receipt.own is None or receipt.own == part.last_own:
            return
        part.last_own = receipt.own
        part.releases += 1
        self._publishes(receipt.own, receipt.issued)
        terms = self._terms(receipt, logged)
        if not all(map(has_noise, terms)):
            part.bare += 1
            return
        for kind, steps in least_noise(terms).items():
            part.spends[kind] = part.spends.get(kind, 0) + steps

    def _terms(self, receipt: Receipt, logged: int) -> list[Privacy]:
        """Under which a device may have published; one at least."""
        times = (receipt.issued, logged)
        found = self.chronicle.may_follow(receipt.device, min(times), max(times))
        return [policy.privacy for policy in found] or [Privacy()]

    def _publishes(self, name: bytes, issued: int) -> None:
        awaited = self._awaited.pop(name, [])
        self._waiting -= len(awaited)
        for merged_at in awaited:
            self.ages.add(merged_at - issued)
        self._published[name] = issued
        while len(self._published) > DIGESTS_MAX:
            del self._published[next(iter(self._published))]

    def _age(self, name: bytes, issued: int) -> None:
        """The log may hold a merge before the publisher's own receipt."""
        published = self._published.get(name)
        if published is not None:
            self.ages.add(issued - published)
            return
        self._awaited.setdefault(name, []).append(issued)
        self._waiting += 1
        while self._waiting > DIGESTS_MAX:
            self._waiting -= len(self._awaited.pop(next(iter(self._awaited))))

    def _part(self, device: bytes) -> Part:
        found = self.parts.get(device)
        if found is None and device in self.chronicle.devices:
            aside = self._mentioned.pop(device, None)
            found = self.parts[device] = Part() if aside is None else aside
        if found is None:
            found = self._mentioned.setdefault(device, Part())
            while len(self._mentioned) > MENTIONED_MAX:
                del self._mentioned[next(iter(self._mentioned))]
        return found


def least_noise(terms: Sequence[Privacy]) -> Spends:
    """What one release costs at most under any of these terms, all of which have noise: by unit,
    the least z, the highest sampling rate and the most steps. More of any of them costs more."""
    found: Spends = {}
    for unit in Unit:
        of_unit = [t for t in terms if t.unit == unit.value]
        if of_unit:
            is_record = unit is Unit.RECORD
            rate = max(t.sample_rate for t in of_unit) if is_record else 1.0
            steps = max(t.steps for t in of_unit) if is_record else 1
            found[unit, min(t.z for t in of_unit), rate] = steps
    return found


def has_noise(terms: Privacy) -> bool:
    """Whether what devices publish under these terms carries noise."""
    is_noisy_sum = terms.mode == "group-sum" and terms.sums is not None and terms.sums.noise
    return terms.mode == "local" or is_noisy_sum


def _is_rule(name: str) -> bool:
    """Whether it is a rule of ours ("collapse+nna"), and no text of a device's own."""
    return all(part in RULES or part in STEPS for part in name.split("+"))


def _index(seen: Seen) -> int:
    return seen.index
