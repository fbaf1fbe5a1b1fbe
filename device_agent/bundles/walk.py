"""The static walk over one ONNX graph: what it may contain, before any of it is executed.

`onnx.checker` is one of the checks, not the check: it accepts custom domains, com.microsoft
operators, opset 99, an endless Loop, a ConstantOfShape of terabytes and relative external files.
Runs in the limited child only; it is the one user of `onnx` there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, TensorProto

from device_agent.bundles.operators import ALLOWED, SCAN, SHAPE_INPUTS
from device_agent.bundles.shapes import Shapes, infer, infer_body
from gossipfl.bundle.interface import Port, ports
from gossipfl.bundle.manifest import DP_GRADIENT, Manifest
from gossipfl.bundle.refused import BundleRefused, Reason

OPSET_MIN, OPSET_MAX = 17, 20  # 20 is what authoring writes and what onnxruntime 1.19 knows
IR_MIN, IR_MAX = 8, 10  # the IR versions that belong to those opsets
NODES_MAX = 5_000
ELEMENTS_MAX = 64 * 1024 * 1024  # of one tensor: 256 MiB of float32, the largest parameters allowed
ATTRIBUTE_TEXT_MAX = 64
ELEMENT_TYPES: frozenset[int] = frozenset(
    {TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL}
)
_ATTRIBUTE_KINDS: frozenset[int] = frozenset(
    {
        AttributeProto.FLOAT,
        AttributeProto.INT,
        AttributeProto.STRING,
        AttributeProto.TENSOR,
        AttributeProto.FLOATS,
        AttributeProto.INTS,
    }
)
_ODD_LISTS = ("tensors", "graphs", "sparse_tensors", "type_protos", "strings")


@dataclass(frozen=True, slots=True)
class Walked:
    """What `bundle check` tells about a graph."""

    nodes: int
    operators: tuple[str, ...]


def walk(name: str, data: bytes, manifest: Manifest) -> Walked:
    """All static checks on the file `name`. Raises BundleRefused."""
    model = _parse(data)
    _check_model(model)
    graph = model.graph
    nodes = list(_all_nodes(graph))
    if len(nodes) > NODES_MAX:
        raise BundleRefused(Reason.TOO_LARGE, f"{name} has more than {NODES_MAX} nodes")
    _check_graph(graph, constants=frozenset(), scan_allowed=name == DP_GRADIENT)
    _check_ports(name, graph, manifest)
    try:
        onnx.checker.check_model(model, full_check=False)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise BundleRefused(Reason.MALFORMED, _first_line(error)) from error
    shapes = infer(model)
    _check_shapes(graph, shapes, model.opset_import[0])
    _check_outputs(name, graph, manifest, shapes)
    return Walked(len(nodes), tuple(sorted({node.op_type for node in nodes})))


def _parse(data: bytes) -> onnx.ModelProto:
    try:
        model: onnx.ModelProto = onnx.ModelProto.FromString(data)
    except (DecodeError, ValueError) as error:
        raise BundleRefused(Reason.MALFORMED, _first_line(error)) from error
    if not model.HasField("graph"):
        raise BundleRefused(Reason.MALFORMED, "no graph")
    return model


def _check_model(model: onnx.ModelProto) -> None:
    if not IR_MIN <= model.ir_version <= IR_MAX:
        raise BundleRefused(Reason.VERSION, f"IR version {model.ir_version}")
    domains = [opset.domain for opset in model.opset_import]
    if any(domains):
        raise BundleRefused(Reason.DOMAIN, repr(next(d for d in domains if d)[:80]))
    if len(domains) != 1:
        raise BundleRefused(Reason.VERSION, f"{len(domains)} opsets")
    opset = model.opset_import[0].version
    if not OPSET_MIN <= opset <= OPSET_MAX:
        raise BundleRefused(Reason.VERSION, f"opset {opset}, allowed {OPSET_MIN} to {OPSET_MAX}")
    for field in ("functions", "training_info", "metadata_props"):
        if len(getattr(model, field)):
            raise BundleRefused(Reason.CONSTRUCT, f"the model has {field}")


def _all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Nodes of the graph and of the graphs inside it (protobuf bounds the depth)."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _all_nodes(attribute.g)
            for inner in attribute.graphs:
                yield from _all_nodes(inner)


def _check_graph(graph: onnx.GraphProto, constants: frozenset[str], scan_allowed: bool) -> None:
    """Features, initialisers and nodes; `constants` are the initialisers of outer graphs."""
    for field in ("sparse_initializer", "quantization_annotation", "value_info", "metadata_props"):
        if len(getattr(graph, field)):
            raise BundleRefused(Reason.CONSTRUCT, f"the graph has {field}")
    own = {tensor.name for tensor in graph.initializer}
    if own & {value.name for value in graph.input}:
        raise BundleRefused(Reason.CONSTRUCT, "an initialiser that an input can replace")
    for tensor in graph.initializer:
        _check_tensor(tensor)
    constants = constants | own
    inputs = {value.name for value in graph.input}
    for node in graph.node:
        _check_node(node)
        if node.op_type == SCAN:
            if not scan_allowed:
                raise BundleRefused(Reason.OPERATOR, "Scan here")
            _check_scan(node, inputs)
            _check_graph(_body(node), constants, scan_allowed=False)
            continue
        if node.op_type not in ALLOWED:
            raise BundleRefused(Reason.OPERATOR, repr(node.op_type[:80]))
        for index in SHAPE_INPUTS.get(node.op_type, ()):
            operand = node.input[index] if index < len(node.input) else ""
            if operand and operand not in constants:
                raise BundleRefused(
                    Reason.SHAPE, f"input {index} of {node.op_type} is computed, not a constant"
                )


def _check_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_location != TensorProto.DEFAULT or len(tensor.external_data):
        raise BundleRefused(Reason.EXTERNAL, f"tensor {tensor.name[:80]!r}")
    if tensor.data_type not in ELEMENT_TYPES or tensor.string_data or tensor.HasField("segment"):
        raise BundleRefused(Reason.CONSTRUCT, f"tensor {tensor.name[:80]!r} of a type not allowed")
    _check_dims(tensor.name, tensor.dims, least=0)


def _check_dims(name: str, dims: Iterable[int], least: int = 1) -> None:
    dims = list(dims)
    if any(dim < least for dim in dims):
        raise BundleRefused(Reason.SHAPE, f"{name[:80]!r} has the shape {dims[:8]}")
    if math.prod(dims) > ELEMENTS_MAX:
        raise BundleRefused(
            Reason.TOO_LARGE,
            f"{name[:80]!r} has {math.prod(dims)} elements, at most {ELEMENTS_MAX}",
        )


def _check_node(node: onnx.NodeProto) -> None:
    if node.domain:
        raise BundleRefused(Reason.DOMAIN, f"{node.domain[:80]!r} ({node.op_type[:80]})")
    if getattr(node, "overload", ""):
        raise BundleRefused(Reason.CONSTRUCT, f"{node.op_type[:80]} with an overload")
    for attribute in node.attribute:
        where = f"{node.op_type[:80]}.{attribute.name[:80]}"
        if attribute.ref_attr_name:
            raise BundleRefused(Reason.CONSTRUCT, f"{where} refers to a function's attribute")
        if any(len(getattr(attribute, field)) for field in _ODD_LISTS):
            raise BundleRefused(Reason.CONSTRUCT, f"{where} holds an odd list")
        if attribute.HasField("sparse_tensor") or attribute.HasField("tp"):
            raise BundleRefused(Reason.CONSTRUCT, f"{where} holds an odd type")
        if len(attribute.s) > ATTRIBUTE_TEXT_MAX:
            raise BundleRefused(Reason.CONSTRUCT, f"{where} is a long text")
        if attribute.HasField("t"):
            _check_tensor(attribute.t)
        body = node.op_type == SCAN and attribute.name == "body"
        if attribute.type == AttributeProto.GRAPH and body:
            continue
        if attribute.HasField("g") or attribute.type not in _ATTRIBUTE_KINDS:
            raise BundleRefused(Reason.OPERATOR, f"{where} holds a graph or an odd type")


def _check_scan(node: onnx.NodeProto, inputs: set[str]) -> None:
    """It runs over the batch and nothing else: its scanned inputs are inputs of the graph."""
    found = {attribute.name: attribute for attribute in node.attribute}
    if set(found) != {"body", "num_scan_inputs"}:
        raise BundleRefused(Reason.CONSTRUCT, "a Scan with axes or directions")
    count = found["num_scan_inputs"].i
    if not 1 <= count <= len(node.input) or not set(node.input[-count:]) <= inputs:
        raise BundleRefused(Reason.CONSTRUCT, "a Scan over something else than the inputs")
    states = len(node.input) - count
    body = _body(node)
    if len(body.input) != len(node.input) or len(body.output) != states:
        raise BundleRefused(Reason.CONSTRUCT, "a Scan that stacks outputs")


def _body(node: onnx.NodeProto) -> onnx.GraphProto:
    for attribute in node.attribute:
        if attribute.name == "body" and attribute.type == AttributeProto.GRAPH:
            body: onnx.GraphProto = attribute.g
            return body
    raise BundleRefused(Reason.CONSTRUCT, "a Scan without a body")


def _check_shapes(graph: onnx.GraphProto, shapes: Shapes, opset: onnx.OperatorSetIdProto) -> None:
    """Every value of the graph, and of Scan bodies, has a static shape within the caps."""
    for node in graph.node:
        for output in node.output:
            if not output:
                continue
            if output not in shapes:
                raise BundleRefused(
                    Reason.SHAPE, f"the shape of {output[:80]!r} ({node.op_type}) is not static"
                )
            kind, dims = shapes[output]
            if kind not in ELEMENT_TYPES:
                raise BundleRefused(Reason.CONSTRUCT, f"{output[:80]!r} of a type not allowed")
            _check_dims(output, dims)
        if node.op_type == SCAN:
            body = _body(node)
            _check_shapes(body, infer_body(node, graph, body, shapes, opset), opset)


def _check_ports(name: str, graph: onnx.GraphProto, manifest: Manifest) -> None:
    """Inputs are exactly what the manifest makes them; outputs have the right names."""
    wanted, outputs = ports(name, manifest)
    found = [_port(value) for value in graph.input]
    if found != list(wanted):
        raise BundleRefused(Reason.INTERFACE, f"inputs of {name}: {_list(found)}")
    names = [value.name for value in graph.output]
    if names != [port.name for port in outputs]:
        raise BundleRefused(Reason.INTERFACE, f"outputs of {name}: {names[:8]}")


def _check_outputs(name: str, graph: onnx.GraphProto, manifest: Manifest, shapes: Shapes) -> None:
    """Declared and inferred outputs are both what the manifest makes them."""
    _, wanted = ports(name, manifest)
    declared = [_port(value) for value in graph.output]
    inferred = [
        Port(port.name, _TYPE_NAMES.get(shapes[port.name][0], "?"), tuple(shapes[port.name][1]))
        for port in wanted
        if port.name in shapes
    ]
    for found in (declared, inferred):
        if found != list(wanted):
            raise BundleRefused(Reason.INTERFACE, f"outputs of {name}: {_list(found)}")


_TYPE_NAMES: dict[int, str] = {TensorProto.FLOAT: "f32", TensorProto.INT64: "i64"}


def _port(value: onnx.ValueInfoProto) -> Port:
    tensor = value.type.tensor_type
    dims = tuple(
        dim.dim_value if dim.WhichOneof("value") == "dim_value" else -1 for dim in tensor.shape.dim
    )
    return Port(value.name, _TYPE_NAMES.get(tensor.elem_type, "?"), dims)


def _list(found: list[Port]) -> str:
    return ", ".join(f"{p.name[:40]} {p.dtype}{list(p.shape)[:8]}" for p in found[:8])


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
