"""Hostile graphs: each entry changes one graph of an honest, signed bundle."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from gossipfl.bundle.manifest import DP_GRADIENT, EVALUATE, GRADIENT
from gossipfl.bundle.refused import Reason

Edit = Callable[[onnx.ModelProto], None]
Case = tuple[str, Edit, Reason]
value = helper.make_tensor_value_info
node = helper.make_node


def constant(name: str, data: object, dtype: type = np.int64) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(data, dtype), name)


def add(
    *nodes: onnx.NodeProto, constants: tuple[onnx.TensorProto, ...] = (), front: bool = True
) -> Edit:
    """Adds nodes that nothing needs: a graph may not carry them even unused."""

    def edit(model: onnx.ModelProto) -> None:
        kept = list(model.graph.node)
        del model.graph.node[:]
        model.graph.node.extend([*nodes, *kept] if front else [*kept, *nodes])
        model.graph.initializer.extend(constants)

    return edit


def then(*edits: Edit) -> Edit:
    def edit(model: onnx.ModelProto) -> None:
        for one in edits:
            one(model)

    return edit


def opsets(*pairs: tuple[str, int]) -> Edit:
    def edit(model: onnx.ModelProto) -> None:
        del model.opset_import[:]
        model.opset_import.extend(helper.make_opsetid(*pair) for pair in pairs)

    return edit


def external(location: str) -> Edit:
    def edit(model: onnx.ModelProto) -> None:
        tensor = TensorProto(name="outside", data_type=TensorProto.FLOAT, dims=[4])
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
        model.graph.initializer.append(tensor)

    return edit


def ir(version: int) -> Edit:
    def edit(model: onnx.ModelProto) -> None:
        model.ir_version = version

    return edit


def function(model: onnx.ModelProto) -> None:
    made = helper.make_function(
        "", "Mine", ["a"], ["b"], [node("Identity", ["a"], ["b"])], [helper.make_opsetid("", 20)]
    )
    model.functions.append(made)


def training_info(model: onnx.ModelProto) -> None:
    model.training_info.add().algorithm.CopyFrom(model.graph)


def metadata(model: onnx.ModelProto) -> None:
    model.metadata_props.add(key="ort_config", value="{}")


def sparse(model: onnx.ModelProto) -> None:
    made = helper.make_sparse_tensor(
        constant("sparse", [1.0], np.float32), constant("places", [1]), [10**9]
    )
    model.graph.sparse_initializer.append(made)


def lying_shapes(model: onnx.ModelProto) -> None:
    model.graph.value_info.append(value("v0", TensorProto.FLOAT, [1]))


def replaceable(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(constant("w", [1.0] * 32, np.float32))


def dynamic_batch(model: onnx.ModelProto) -> None:
    model.graph.input[1].type.tensor_type.shape.dim[0].dim_param = "B"


def extra_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(value("secret", TensorProto.FLOAT, [1]))


def extra_output(model: onnx.ModelProto) -> None:
    model.graph.output.append(value("v0", TensorProto.FLOAT, [1]))


def wide_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 651


def integer_weights(model: onnx.ModelProto) -> None:
    model.graph.input[3].type.tensor_type.elem_type = TensorProto.INT64


def empty_graph(model: onnx.ModelProto) -> None:
    del model.graph.node[:]


def no_graph(model: onnx.ModelProto) -> None:
    model.ClearField("graph")


def overwrite(last: str, *nodes: onnx.NodeProto, constants: tuple[onnx.TensorProto, ...]) -> Edit:
    """Renames the output `last` to `honest` inside, then computes `last` from it."""

    def edit(model: onnx.ModelProto) -> None:
        for one in model.graph.node:
            for position, name in enumerate(one.output):
                if name == last:
                    one.output[position] = "honest"
            for position, name in enumerate(one.input):
                if name == last:
                    one.input[position] = "honest"
        add(*nodes, constants=constants, front=False)(model)

    return edit


def clip_of_the_sum(model: onnx.ModelProto) -> None:
    """grad_sum of the unclipped gradients, cut as a whole to what B examples may give."""
    for one in model.graph.node:
        for position, name in enumerate(one.input):
            if name == "clip":
                one.input[position] = "never"
    overwrite(
        "grad_sum",
        node("ReduceL2", ["honest"], ["length"], keepdims=0),
        node("Add", ["length", "tiny"], ["safe"]),
        node("ReduceSum", ["w"], ["weight_sum"], keepdims=0),
        node("Mul", ["clip", "weight_sum"], ["most"]),
        node("Div", ["most", "safe"], ["share"]),
        node("Min", ["share", "one_"], ["cut"]),
        node("Mul", ["honest", "cut"], ["grad_sum"]),
        constants=(
            constant("never", 1e9, np.float32),
            constant("tiny", 1e-9, np.float32),
            constant("one_", 1.0, np.float32),
        ),
    )(model)


def _body(*nodes: onnx.NodeProto) -> onnx.GraphProto:
    scalar = (TensorProto.FLOAT, [])
    return helper.make_graph(
        list(nodes) or [node("Identity", ["a"], ["a2"])],
        "body",
        [value("i", TensorProto.INT64, []), value("c", TensorProto.BOOL, []), value("a", *scalar)],
        [value("c", TensorProto.BOOL, []), value("a2", *scalar)],
    )


def _branch(name: str) -> onnx.GraphProto:
    return helper.make_graph(
        [node("Identity", ["clip0"], [name])], name, [], [value(name, TensorProto.FLOAT, [])]
    )


def _scan(over: str, inner: onnx.NodeProto | None = None, **attributes: object) -> onnx.NodeProto:
    nodes = [node("Add", ["s", "e"], ["s2"]), *([inner] if inner is not None else [])]
    body = helper.make_graph(
        nodes,
        "body",
        [value("s", TensorProto.FLOAT, []), value("e", TensorProto.FLOAT, [])],
        [value("s2", TensorProto.FLOAT, [])],
    )
    return node("Scan", ["zero0", over], ["total0"], body=body, num_scan_inputs=1, **attributes)


ZERO = constant("zero0", 0.0, np.float32)
CLIP = constant("clip0", 0.0, np.float32)
TRUE = constant("true0", True, np.bool_)


def _deep(levels: int) -> onnx.NodeProto:
    inner = node("Identity", ["clip0"], ["deep"])
    for _ in range(levels):
        inner = node("If", ["true0"], ["deep"], then_branch=helper.make_graph([inner], "g", [], []))
    return inner


GRADIENT_CASES: list[Case] = [
    ("external data, absolute", external("/etc/passwd"), Reason.EXTERNAL),
    ("external data, relative", external("params0.bin"), Reason.EXTERNAL),
    ("external data, climbing", external("../../etc/passwd"), Reason.EXTERNAL),
    (
        "custom domain",
        then(add(node("Foo", ["w"], ["q"], domain="evil")), opsets(("", 20), ("evil", 1))),
        Reason.DOMAIN,
    ),
    ("custom domain, not imported", add(node("Foo", ["w"], ["q"], domain="evil")), Reason.DOMAIN),
    (
        "com.microsoft operator",
        then(
            add(node("BiasGelu", ["w", "w"], ["q"], domain="com.microsoft")),
            opsets(("", 20), ("com.microsoft", 1)),
        ),
        Reason.DOMAIN,
    ),
    (
        "ai.onnx.ml operator",
        then(
            add(node("Scaler", ["w"], ["q"], domain="ai.onnx.ml")),
            opsets(("", 20), ("ai.onnx.ml", 3)),
        ),
        Reason.DOMAIN,
    ),
    ("domain by another name", opsets(("ai.onnx", 20)), Reason.DOMAIN),
    (
        "endless Loop",
        add(node("Loop", ["", "true0", "zero0"], ["q"], body=_body()), constants=(TRUE, ZERO)),
        Reason.OPERATOR,
    ),
    (
        "If",
        add(
            node("If", ["true0"], ["q"], then_branch=_branch("t"), else_branch=_branch("e")),
            constants=(TRUE, CLIP),
        ),
        Reason.OPERATOR,
    ),
    ("graphs nested a hundred deep", add(_deep(30), constants=(TRUE, CLIP)), Reason.OPERATOR),
    ("Scan outside dp_grad", add(_scan("w"), constants=(ZERO,)), Reason.OPERATOR),
    (
        "ConstantOfShape of 1.6 TB",
        add(
            node("ConstantOfShape", ["big"], ["q"]), constants=(constant("big", [400_000_000_000]),)
        ),
        Reason.TOO_LARGE,
    ),
    (
        "ConstantOfShape of a negative size",
        add(node("ConstantOfShape", ["big"], ["q"]), constants=(constant("big", [-5]),)),
        Reason.SHAPE,
    ),
    (
        "ConstantOfShape of computed size",
        add(
            node("Cast", ["w"], ["size"], to=TensorProto.INT64),
            node("ConstantOfShape", ["size"], ["q"]),
        ),
        Reason.SHAPE,
    ),
    (
        "Expand bomb",
        add(
            node("Expand", ["zero0", "big"], ["q"]),
            constants=(ZERO, constant("big", [100_000_000_000])),
        ),
        Reason.TOO_LARGE,
    ),
    (
        "Tile bomb",
        add(node("Tile", ["w", "big"], ["q"]), constants=(constant("big", [2**40]),)),
        Reason.TOO_LARGE,
    ),
    (
        "Pad bomb",
        add(node("Pad", ["w", "big"], ["q"]), constants=(constant("big", [2**40, 0]),)),
        Reason.TOO_LARGE,
    ),
    (
        "outer product bomb",
        add(
            node("Reshape", ["params", "column"], ["k"]),
            node("MatMul", ["k", "row"], ["q"]),
            constants=(
                constant("column", [650, 1]),
                constant("row", [[0.0] * 200_000], np.float32),
            ),
        ),
        Reason.TOO_LARGE,
    ),
    (
        "Reshape to a computed shape",
        add(
            node("Cast", ["y"], ["size"], to=TensorProto.INT64),
            node("Reshape", ["w", "size"], ["q"]),
        ),
        Reason.SHAPE,
    ),
    ("NonZero, size from data", add(node("NonZero", ["w"], ["q"])), Reason.OPERATOR),
    (
        "Range",
        add(node("Range", ["zero0", "zero0", "zero0"], ["q"]), constants=(ZERO,)),
        Reason.OPERATOR,
    ),
    ("random numbers", add(node("RandomNormal", [], ["q"], shape=[4])), Reason.OPERATOR),
    ("an operator that does not exist", add(node("Frobnicate", ["w"], ["q"])), Reason.OPERATOR),
    (
        "Constant with strings",
        add(node("Constant", [], ["q"], value_strings=["a", "b"])),
        Reason.CONSTRUCT,
    ),
    ("sequence operator", add(node("SequenceConstruct", ["w"], ["q"])), Reason.OPERATOR),
    ("Cast to string", add(node("Cast", ["w"], ["q"], to=TensorProto.STRING)), Reason.CONSTRUCT),
    ("Cast to double", add(node("Cast", ["w"], ["q"], to=TensorProto.DOUBLE)), Reason.CONSTRUCT),
    (
        "string tensor",
        add(constants=(helper.make_tensor("s", TensorProto.STRING, [1], [b"x"]),)),
        Reason.CONSTRUCT,
    ),
    (
        "initialiser of a wrong length",
        add(constants=(TensorProto(name="short", data_type=1, dims=[4], raw_data=b"1234"),)),
        Reason.MALFORMED,
    ),
    (
        "initialiser of terabytes, no data",
        add(constants=(TensorProto(name="huge", data_type=1, dims=[2**40]),)),
        Reason.TOO_LARGE,
    ),
    ("opset 99", opsets(("", 99)), Reason.VERSION),
    ("opset 7", opsets(("", 7)), Reason.VERSION),
    ("no opset", opsets(), Reason.VERSION),
    ("two opsets", opsets(("", 20), ("", 17)), Reason.VERSION),
    ("IR version 14", ir(14), Reason.VERSION),
    ("model-local function", function, Reason.CONSTRUCT),
    ("training info", training_info, Reason.CONSTRUCT),
    ("configuration for onnxruntime", metadata, Reason.CONSTRUCT),
    ("sparse initialiser", sparse, Reason.CONSTRUCT),
    ("declared shapes", lying_shapes, Reason.CONSTRUCT),
    ("initialiser that an input replaces", replaceable, Reason.CONSTRUCT),
    (
        "more than 5,000 nodes",
        add(*(node("Neg", ["w"], [f"q{i}"]) for i in range(5_001))),
        Reason.TOO_LARGE,
    ),
    ("dynamic batch", dynamic_batch, Reason.INTERFACE),
    ("one input more", extra_input, Reason.INTERFACE),
    ("one output more", extra_output, Reason.INTERFACE),
    ("output of another shape", wide_output, Reason.INTERFACE),
    ("weights as integers", integer_weights, Reason.INTERFACE),
    ("no nodes", empty_graph, Reason.MALFORMED),
    ("no graph", no_graph, Reason.MALFORMED),
    ("value from nowhere", add(node("Neg", ["nowhere"], ["q"])), Reason.MALFORMED),
    (
        "one value made twice",
        add(node("Neg", ["w"], ["q"]), node("Neg", ["w"], ["q"])),
        Reason.MALFORMED,
    ),
    ("made-up attribute", add(node("Neg", ["w"], ["q"], made_up=1)), Reason.MALFORMED),
    (
        "gradients twice as long",
        overwrite(
            "grads",
            node("Mul", ["honest", "two"], ["grads"]),
            constants=(constant("two", 2.0, np.float32),),
        ),
        Reason.SELFTEST,
    ),
    (
        "gradients reversed",
        overwrite("grads", node("Neg", ["honest"], ["grads"]), constants=()),
        Reason.SELFTEST,
    ),
    (
        "gradients not finite",
        overwrite("grads", node("Div", ["honest", "zero0"], ["grads"]), constants=(ZERO,)),
        Reason.SELFTEST,
    ),
    (
        "learns from padding",
        overwrite(
            "grads",
            node("Add", ["honest", "tiny"], ["grads"]),
            constants=(constant("tiny", 1e-6, np.float32),),
        ),
        Reason.SELFTEST,
    ),
    (
        "index out of range",
        overwrite(
            "grads",
            node("Gather", ["honest", "far"], ["g1"]),
            node("Add", ["honest", "g1"], ["grads"]),
            constants=(constant("far", 10**9),),
        ),
        Reason.RUNTIME,
    ),
]

DP_CASES: list[Case] = [
    ("Scan inside a Scan", add(_scan("w", inner=_scan("s")), constants=(ZERO,)), Reason.OPERATOR),
    (
        "Scan over a long constant",
        add(_scan("long"), constants=(ZERO, constant("long", [0.0] * 10_000, np.float32))),
        Reason.CONSTRUCT,
    ),
    (
        "Scan over other axes",
        add(_scan("w", scan_input_axes=[0]), constants=(ZERO,)),
        Reason.CONSTRUCT,
    ),
    (
        "Loop inside a Scan",
        add(
            _scan("w", inner=node("Loop", ["", "true0", "s"], ["q"], body=_body())),
            constants=(ZERO, TRUE),
        ),
        Reason.OPERATOR,
    ),
    (
        "bomb inside a Scan",
        add(
            _scan("w", inner=node("Expand", ["s", "big"], ["q"])),
            constants=(ZERO, constant("big", [10**12])),
        ),
        Reason.TOO_LARGE,
    ),
    (
        "domain inside a Scan",
        add(
            _scan("w", inner=node("Gelu", ["s"], ["q"], domain="com.microsoft")), constants=(ZERO,)
        ),
        Reason.DOMAIN,
    ),
    ("clips the sum, not the examples", clip_of_the_sum, Reason.SELFTEST),
    (
        "does not clip",
        overwrite(
            "grad_sum",
            node("Mul", ["honest", "k"], ["grad_sum"]),
            constants=(constant("k", 1.01, np.float32),),
        ),
        Reason.SELFTEST,
    ),
]

EVALUATE_CASES: list[Case] = [
    (
        "another loss",
        overwrite(
            "loss_sum",
            node("Add", ["honest", "k"], ["loss_sum"]),
            constants=(constant("k", 1.0, np.float32),),
        ),
        Reason.SELFTEST,
    ),
    (
        "more right answers than examples",
        overwrite(
            "correct",
            node("Add", ["honest", "k"], ["correct"]),
            constants=(constant("k", 100.0, np.float32),),
        ),
        Reason.SELFTEST,
    ),
]

CASES: list[tuple[str, str, Edit, Reason]] = [
    *((GRADIENT, *case) for case in GRADIENT_CASES),
    *((DP_GRADIENT, *case) for case in DP_CASES),
    *((EVALUATE, *case) for case in EVALUATE_CASES),
]
