"""Using what was learnt: predictions on this device, and an ordinary ONNX file to take away.

Both run the very same graph: `predict.onnx` with the parameters inside as an initialiser and the
manifest's scaling around it. So an exported model gives exactly what `predict` gives.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from device_agent.batches import Array, pad, raw_inputs
from device_agent.runtime import session
from gossipfl.bundle.archive import Bundle
from gossipfl.bundle.manifest import PREDICT, DType, Manifest, Task
from gossipfl.errors import UserError
from gossipfl.parameters import Vector

if TYPE_CHECKING:
    import onnx

METADATA_PREFIX = "gossipfl."


@dataclass(frozen=True, slots=True)
class Prediction:
    """For N inputs. Classification and sequences: classes and probabilities; else values."""

    outputs: Array  # f32 [N, ...]: logits, or values in the units of the raw targets
    classes: Array | None = None  # i64 [N, ...]
    probabilities: Array | None = None  # f32 [N, ..., classes]


def predict(bundle: Bundle, parameters: Vector, x: Array) -> Prediction:
    """The model's answer to raw inputs [N, ...]. Raises UserError GF405."""
    return predict_with(export_bytes(bundle, parameters), bundle, x)


def predict_with(model: bytes, bundle: Bundle, x: Array) -> Prediction:
    """The same with an exported model (`export_bytes`), so that many calls share the work."""
    manifest = bundle.manifest
    raw = raw_inputs(manifest, x)
    runner = session(model)
    batch = manifest.batch
    parts = []
    for start in range(0, len(raw), batch):
        piece = raw[start : start + batch]
        parts.append(runner.run(None, {"x": pad(piece, batch)})[0][: len(piece)])
    outputs = np.concatenate(parts) if parts else np.zeros((0, *manifest.logits_shape[1:]), "f4")
    if manifest.task is Task.REGRESSION:
        return Prediction(outputs)
    shifted = np.exp(outputs - outputs.max(-1, keepdims=True))
    probabilities = shifted / shifted.sum(-1, keepdims=True)
    return Prediction(outputs, outputs.argmax(-1), probabilities)


def export_onnx(
    bundle: Bundle, parameters: Vector, path: Path, metadata: Mapping[str, str]
) -> None:
    """Writes the model as one ordinary ONNX file: raw x [B, ...] -> logits or values.

    `metadata` (round, lineage and the like) lands in metadata_props under "gossipfl.". The batch
    B is fixed, as in the bundle: pad the last one. Raises UserError GF403.
    """
    data = export_bytes(bundle, parameters, metadata)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(name).replace(path)
    except OSError as error:
        raise UserError("GF403", f"{path}: {error.strerror or error}") from error


def export_bytes(
    bundle: Bundle, parameters: Vector, metadata: Mapping[str, str] | None = None
) -> bytes:
    """The bytes of `export_onnx`'s file."""
    import onnx
    from onnx import helper, numpy_helper

    manifest = bundle.manifest
    if parameters.shape != (bundle.layout.count,):
        raise UserError("GF405", f"{parameters.size} parameters, not {bundle.layout.count}")
    model = onnx.ModelProto.FromString(bundle.files[PREDICT])
    graph = model.graph
    inputs = [value for value in graph.input if value.name != "params"]
    del graph.input[:]
    graph.input.extend(inputs)
    graph.initializer.append(
        numpy_helper.from_array(np.ascontiguousarray(parameters, np.float32), "params")
    )
    _wrap_scaling(graph, manifest)
    model.producer_name = "gossipfl"
    texts = {"bundle": bundle.id.hex(), "task": manifest.task.value, "name": manifest.name}
    helper.set_model_props(
        model,
        {METADATA_PREFIX + key: value for key, value in {**texts, **(metadata or {})}.items()},
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _wrap_scaling(graph: onnx.GraphProto, manifest: Manifest) -> None:
    """The manifest's scaling as nodes: raw inputs in front, units of the raw targets behind."""
    from onnx import helper

    scaling = manifest.preprocessing
    if manifest.input.dtype is DType.F32 and (scaling.scale, scaling.offset) != (1.0, 0.0):
        _rename(graph, "x", "x_scaled")
        before = [
            helper.make_node("Mul", ["x", "x_scale"], ["x_times_scale"]),
            helper.make_node("Add", ["x_times_scale", "x_offset"], ["x_scaled"]),
        ]
        nodes = [*before, *graph.node]
        del graph.node[:]
        graph.node.extend(nodes)
        _scalars(graph, x_scale=scaling.scale, x_offset=scaling.offset)
    targets = (scaling.target_scale, scaling.target_offset)
    if manifest.task is Task.REGRESSION and targets != (1.0, 0.0):
        _rename(graph, "logits", "logits_scaled")
        graph.node.append(
            helper.make_node("Sub", ["logits_scaled", "y_offset"], ["logits_shifted"])
        )
        graph.node.append(helper.make_node("Div", ["logits_shifted", "y_scale"], ["logits"]))
        _scalars(graph, y_scale=scaling.target_scale, y_offset=scaling.target_offset)


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Renames a value among the nodes; the graph's own inputs and outputs keep their names."""
    for node in graph.node:
        for names in (node.input, node.output):
            for position, name in enumerate(names):
                if name == old:
                    names[position] = new


def _scalars(graph: onnx.GraphProto, **values: float) -> None:
    from onnx import numpy_helper

    for name, value in values.items():
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
