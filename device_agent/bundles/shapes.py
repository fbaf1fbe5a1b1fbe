"""Static shapes of every value in a graph, by ONNX's own inference.

Nothing declared inside the graph is trusted: it has no value_info (the walk refuses it), so each
shape follows from the inputs, the initialisers and the operators.
"""

from __future__ import annotations

import onnx
from onnx import helper

from gossipfl.bundle.refused import BundleRefused, Reason

Shapes = dict[str, tuple[int, list[int]]]
"""value name -> (TensorProto element type, dimensions); only values whose shape is static"""


def infer(model: onnx.ModelProto) -> Shapes:
    """Shapes of inputs, initialisers and node outputs. Raises BundleRefused on contradictions."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    for value in bare.graph.output:  # or a declared shape would pass for an inferred one
        value.type.tensor_type.ClearField("shape")
    try:
        inferred = onnx.shape_inference.infer_shapes(
            bare, check_type=True, strict_mode=True, data_prop=False
        )
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        raise BundleRefused(Reason.SHAPE, first) from error
    graph = inferred.graph
    shapes: Shapes = {t.name: (t.data_type, list(t.dims)) for t in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if not value.type.HasField("tensor_type") or not tensor.HasField("shape"):
            continue
        if all(dim.WhichOneof("value") == "dim_value" for dim in tensor.shape.dim):
            shapes[value.name] = (tensor.elem_type, [dim.dim_value for dim in tensor.shape.dim])
    return shapes


def infer_body(
    node: onnx.NodeProto,
    graph: onnx.GraphProto,
    body: onnx.GraphProto,
    outer: Shapes,
    opset: onnx.OperatorSetIdProto,
) -> Shapes:
    """Shapes inside the body of `node`, a Scan of `graph`: its inputs are what the Scan feeds.

    The last `num_scan_inputs` lose their first axis; outer values are captured by name.
    """
    count = next(a.i for a in node.attribute if a.name == "num_scan_inputs")
    states = len(node.input) - count
    inputs = []
    for position, (value, source) in enumerate(zip(body.input, node.input, strict=True)):
        if source not in outer:
            raise BundleRefused(Reason.SHAPE, f"the shape of {source[:80]!r} is not static")
        kind, dims = outer[source]
        inputs.append(_value(value.name, kind, dims if position < states else dims[1:]))
    own = {value.name for value in body.input} | {t.name for t in body.initializer}
    made = {output for inner in body.node for output in inner.output}
    used = {name for inner in body.node for name in inner.input if name}
    constants = {t.name: t for t in graph.initializer}
    initializers = list(body.initializer)
    for name in sorted(used - own - made):
        if name in constants:
            initializers.append(constants[name])
        elif name in outer:
            inputs.append(_value(name, *outer[name]))
        else:
            raise BundleRefused(Reason.MALFORMED, f"{name[:80]!r} comes from nowhere")
    outputs = [
        _value(value.name, *outer[state])
        for value, state in zip(body.output, node.input[:states], strict=True)
    ]
    alone = helper.make_graph(list(body.node), "body", inputs, outputs, initializer=initializers)
    return infer(helper.make_model(alone, opset_imports=[opset]))


def _value(name: str, kind: int, dims: list[int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, dims)
