"""Objects, codecs and parameters: names by digest, exact lengths, containers with one form."""

from __future__ import annotations

import hashlib
import warnings
from typing import Any

import msgpack
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from harness import fault_of
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gossipfl.codecs import decode_update, encode_update, update_bytes
from gossipfl.config import Limits
from gossipfl.errors import Fault
from gossipfl.messages import Chapter, Lineage
from gossipfl.objects import (
    Kind,
    MemberObject,
    Vouched,
    bytes_max,
    digest,
    fleet_of,
    pack_chapter,
    pack_list,
    pack_member,
    pack_vouched,
    spki_digest,
    unpack_chapter,
    unpack_list,
    unpack_member,
    unpack_vouched,
)
from gossipfl.parameters import (
    Layout,
    Tensor,
    from_bytes,
    require_finite,
    to_bytes,
)
from gossipfl.wire import pack
from sim.fleet import Fleet

LIMITS = Limits()
FLEET = Fleet(5)
LINEAGE = Lineage(b"b" * 32, 0, b"l" * 32)
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
VECTORS = hnp.arrays(np.float32, st.integers(1, 40), elements=FLOATS)


# --- names ---------------------------------------------------------------------------------------


def test_an_object_is_named_by_sha_256() -> None:
    # FIPS 180-2, appendix B.1
    assert digest(b"abc").hex() == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
    assert digest(memoryview(b"abc")) == digest(b"abc")


def test_the_fleet_id_is_the_spki_digest_of_the_root() -> None:
    raw = bytes(FLEET.root.key_id)
    spki = Ed25519PublicKey.from_public_bytes(raw).public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    assert fleet_of(raw) == spki_digest(raw) == hashlib.sha256(spki).digest()


def test_every_kind_has_a_bound() -> None:
    assert {bytes_max(kind, LIMITS) > 0 for kind in Kind} == {True}


# --- containers ----------------------------------------------------------------------------------


@given(st.binary(max_size=60), st.none() | st.binary(max_size=60))
def test_member_objects_come_back(envelope: bytes, issuer: bytes | None) -> None:
    member = MemberObject(envelope, issuer)
    assert unpack_member(pack_member(member), LIMITS) == member


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_vouched_objects_come_back(envelope: bytes, member: bytes) -> None:
    vouched = Vouched(envelope, member)
    assert unpack_vouched(pack_vouched(vouched), LIMITS) == vouched


@given(st.lists(st.binary(max_size=40), max_size=20, unique=True))
def test_lists_come_back(items: list[bytes]) -> None:
    assert unpack_list(pack_list(items), 4096) == items


def test_a_list_names_nothing_twice() -> None:
    """Copies of one valid proof would each be verified: a liar's minute for a second of ours."""
    assert fault_of(unpack_list, pack_list([b"a", b"b", b"a"]), 4096) is Fault.MALFORMED


@pytest.mark.parametrize("value", [[], [b"a"], ["a", b"b"], [None, b"b"], [b"a", b"b", b"c"], None])
def test_other_shapes_are_no_containers(value: Any) -> None:
    assert fault_of(unpack_member, pack(value), LIMITS) is Fault.MALFORMED
    assert fault_of(unpack_vouched, pack(value), LIMITS) is Fault.MALFORMED


@pytest.mark.parametrize("value", [None, "a", {"a": b""}, [b"a", "b"], [b"a", None], [[b"a"]]])
def test_other_shapes_are_no_lists(value: Any) -> None:
    assert fault_of(unpack_list, pack(value), 4096) is Fault.MALFORMED


@pytest.mark.parametrize("depth", [100, 511, 512, 1000, 1023, 1024, 2000])
def test_containers_nested_deep_are_no_containers(depth: int) -> None:
    """msgpack reads deeper than it writes: a check by writing it again must not raise."""
    for inner in (b"\x91" * depth + b"\xc0", b"\x92" + b"\xc4\x01x" + b"\x91" * depth + b"\xc0"):
        assert fault_of(unpack_member, inner, LIMITS) is Fault.MALFORMED
        assert fault_of(unpack_vouched, inner, LIMITS) is Fault.MALFORMED
        assert fault_of(unpack_list, inner, 8192) is Fault.MALFORMED


def test_containers_have_size_limits() -> None:
    big = bytes(70_000)
    assert fault_of(unpack_member, pack([big, None]), LIMITS) is Fault.OVERSIZED
    assert fault_of(unpack_vouched, pack([big, b""]), LIMITS) is Fault.OVERSIZED
    assert fault_of(unpack_list, pack([big]), 60_000) is Fault.OVERSIZED


def longer_forms(data: bytes) -> list[bytes]:
    """A two-element container of byte strings in every other form that msgpack reads the same."""
    first, second = msgpack.unpackb(data)
    forms = []
    for array in (b"\x92", b"\xdc\x00\x02", b"\xdd\x00\x00\x00\x02"):
        for a in lengths(first):
            for b in lengths(second):
                forms.append(array + a + b)
    return [form for form in forms if form != data]


def lengths(part: bytes | None) -> list[bytes]:
    if part is None:
        return [b"\xc0"]
    size = len(part)
    heads = [b"\xc5" + size.to_bytes(2, "big"), b"\xc6" + size.to_bytes(4, "big")]
    return [head + part for head in ([b"\xc4" + bytes([size])] if size < 256 else []) + heads]


def test_a_signed_thing_cannot_be_repacked_under_another_name() -> None:
    """The longer forms of msgpack would give one policy many digests, and the lowest wins."""
    policy = FLEET.policy(FLEET.job("j", Layout((Tensor("w", (1,), 0),))), n=3)
    forms = longer_forms(policy)
    assert len(forms) > 5
    assert {fault_of(unpack_vouched, form, LIMITS) for form in forms} == {Fault.MALFORMED}
    for member in (FLEET.operator.member, FLEET.issuer_member):
        forms = longer_forms(member)
        assert {fault_of(unpack_member, form, LIMITS) for form in forms} == {Fault.MALFORMED}


def test_chapters_come_back_and_have_bounds() -> None:
    chapter = Chapter(b"d" * 16, "head", 257, [bytes([i]) * 32 for i in range(256)], b"p" * 32)
    data = pack_chapter(chapter)
    assert unpack_chapter(data, LIMITS) == chapter
    assert len(data) < LIMITS.chapter_bytes
    long = Chapter(b"d" * 16, "head", 1, [b"x" * 32] * 257)
    assert fault_of(unpack_chapter, pack_chapter(long), LIMITS) is Fault.MALFORMED
    odd = Chapter(b"d" * 16, "headache", 1, [b"x" * 32])
    assert fault_of(unpack_chapter, pack_chapter(odd), LIMITS) is Fault.MALFORMED


# --- layouts -------------------------------------------------------------------------------------


def test_a_layout_has_no_gaps() -> None:
    with pytest.raises(ValueError, match=r"'bias' starts at 7, not at 6"):
        Layout((Tensor("weight", (2, 3), 0), Tensor("bias", (3,), 7)))


def test_a_scalar_is_a_tensor_of_one() -> None:
    layout = Layout((Tensor("scale", (), 0), Tensor("w", (4, 2), 1)))
    assert layout.count == 9


@pytest.mark.parametrize(
    "other",
    [
        Layout((Tensor("w", (3, 2), 0), Tensor("b", (3,), 6))),
        Layout((Tensor("v", (2, 3), 0), Tensor("b", (3,), 6))),
        Layout((Tensor("w", (6,), 0), Tensor("b", (3,), 6))),
        Layout((Tensor("b", (3,), 0), Tensor("w", (2, 3), 3))),
        Layout((Tensor("w", (2, 3), 0),)),
        Layout(()),
    ],
)
def test_layouts_that_differ_have_other_digests(other: Layout) -> None:
    layout = Layout((Tensor("w", (2, 3), 0), Tensor("b", (3,), 6)))
    assert layout.digest != other.digest
    assert layout.digest == Layout((Tensor("w", (2, 3), 0), Tensor("b", (3,), 6))).digest


# --- vectors -------------------------------------------------------------------------------------


@given(VECTORS)
def test_vectors_come_back_bit_for_bit(vector: Any) -> None:
    assert to_bytes(from_bytes(to_bytes(vector))) == to_bytes(vector)
    assert to_bytes(vector) == vector.astype("<f4").tobytes()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 17, 99])
def test_a_value_that_is_not_finite_is_found(bad: float, at: int) -> None:
    vector = np.zeros(100, np.float32)
    vector[at] = bad
    assert fault_of(require_finite, vector) is Fault.NOT_FINITE


def test_huge_finite_values_are_finite() -> None:
    """Their squares overflow: that alone must neither refuse them nor warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        require_finite(np.full(64, 3e38, np.float32))
        require_finite(np.full(64, -3e38, np.float32))


# --- updates -------------------------------------------------------------------------------------


@given(VECTORS)
def test_an_update_comes_back_and_has_the_one_length(vector: Any) -> None:
    data = encode_update(LINEAGE, "f32", vector)
    assert len(data) == update_bytes(LINEAGE, "f32", len(vector))
    decoded = decode_update(data, LINEAGE, "f32", len(vector))
    assert to_bytes(decoded) == to_bytes(vector)
    assert encode_update(LINEAGE, "f32", decoded) == data


def test_an_update_of_any_other_length_is_fault_of() -> None:
    data = encode_update(LINEAGE, "f32", np.ones(10, np.float32))
    for size in range(len(data)):
        assert fault_of(decode_update, data[:size], LINEAGE, "f32", 10) is Fault.WRONG_LENGTH
    assert fault_of(decode_update, data + b"\0", LINEAGE, "f32", 10) is Fault.WRONG_LENGTH
    assert fault_of(decode_update, data, LINEAGE, "f32", 11) is Fault.WRONG_LENGTH


@pytest.mark.parametrize(
    "other",
    [
        Lineage(b"B" * 32, 0, b"l" * 32),
        Lineage(b"b" * 32, 1, b"l" * 32),
        Lineage(b"b" * 32, 0, b"L" * 32),
    ],
)
def test_an_update_of_another_lineage_is_fault_of(other: Lineage) -> None:
    data = encode_update(other, "f32", np.ones(10, np.float32))
    assert fault_of(decode_update, data, LINEAGE, "f32", 10) is Fault.OTHER_LINEAGE


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_update_with_values_that_are_not_finite_is_fault_of(bad: float) -> None:
    data = encode_update(LINEAGE, "f32", np.array([1, bad, 2], np.float32))
    assert fault_of(decode_update, data, LINEAGE, "f32", 3) is Fault.NOT_FINITE


def test_a_signalling_nan_is_found_too() -> None:
    data = bytearray(encode_update(LINEAGE, "f32", np.ones(3, np.float32)))
    data[-4:] = (0x7F800001).to_bytes(4, "little")
    assert fault_of(decode_update, bytes(data), LINEAGE, "f32", 3) is Fault.NOT_FINITE


@pytest.mark.parametrize("codec", ["", "f64", "F32", "f32 ", "x" * 64])
def test_a_codec_that_is_not_known_is_fault_of(codec: str) -> None:
    assert fault_of(update_bytes, LINEAGE, codec, 3) is Fault.MALFORMED
    assert fault_of(decode_update, b"", LINEAGE, codec, 3) is Fault.MALFORMED
    with pytest.raises(ValueError, match="codec"):
        encode_update(LINEAGE, codec, np.ones(3, np.float32))


def test_every_flipped_header_bit_of_an_update_is_fault_of() -> None:
    """Data bits are guarded by the digest; the header must hold against its own signer."""
    data = encode_update(LINEAGE, "f32", np.ones(2, np.float32))
    for bit in range((len(data) - 8) * 8):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        assert fault_of(decode_update, bytes(changed), LINEAGE, "f32", 2) is Fault.OTHER_LINEAGE
