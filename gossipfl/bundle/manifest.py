"""The manifest: what a bundle trains, on what shapes, within what budget, and which bytes it is.

It is canonical JSON (sorted keys, no spaces, UTF-8); the bundle id is the SHA-256 of those bytes.
Every other file of the bundle is named in it with size and SHA-256, so the id covers all of them.
"""

from __future__ import annotations

import hashlib
import json
import math
from enum import StrEnum
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from gossipfl.bundle.refused import BundleRefused, Reason
from gossipfl.parameters import Layout, Tensor

FORMAT = 1
SPLIT_FORMAT = 2  # with `dp_batch`; one without it is of format 1, with the bytes it always had
MANIFEST_BYTES_MAX = 256 * 1024  # a layout of 4,096 tensors fits; guess with room
GRAPH_BYTES_MAX = 16 * 1024 * 1024  # graphs hold no parameters: the shipped ones have under 20 kB
PARAMETERS_MAX = 64 * 1024 * 1024  # 256 MiB of float32: the largest update the protocol would move
TENSORS_MAX = 4_096
BATCH_MAX = 4_096
CLASSES_MAX = 65_536
EXAMPLE_ELEMENTS_MAX = 4 * 1024 * 1024  # one example: 16 MiB
RANK_MAX = 6

GRADIENT = "grad.onnx"
DP_GRADIENT = "dp_grad.onnx"
EVALUATE = "eval.onnx"
PREDICT = "predict.onnx"
PARAMETERS = "params0.bin"
GRAPHS = (GRADIENT, DP_GRADIENT, EVALUATE, PREDICT)
HASHED = (*GRAPHS, PARAMETERS)


class Task(StrEnum):
    CLASSIFICATION = "classification"  # y i64[B]
    REGRESSION = "regression"  # y f32[B, *target shape]
    SEQUENCE = "sequence"  # a class at each step: y i64[B, steps]


class DType(StrEnum):
    F32 = "f32"
    I64 = "i64"


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


Dimension = Annotated[int, Meta(ge=1, le=EXAMPLE_ELEMENTS_MAX)]
Finite = Annotated[float, Meta(ge=-1e30, le=1e30)]


class TensorSpec(_Part, frozen=True, kw_only=True):
    """One example's tensor; the batch dimension is left out."""

    dtype: DType
    shape: Annotated[list[Dimension], Meta(max_length=RANK_MAX)] = []

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


class TensorEntry(_Part, frozen=True, kw_only=True):
    name: Annotated[str, Meta(min_length=1, max_length=256)]
    shape: Annotated[
        list[Annotated[int, Meta(ge=1, le=PARAMETERS_MAX)]], Meta(max_length=RANK_MAX + 2)
    ]
    offset: Annotated[int, Meta(ge=0, le=PARAMETERS_MAX)]


class FileEntry(_Part, frozen=True, kw_only=True):
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    bytes: Annotated[int, Meta(ge=1, le=4 * PARAMETERS_MAX)]


class Preprocessing(_Part, frozen=True, kw_only=True):
    """What a device does to its raw data: x * scale + offset; float targets likewise."""

    scale: Finite = 1.0
    offset: Finite = 0.0
    target_scale: Finite = 1.0
    target_offset: Finite = 0.0


class Optimizer(_Part, frozen=True, kw_only=True):
    """Defaults of local training where the policy names none."""

    learning_rate: Annotated[float, Meta(gt=0.0, le=100.0)] = 0.1  # the job of the field's table
    momentum: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.0
    epochs: Annotated[int, Meta(ge=1, le=1_000)] = 1


class Budget(_Part, frozen=True, kw_only=True):
    """What one training process may use. A device refuses what it cannot give."""

    rss_max_mb: Annotated[int, Meta(ge=32, le=65_536)]
    step_max_ms: Annotated[float, Meta(gt=0.0, le=600_000.0)]


class SelfTest(_Part, frozen=True, kw_only=True):
    """What the author saw on `selftest_batch(seed)` with params0. Compared with a tolerance:

    bit equality across machines is not promised.
    """

    seed: Annotated[int, Meta(ge=0, le=2**53)]
    gradient_norm: Annotated[float, Meta(ge=0.0, le=1e30)]
    loss: Finite
    tolerance: Annotated[float, Meta(gt=0.0, le=0.01)]


class Manifest(_Part, frozen=True, kw_only=True):
    """See the module. `parse` is the only way from bytes to one."""

    format: Annotated[int, Meta(ge=FORMAT, le=SPLIT_FORMAT)] = FORMAT
    name: Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9._-]{0,63}$")]
    task: Task
    batch: Annotated[int, Meta(ge=1, le=BATCH_MAX)]
    dp_batch: Annotated[int, Meta(ge=1, le=BATCH_MAX)] | UnsetType = UNSET
    classes: Annotated[int, Meta(ge=0, le=CLASSES_MAX)]  # 0 for regression
    input: TensorSpec
    target: TensorSpec
    layout: Annotated[list[TensorEntry], Meta(min_length=1, max_length=TENSORS_MAX)]
    files: Annotated[dict[str, FileEntry], Meta(min_length=len(HASHED), max_length=len(HASHED))]
    budget: Budget
    selftest: SelfTest
    optimizer: Optimizer = Optimizer()
    preprocessing: Preprocessing = Preprocessing()
    vocabulary: Annotated[int, Meta(ge=1, le=2**31)] | None = None  # i64 inputs are below it
    producer: Annotated[str, Meta(max_length=128)] = ""

    @property
    def parameters(self) -> Layout:
        """The layout of the flat vector. Raises BundleRefused if it has gaps."""
        try:
            return Layout(tuple(Tensor(t.name, tuple(t.shape), t.offset) for t in self.layout))
        except ValueError as error:
            raise BundleRefused(Reason.MANIFEST, f"layout: {error}") from error

    @property
    def private_batch(self) -> int:
        """How many examples dp_grad.onnx takes at once: `batch`, or fewer.

        A secret sample has a random size: small batches leave less of the last one empty.
        """
        return self.batch if self.dp_batch is UNSET else self.dp_batch

    @property
    def logits_shape(self) -> tuple[int, ...]:
        """Shape of what predict.onnx gives, batch first."""
        tail = () if self.task is Task.REGRESSION else (self.classes,)
        return (self.batch, *self.target.shape, *tail)


def encode(manifest: Manifest) -> bytes:
    """The canonical JSON bytes."""
    plain: Any = msgspec.to_builtins(manifest)
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


def identify(manifest_bytes: bytes) -> bytes:
    """The bundle id."""
    return hashlib.sha256(manifest_bytes).digest()


def parse(data: bytes) -> Manifest:
    """A manifest that is canonical and means something. Raises BundleRefused."""
    if len(data) > MANIFEST_BYTES_MAX:
        raise BundleRefused(Reason.OVERSIZED, f"manifest.json of {len(data)} bytes")
    try:
        manifest = msgspec.json.decode(data, type=Manifest, strict=True)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise BundleRefused(Reason.MANIFEST, str(error)) from error
    if encode(manifest) != data:
        # One meaning, one id: no second spelling, no doubled key that another reader sees.
        raise BundleRefused(Reason.MANIFEST, "manifest.json is not in canonical form")
    _check(manifest)
    return manifest


def _check(manifest: Manifest) -> None:
    """What the types cannot say."""
    for problem in _problems(manifest):
        raise BundleRefused(Reason.MANIFEST, problem)


def _problems(manifest: Manifest) -> list[str]:
    found: list[str] = []
    split = manifest.dp_batch is not UNSET
    if split != (manifest.format == SPLIT_FORMAT):
        found.append(f"dp_batch goes with format {SPLIT_FORMAT}, and only with it")
    if split and manifest.private_batch >= manifest.batch:
        found.append(f"a dp_batch of {manifest.private_batch}, not below {manifest.batch}")
    task, spec = manifest.task, manifest.target
    labels = task is not Task.REGRESSION
    if spec.dtype is not (DType.I64 if labels else DType.F32):
        found.append(f"a {task.value} target is not {spec.dtype.value}")
    if labels and manifest.classes < 2:
        found.append("fewer than two classes")
    if not labels and manifest.classes:
        found.append("regression has no classes")
    if (task is Task.CLASSIFICATION and spec.shape) or (task is Task.SEQUENCE and not spec.shape):
        found.append(f"a {task.value} target has not the shape {spec.shape}")
    if (manifest.input.dtype is DType.I64) != (manifest.vocabulary is not None):
        found.append("a vocabulary goes with i64 inputs, and only with them")
    logits = spec.elements * max(manifest.classes, 1)
    if max(manifest.input.elements, logits) > EXAMPLE_ELEMENTS_MAX:
        found.append("one example has too many elements")
    names = [tensor.name for tensor in manifest.layout]
    if len(set(names)) != len(names):
        found.append("two tensors have one name")
    count = manifest.parameters.count
    if count > PARAMETERS_MAX:
        found.append(f"{count} parameters, at most {PARAMETERS_MAX}")
    if set(manifest.files) != set(HASHED):
        found.append(f"files must be exactly {', '.join(HASHED)}")
    elif manifest.files[PARAMETERS].bytes != 4 * count:
        found.append(f"{PARAMETERS} has not 4 bytes for each of {count} parameters")
    for name in GRAPHS:
        if name in manifest.files and manifest.files[name].bytes > GRAPH_BYTES_MAX:
            found.append(f"{name} has more than {GRAPH_BYTES_MAX} bytes")
    scaling = manifest.preprocessing
    if not scaling.scale or not scaling.target_scale:
        found.append("a scale of zero")
    identity = Preprocessing()
    if manifest.input.dtype is DType.I64 and (scaling.scale, scaling.offset) != (1.0, 0.0):
        found.append("i64 inputs are not scaled")
    targets = (scaling.target_scale, scaling.target_offset)
    if labels and targets != (identity.target_scale, identity.target_offset):
        found.append("class labels are not scaled")
    return found
