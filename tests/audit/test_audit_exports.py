"""Exports: what is whole verifies, and whatever is changed is named."""

from __future__ import annotations

import base64
import hashlib
import io
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossipfl.audit.archive import member
from gossipfl.audit.checkpoints import sign_checkpoint
from gossipfl.audit.cosignatures import cosign
from gossipfl.audit.entries import EntryKind, Payload
from gossipfl.audit.exports import (
    pack_payloads,
    parse_about,
    unexplained,
    unpack_payloads,
    unpack_salts,
)
from gossipfl.audit.memory import MemoryLog
from gossipfl.audit.notes import log_key
from gossipfl.audit.refused import AuditRefused
from gossipfl.audit.verification import verify_export
from gossipfl.identity import Signer
from tests.audit.logs import (
    FLEET,
    HUB,
    HUB_KEY,
    START,
    WITNESS,
    WITNESS_KEY,
    counter,
    export,
    make_log,
    subject,
    verify,
)


def replaced(data: bytes, old: bytes, new: bytes) -> bytes:
    """The export with something else in the place of one file, sums put right: a forger's work."""
    assert data.count(old) == 1
    return resummed(data.replace(old, new))


def resummed(data: bytes) -> bytes:
    """The same files, packed anew with right sums."""
    files = unpack(data)
    files.pop("sums")
    sums = "".join(f"{hashlib.sha256(d).hexdigest()}  {n}\n" for n, d in files.items())
    return (
        b"".join(member(n, d) for n, d in files.items())
        + member("sums", sums.encode())
        + bytes(1024)
    )


def unpack(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar.getmembers()}  # type: ignore[union-attr]


def repacked(files: dict[str, bytes]) -> bytes:
    """An export of these files, sums put right."""
    return resummed(b"".join(member(n, d) for n, d in files.items()) + bytes(1024))


def test_a_whole_export_is_valid_and_told() -> None:
    verdict = verify(export(make_log(300)))
    assert verdict.valid, verdict.problem
    assert (verdict.entries, verdict.payloads, verdict.erased) == (300, 300, 0)
    assert verdict.checkpoints == 32
    assert (verdict.first_time, verdict.last_time) == (START, START + 299)
    assert sum(verdict.kinds.values()) == 300
    seen = verdict.witnesses[WITNESS_KEY.name]
    assert (seen.number, seen.size, seen.time) == (32, 300, START + 305)


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 513])
def test_exports_of_every_shape_are_valid(size: int) -> None:
    log = make_log(size, every=100)
    for payloads in (True, False):
        verdict = verify(export(log, payloads))
        assert verdict.valid, verdict.problem
        assert verdict.entries == size
        assert verdict.payloads == (size if payloads else 0)


def test_an_export_is_the_same_whenever_it_is_made() -> None:
    assert export(make_log(40)) == export(make_log(40))


def test_other_tools_read_it(tmp_path: Path) -> None:
    """GNU tar unpacks it, sha256sum checks it: neither is ours."""
    (tmp_path / "export.tar").write_bytes(export(make_log(300)))
    subprocess.run(["tar", "xf", "export.tar"], cwd=tmp_path, check=True)
    subprocess.run(["sha256sum", "-c", "--quiet", "sums"], cwd=tmp_path, check=True)
    assert (tmp_path / "tile/entries/000").stat().st_size == 256 * 44
    assert (tmp_path / "tile/0/001.p/44").stat().st_size == 44 * 32


@pytest.mark.slow
@pytest.mark.parametrize(("payloads", "step"), [(True, 1), (False, 7)])
def test_one_flipped_bit_anywhere_is_caught(payloads: bool, step: int) -> None:
    """Each byte of a small export in turn, one bit of it."""
    data = bytearray(export(make_log(3, every=2), payloads))
    for place in range(0, len(data), step):
        bit = 1 << place % 8
        data[place] ^= bit
        verdict = verify(bytes(data))
        assert not verdict.valid, f"byte {place} of {len(data)}"
        data[place] ^= bit
    assert verify(bytes(data)).valid


def test_a_byte_in_an_entry_its_payload_or_its_hash_names_the_entry() -> None:
    data = export(make_log(300))
    files = unpack(data)
    entry = files["tile/entries/001.p/44"][2:44]
    leaf = files["tile/0/001.p/44"][5 * 32 : 6 * 32]
    for old, index in ((entry, 256), (leaf, 261), (b"payload 17.", 17), (b"payload 299.", 299)):
        for place in (0, len(old) - 1):
            hurt = bytearray(old)
            hurt[place] ^= 1
            for changed in (replaced(data, old, bytes(hurt)), data.replace(old, bytes(hurt))):
                verdict = verify(changed)
                assert verdict.problem is not None
                assert verdict.problem.entry == index
                assert verdict.problem.place == f"entry {index}"


@given(st.integers(0), st.integers(1, 255))
def test_any_byte_of_a_larger_export_is_caught(place: int, change: int) -> None:
    data = bytearray(LARGER)
    data[place % len(data)] ^= change
    assert not verify(bytes(data)).valid


LARGER = export(make_log(60, every=7))


@given(st.integers(0, len(LARGER) - 1))
def test_an_export_that_was_cut_off_is_refused(length: int) -> None:
    assert not verify(LARGER[:length]).valid
    assert not verify(LARGER + LARGER[:length] + b"\x00").valid


def test_a_rewritten_entry_is_found_though_all_hashes_were_made_anew() -> None:
    """The hub changes entry 17 and its tile, and signs nothing anew: the checkpoints tell."""
    log = make_log(60, every=7)
    other = MemoryLog(HUB, counter())
    for n in range(60):
        what = b"another" if n == 17 else b"payload %d." % n
        kind = [k for k in EntryKind if k is not EntryKind.ERASURE][n % 14]
        other.append(kind, START + n, subject(n % 3), what)
    other.publish(START)
    mine, theirs = unpack(export(log)), unpack(export(other))
    for name in theirs:
        if name.startswith(("tile/", "payloads/")):
            mine[name] = theirs[name]
    verdict = verify(repacked(mine))
    assert verdict.problem is not None
    assert verdict.problem.entry == 14
    assert "entries 14 to 20" in verdict.problem.cause


def test_a_rewritten_log_with_new_signatures_is_not_the_one_the_witness_signed() -> None:
    """The hub writes the whole history anew, with its own key. Only a witness can tell."""
    rewritten = make_log(61, cosigned=False)
    data = export(rewritten)
    assert verify(data, witness=False).valid
    verdict = verify(data)
    assert verdict.problem is not None
    assert "cosigned none" in verdict.problem.cause
    old = make_log(60)
    line = cosign(old._notes[-1].text, START, WITNESS)
    rewritten.cosigned(len(rewritten.checkpoints), line)
    verdict = verify(export(rewritten))
    assert verdict.problem is not None
    assert "cosignature" in verdict.problem.cause


def test_a_fork_in_the_checkpoints_is_found() -> None:
    log = make_log(30)
    forked = log.checkpoints[1]
    log._notes[1] = sign_checkpoint(
        type(forked)(forked.origin, forked.size, b"x" * 32, 2, forked.time, forked.previous), HUB
    )
    verdict = verify(export(log))
    assert verdict.problem is not None
    assert verdict.problem.place == "checkpoint 3"
    assert "forked" in verdict.problem.cause


def test_a_log_that_shrinks_or_goes_back_in_time_is_found() -> None:
    for size, time, word in ((5, START + 99, "shrunk"), (20, START - 9, "before")):
        log = MemoryLog(HUB, counter())
        for n in range(20):
            log.append(EntryKind.LOGIN, START, subject(1), b"%d" % n)
            if n == 9:
                log.publish(START)
        last = log.checkpoints[-1]
        log.publish(START)
        made = type(last)(last.origin, size, log.checkpoints[-1].root, 2, time, last.digest)
        log.checkpoints[1], log._notes[1] = made, sign_checkpoint(made, HUB)
        verdict = verify(export(log), witness=False)
        assert verdict.problem is not None
        assert word in verdict.problem.cause


def test_entries_out_of_the_order_of_time_are_found() -> None:
    log = make_log(4)
    log._time = 0
    index = log.append(EntryKind.LOGIN, START - 1, subject(1), b"late")
    log.publish(START + 9)
    verdict = verify(export(log), witness=False)
    assert verdict.problem is not None
    assert verdict.problem.entry == index
    log = make_log(4)
    log.append(EntryKind.LOGIN, START + 500, subject(1), b"early")
    log._time = 0
    log.publish(START + 100)
    verdict = verify(export(log), witness=False)
    assert verdict.problem is not None
    assert "younger" in verdict.problem.cause


def test_another_hubs_export_is_refused() -> None:
    data = export(make_log(5))
    verdict = verify_export(io.BytesIO(data), log_key(Signer(b"x" * 32).key_id))
    assert verdict.problem is not None
    assert verdict.problem.place == "about"


def test_after_an_erasure_the_export_is_valid_and_says_what_is_gone() -> None:
    log = make_log(60)
    before = export(log)
    log.erase(subject(1), START + 100, by=subject(0))
    log.publish(START + 100)
    after = export(log)
    verdict = verify(after)
    assert verdict.valid, verdict.problem
    assert (verdict.entries, verdict.payloads, verdict.erased) == (61, 41, 20)
    assert b"payload 1." in before
    assert subject(1) not in after
    assert b"payload 1." not in after
    assert before.count(b"tile/entries") == after.count(b"tile/entries")


def test_what_is_withheld_cannot_be_passed_off_as_erased() -> None:
    log = make_log(60)
    log.erase(subject(1), START + 100, by=subject(0))
    log.publish(START + 100)
    files = unpack(export(log))
    name = "payloads/000.p/61"
    payloads = unpack_payloads(files[name], 61)
    assert payloads[4] is None
    payloads[6] = None
    files[name] = pack_payloads(payloads)
    verdict = verify(repacked(files))
    assert verdict.problem is not None
    assert verdict.problem.entry == 6
    log._payloads[6] = None
    with pytest.raises(AuditRefused, match="entry 6"):
        export(log)


def test_an_erasure_cannot_cover_what_comes_after_it() -> None:
    log = make_log(3)
    log.append(EntryKind.ERASURE, START + 50, subject(0), b"0-9\n")
    for _ in range(6):
        log.append(EntryKind.LOGIN, START + 51, subject(5), b"later")
    log._payloads[5] = None
    log.publish(START + 60)
    with pytest.raises(AuditRefused, match="entry 5"):
        export(log)


def test_what_payloads_say_is_checked_where_a_check_is_given() -> None:
    def contents(kind: EntryKind, payload: Payload) -> None:
        if payload.data == b"payload 17.":
            raise AuditRefused("not a login that I know")

    verdict = verify_export(io.BytesIO(export(make_log(30))), HUB_KEY, (), lambda fleet: contents)
    assert str(verdict.problem) == "entry 17: not a login that I know"


def test_a_stranger_among_the_witnesses_does_no_harm() -> None:
    log = make_log(30)
    stranger = cosign(log._notes[-1].text, 5, Signer(b"?" * 32))
    log.cosigned(len(log.checkpoints), stranger)
    assert verify(export(log)).valid


def test_a_bad_signature_of_a_named_witness_is_refused_wherever_it_stands() -> None:
    log = make_log(30)
    log.cosigned(2, cosign(b"something else\n", 5, WITNESS))
    verdict = verify(export(log))
    assert verdict.problem is not None
    assert verdict.problem.place == "checkpoint 2"


def test_a_log_without_checkpoints_has_no_export() -> None:
    with pytest.raises(AuditRefused, match="no checkpoint"):
        export(MemoryLog(HUB, counter()))


def test_parts_that_are_none_are_refused() -> None:
    for data in (b"", b"gossipfl audit export v2\n", b"\xff"):
        with pytest.raises(AuditRefused):
            parse_about(data)
    for data in (b"x" * 47, (b"b" * 16 + b"s" * 32) * 2, b"b" * 48 + b"a" * 48):
        with pytest.raises(AuditRefused):
            unpack_salts(data)
    for data in (b"\x00", b"\x00\x00\x00\x01x", b"\x00\x00\x00\x11" + b"x" * 16, bytes(5)):
        with pytest.raises(AuditRefused):
            unpack_payloads(data, 1)


def test_a_checkpoint_line_is_base64_of_32_bytes() -> None:
    files = unpack(export(make_log(3)))
    assert len(base64.b64decode(files["checkpoint"].split(b"\n")[2])) == 32
    assert files["about"].decode().splitlines()[2] == f"fleet {FLEET.hex()}"


@given(
    st.sets(st.integers(0, 50)),
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 10)), max_size=8),
)
def test_what_no_range_names_is_found(gone: set[int], spans: list[tuple[int, int]]) -> None:
    ranges = [(first, first + length) for first, length in spans]
    named = {i for first, end in ranges for i in range(first, end)}
    assert unexplained(sorted(gone), ranges) == min(gone - named, default=None)
