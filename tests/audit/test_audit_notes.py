"""Notes, checkpoints, cosignatures: read from others, and what must be refused."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossipfl.audit.checkpoints import (
    Checkpoint,
    open_checkpoint,
    parse_checkpoint,
    sign_checkpoint,
)
from gossipfl.audit.cosignatures import check_cosignature, cosign, require_cosignature
from gossipfl.audit.notes import (
    COSIGNATURE,
    SIGNATURES_MAX,
    Key,
    Note,
    Signature,
    log_key,
    parse_key,
    parse_note,
    sign_note,
    witness_key,
)
from gossipfl.audit.refused import AuditRefused
from gossipfl.audit.tree import EMPTY_ROOT
from gossipfl.identity import Signer

HUB = Signer(b"h" * 32)
WITNESS = Signer(b"w" * 32)
KEY = log_key(HUB.key_id)
FIRST = Checkpoint(KEY.name, 0, EMPTY_ROOT, 1, 1_700_000_000)
SECOND = FIRST.next(5, b"\x05" * 32, 1_700_000_060)

# The example of Go's golang.org/x/mod/sumdb/note, package documentation.
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"  # noqa: E501
)


def test_a_note_of_another_implementation_is_read_and_believed() -> None:
    key = parse_key(GO_KEY)
    assert str(key) == GO_KEY
    note = parse_note(GO_NOTE.encode())
    note.require(key)
    assert note.encode() == GO_NOTE.encode()
    with pytest.raises(AuditRefused, match="not signed by"):
        note.require(KEY)
    other = parse_note(GO_NOTE.replace("your problem,", "my problem,").encode())
    with pytest.raises(AuditRefused, match="wrong"):
        other.require(key)


@given(st.integers(0, len(GO_NOTE.encode()) - 1), st.integers(1, 255))
def test_a_changed_byte_of_a_note_is_refused(place: int, change: int) -> None:
    hurt = bytearray(GO_NOTE.encode())
    hurt[place] ^= change
    with pytest.raises(AuditRefused):
        parse_note(bytes(hurt)).require(parse_key(GO_KEY))


@pytest.mark.parametrize(
    "text",
    [
        GO_KEY.replace("c74f20a3", "c74f20a4"),
        GO_KEY.replace("Peter", "Pieter"),
        GO_KEY[:-1],
        GO_KEY.replace("+ARpc", "+BRpc"),
        "a b+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "",
    ],
)
def test_keys_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(AuditRefused):
        parse_key(text)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text\n",
        b"text\n\n",
        b"\n\n\xe2\x80\x94 name AAAAAAA=\n",
        "text\n\n— name AAAA\n".encode(),
        "text\n\n— name AAAAAAA=".encode(),
        "text\n\n— name  AAAAAAA=\n".encode(),
        b"text\n\n- name AAAAAAA=\n",
        "text\n\n— na+me AAAAAAA=\n".encode(),
        "te\x00xt\n\n— name AAAAAAA=\n".encode(),
        "text\r\n\n— name AAAAAAA=\n".encode(),
        "text\n\n— name AAAAAAB=\n".encode(),  # not the shortest base64
        b"\xff\n\n" + "— name AAAAAAA=\n".encode(),
        b"text\n\n" + "— name AAAAAAA=\n".encode() * (SIGNATURES_MAX + 1),
        b"x" * 70_000 + "\n\n— name AAAAAAA=\n".encode(),
    ],
)
def test_what_is_no_note_is_refused(data: bytes) -> None:
    with pytest.raises(AuditRefused):
        parse_note(data)


def test_checkpoints_are_c2sp_notes_with_our_three_lines() -> None:
    lines = sign_checkpoint(SECOND, HUB).encode().decode().split("\n")
    assert lines[0] == f"gossipfl/{HUB.device.hex()}"
    assert lines[1:5] == [
        "5",
        base64.b64encode(b"\x05" * 32).decode(),
        "number 2",
        "time 1700000060",
    ]
    assert lines[5] == f"previous {base64.b64encode(FIRST.digest).decode()}"
    assert lines[6] == ""
    opened = open_checkpoint(sign_checkpoint(SECOND, HUB).encode(), KEY)
    assert opened.checkpoint == SECOND


def test_a_checkpoint_of_another_log_or_key_is_refused() -> None:
    data = sign_checkpoint(SECOND, HUB).encode()
    with pytest.raises(AuditRefused, match="not signed by"):
        open_checkpoint(data, log_key(WITNESS.key_id))
    elsewhere = sign_note(SECOND.text().replace(b"gossipfl/", b"gossipfl#"), KEY, HUB)
    with pytest.raises(AuditRefused, match="not of"):
        open_checkpoint(elsewhere.encode(), KEY)
    with pytest.raises(ValueError, match="own log"):
        sign_checkpoint(SECOND, WITNESS)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("number 2\n", ""),
        ("number 2", "number 02"),
        ("number 2", "number 1"),
        ("number 2", "number 0"),
        ("\n5\n", "\n05\n"),
        ("\n5\n", "\n-5\n"),
        ("\n5\n", f"\n{2**63}\n"),
        ("\n5\n", f"\n{10**19}\n"),
        ("time ", "time  "),
        ("\nprevious", "\nnote\nprevious"),
        ("=\nnumber", "\nnumber"),
        ("BQU=", "BQV="),
        ("time 1700000060", "time ١٧"),
    ],
)
def test_other_spellings_of_a_checkpoint_are_refused(old: str, new: str) -> None:
    text = SECOND.text().decode()
    assert old in text
    with pytest.raises(AuditRefused):
        parse_checkpoint(text.replace(old, new, 1).encode())
    with pytest.raises(AuditRefused):
        parse_checkpoint(b"\xff" + SECOND.text())


def test_the_first_checkpoint_names_none_before_and_time_never_falls() -> None:
    assert b"previous" not in FIRST.text()
    assert parse_checkpoint(FIRST.text()) == FIRST
    with pytest.raises(AuditRefused):
        parse_checkpoint(FIRST.text().replace(b"number 1", b"number 2"))
    assert SECOND.next(6, b"\x06" * 32, 5).time == SECOND.time
    with pytest.raises(ValueError, match="shrink"):
        SECOND.next(4, b"\x04" * 32, 1_700_000_100)


def test_a_cosignature_says_when_and_covers_the_whole_checkpoint() -> None:
    key = witness_key(WITNESS.key_id)
    note = sign_checkpoint(SECOND, HUB)
    seen = note.with_signature(cosign(note.text, 1_700_000_090, WITNESS))
    read = parse_note(seen.encode())
    assert require_cosignature(read, key) == 1_700_000_090
    read.require(KEY)
    assert open_checkpoint(seen.encode(), KEY).checkpoint == SECOND
    with pytest.raises(AuditRefused, match="not cosigned"):
        require_cosignature(note, key)
    with pytest.raises(AuditRefused, match="wrong"):
        check_cosignature(FIRST.text(), read.signatures[1], key)
    later = read.signatures[1]
    moved = Signature(later.name, later.key_id, (7).to_bytes(8) + later.blob[8:])
    with pytest.raises(AuditRefused, match="wrong"):
        check_cosignature(note.text, moved, key)
    for blob in (later.blob[:-1], later.blob[8:], b"\xff" * 72):
        with pytest.raises(AuditRefused):
            check_cosignature(note.text, Signature(later.name, later.key_id, blob), key)


def test_a_log_signature_is_no_cosignature_and_the_other_way_round() -> None:
    plain, cosigner = log_key(HUB.key_id), witness_key(HUB.key_id)
    assert plain.id != cosigner.id
    assert parse_key(str(cosigner)).type == COSIGNATURE
    note = sign_checkpoint(SECOND, HUB)
    with pytest.raises(AuditRefused):
        require_cosignature(note, cosigner)
    with pytest.raises(AuditRefused):
        Note(note.text, (cosign(note.text, 5, HUB),)).require(plain)
    with pytest.raises(AuditRefused):
        Note(note.text, (cosign(note.text, 5, HUB),)).require(cosigner)


def test_the_cosignature_of_the_specification() -> None:
    """c2sp.org/tlog-cosignature: what is signed, byte for byte, in its own example's shape."""
    signature = cosign(b"example.com/behind-the-sofa\n20852163\nroot\n", 1679315147, WITNESS)
    message = b"cosignature/v1\ntime 1679315147\nexample.com/behind-the-sofa\n20852163\nroot\n"
    assert signature.blob == (1679315147).to_bytes(8) + WITNESS.sign(message)


def test_a_newer_cosignature_takes_the_place_of_the_older_one() -> None:
    note = sign_checkpoint(SECOND, HUB)
    for time in (10, 20):
        note = note.with_signature(cosign(note.text, time, WITNESS))
    assert len(note.signatures) == 2
    assert require_cosignature(note, witness_key(WITNESS.key_id)) == 20


def test_key_names_keep_to_what_notes_can_carry() -> None:
    for name in ("", "a b", "a+b", "a\u00a0b", "a\nb", "a" * 129):
        with pytest.raises(AuditRefused):
            Key(name, b"k" * 32)
