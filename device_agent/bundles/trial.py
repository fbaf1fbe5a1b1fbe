"""The dry run: load every graph, run it on the self-test batch, compare, measure.

Beside the author's own figures the graphs are compared with each other: the clipped sum with a
clip that never cuts is the plain gradient, with a small clip it is as short as it promises, the
evaluation's loss is the gradient's loss. A bundle whose dp_grad.onnx does not clip is refused here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from device_agent.batches import pad
from device_agent.runtime import Session, session
from gossipfl.bundle.archive import Bundle
from gossipfl.bundle.interface import ports
from gossipfl.bundle.manifest import DP_GRADIENT, EVALUATE, GRADIENT, GRAPHS, PREDICT
from gossipfl.bundle.refused import BundleRefused, Reason
from gossipfl.bundle.selftest import selftest_batch

STEPS = 5  # timed; the median is told
CLIP_SHARE = 0.01  # of the mean gradient's norm: a clip that cuts at least one example
CLIPPED_ALONE = 8  # examples that are also clipped one by one
FLOOR = 1e-6  # absolute part of every comparison: float32 next to zero
Feed = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Trial:
    """What the dry run saw: the median time of one gradient step."""

    step_ms: float


def run(bundle: Bundle, sessions: Callable[[bytes], Session] = session) -> Trial:
    """Loads and runs all graphs. Raises BundleRefused on any difference."""
    batch = selftest_batch(bundle.manifest)
    feed: Feed = {"params": bundle.initial, "x": batch.x, "y": batch.y, "w": batch.w}
    loaded = {name: _load(name, bundle.files[name], sessions) for name in GRAPHS}
    grads, loss = _run(loaded, GRADIENT, bundle, feed)
    _compare_with_author(bundle, grads, float(loss))
    _compare_parts(bundle, loaded, feed, grads, float(loss))
    times = []
    for _ in range(STEPS):
        start = time.perf_counter()
        _run(loaded, GRADIENT, bundle, feed)
        times.append((time.perf_counter() - start) * 1e3)
    return Trial(step_ms=sorted(times)[STEPS // 2])


def _load(name: str, graph: bytes, sessions: Callable[[bytes], Session]) -> Session:
    try:
        return sessions(graph)
    except Exception as error:  # onnxruntime's errors share no base class
        raise BundleRefused(Reason.RUNTIME, f"{name}: {_first_line(error)}") from error


def _run(loaded: Mapping[str, Session], name: str, bundle: Bundle, feed: Feed) -> list[Any]:
    inputs, outputs = ports(name, bundle.manifest)
    try:
        found: list[Any] = loaded[name].run(None, {port.name: feed[port.name] for port in inputs})
    except Exception as error:  # as above
        raise BundleRefused(Reason.RUNTIME, f"{name}: {_first_line(error)}") from error
    for port, value in zip(outputs, found, strict=True):
        if np.shape(value) != port.shape or value.dtype != np.float32:
            raise BundleRefused(Reason.INTERFACE, f"{name} gives {port.name} {np.shape(value)}")
        if not np.isfinite(value).all():
            raise BundleRefused(Reason.SELFTEST, f"{name} gives {port.name} that is not finite")
    return found


def _compare_with_author(bundle: Bundle, grads: Any, loss: float) -> None:
    expected = bundle.manifest.selftest
    norm = _norm(grads)
    for what, found, wanted in (
        ("gradient norm", norm, expected.gradient_norm),
        ("loss", loss, expected.loss),
    ):
        if not _near(found, wanted, expected.tolerance):
            raise BundleRefused(Reason.SELFTEST, f"{what} {found:.6g}, declared {wanted:.6g}")


def _compare_parts(
    bundle: Bundle, loaded: Mapping[str, Session], feed: Feed, grads: Any, loss: float
) -> None:
    tolerance = bundle.manifest.selftest.tolerance
    weight = max(float(feed["w"].sum()), 1.0)
    loss_sum, correct = _run(loaded, EVALUATE, bundle, feed)
    if not _near(float(loss_sum) / weight, loss, tolerance):
        raise BundleRefused(Reason.SELFTEST, f"{EVALUATE} and {GRADIENT} give different losses")
    if not 0.0 <= float(correct) <= weight:
        raise BundleRefused(Reason.SELFTEST, f"{EVALUATE} counts {float(correct)} of {weight}")
    _run(loaded, PREDICT, bundle, feed)
    total, dp_loss = _clipped(bundle, loaded, feed, 1e9)
    if _norm(total / weight - grads) > tolerance * _norm(grads) + FLOOR:
        raise BundleRefused(Reason.SELFTEST, f"{DP_GRADIENT} sums other gradients")
    if not _near(dp_loss, loss, tolerance):
        raise BundleRefused(Reason.SELFTEST, f"{DP_GRADIENT} and {GRADIENT} give different losses")
    _check_clipping(bundle, loaded, feed, _norm(grads))
    silent = {**feed, "w": np.zeros_like(feed["w"])}
    learnt = {
        GRADIENT: _run(loaded, GRADIENT, bundle, silent)[0],
        DP_GRADIENT: _clipped(bundle, loaded, silent, 1.0)[0],
    }
    for name, what in learnt.items():
        if np.any(what):
            raise BundleRefused(Reason.SELFTEST, f"{name} learns from examples of weight zero")


def _clipped(
    bundle: Bundle, loaded: Mapping[str, Session], feed: Feed, clip: float
) -> tuple[Any, float]:
    """(float64[P], loss) of the whole batch by dp_grad.onnx, as many at a time as it takes."""
    total, loss_sum = np.zeros(bundle.layout.count), 0.0
    for part in _parts(bundle, feed):
        found, loss = _run(
            loaded, DP_GRADIENT, bundle, {**part, "clip": np.array(clip, np.float32)}
        )
        total += found
        loss_sum += float(loss) * max(float(part["w"].sum()), 1.0)
    return total, loss_sum / max(float(feed["w"].sum()), 1.0)


def _parts(bundle: Bundle, feed: Feed) -> Iterator[Feed]:
    """The batch in pieces for dp_grad.onnx, the last one padded with weight zero."""
    rows = bundle.manifest.private_batch
    for start in range(0, bundle.manifest.batch, rows):
        cut = {name: pad(feed[name][start : start + rows], rows) for name in ("x", "y", "w")}
        yield {**feed, **cut}


def _check_clipping(bundle: Bundle, loaded: Mapping[str, Session], feed: Feed, norm: float) -> None:
    """Each example is clipped by itself: alone it is no longer than the clip, and sums add up.

    A graph that clips the sum instead would pass for one that protects single examples.
    """
    clip = max(CLIP_SHARE * norm, FLOOR)
    tolerance = bundle.manifest.selftest.tolerance
    count = min(CLIPPED_ALONE, bundle.manifest.private_batch)
    first = next(_parts(bundle, feed))  # all in one run, or nothing is seen of what they share

    def clipped(w: Any) -> Any:
        cut = {**first, "w": w, "clip": np.array(clip, np.float32)}
        return _run(loaded, DP_GRADIENT, bundle, cut)[0]

    some = np.zeros_like(first["w"])
    some[:count] = 1.0
    together, total = clipped(some), np.zeros(bundle.layout.count)
    for number in range(count):
        one = np.zeros_like(some)
        one[number] = 1.0
        alone = clipped(one)
        if _norm(alone) > clip * (1.0 + tolerance):
            raise BundleRefused(Reason.SELFTEST, f"{DP_GRADIENT} does not clip each example")
        total += alone
    if _norm(together - total) > tolerance * count * clip:
        raise BundleRefused(Reason.SELFTEST, f"{DP_GRADIENT} does not clip example by example")


def _near(found: float, wanted: float, tolerance: float) -> bool:
    return abs(found - wanted) <= tolerance * abs(wanted) + FLOOR


def _norm(vector: Any) -> float:
    return math.sqrt(float(np.dot(vector.astype(np.float64), vector.astype(np.float64))))


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
