"""What may enter a merge, and when its outcome is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from gossipfl.aggregation import catastrophic, require_mergeable
from gossipfl.aggregation.linear import STREAM_CHUNK
from gossipfl.errors import Fault, PeerError

INF, NAN = math.inf, math.nan


def ones(count: int, **changes: float) -> np.ndarray[Any, Any]:
    vector = np.ones(count, np.float32)
    for at, value in changes.items():
        vector[int(at[1:])] = value
    return vector


@pytest.mark.parametrize(
    ("vector", "fault"),
    [
        (ones(99), Fault.WRONG_LENGTH),
        (ones(101), Fault.WRONG_LENGTH),
        (ones(100).reshape(10, 10), Fault.WRONG_LENGTH),
        (ones(100).astype(np.float64), Fault.MALFORMED),
        (ones(100).astype(np.int32), Fault.MALFORMED),
        (ones(100, _0=NAN), Fault.NOT_FINITE),
        (ones(100, _99=INF), Fault.NOT_FINITE),
        (ones(100, _50=-INF), Fault.NOT_FINITE),
        (ones(100, _3=11.0), Fault.NORM_BOUND),
        (ones(100, _3=3e38), Fault.NORM_BOUND),  # its square overflows float32, yet it is finite
    ],
)
def test_each_fault_has_its_name(vector: np.ndarray[Any, Any], fault: Fault) -> None:
    with pytest.raises(PeerError) as error:
        require_mergeable(vector, 100, norm_max=11.0)
    assert error.value.fault is fault


def test_norm_is_right_up_to_the_bound() -> None:
    assert require_mergeable(ones(100), 100, norm_max=10.0) == pytest.approx(10.0)
    long = ones(STREAM_CHUNK * 2 + 1)
    assert require_mergeable(long, long.size, 1e9) == pytest.approx(math.sqrt(long.size), rel=1e-6)
    assert require_mergeable(ones(4, _0=2e38, _1=2e38), 4, 1e39) == pytest.approx(2e38 * 2**0.5)


@pytest.mark.parametrize("at", [0, STREAM_CHUNK - 1, STREAM_CHUNK, STREAM_CHUNK * 2])
def test_nan_is_found_in_every_chunk(at: int) -> None:
    vector = np.zeros(STREAM_CHUNK * 2 + 1, np.float32)
    vector[at] = NAN
    with pytest.raises(PeerError, match="not finite"):
        require_mergeable(vector, vector.size, 1.0)


def test_a_bound_that_is_no_number_refuses_all() -> None:
    with pytest.raises(PeerError):
        require_mergeable(ones(4), 4, NAN)


@pytest.mark.parametrize(
    ("merged", "accepted", "expected"),
    [
        (1.0, 1.0, False),
        (1.9, 1.0, False),  # worse, but not a catastrophe: a strict test ruins learning
        (2.0, 1.0, False),
        (2.1, 1.0, True),
        (0.1, 5.0, False),
        (NAN, 1.0, True),
        (INF, 1.0, True),
        (NAN, NAN, True),
        (3.0, NAN, False),  # nothing to lose
        (3.0, INF, False),
    ],
)
def test_catastrophe_is_one_nat(merged: float, accepted: float, expected: bool) -> None:
    assert catastrophic(merged, accepted) is expected


def test_the_threshold_can_be_set() -> None:
    assert catastrophic(1.3, 1.0, nats=0.2)
    assert not catastrophic(3.0, 1.0, nats=5.0)
