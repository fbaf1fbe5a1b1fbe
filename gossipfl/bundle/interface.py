"""The inputs and outputs that each graph of a bundle has, by name, type and static shape."""

from __future__ import annotations

from dataclasses import dataclass

from gossipfl.bundle.manifest import (
    DP_GRADIENT,
    EVALUATE,
    GRADIENT,
    PREDICT,
    DType,
    Manifest,
)


@dataclass(frozen=True, slots=True)
class Port:
    """One input or output; a shape of () is a scalar."""

    name: str
    dtype: str
    shape: tuple[int, ...]


def ports(graph: str, manifest: Manifest) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """(inputs, outputs) of the file `graph`, in order."""
    f32 = DType.F32.value
    count, batch = manifest.parameters.count, manifest.batch
    if graph == DP_GRADIENT:
        batch = manifest.private_batch
    params = Port("params", f32, (count,))
    x = Port("x", manifest.input.dtype.value, (batch, *manifest.input.shape))
    y = Port("y", manifest.target.dtype.value, (batch, *manifest.target.shape))
    w = Port("w", f32, (batch,))
    clip = Port("clip", f32, ())
    loss = Port("loss", f32, ())
    by_name: dict[str, tuple[tuple[Port, ...], tuple[Port, ...]]] = {
        GRADIENT: ((params, x, y, w), (Port("grads", f32, (count,)), loss)),
        DP_GRADIENT: ((params, x, y, w, clip), (Port("grad_sum", f32, (count,)), loss)),
        EVALUATE: ((params, x, y, w), (Port("loss_sum", f32, ()), Port("correct", f32, ()))),
        PREDICT: ((params, x), (Port("logits", f32, manifest.logits_shape),)),
    }
    return by_name[graph]
