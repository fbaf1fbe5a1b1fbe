"""Entries: a commitment that opens for one payload, and says nothing once its salt is gone."""

from __future__ import annotations

import contextlib
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossipfl.audit.entries import (
    ENTRY_BYTES,
    PAYLOAD_BYTES_MAX,
    EntryKind,
    Payload,
    account_subject,
    make_entry,
    pack_erasure,
    parse_entry,
    unpack_erasure,
)
from gossipfl.audit.refused import AuditRefused

SALT = b"s" * 32


def test_an_entry_has_42_bytes_as_described() -> None:
    entry = make_entry(EntryKind.RECEIPT, 1_700_000_000, SALT, b"payload")
    header = b"\x01\x02" + (1_700_000_000).to_bytes(8, "big")
    commitment = hmac.new(SALT, header + b"payload", hashlib.sha256).digest()
    assert entry.encode() == header + commitment
    assert len(entry.encode()) == ENTRY_BYTES == 42
    assert parse_entry(entry.encode()) == entry


@given(st.binary(max_size=100), st.integers(0, 41), st.integers(1, 255))
def test_an_entry_opens_for_its_own_payload_salt_time_and_kind_only(
    payload: bytes, place: int, change: int
) -> None:
    entry = make_entry(EntryKind.POLICY, 1_700_000_000, SALT, payload)
    assert entry.opens(SALT, payload)
    assert not entry.opens(SALT, payload + b"\x00")
    assert not entry.opens(b"t" * 32, payload)
    hurt = bytearray(entry.encode())
    hurt[place] ^= change
    with contextlib.suppress(AuditRefused):
        assert not parse_entry(bytes(hurt)).opens(SALT, payload)


def test_entries_of_two_subjects_with_one_payload_do_not_look_alike() -> None:
    one = make_entry(EntryKind.LOGIN, 5, b"a" * 32, b"in")
    two = make_entry(EntryKind.LOGIN, 5, b"b" * 32, b"in")
    assert one.commitment != two.commitment


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01\x02" + bytes(39),
        b"\x01\x02" + bytes(41),
        b"\x02\x02" + bytes(40),
        b"\x01\x00" + bytes(40),
        b"\x01\x02" + b"\xff" * 40,
    ],
)
def test_what_is_no_entry_is_refused(data: bytes) -> None:
    with pytest.raises(AuditRefused):
        parse_entry(data)


def test_bounds() -> None:
    for call in (
        lambda: make_entry(EntryKind.LOGIN, -1, SALT, b""),
        lambda: make_entry(EntryKind.LOGIN, 2**41, SALT, b""),
        lambda: make_entry(EntryKind.LOGIN, 0, SALT[:31], b""),
        lambda: make_entry(EntryKind.LOGIN, 0, SALT, bytes(PAYLOAD_BYTES_MAX + 1)),
        lambda: Payload(b"short", b""),
        lambda: Payload(bytes(16), bytes(PAYLOAD_BYTES_MAX + 1)),
    ):
        with pytest.raises(AuditRefused):
            call()


@given(st.sets(st.integers(0, 10_000), min_size=1, max_size=200))
def test_an_erasure_names_exactly_what_it_was_given(indexes: set[int]) -> None:
    ranges = unpack_erasure(pack_erasure(indexes))
    assert {i for first, end in ranges for i in range(first, end)} == indexes


def test_an_erasure_in_words() -> None:
    assert pack_erasure([7, 3, 4, 5]) == b"3-6\n7-8\n"


@pytest.mark.parametrize(
    "data",
    [b"", b"5", b"5-5\n", b"6-5\n", b"1-2\n2-3\n", b"4-5\n1-2\n", b"01-2\n", b"1-2", b"\xff-2\n"],
)
def test_what_is_no_erasure_is_refused(data: bytes) -> None:
    with pytest.raises(AuditRefused):
        unpack_erasure(data)


def test_an_account_is_no_device_by_chance() -> None:
    assert len(account_subject("ann")) == 16
    assert account_subject("ann") != account_subject("bob")
    assert account_subject("ann") != hashlib.sha256(b"ann").digest()[:16]
