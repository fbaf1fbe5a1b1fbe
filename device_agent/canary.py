"""The canary example of a privacy audit: its gradient comes from a shipped bundle's real graph."""

from __future__ import annotations

import numpy as np

from device_agent.batches import Examples
from device_agent.clipped import ClippedSums
from gossipfl import bundles
from gossipfl.bundle import archive
from gossipfl.privacy.canaries import LOUD, Canary


def canary() -> Canary:
    """One example far longer than the clip, through dp_grad.onnx of the smallest bundle."""
    bundle = archive.read(bundles.read_bytes(bundles.DIGITS_LOGISTIC))
    x = np.full((1, 64), LOUD * 16.0)
    sums = ClippedSums(bundle, Examples(bundle.manifest, x, np.array([3]), "audit"))
    return Canary(bundle.initial, sums)
