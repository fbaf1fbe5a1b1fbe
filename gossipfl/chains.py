"""Others' head chains, and the proofs that a chain was forked.

Every verified head is remembered by number (the newest K per device), together with what its
`prev` says about the number before. Two digests for one number, seen or implied, are a conflict;
the two signed heads behind it are evidence that verifies with nothing but the fleet's root.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Container
from dataclasses import dataclass, field

from gossipfl.audit.forks import prove_fork
from gossipfl.audit.linked import LogInconsistent, open_linked
from gossipfl.audit.notes import log_key
from gossipfl.audit.refused import AuditRefused
from gossipfl.config import Limits
from gossipfl.errors import Fault, PeerError
from gossipfl.groups import proofs
from gossipfl.messages import Evidence, EvidenceKind, Head, Member, Receipt
from gossipfl.objects import digest
from gossipfl.pure import Pure, call
from gossipfl.wire import check_signature, decode, encode, open_envelope

LOG_KINDS = frozenset({EvidenceKind.FORKED_LOG, EvidenceKind.FALSE_CHECKPOINT})


@dataclass(frozen=True, slots=True)
class SeenHead:
    head: Head
    digest: bytes
    envelope: bytes


@dataclass(slots=True)
class _Chain:
    seen: dict[int, SeenHead] = field(default_factory=dict)
    numbers: list[int] = field(default_factory=list)  # of those seen, in order


class Chains:
    """What is known of each device's chain, bounded by K numbers and `devices` devices."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._chains: dict[bytes, _Chain] = {}
        self._gaps: dict[bytes, bytes] = {}  # device -> the digest to fetch next

    def observe(self, seen: SeenHead, member: bytes) -> Evidence | None:
        """Remember a verified head. Evidence if it contradicts an earlier one.

        `member` is the signer's member object, embedded so that the proof stands alone.
        """
        chain = self._chains.get(seen.head.device)
        if chain is None:
            chain = self._chains[seen.head.device] = _Chain()
        if len(self._chains) > self._limits.devices:
            self.forget(next(iter(self._chains)))
        seq = seen.head.seq
        same = chain.seen.get(seq)
        if same is not None:
            if same.digest == seen.digest:
                return None
            return Evidence(EvidenceKind.EQUAL_SEQ, same.envelope, seen.envelope, member)
        after = chain.seen.get(seq + 1)
        before = chain.seen.get(seq - 1)
        chain.seen[seq] = seen
        insort(chain.numbers, seq)
        while len(chain.numbers) > self._limits.chain:
            del chain.seen[chain.numbers.pop(0)]
        if before is None or seen.head.device in self._gaps:
            self._note_gap(seen.head.device, chain)
        if after is not None and after.head.prev != seen.digest:
            return Evidence(EvidenceKind.FORKED_CHAIN, seen.envelope, after.envelope, member)
        if before is not None and seen.head.prev != before.digest:
            return Evidence(EvidenceKind.FORKED_CHAIN, before.envelope, seen.envelope, member)
        return None

    def newest(self, device: bytes) -> SeenHead | None:
        chain = self._chains.get(device)
        return chain.seen[chain.numbers[-1]] if chain and chain.numbers else None

    def contradicts(self, device: bytes, seq: int, name: bytes) -> bool:
        """Would the head (seq, digest) that a receipt mentions prove a fork, with those we hold?"""
        chain = self._chains.get(device)
        if chain is None:
            return False
        same = chain.seen.get(seq)
        if same is not None:
            return same.digest != name
        after = chain.seen.get(seq + 1)
        return after is not None and after.head.prev != name

    def follows(self, device: bytes, seq: int) -> bool:
        """Does this number come right after one that we hold, and is it unknown? Only the `prev`
        of that head can tell whether it belongs to the same chain."""
        chain = self._chains.get(device)
        return chain is not None and seq not in chain.seen and seq - 1 in chain.seen

    def gap(self, device: bytes) -> bytes | None:
        """The digest to fetch next so that the newest heads become one linked chain, or None.

        Walks down from the newest head to the next lower one that we hold, at most K numbers;
        further down is first contact.
        """
        return self._gaps.get(device)

    def open(self) -> Container[bytes]:
        """Devices whose chains have a gap."""
        return self._gaps

    def _note_gap(self, device: bytes, chain: _Chain) -> None:
        """Where the chain is open now: found when a head comes in, not each time it is asked."""
        self._gaps.pop(device, None)
        numbers = chain.numbers
        place = len(numbers) - 1
        while place > 0 and numbers[place] == numbers[place - 1] + 1:
            place -= 1
        if place > 0 and numbers[place] - numbers[place - 1] <= self._limits.chain:
            name = chain.seen[numbers[place]].head.prev
            if name is not None:
                self._gaps[device] = name

    @property
    def devices(self) -> int:
        return len(self._chains)

    @property
    def longest(self) -> int:
        return max((len(chain.seen) for chain in self._chains.values()), default=0)

    def forget(self, device: bytes) -> None:
        self._chains.pop(device, None)
        self._gaps.pop(device, None)


def open_receipt(data: bytes, member: Member, limits: Limits, pure: Pure = call) -> Receipt:
    """A receipt that this member signed, whoever brought it. Raises PeerError; no date matters."""
    envelope = pure(open_envelope, data, "receipt", limits.entry_bytes)
    if envelope.key_id != member.key:
        raise PeerError(Fault.WRONG_DEVICE, "a receipt of another device")
    pure(check_signature, envelope)
    receipt = pure(decode, envelope.payload, Receipt, limits.entry_bytes)
    if receipt.device != member.device or receipt.fleet != member.fleet:
        raise PeerError(Fault.WRONG_DEVICE, "the receipt names another device")
    return receipt


def verify_evidence(
    data: bytes, verify_member: Callable[[bytes], Member], limits: Limits
) -> tuple[Evidence, bytes]:
    """The evidence and the device that it condemns. Raises PeerError(BAD_EVIDENCE).

    `verify_member` is the roster's chain check. Dates do not matter: a proof stays a proof.
    """
    try:
        evidence = decode(data, Evidence, limits.entry_bytes)
        member = verify_member(evidence.member)
        proven = _is_proven(evidence, member, limits)
    except PeerError as error:
        raise PeerError(Fault.BAD_EVIDENCE, str(error)) from error
    if not proven:
        raise PeerError(Fault.BAD_EVIDENCE, f"the two do not prove {evidence.kind.value}")
    return evidence, member.device


def _is_proven(evidence: Evidence, member: Member, limits: Limits) -> bool:
    if evidence.kind in proofs.KINDS:
        return proofs.proves(evidence.kind, evidence.first, evidence.second, member)
    if evidence.kind in LOG_KINDS:
        return _is_false_log(evidence, member, limits)
    first, second = (
        _signed_head(data, member, limits) for data in (evidence.first, evidence.second)
    )
    if evidence.kind is EvidenceKind.EQUAL_SEQ:
        return first.seq == second.seq and digest(evidence.first) != digest(evidence.second)
    return second.seq == first.seq + 1 and second.prev != digest(evidence.first)


def _is_false_log(evidence: Evidence, member: Member, limits: Limits) -> bool:
    """Does a hub's log have two histories? Raises PeerError for what the hub did not sign."""
    key = log_key(member.key)
    try:
        if evidence.kind is EvidenceKind.FORKED_LOG:
            prove_fork(evidence.first, evidence.second, key)
            return True
        head = _signed_head(evidence.first, member, limits)
        if head.checkpoint == digest(evidence.second):
            open_linked(evidence.second, key)
    except LogInconsistent:
        return True
    except AuditRefused as error:
        raise PeerError(Fault.BAD_EVIDENCE, str(error)) from error
    return False


def pack_evidence(evidence: Evidence) -> bytes:
    return encode(evidence)


def _signed_head(data: bytes, member: Member, limits: Limits) -> Head:
    envelope = open_envelope(data, "head", limits.head_bytes)
    if envelope.key_id != member.key:
        raise PeerError(Fault.WRONG_DEVICE, "a head of another device")
    check_signature(envelope)
    head = decode(envelope.payload, Head, limits.head_bytes)
    if head.device != member.device or head.fleet != member.fleet:
        raise PeerError(Fault.WRONG_DEVICE, "head and member do not belong together")
    return head
