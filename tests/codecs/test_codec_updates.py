"""Update objects: names, exact lengths, and what hostile bytes can do."""

from __future__ import annotations

import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossipfl.codecs import (
    CodecError,
    decode_update,
    encode_update,
    named_parts,
    parse,
    problem,
    publish,
    require_size,
    update_bytes,
)
from gossipfl.codecs.update import NOBODY, encode_object, header
from gossipfl.errors import Fault, PeerError
from gossipfl.messages import Lineage
from gossipfl.objects import digest
from gossipfl.parameters import Vector

LINEAGE = Lineage(b"b" * 32, 1, b"l" * 32)
WHOLE = ["f32", "bf16", "int8", "f32+zlib", "bf16+zlib", "int8+zlib"]
PARTIAL = ["partial:0.5+f32", "partial:0.25+int8", "partial:0.2+bf16+zlib", "partial:0.1+int8+zlib"]
COUNTS = [0, 1, 2, 3, 511, 512, 513, 4100]


def some(count: int, seed: int = 1) -> Vector:
    return np.random.default_rng(seed).standard_normal(count).astype(np.float32)


def objects(codec: str, count: int) -> tuple[bytes, dict[bytes, bytes]]:
    """A first publication: its update, and all its objects by digest."""
    made = publish(LINEAGE, codec, some(count), 1)
    return made.data, {digest(data): data for data in (*made.beside, made.data)}


def fault_of(data: bytes, codec: str, count: int, held: dict[bytes, bytes] | None = None) -> Fault:
    with pytest.raises(PeerError) as caught:
        decode_update(data, LINEAGE, codec, count, held)
    return caught.value.fault


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WHOLE + PARTIAL)
def test_a_codec_is_named_in_one_way(name: str) -> None:
    assert parse(name).name == name
    assert problem(name) == ""


@pytest.mark.parametrize(
    "name",
    [
        *("", "f64", "F32", "f32 ", "+", "zlib", "int8+int8", "int8+zlib+zlib", "zlib+int8"),
        *("partial", "partial:0.25", "partial:0.25+zlib", "partial:.25+int8", "int8+partial:0.25"),
        *("partial:0.3+int8", "partial:1+int8", "partial:0.25+partial:0.25+int8", "x" * 64),
    ],
)
def test_any_other_name_is_refused_as_whose_it_is(name: str) -> None:
    assert "is not known here" in problem(name)
    with pytest.raises(CodecError, match="codec"):
        publish(LINEAGE, name, some(3), 1)
    with pytest.raises(PeerError) as caught:
        update_bytes(LINEAGE, name, 3)
    assert caught.value.fault is Fault.MALFORMED


def test_who_asks_for_zstd_is_told_what_to_take() -> None:
    assert "+zlib" in problem("bf16+zstd")


# --- lengths -------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("codec", WHOLE + PARTIAL)
def test_the_length_is_known_before(codec: str, count: int) -> None:
    """Exactly, and of every part alike; with zlib it is the most that it can be."""
    _, made = objects(codec, count)
    most = update_bytes(LINEAGE, codec, count)
    for data in made.values():
        require_size(len(data), LINEAGE, codec, count)
        assert len(data) == most or (parse(codec).zlib and len(data) < most)


@pytest.mark.parametrize("codec", WHOLE + PARTIAL)
def test_lengths_that_cannot_be_are_refused_unread(codec: str) -> None:
    most = update_bytes(LINEAGE, codec, 5000)
    least = most - parse(codec).slots(5000) + 1 if parse(codec).zlib else most
    for size in (0, 1, least - 1, most + 1, 2**32):
        with pytest.raises(PeerError) as caught:
            require_size(size, LINEAGE, codec, 5000)
        assert caught.value.fault is Fault.WRONG_LENGTH


def test_each_codec_is_as_small_as_it_says() -> None:
    count = 1_000_000
    vector = some(count) * np.float32(0.05)
    fewer = {c: 4 * count / len(encode_update(LINEAGE, c, vector)) for c in WHOLE}
    assert fewer["bf16"] == pytest.approx(2.0, abs=0.01)
    assert fewer["int8"] > 3.95
    assert fewer["bf16+zlib"] > 2.9
    assert fewer["int8+zlib"] > 4.2
    later = publish(LINEAGE, "partial:0.25+int8", vector, 2, publish(*_first(vector)))
    assert 4 * count / len(later.data) > 15.8


def _first(vector: Vector) -> tuple[Lineage, str, Vector, int]:
    return LINEAGE, "partial:0.25+int8", vector, 1


def test_what_does_not_shrink_is_left_as_it_is() -> None:
    vector = np.random.default_rng(1).integers(0, 2**32, 4096, np.uint32).view(np.float32)
    vector = np.where(np.abs(vector) < 1e38, vector, np.float32(1.0))  # any exponent
    data = encode_update(LINEAGE, "f32+zlib", vector)
    assert len(data) <= update_bytes(LINEAGE, "f32+zlib", 4096)
    assert decode_update(data, LINEAGE, "f32+zlib", 4096).tobytes() == vector.tobytes()


# --- hostile bytes -------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", WHOLE + PARTIAL)
def test_no_shorter_update_is_taken(codec: str) -> None:
    data, held = objects(codec, 40)
    for size in range(len(data)):
        assert fault_of(data[:size], codec, 40, held) in (
            Fault.WRONG_LENGTH,
            Fault.MALFORMED,
            Fault.NOT_FINITE,
        )


@pytest.mark.parametrize("codec", WHOLE + PARTIAL)
def test_no_longer_update_is_taken(codec: str) -> None:
    data, held = objects(codec, 40)
    for more in (b"\0", b"\0" * 40):
        assert fault_of(data + more, codec, 40, held) in (Fault.WRONG_LENGTH, Fault.MALFORMED)


@pytest.mark.parametrize("codec", ["bf16", "int8+zlib", "partial:0.25+int8"])
def test_every_flipped_header_bit_is_another_lineage(codec: str) -> None:
    data, held = objects(codec, 8)
    for bit in range(8 * len(header(LINEAGE, codec, 8))):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        assert fault_of(bytes(changed), codec, 8, held) is Fault.OTHER_LINEAGE


@pytest.mark.parametrize("codec", WHOLE + PARTIAL)
@given(noise=st.binary(min_size=1, max_size=300), at=st.integers(0, 2**16))
def test_noise_is_a_finite_vector_or_a_fault(codec: str, noise: bytes, at: int) -> None:
    data, held = objects(codec, 300)
    start = len(header(LINEAGE, codec, 300)) + at % (len(data) - len(header(LINEAGE, codec, 300)))
    changed = (data[:start] + noise + data[start + len(noise) :])[: len(data)]
    try:
        named = named_parts(changed, LINEAGE, codec, 300)
        if not all(name in held for name in named):
            return  # nobody has what it names
        vector = decode_update(changed, LINEAGE, codec, 300, held)
    except PeerError:
        return
    assert vector.shape == (300,)
    assert np.isfinite(vector).all()


def _int8(scale: float, step: int) -> bytes:
    scales = np.full(1, scale, "<f4").tobytes()
    return header(LINEAGE, "int8", 4) + scales + np.full(4, step, np.int8).tobytes()


@pytest.mark.parametrize(
    ("scale", "step", "fault"),
    [
        (-1.0, 1, Fault.MALFORMED),
        (np.nan, 1, Fault.MALFORMED),
        (np.inf, 1, Fault.NOT_FINITE),
        (np.inf, 0, Fault.NOT_FINITE),
        (3e38, 100, Fault.NOT_FINITE),
        (1.0, -128, Fault.MALFORMED),
    ],
)
def test_int8_that_no_encoder_writes(scale: float, step: int, fault: Fault) -> None:
    assert fault_of(_int8(scale, step), "int8", 4) is fault


@pytest.mark.parametrize("half", [0x7F80, 0xFF80, 0x7FC0])
def test_bf16_that_is_not_finite(half: int) -> None:
    data = header(LINEAGE, "bf16", 1) + half.to_bytes(2, "little")
    assert fault_of(data, "bf16", 1) is Fault.NOT_FINITE


def _deflated(plane: bytes, count: int) -> bytes:
    scales = np.ones(-(-count // 512), "<f4").tobytes()
    return header(LINEAGE, "int8+zlib", count) + scales + plane


def test_a_bomb_is_refused_without_room_for_it() -> None:
    count = 1 << 20
    bomb = zlib.compress(bytes(1 << 28), 9)
    assert len(bomb) < count
    data = _deflated(bomb, count)
    tracemalloc.start()
    fault = fault_of(data, "int8+zlib", count)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert fault is Fault.MALFORMED
    assert peak < 8 * count


@pytest.mark.parametrize("size", [0, 999, 1001, 100_000])
def test_a_plane_of_another_size_is_refused(size: int) -> None:
    assert fault_of(_deflated(zlib.compress(bytes(size)), 1000), "int8+zlib", 1000) is (
        Fault.MALFORMED
    )


@pytest.mark.parametrize("change", ["cut", "more", "flipped", "raw"])
def test_a_plane_that_is_no_stream_is_refused(change: str) -> None:
    packed = zlib.compress(bytes(1000))
    plane = {
        "cut": packed[:-1],
        "more": packed + b"\0",
        "flipped": bytes((packed[0] ^ 0xFF, *packed[1:])),
        "raw": bytes(999),
    }[change]
    assert fault_of(_deflated(plane, 1000), "int8+zlib", 1000) is Fault.MALFORMED


# --- parts that lie ------------------------------------------------------------------------------

CODEC = "partial:0.5+f32"


def _update(part: int, other: bytes) -> bytes:
    return encode_object(LINEAGE, parse(CODEC), some(10), 0, part, [other])


def _part(part: int, lineage: Lineage = LINEAGE, codec: str = CODEC) -> bytes:
    return encode_object(lineage, parse(codec), some(10, 2), 0, part, [NOBODY])


def test_an_update_of_two_parts_is_their_coordinates() -> None:
    part = _part(1)
    update = _update(0, digest(part))
    vector = decode_update(update, LINEAGE, CODEC, 10, {digest(part): part})
    assert vector[::2].tobytes() == some(10)[::2].tobytes()
    assert vector[1::2].tobytes() == some(10, 2)[1::2].tobytes()


def test_an_update_must_name_all_its_parts() -> None:
    with pytest.raises(PeerError, match="open"):
        named_parts(_part(1), LINEAGE, CODEC, 10)


@pytest.mark.parametrize(
    ("part", "fault"),
    [
        (_part(0), Fault.MALFORMED),
        (_part(1, Lineage(b"b" * 32, 2, b"l" * 32)), Fault.OTHER_LINEAGE),
        (_part(1)[:-1], Fault.WRONG_LENGTH),
        (_part(1)[:-4] + np.float32(np.nan).tobytes(), Fault.NOT_FINITE),
        (encode_object(LINEAGE, parse("partial:0.5+bf16"), some(10), 0, 1, [NOBODY]), None),
        (b"", Fault.WRONG_LENGTH),
    ],
    ids=["the same part", "another run", "short", "not finite", "another codec", "nothing"],
)
def test_a_part_that_is_not_what_it_should_be(part: bytes, fault: Fault | None) -> None:
    update = _update(0, digest(part))
    found = fault_of(update, CODEC, 10, {digest(part): part})
    assert found is (fault or Fault.WRONG_LENGTH)


@pytest.mark.parametrize("number", [2, 3, 255])
def test_a_part_beyond_the_last_is_refused(number: int) -> None:
    data = bytearray(_part(1))
    data[len(header(LINEAGE, CODEC, 10))] = number
    assert fault_of(bytes(data), CODEC, 10) is Fault.MALFORMED


def test_what_fills_up_the_last_part_is_dropped() -> None:
    part = encode_object(LINEAGE, parse(CODEC), some(3, 2), 0, 1, [NOBODY])
    noisy = part[:-4] + np.float32(7).tobytes()
    update = encode_object(LINEAGE, parse(CODEC), some(3), 0, 0, [digest(noisy)])
    vector = decode_update(update, LINEAGE, CODEC, 3, {digest(noisy): noisy})
    assert 7.0 not in vector
