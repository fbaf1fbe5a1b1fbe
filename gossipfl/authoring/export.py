"""From a torch function to a small, static, standard ONNX graph.

`make_fx` unrolls the function (backward pass included) into core operators; the exporter writes
them as ONNX; then everything that is not arithmetic is stripped and named anew, so that equal
functions give equal bytes and no path of the author's machine gets out.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import onnx
import torch
from onnx import helper
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from gossipfl.authoring import decompositions
from gossipfl.authoring.decompositions import Unsupported

OPSET = 20  # loads in onnxruntime >= 1.19, the oldest that the device set allows
IR_VERSION = 10

# Operators whose presence in the traced graph means a layer that version 1 refuses.
_REFUSED = {
    "batch_norm": "BatchNorm mixes the examples of a batch: use GroupNorm or LayerNorm",
    "dropout": "Dropout is random: leave it out (or nn.Identity)",
    "bernoulli": "a random layer: its graph would not be a function of its inputs",
    "rand": "a random layer: its graph would not be a function of its inputs",
    "normal": "a random layer: its graph would not be a function of its inputs",
}


def export(
    function: Callable[..., Any], args: Sequence[Any], inputs: list[str], outputs: list[str]
) -> onnx.ModelProto:
    """`function(*args)` as a model with exactly these input and output names.

    Raises Unsupported for layers and operators that have no faithful form.
    """
    traced = _trace(function, args)
    try:
        with _quiet():
            program = torch.onnx.export(
                traced,
                tuple(args),
                dynamo=True,
                verbose=False,
                report=False,
                optimize=True,
                input_names=inputs,
                output_names=outputs,
                opset_version=OPSET,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise Unsupported(f"torch cannot write it as ONNX: {reason(error)}") from error
    if program is None:
        raise Unsupported("torch wrote no ONNX")
    model: onnx.ModelProto = program.model_proto
    _keep_unused_inputs(model, args, inputs)
    return tidy(model)


def _trace(function: Callable[..., Any], args: Sequence[Any]) -> torch.fx.GraphModule:
    try:
        # So that an LSTM is a loop and attention is matmuls and softmax, not one opaque call each.
        plain = (torch.backends.mkldnn.flags(enabled=False), sdpa_kernel(SDPBackend.MATH))
        with _quiet(), plain[0], plain[1]:
            traced = make_fx(
                function, decomposition_table=decompositions.table(), tracing_mode="real"
            )(*args)
    except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:
        raise Unsupported(f"torch cannot trace it: {reason(error)}") from error
    for node in traced.graph.nodes:
        if node.op != "call_function":
            continue
        name = str(node.target)
        for part, why in _REFUSED.items():
            if part in name.replace("rand_like", "rand"):
                raise Unsupported(f"{why} (found {name})")
    traced.graph.eliminate_dead_code()
    traced.recompile()
    return traced


def reason(error: BaseException) -> str:
    """The first line of the innermost cause: what an author can act on."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints progress and deprecations that say nothing to an author."""
    level = logging.root.manager.disable
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(level)


_ELEMENT = {torch.float32: onnx.TensorProto.FLOAT, torch.int64: onnx.TensorProto.INT64}


def _keep_unused_inputs(model: onnx.ModelProto, args: Sequence[Any], names: list[str]) -> None:
    """All declared inputs, in order, even one that the result does not depend on."""
    known = {value.name: value for value in model.graph.input}
    values = [
        known.get(name) or helper.make_tensor_value_info(name, _ELEMENT[arg.dtype], list(arg.shape))
        for name, arg in zip(names, args, strict=True)
    ]
    del model.graph.input[:]
    model.graph.input.extend(values)


def tidy(model: onnx.ModelProto) -> onnx.ModelProto:
    """Constants become initialisers; metadata, docs, node names and value names go."""
    graph = model.graph
    _lift_constants(graph)
    plain = helper.make_graph(
        list(graph.node),
        "gossipfl",
        list(graph.input),
        list(graph.output),
        initializer=list(graph.initializer),
    )
    rename(plain)
    for node in plain.node:
        node.ClearField("doc_string")
        node.ClearField("name")
        del node.metadata_props[:]
    for value in (*plain.input, *plain.output, *plain.initializer):
        value.ClearField("doc_string")
        del value.metadata_props[:]
    opsets = [o for o in model.opset_import if o.domain == ""]
    clean = helper.make_model(plain, opset_imports=opsets, ir_version=IR_VERSION)
    clean.ClearField("producer_name")
    onnx.checker.check_model(clean, full_check=True)
    return clean


def _lift_constants(graph: onnx.GraphProto) -> None:
    kept = []
    for node in graph.node:
        if node.op_type != "Constant":
            kept.append(node)
            continue
        value = node.attribute[0]
        if value.name == "value":
            tensor = onnx.TensorProto()
            tensor.CopyFrom(value.t)
        elif value.name in ("value_int", "value_ints"):
            numbers = list(value.ints) if value.name.endswith("s") else [value.i]
            shape = [len(numbers)] if value.name.endswith("s") else []
            tensor = helper.make_tensor("", onnx.TensorProto.INT64, shape, numbers)
        elif value.name in ("value_float", "value_floats"):
            reals = list(value.floats) if value.name.endswith("s") else [value.f]
            shape = [len(reals)] if value.name.endswith("s") else []
            tensor = helper.make_tensor("", onnx.TensorProto.FLOAT, shape, reals)
        else:
            raise Unsupported(f"a constant of kind {value.name}")
        tensor.name = node.output[0]
        graph.initializer.append(tensor)
    del graph.node[:]
    graph.node.extend(kept)


def rename(graph: onnx.GraphProto, prefix: str = "") -> None:
    """Short names (c0.. for constants, v0.. for values); inputs and outputs keep theirs."""
    fixed = {value.name for value in (*graph.input, *graph.output)}
    names = {"": ""} | {name: name for name in fixed}
    for number, tensor in enumerate(graph.initializer):
        names.setdefault(tensor.name, f"{prefix}c{number}")
        tensor.name = names[tensor.name]
    number = 0
    for node in graph.node:
        for output in node.output:
            if output not in names:
                names[output] = f"{prefix}v{number}"
                number += 1
    for node in graph.node:
        inputs, outputs = [names[i] for i in node.input], [names[o] for o in node.output]
        del node.input[:], node.output[:]
        node.input.extend(inputs)
        node.output.extend(outputs)
