"""What a fleet has done, taken from its audit log entry by entry: pure, and bounded.

The entries are verified before they are logged. What cannot be read here (a newer version of the
protocol, an erased payload) is counted and left aside.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from gossipfl.audit.entries import EntryKind
from gossipfl.audit.words import sentence
from gossipfl.config import Limits
from gossipfl.errors import Fault, PeerError
from gossipfl.identity import short_name
from gossipfl.messages import Evidence, Member, Policy, Receipt, Revocation
from gossipfl.objects import digest, unpack_member, unpack_vouched
from gossipfl.policies import read_policy
from gossipfl.wire import decode, open_envelope

RECEIPTS_KEPT = 120  # per device: guess, an hour of the lan preset
RECEIPTS_KEPT_MIN = 16
RECEIPTS_MAX = 12_000  # in all: guess, 20 MB of Python values
LINES_KEPT = 12
ALARMS_KEPT = 50
POLICIES_KEPT = 16
OLD_ENTRIES = 50_000  # receipts further back than this are counted, not read: guess, ten seconds

_LIMITS = Limits()
MENTIONED_MAX = _LIMITS.devices  # named by others alone: as many as a fleet may have
_FAULTS = frozenset(fault.value for fault in Fault)
OTHER = "other"
"""Stands for what a receipt gives as a cause and no version of ours knows: a device's own text."""
PEOPLE = frozenset({EntryKind.LOGIN, EntryKind.ACCOUNT})
"""Kinds whose subject is a person's account, not a device."""


@dataclass(frozen=True, slots=True)
class Logged:
    """One entry as the reader gives it; `data` is None where the payload was erased."""

    index: int
    kind: EntryKind
    time: int
    subject: bytes | None
    data: bytes | None


@dataclass(frozen=True, slots=True)
class Merge:
    """What the page needs of one receipt."""

    number: int
    round: int
    time: int
    rule: str
    merged: tuple[tuple[bytes, float], ...]
    refused: tuple[tuple[bytes, str], ...]


@dataclass(slots=True)
class Known:
    """What the log says of one device."""

    device: bytes
    role: str = ""
    joined: int | None = None
    replaces: bytes | None = None
    revoked: tuple[int, str] | None = None  # time, reason
    evidence: list[tuple[int, str]] = field(default_factory=list)  # time, kind
    merges: deque[Merge] = field(default_factory=deque)
    receipts: int = 0
    pulled: int = 0  # models of others in its receipts: merged
    was_merged: int = 0  # times that others merged it
    last_merged: int | None = None
    faults: Counter[str] = field(default_factory=Counter)  # of it, by others' receipts


@dataclass(frozen=True, slots=True)
class Line:
    index: int
    time: int
    kind: EntryKind
    words: str
    device: bytes | None


class Chronicle:
    """Feed it the log from the beginning, in order. `on_receipt` is told of each that is read.

    `devices` are those that have an entry of their own. A receipt may name whomever it likes, so
    who is only named there waits in `mentioned`, a bounded number of them, for an entry of its own;
    whoever was erased has none any more.
    """

    def __init__(
        self, on_receipt: Callable[[Logged, Receipt], None] = lambda entry, receipt: None
    ) -> None:
        self._on_receipt = on_receipt
        self.size = 0
        self.devices: dict[bytes, Known] = {}
        self.mentioned: dict[bytes, Known] = {}
        self.policies: list[Policy] = []  # the highest last
        self._digests: dict[tuple[int, int], bytes] = {}  # of their objects
        self.lines: deque[Line] = deque(maxlen=LINES_KEPT)
        self.alarms: deque[tuple[int, str]] = deque(maxlen=ALARMS_KEPT)
        self.faults: Counter[str] = Counter()
        self.unreadable = 0
        self.erased = 0
        self.first: int | None = None  # times of the first and of the newest entry
        self.newest = 0
        self.unread = 0  # receipts that were only counted

    @property
    def policy(self) -> Policy | None:
        """The newest that is for all; what canaries try is not the fleet's."""
        whole = [policy for policy in self.policies if not policy.canary]
        return whole[-1] if whole else None

    @property
    def latest(self) -> Policy | None:
        """The newest, whoever it is for."""
        return self.policies[-1] if self.policies else None

    def may_follow(self, device: bytes, since: int, until: int) -> list[Policy]:
        """What may have been in force for a device between two times: the newest for all that had
        begun by `since`, and all after it that are for this device and had begun by `until`. Which
        one a canary follows only that canary knows. The lowest first."""
        whole = [p for p in self.policies if not p.canary and p.not_before <= since]
        least = (whole[-1].term, whole[-1].version) if whole else (0, 0)
        return [
            p
            for p in self.policies
            if (p.term, p.version) >= least
            and (not p.canary or device in p.canary)
            and p.not_before <= until
        ]

    def digest_of(self, policy: Policy) -> bytes | None:
        return self._digests.get((policy.term, policy.version))

    def fed(self, entries: Iterable[Logged], total: int = 0) -> None:
        """Take in the next entries. `total`: how many the log has."""
        for entry in entries:
            self.size = entry.index + 1
            self.first = entry.time if self.first is None else self.first
            self.newest = max(self.newest, entry.time)
            is_old = total - entry.index > OLD_ENTRIES
            words = ""
            if entry.data is None or entry.subject is None:
                self.erased += 1
                words = "erased"
            else:
                try:
                    words = self._read(entry, entry.subject, entry.data, is_old)
                except (PeerError, ValueError, KeyError, TypeError):
                    self.unreadable += 1
                    words = "cannot be read by this version"
            about = None if entry.kind in PEOPLE else entry.subject
            if about is not None and about not in self.devices:
                about = None
            self.lines.append(Line(entry.index, entry.time, entry.kind, words, about))

    def known(self, device: bytes) -> Known:
        found = self.devices.get(device)
        if found is None:
            aside = self.mentioned.pop(device, None)
            found = self.devices[device] = Known(device) if aside is None else aside
        return found

    def _mention(self, device: bytes) -> Known:
        found = self.devices.get(device) or self.mentioned.get(device)
        if found is None:
            found = self.mentioned[device] = Known(device)
            while len(self.mentioned) > MENTIONED_MAX:
                del self.mentioned[next(iter(self.mentioned))]
        return found

    def _read(self, entry: Logged, subject: bytes, data: bytes, is_old: bool) -> str:
        match entry.kind:
            case EntryKind.RECEIPT:
                return self._receipt(entry, subject, data, is_old)
            case EntryKind.MEMBER:
                return self._member(entry, data)
            case EntryKind.POLICY:
                return self._policy(data)
            case EntryKind.REVOCATION:
                return self._revocation(entry, data)
            case EntryKind.EVIDENCE:
                found = decode(data, Evidence, _LIMITS.entry_bytes)
                self.known(subject).evidence.append((entry.time, found.kind.value))
                return f"proof against {short_name(subject)}: {found.kind.value}"
            case EntryKind.MARKER:
                return f"{short_name(subject)} pruned old links"
            case EntryKind.ALARM:
                return self._alarm(entry, data)
            case _:
                return sentence(entry.kind, data)

    def _receipt(self, entry: Logged, subject: bytes, data: bytes, is_old: bool) -> str:
        known = self.known(subject)
        known.receipts += 1
        if is_old:
            self.unread += 1
            return ""
        envelope = open_envelope(data, "receipt", _LIMITS.entry_bytes)
        receipt = decode(envelope.payload, Receipt, _LIMITS.entry_bytes)
        self._on_receipt(entry, receipt)
        for merged in receipt.merged:
            other = self._mention(merged.device)
            if merged.influence > 0.0:
                other.was_merged += 1
                other.last_merged = max(other.last_merged or 0, receipt.issued)
        for refused in receipt.refused:
            fault = refused.fault if refused.fault in _FAULTS else OTHER
            self._mention(refused.device).faults[fault] += 1
            self.faults[fault] += 1
        known.pulled += len(receipt.merged)
        known.merges.append(
            Merge(
                receipt.number,
                receipt.round,
                receipt.issued,
                receipt.rule,
                tuple((m.device, m.influence) for m in receipt.merged),
                tuple((r.device, r.fault) for r in receipt.refused),
            )
        )
        kept = max(RECEIPTS_KEPT_MIN, min(RECEIPTS_KEPT, RECEIPTS_MAX // len(self.devices)))
        while len(known.merges) > kept:
            known.merges.popleft()
        return f"{short_name(subject)} merged {len(receipt.merged)} in round {receipt.round}"

    def _member(self, entry: Logged, data: bytes) -> str:
        opened = open_envelope(unpack_member(data, _LIMITS).envelope, "member", len(data))
        member = decode(opened.payload, Member, _LIMITS.member_bytes)
        if member.tls is None:
            return f"{member.role.value} {short_name(member.device)} was admitted"
        known = self.known(member.device)
        known.role = member.role.value
        known.replaces = member.replaces
        first = known.joined is None
        known.joined = entry.time if known.joined is None else known.joined
        return f"{short_name(member.device)} " + ("joined" if first else "renewed its certificate")

    def _policy(self, data: bytes) -> str:
        policy = read_policy(data, _LIMITS)
        self.policies.append(policy)
        self.policies.sort(key=lambda p: (p.term, p.version))
        self._digests[policy.term, policy.version] = digest(data)
        gone = self.policies[:-POLICIES_KEPT]
        whole = [p for p in self.policies if not p.canary]
        begun = [p for p in whole if p.not_before <= self.newest]
        stay = (*whole[-1:], *begun[-1:])
        self.policies = [p for p in self.policies if p not in gone or any(p is s for s in stay)]
        kept = {(p.term, p.version) for p in self.policies}
        self._digests = {key: name for key, name in self._digests.items() if key in kept}
        return f"policy {policy.term}.{policy.version}: {policy.rule}, run {policy.run}"

    def _revocation(self, entry: Logged, data: bytes) -> str:
        opened = open_envelope(unpack_vouched(data, _LIMITS).envelope, "revocation", len(data))
        revocation = decode(opened.payload, Revocation, _LIMITS.entry_bytes)
        self.known(revocation.device).revoked = (entry.time, revocation.reason)
        return f"{short_name(revocation.device)} was revoked: {revocation.reason}"

    def _alarm(self, entry: Logged, data: bytes) -> str:
        words = _in_words(data)
        self.alarms.append((entry.time, words))
        return words


def _in_words(data: bytes) -> str:
    """An alarm of the hub, which is JSON with short values: what happened, then to whom."""
    told: dict[str, Any] = json.loads(data)
    if not isinstance(told, dict):
        raise TypeError("a payload of the hub is a JSON object")
    parts = []
    for key, value in told.items():
        if key == "device" and isinstance(value, str) and len(value) == 32:
            value = short_name(bytes.fromhex(value))
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            parts.append(str(value) if key == "alarm" else f"{key} {value}")
    return ", ".join(parts)[:160]
