"""The operators that a bundle may use, and which of their inputs shape the result.

All are of the standard domain, deterministic, without side effects, and with an output size that
follows from shapes and constants alone. Left out on purpose: control flow (Loop, If), randomness,
strings and sequences, anything whose output size depends on data (NonZero, Unique, Range).
"""

from __future__ import annotations


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


ARITHMETIC = _names(
    "Abs Add Cast Ceil Clip Cos Div Elu Erf Exp Floor Gelu HardSigmoid HardSwish Identity "
    "LeakyRelu Log Max Mean Min Mish Mul Neg Pow PRelu Reciprocal Relu Round Selu Sigmoid Sign "
    "Sin Softplus Softsign Sqrt Sub Sum Tanh"
)
LOGIC = _names("And Equal Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual Not Or Where Xor")
LAYERS = _names(
    "AveragePool Conv ConvTranspose Einsum Gemm GlobalAveragePool GlobalMaxPool "
    "GroupNormalization InstanceNormalization LayerNormalization LogSoftmax LpNormalization "
    "MatMul MaxPool Softmax"
)
REDUCTIONS = _names(
    "ArgMax ArgMin CumSum ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean "
    "ReduceMin ReduceProd ReduceSum ReduceSumSquare"
)
SHAPING = _names(
    "Concat ConstantOfShape DepthToSpace Expand Flatten Gather GatherElements GatherND OneHot Pad "
    "Reshape ScatterElements ScatterND Slice SpaceToDepth Split Squeeze Tile Transpose Trilu "
    "Unsqueeze"
)
ALLOWED = ARITHMETIC | LOGIC | LAYERS | REDUCTIONS | SHAPING
SCAN = "Scan"  # in dp_grad.onnx only, one level deep

_AXES = dict.fromkeys((op for op in REDUCTIONS if op.startswith("Reduce")), (1,))
SHAPE_INPUTS: dict[str, tuple[int, ...]] = {
    **_AXES,
    "ConstantOfShape": (0,),
    "CumSum": (1,),
    "Expand": (1,),
    "OneHot": (1,),
    "Pad": (1, 3),
    "Reshape": (1,),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "Trilu": (1,),
    "Unsqueeze": (1,),
}
"""Operator -> inputs that decide a shape or an axis: these must be initialisers."""
