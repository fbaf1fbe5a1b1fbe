"""The mandatory comparison of every graph in onnxruntime with torch.

The reference is written apart from the exported functions: eager modules, torch's own
cross_entropy and autograd, a plain loop over examples for the clipped sum. Four random batches at
three points, one of them with all weights zero. Export errors seen so far were large (gradients off
by 1.9) and silent, so nothing is written above 1e-4.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from gossipfl.authoring.functions import CLIP_EPSILON, FlatModel
from gossipfl.bundle.manifest import (
    DP_GRADIENT,
    EVALUATE,
    GRADIENT,
    PREDICT,
    DType,
    Task,
    TensorSpec,
)
from gossipfl.errors import UserError

ERROR_MAX = 1e-4  # float32 sums of a batch differ by under 1e-5 in every model seen
Feed = dict[str, torch.Tensor]


def session(graph: bytes) -> Any:
    """onnxruntime on these bytes: one thread, CPU only, no telemetry."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def check(
    model: FlatModel, task: Task, graphs: Mapping[str, bytes], feeds: list[Feed], dp_batch: int
) -> dict[str, float]:
    """The largest error per graph. Raises UserError GF402 if one is above ERROR_MAX.

    An error is |difference| / max(1, largest |reference value|) per output. dp_grad.onnx gets
    every batch as a device gives it: `dp_batch` examples at a time.
    """
    errors: dict[str, float] = {}
    for name, graph in graphs.items():
        runner = session(graph)
        names = [value.name for value in runner.get_inputs()]
        worst = 0.0
        pieces = feeds if name != DP_GRADIENT else [p for f in feeds for p in cut(f, dp_batch)]
        for feed in pieces:
            expected = reference(model, task, name, feed)
            found = runner.run(None, {n: feed[n].numpy() for n in names})
            for got, want in zip(found, expected, strict=True):
                worst = max(worst, _difference(got, want))
        errors[name] = worst
    bad = {name: error for name, error in errors.items() if not error <= ERROR_MAX}
    if bad:
        listed = ", ".join(f"{name} differs by {error:.1e}" for name, error in bad.items())
        raise UserError("GF402", f"self-check: {listed} from torch, at most {ERROR_MAX:.0e}")
    return errors


def cut(feed: Feed, size: int) -> list[Feed]:
    """The batch in pieces of `size` examples, the last one padded with weight zero."""
    pieces = []
    for start in range(0, len(feed["w"]), size):
        piece = dict(feed)
        for name in ("x", "y", "w"):
            rows = feed[name][start : start + size]
            empty = rows.new_zeros((size - len(rows), *rows.shape[1:]))
            piece[name] = torch.cat([rows, empty])
        pieces.append(piece)
    return pieces


def _difference(got: Any, want: torch.Tensor) -> float:
    expected = want.detach().numpy()
    if np.shape(got) != expected.shape or not np.isfinite(got).all():
        return float("inf")
    scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
    return float(np.abs(got - expected).max(initial=0.0)) / scale


def random_feeds(
    model: FlatModel,
    batch: int,
    inputs: TensorSpec,
    target: TensorSpec,
    classes: int,
    vocabulary: int | None,
) -> list[Feed]:
    """Four batches: dense at params0, two blank by half with padding, and all weights zero.

    Blank as pictures are: equal pixels make equal activations, and only on such ties a pooling
    gradient shows that it goes to the wrong place. The points of the two are opposite, so that
    each bias lets the blank pixels through in one of them.
    """
    generator = torch.Generator().manual_seed(20260704)
    initial = model.pack()
    shifted = initial + 0.1 * torch.randn(initial.shape, generator=generator)
    some = (torch.rand(batch, generator=generator) < 0.7).to(torch.float32)
    kinds = (
        (initial, torch.ones(batch), False),
        (shifted, some, True),
        (-shifted, some, True),
        (shifted, torch.zeros(batch), False),
    )
    feeds: list[Feed] = []
    for params, w, blank in kinds:
        x = _draw(generator, batch, inputs, vocabulary or 1)
        if blank:
            x.reshape(batch, -1)[:, : inputs.elements // 2] = 0
        y = _draw(generator, batch, target, classes)
        feeds.append({"params": params, "x": x, "y": y, "w": w})
    return feeds


def _draw(generator: torch.Generator, batch: int, spec: TensorSpec, below: int) -> torch.Tensor:
    shape = (batch, *spec.shape)
    if spec.dtype is DType.I64:
        return torch.randint(0, below, shape, generator=generator)
    return torch.randn(shape, generator=generator)


def add_clip(model: FlatModel, task: Task, feeds: list[Feed]) -> None:
    """A clip that cuts about half of the examples, so that both sides are seen."""
    for feed in feeds:
        norms = [g.norm() for g, _ in _each(model, task, feed)]
        feed["clip"] = torch.stack(norms).median().clamp(min=1e-3)


def reference(model: FlatModel, task: Task, name: str, feed: Feed) -> list[torch.Tensor]:
    """What torch says that the graph `name` must give."""
    with torch.enable_grad():
        params = feed["params"].clone().requires_grad_(True)
        output = model.call(params, feed["x"])
        if name == PREDICT:
            return [output.detach()]
        losses = _losses(task, output, feed["y"])
        weight = feed["w"].sum().clamp(min=1.0)
        loss = (losses * feed["w"]).sum() / weight
        if name == GRADIENT:
            (grads,) = torch.autograd.grad(loss, params)
            return [grads, loss.detach()]
    if name == EVALUATE:
        return [(losses * feed["w"]).sum().detach(), _correct(task, output, feed)]
    if name == DP_GRADIENT:
        total = torch.zeros_like(params)
        for (grads, _), w in zip(_each(model, task, feed), feed["w"], strict=True):
            total = total + w * grads * min(1.0, feed["clip"] / (grads.norm() + CLIP_EPSILON))
        return [total.detach(), loss.detach()]
    raise ValueError(f"no reference for {name}")


def _losses(task: Task, output: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    if task is Task.REGRESSION:
        losses = 0.5 * functional.mse_loss(output, y, reduction="none")
    else:
        last = output.movedim(-1, 1)  # cross_entropy wants classes second
        losses = functional.cross_entropy(last, y, reduction="none")
    return losses.flatten(1).mean(1) if losses.dim() > 1 else losses


def _correct(task: Task, output: torch.Tensor, feed: Feed) -> torch.Tensor:
    if task is Task.REGRESSION:
        return torch.zeros(())
    right = (output.argmax(-1) == feed["y"]).to(torch.float32)
    right = right.flatten(1).mean(1) if right.dim() > 1 else right
    return (right * feed["w"]).sum()


def _each(model: FlatModel, task: Task, feed: Feed) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(gradient, loss) of each example by itself."""
    found = []
    for x, y in zip(feed["x"], feed["y"], strict=True):
        params = feed["params"].clone().requires_grad_(True)
        loss = _losses(task, model.call(params, x[None]), y[None]).sum()
        (grads,) = torch.autograd.grad(loss, params)
        found.append((grads.detach(), loss.detach()))
    return found
