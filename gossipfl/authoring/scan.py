"""Per-example clipping as a Scan over a one-example gradient graph.

`vmap` holds all B gradients of P parameters at once. Above a memory limit the same sum is built
as an ONNX Scan (operators/Scan, opset 19): its body is the gradient of one example, its carried
state the clipped sum, so memory is that of one gradient. Quick enough for convolutions, slower for
small perceptrons.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gossipfl.authoring.export import IR_VERSION, rename
from gossipfl.authoring.functions import CLIP_EPSILON

VMAP_BYTES_MAX = 64 * 1024 * 1024
_PREFIX = "b"  # names of the body must not meet those of the outer graph: a Scan captures them


def clipped_sum(single: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """dp_grad.onnx from the graph (params, x, y) -> (grads, loss) of one example.

    Inputs params, x[B, ...], y[B, ...], w[B], clip; outputs grad_sum, loss, where
    loss = sum(w l) / max(sum w, 1).
    """
    inputs = {value.name: value.type.tensor_type for value in single.graph.input}
    count = inputs["params"].shape.dim[0].dim_value
    outer = [
        helper.make_tensor_value_info("params", TensorProto.FLOAT, [count]),
        *(
            helper.make_tensor_value_info(
                name, inputs[name].elem_type, [batch, *_dims(inputs[name])]
            )
            for name in ("x", "y")
        ),
        helper.make_tensor_value_info("w", TensorProto.FLOAT, [batch]),
        helper.make_tensor_value_info("clip", TensorProto.FLOAT, []),
    ]
    constants = [
        numpy_helper.from_array(np.array([count], np.int64), "count"),
        numpy_helper.from_array(np.zeros((), np.float32), "zero"),
        numpy_helper.from_array(np.ones((), np.float32), "one"),
    ]
    nodes = [
        helper.make_node("Expand", ["zero", "count"], ["start"]),
        helper.make_node(
            "Scan",
            ["start", "zero", "x", "y", "w"],
            ["grad_sum", "loss_sum"],
            body=_body(single.graph, inputs, count),
            num_scan_inputs=3,
        ),
        helper.make_node("ReduceSum", ["w"], ["weight"], keepdims=0),
        helper.make_node("Max", ["weight", "one"], ["divisor"]),
        helper.make_node("Div", ["loss_sum", "divisor"], ["loss"]),
    ]
    outputs = [
        helper.make_tensor_value_info("grad_sum", TensorProto.FLOAT, [count]),
        helper.make_tensor_value_info("loss", TensorProto.FLOAT, []),
    ]
    graph = helper.make_graph(nodes, "gossipfl", outer, outputs, initializer=constants)
    model = helper.make_model(graph, opset_imports=list(single.opset_import), ir_version=IR_VERSION)
    model.ClearField("producer_name")
    onnx.checker.check_model(model, full_check=True)
    return model


def _dims(tensor: onnx.TypeProto.Tensor) -> list[int]:
    return [dim.dim_value for dim in tensor.shape.dim]


def _body(
    single: onnx.GraphProto, inputs: dict[str, onnx.TypeProto.Tensor], count: int
) -> onnx.GraphProto:
    """(sum, loss_sum, x_i, y_i, w_i) -> (sum', loss_sum'); `params` and `clip` are captured."""
    inner = onnx.GraphProto()
    inner.CopyFrom(single)
    rename(inner, _PREFIX)
    _retitle(inner, {"x": "bx", "y": "by", "grads": "bgrads", "loss": "bloss"})
    constants = [
        *inner.initializer,
        numpy_helper.from_array(np.full((), CLIP_EPSILON, np.float32), "bepsilon"),
        numpy_helper.from_array(np.ones((), np.float32), "bone"),
    ]
    nodes = [
        *inner.node,
        helper.make_node("Mul", ["bgrads", "bgrads"], ["bsquares"]),
        helper.make_node("ReduceSum", ["bsquares"], ["bsquare"], keepdims=0),
        helper.make_node("Sqrt", ["bsquare"], ["bnorm"]),
        helper.make_node("Add", ["bnorm", "bepsilon"], ["bsafe"]),
        helper.make_node("Div", ["clip", "bsafe"], ["bratio"]),
        helper.make_node("Min", ["bratio", "bone"], ["bcut"]),
        helper.make_node("Mul", ["bcut", "bw"], ["bfactor"]),
        helper.make_node("Mul", ["bgrads", "bfactor"], ["bclipped"]),
        helper.make_node("Add", ["bsum", "bclipped"], ["bsum_next"]),
        helper.make_node("Mul", ["bloss", "bw"], ["bweighted"]),
        helper.make_node("Add", ["btotal", "bweighted"], ["btotal_next"]),
    ]
    value = helper.make_tensor_value_info
    return helper.make_graph(
        nodes,
        "example",
        [
            value("bsum", TensorProto.FLOAT, [count]),
            value("btotal", TensorProto.FLOAT, []),
            value("bx", inputs["x"].elem_type, _dims(inputs["x"])),
            value("by", inputs["y"].elem_type, _dims(inputs["y"])),
            value("bw", TensorProto.FLOAT, []),
        ],
        [
            value("bsum_next", TensorProto.FLOAT, [count]),
            value("btotal_next", TensorProto.FLOAT, []),
        ],
        initializer=constants,
    )


def _retitle(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    for node in graph.node:
        inputs = [names.get(i, i) for i in node.input]
        outputs = [names.get(o, o) for o in node.output]
        del node.input[:], node.output[:]
        node.input.extend(inputs)
        node.output.extend(outputs)
