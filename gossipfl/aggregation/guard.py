"""Guards around a rule: what may enter a merge, and when its outcome is thrown away."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from gossipfl.aggregation.linear import STREAM_CHUNK
from gossipfl.errors import Fault, PeerError
from gossipfl.parameters import require_finite


def require_mergeable(vector: npt.NDArray[Any], count: int, norm_max: float) -> float:
    """The norm of a model that may enter a merge: float32[count], finite, norm at most norm_max.

    Raises PeerError with WRONG_LENGTH, MALFORMED (not float32), NOT_FINITE or NORM_BOUND. The
    caller knows the peer and sets it.
    """
    if vector.shape != (count,):
        shape = "x".join(str(size) for size in vector.shape)
        raise PeerError(Fault.WRONG_LENGTH, f"update has shape {shape}, expected {count}")
    if vector.dtype != np.float32:
        raise PeerError(Fault.MALFORMED, f"update is {vector.dtype}, expected float32")
    total = 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, count, STREAM_CHUNK):
            part = vector[start : start + STREAM_CHUNK]
            square = float(np.dot(part, part))
            if not math.isfinite(square):
                require_finite(part)
                wide = part.astype(np.float64)  # finite values whose squares overflow float32
                square = float(wide.dot(wide))
            total += square
    norm = math.sqrt(total)
    if not norm <= norm_max:  # so that a bound that is not a number refuses all
        raise PeerError(Fault.NORM_BOUND, f"update has norm {norm:.6g}, the bound is {norm_max:g}")
    return norm


def catastrophic(loss_merged: float, loss_accepted: float, nats: float = 1.0) -> bool:
    """Whether to keep the old model: the merged one's loss on local data is far beyond the last.

    loss_merged, loss_accepted: mean loss in nats per example of the merged model and of the last
    accepted one. One nat is a guess that held in probes, where a strict "not worse than mine" test
    ruined learning (87 to 60 %, 80 to 29 %). A merged loss that is not finite is catastrophic; an
    accepted loss that is not finite forbids nothing else. Not for use with a privacy policy.
    """
    if not math.isfinite(loss_merged):
        return True
    return math.isfinite(loss_accepted) and loss_merged > loss_accepted + nats
