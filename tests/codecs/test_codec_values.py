"""Values as bytes and back: how far off they may be, on average not at all, the same everywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gossipfl.codecs import decode_update, encode_update
from gossipfl.codecs.names import BLOCK
from gossipfl.codecs.values import SCALE_MIN, VALUE_MAX
from gossipfl.messages import Lineage
from gossipfl.objects import digest
from gossipfl.parameters import Vector

LINEAGE = Lineage(b"b" * 32, 1, b"l" * 32)
WIDE = st.floats(-(2.0**126), 2.0**126, width=32)
VECTORS = hnp.arrays(np.float32, st.integers(0, 3 * BLOCK + 7), elements=WIDE, fill=WIDE)
SEEDS = st.integers(0, 2**64 - 1)


def there_and_back(codec: str, vector: Vector, seed: int = 0) -> Vector:
    data = encode_update(LINEAGE, codec, vector, seed=seed)
    return decode_update(data, LINEAGE, codec, len(vector))


def steps(vector: Vector) -> Vector:
    """Per value, the step of its int8 block: the largest value over 127, a millionth more."""
    blocks = [vector[i : i + BLOCK] for i in range(0, len(vector), BLOCK)]
    rows = [np.full(len(b), np.abs(b).max(initial=0) / 127 * (1 + 3e-6)) for b in blocks]
    return np.concatenate([np.zeros(0), *rows]).astype(np.float64)


# --- how far off ---------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["f32", "f32+zlib"])
@given(vector=VECTORS)
def test_f32_comes_back_bit_by_bit(codec: str, vector: Vector) -> None:
    assert there_and_back(codec, vector).tobytes() == vector.tobytes()


@pytest.mark.parametrize("codec", ["bf16", "bf16+zlib"])
@given(vector=VECTORS)
def test_bf16_is_off_by_half_a_unit_of_its_eighth_digit(codec: str, vector: Vector) -> None:
    exact = vector.astype(np.float64)
    error = np.abs(there_and_back(codec, vector) - exact)
    assert (error <= np.maximum(np.abs(exact) * 2.0**-8, 2.0**-134)).all()


@pytest.mark.parametrize("codec", ["int8", "int8+zlib"])
@given(vector=VECTORS, seed=SEEDS)
def test_int8_is_off_by_less_than_a_step_of_its_block(
    codec: str, vector: Vector, seed: int
) -> None:
    error = np.abs(there_and_back(codec, vector, seed) - vector.astype(np.float64))
    assert (error <= np.maximum(steps(vector), 128 * SCALE_MIN)).all()


def test_the_largest_value_of_a_block_never_wraps() -> None:
    """127 and a rounding error, rounded up at random, would be 128, which is -128."""
    generator = np.random.default_rng(3)
    for seed in range(300):
        vector = generator.standard_normal(BLOCK).astype(np.float32)
        vector[::2] = np.abs(vector).max()
        decoded = there_and_back("int8", vector, seed)
        assert (decoded[::2] > 0).all()
        assert decoded[::2] == pytest.approx(vector[::2], rel=0.01)


@given(vector=VECTORS, seed=SEEDS)
def test_what_bf16_published_is_published_alike_again(vector: Vector, seed: int) -> None:
    once = there_and_back("bf16", vector)
    assert there_and_back("bf16", once).tobytes() == once.tobytes()


def test_a_block_of_zeros_and_one_too_small_to_scale() -> None:
    vector = np.zeros(3 * BLOCK, np.float32)
    vector[BLOCK] = 1e-40
    vector[-1] = 5.0
    decoded = there_and_back("int8", vector)
    assert not decoded[: 2 * BLOCK].any()
    assert decoded[-1] == pytest.approx(5.0)
    assert not decoded[2 * BLOCK : -1].any()


@pytest.mark.parametrize("codec", ["bf16", "int8", "partial:0.25+int8", "bf16+zlib"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 2e38, -2e38])
def test_what_cannot_be_held_is_a_local_error(codec: str, bad: float) -> None:
    from gossipfl.codecs import publish

    vector = np.ones(600, np.float32)
    vector[555] = bad
    with pytest.raises(ValueError, match="beyond"):
        publish(LINEAGE, codec, vector, 1)


def test_the_greatest_values_survive() -> None:
    vector = np.array([VALUE_MAX, -VALUE_MAX, 1.0], np.float32)
    for codec in ("bf16", "int8"):
        assert there_and_back(codec, vector)[:2] == pytest.approx(vector[:2], rel=0.01)


# --- on average ----------------------------------------------------------------------------------


def test_int8_rounds_so_that_the_mean_is_the_value() -> None:
    """Rounding to the nearest would be off by up to half a step, whatever the number of rounds."""
    draws = 600
    vector = np.linspace(-1.0, 1.0, BLOCK).astype(np.float32)
    mean = np.mean([there_and_back("int8", vector, seed) for seed in range(draws)], axis=0)
    error = np.abs(mean - vector) / steps(vector)
    assert error.max() < 5 * 0.5 / np.sqrt(draws)  # five standard deviations of the worst case
    assert np.abs((mean - vector).mean()) / steps(vector)[0] < 5 * 0.5 / np.sqrt(draws * BLOCK)


def test_neighbours_are_rounded_independently() -> None:
    vector = np.full(BLOCK * 40, 0.5, np.float32)
    vector[::BLOCK] = 127.0
    decoded = there_and_back("int8", vector, 9)
    up = decoded[decoded < 2] > 0.5
    assert 0.45 < up.mean() < 0.55
    assert abs(np.corrcoef(up[:-1], up[1:])[0, 1]) < 0.05


def test_bf16_rounds_ties_to_even() -> None:
    tie = np.array([0x3F808000, 0x3F818000], np.uint32).view(np.float32)
    assert there_and_back("bf16", tie).view(np.uint32).tolist() == [0x3F800000, 0x3F820000]


# --- the same everywhere -------------------------------------------------------------------------


@given(vector=VECTORS, seed=SEEDS)
def test_the_same_seed_gives_the_same_bytes(vector: Vector, seed: int) -> None:
    first = encode_update(LINEAGE, "int8", vector, seed=seed)
    assert encode_update(LINEAGE, "int8", vector.copy(), seed=seed) == first


def test_another_seed_gives_other_bytes() -> None:
    vector = np.random.default_rng(1).standard_normal(5000).astype(np.float32)
    made = {encode_update(LINEAGE, "int8", vector, seed=seed) for seed in (0, 1, 2**63, 2**64 - 1)}
    assert len(made) == 4


@pytest.mark.parametrize(
    ("codec", "name"),
    [
        ("f32", "c78a2da6"),
        ("bf16", "943d55fb"),
        ("int8", "e1d16a11"),
    ],
)
def test_the_bytes_of_the_protocol_do_not_change(codec: str, name: str) -> None:
    """Philox's stream and the roundings are part of no contract between peers, but a change of
    them is a change of every recorded history: it must be meant."""
    vector = (np.arange(1000) - 500).astype(np.float32) / np.float32(128)
    found: Any = digest(encode_update(LINEAGE, codec, vector, seed=5)).hex()[:8]
    assert found == name
