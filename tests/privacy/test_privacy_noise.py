"""The stream and the noise: distribution, independence, reach. A seeded key stands for the OS."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from gossipfl.privacy.stream import RADIUS_MAX, REACH, Stream, box_muller

CHI_Z_MAX = 4.5  # of the normal approximation of a chi-square: 3 in 10^6 runs
TAIL_MIN = 20.0  # cells expected to hold fewer are put together


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def phi(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2.0))


def chi_square(samples: npt.NDArray[np.float64], scale: float) -> float:
    """How many deviations the chi-square against the rounded Gaussian lies above its mean.

    The larger of two: each integer a cell, and about 48 cells, which see small shifts of the whole.
    """
    return max(_chi_square(samples, scale, width) for width in {1, 1 + int(scale / 4)})


def _chi_square(samples: npt.NDArray[np.float64], scale: float, width: int) -> float:
    reach = math.ceil(6 * scale / width) * width
    edges = np.arange(-reach, reach + width + 1, width) - 0.5
    cdf = np.array([phi(edge / scale) for edge in edges])
    expected = np.concatenate([[cdf[0]], np.diff(cdf), [1.0 - cdf[-1]]]) * len(samples)
    cells = np.floor((samples + reach) / width).astype(np.int64) + 1
    cells = np.clip(cells, 0, len(expected) - 1)
    found = np.bincount(cells, minlength=len(expected)).astype(float)
    keep = expected >= TAIL_MIN
    observed = np.append(found[keep], found[~keep].sum())
    wanted = np.append(expected[keep], expected[~keep].sum())
    chi = float(((observed - wanted) ** 2 / np.maximum(wanted, 1e-300)).sum())
    degrees = len(observed) - 1
    return (chi - degrees) / math.sqrt(2 * degrees)


@pytest.mark.parametrize("scale", [0.4, 1.0, 7.3, 1000.0])
def test_noise_is_the_rounded_gaussian(scale: float) -> None:
    samples = Stream(key(int(scale * 10))).noise(1_000_000, scale)
    assert (samples == np.rint(samples)).all()
    assert chi_square(samples, scale) < CHI_Z_MAX


@pytest.mark.slow
def test_noise_is_the_rounded_gaussian_in_ten_million_samples() -> None:
    assert chi_square(Stream(key(1)).noise(10_000_000, 1000.0), 1000.0) < CHI_Z_MAX


def test_the_chi_square_sees_a_hundredth_of_a_deviation() -> None:
    """Otherwise the two tests above would show nothing."""
    samples = Stream(key(2)).noise(1_000_000, 1000.0)
    assert chi_square(samples, 1010.0) > CHI_Z_MAX
    assert chi_square(samples + 10.0, 1000.0) > CHI_Z_MAX


def test_neighbouring_values_of_a_stream_are_not_related() -> None:
    samples = Stream(key(3)).noise(1_000_001, 100.0)  # an odd count, cut inside a pair
    half = len(samples) // 2
    pairs = {
        "next": (samples[:-1], samples[1:]),
        "cosine and sine": (samples[:8000], samples[8192 : 8192 + 8000]),
        "halves": (samples[:half], samples[half : 2 * half]),
    }
    for name, (a, b) in pairs.items():
        assert abs(np.corrcoef(a, b)[0, 1]) < 4.5 / math.sqrt(len(a)), name
        assert abs(np.corrcoef(a * a, b * b)[0, 1]) < 4.5 / math.sqrt(len(a)), name


def test_two_keys_give_two_streams_and_one_stream_never_repeats() -> None:
    stream = Stream(key(4))
    first, second = stream.words(1000), stream.words(1000)
    assert not (first == second).any()
    assert not (first == Stream(key(5)).words(1000)).any()
    assert (first == Stream(key(4)).words(1000)).all()


def test_keys_of_another_length_are_refused() -> None:
    for length in (0, 31, 33):
        with pytest.raises(ValueError, match="key of"):
            Stream(bytes(length))


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf, 2.0**49])
def test_a_scale_that_makes_no_noise_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match="noise of scale"):
        Stream(key(6)).noise(10, scale)


def test_every_integer_within_reach_can_come_out() -> None:
    """For each there is a pair of words that gives it: the smallest radius word reaches 9.49."""
    scale = 4.0
    reach = math.floor(REACH * scale)
    angles = np.linspace(0, 2**64 - 2**12, 100_000).astype(np.uint64)
    radii = np.zeros(len(angles), np.uint64)
    cosines, sines = box_muller(radii, angles, scale)
    assert set(range(-reach, reach + 1)) <= set(cosines.astype(int)) & set(sines.astype(int))
    assert max(cosines.max(), sines.max()) <= math.ceil(RADIUS_MAX * scale)


def test_extreme_words_give_finite_noise() -> None:
    words = np.array([0, 1, 2**63, 2**64 - 1], np.uint64)
    for angle in words:
        for part in box_muller(words, np.full(4, angle, np.uint64), 1e6):
            assert np.isfinite(part).all()


def test_uniform_numbers_are_uniform_and_below_one() -> None:
    for name in ("uniform", "uniform_coarse"):
        values = getattr(Stream(key(7)), name)(100_001)
        assert len(values) == 100_001
        assert 0.0 <= values.min() < 0.001
        assert 0.999 < values.max() < 1.0
        counts = np.histogram(values, 50, (0.0, 1.0))[0]
        assert ((counts - 2000.0) ** 2 / 2000.0).sum() < 49 + 4.5 * math.sqrt(98)
