"""What entries say: signed by whom they name, or the entry is named as the first bad one."""

from __future__ import annotations

import io

import pytest

from gossipfl.audit.entries import EntryKind, Payload
from gossipfl.audit.memory import MemoryLog
from gossipfl.audit.refused import AuditRefused
from gossipfl.audit.verification import Verdict, verify_export
from gossipfl.logged import Contents
from gossipfl.parameters import Layout, Tensor
from sim.fleet import Fleet
from tests.audit.logs import HUB, HUB_KEY, START, counter, export, fleet_log, receipt, subject

FLEET = Fleet(5)
JOB = FLEET.job("logged", Layout((Tensor("w", (8,), 0),)))


def verified(log: MemoryLog, fleet: Fleet = FLEET) -> Verdict:
    data = io.BytesIO(export(log, fleet=fleet.id))
    return verify_export(data, HUB_KEY, (), lambda fleet_id: Contents(fleet_id).check)


def test_a_log_of_really_signed_things_is_valid() -> None:
    fleet = Fleet(6)
    verdict = verified(fleet_log(fleet, 60), fleet)
    assert verdict.valid, verdict.problem
    assert verdict.kinds == {
        **{"member": 5, "policy": 1, "evidence": 1, "revocation": 1, "login": 1, "receipt": 51}
    }


@pytest.mark.parametrize("index", [0, 3, 5, 6, 7, 8, 9, 59])
def test_a_hub_that_commits_to_what_nobody_signed_is_named(index: int) -> None:
    """The hub's own commitment, root and signature are right: only what the entry says is false."""
    fleet = Fleet(6)
    honest = fleet_log(fleet, 60)
    log = MemoryLog(HUB, counter())
    for n, payload in enumerate(honest._payloads):
        assert payload is not None
        kind = EntryKind(honest._entries[n][1])
        data = bytearray(payload.data)
        if n == index:
            data[len(data) // 2] ^= 0x80
        log.append(kind, START + n, payload.subject, bytes(data))
    log.publish(START + 100)
    verdict = verified(log, fleet)
    assert verdict.problem is not None
    assert verdict.problem.entry == index


def refusal(*entries: tuple[EntryKind, bytes, bytes]) -> str:
    contents = Contents(FLEET.id)
    for kind, about, data in entries[:-1]:
        contents.check(kind, Payload(about, data))
    kind, about, data = entries[-1]
    with pytest.raises(AuditRefused) as caught:
        contents.check(kind, Payload(about, data))
    return str(caught.value)


def test_a_receipt_needs_its_signers_admission_before_it() -> None:
    keys = FLEET.admit()
    made = receipt(FLEET, keys, JOB, 1)
    assert "no entry before it" in refusal((EntryKind.RECEIPT, keys.device, made))
    contents = Contents(FLEET.id)
    contents.check(EntryKind.MEMBER, Payload(keys.device, keys.member))
    contents.check(EntryKind.RECEIPT, Payload(keys.device, made))


def test_an_entry_is_about_whom_it_names() -> None:
    keys, other = FLEET.admit(), FLEET.admit()
    assert "another device" in refusal((EntryKind.MEMBER, other.device, keys.member))
    assert "another device" in refusal(
        (EntryKind.MEMBER, keys.device, keys.member),
        (EntryKind.RECEIPT, other.device, receipt(FLEET, keys, JOB, 1)),
    )
    revocation = FLEET.revoke(other.device, "lost")
    assert "another device" in refusal((EntryKind.REVOCATION, keys.device, revocation))


def test_what_belongs_to_another_fleet_is_refused() -> None:
    stranger = Fleet(99)
    keys = stranger.admit()
    assert "root key" in refusal((EntryKind.MEMBER, keys.device, keys.member))
    policy = stranger.policy(JOB, n=4)
    assert refusal((EntryKind.POLICY, stranger.operator.device, policy))
    revocation = stranger.revoke(keys.device, "lost")
    assert "root key" in refusal((EntryKind.REVOCATION, keys.device, revocation))


def test_the_hubs_own_entries_are_json_objects() -> None:
    for data in (b"", b"[1]", b"{", b"\xff", b"[" * 100_000):
        assert "JSON" in refusal((EntryKind.LOGIN, subject(1), data))
    Contents(FLEET.id).check(EntryKind.LOGIN, Payload(subject(1), b'{"user":"ann"}'))
    assert "erasure" in refusal((EntryKind.ERASURE, subject(1), b"5-4\n"))
