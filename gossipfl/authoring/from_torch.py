"""`gossipfl bundle from-torch`: a class in a Python file becomes a checked bundle."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

import gossipfl
from gossipfl.authoring import lots, scan, selfcheck
from gossipfl.authoring.decompositions import Unsupported
from gossipfl.authoring.export import export, reason
from gossipfl.authoring.functions import FlatModel, Functions, functions
from gossipfl.bundle import archive
from gossipfl.bundle.archive import Bundle
from gossipfl.bundle.manifest import (
    DP_GRADIENT,
    EVALUATE,
    FORMAT,
    GRADIENT,
    GRAPHS,
    PARAMETERS,
    PREDICT,
    SPLIT_FORMAT,
    Budget,
    DType,
    FileEntry,
    Manifest,
    Optimizer,
    Preprocessing,
    SelfTest,
    Task,
    TensorEntry,
    TensorSpec,
    encode,
    parse,
)
from gossipfl.bundle.refused import BundleRefused
from gossipfl.bundle.selftest import selftest_batch
from gossipfl.errors import UserError
from gossipfl.parameters import to_bytes

SELFTEST_SEED = 1
SELFTEST_TOLERANCE = 1e-3  # float32 kernels of two machines differ by under 1e-5; room for ARM
RSS_BASE_MB = 256  # onnxruntime with a small model has about 75 MB; the rest is room
RSS_COPIES = 16  # of the parameters: gradients, momentum, optimiser temporaries, arena slack
STEP_MAX_MS = 1_000.0  # guess: a step that takes a second on a board is not worth a round


@dataclass(frozen=True, slots=True)
class Job:
    """What the author says about a model: shapes of one example, task, defaults of training."""

    name: str
    input_shape: tuple[int, ...]
    batch: int
    dp_batch: int | None = None  # of dp_grad.onnx; None: what `lots` works out
    classes: int = 0
    task: Task = Task.CLASSIFICATION
    target_shape: tuple[int, ...] = ()
    vocabulary: int | None = None  # set: inputs are i64 tokens below it
    seed: int = 0  # of the model's initial parameters
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    optimizer: Optimizer = field(default_factory=Optimizer)
    rss_max_mb: int | None = None
    step_max_ms: float = STEP_MAX_MS
    vmap_bytes_max: int = scan.VMAP_BYTES_MAX

    @property
    def private_batch(self) -> int:
        return self.batch if self.dp_batch is None else self.dp_batch

    @property
    def input(self) -> TensorSpec:
        dtype = DType.F32 if self.vocabulary is None else DType.I64
        return TensorSpec(dtype=dtype, shape=list(self.input_shape))

    @property
    def target(self) -> TensorSpec:
        dtype = DType.F32 if self.task is Task.REGRESSION else DType.I64
        return TensorSpec(dtype=dtype, shape=list(self.target_shape))


@dataclass(frozen=True, slots=True)
class Built:
    """A bundle and, per graph, the largest error against torch in the self-check."""

    bundle: Bundle
    errors: Mapping[str, float]


def from_torch(file: Path, class_name: str, job: Job, out: Path) -> Built:
    """Writes the bundle of `file:class_name` to `out`. Raises UserError GF402, GF403."""
    torch.manual_seed(job.seed)
    built = build(_make(_load(file, class_name), class_name), job)
    try:
        out.write_bytes(archive.write(built.bundle))
    except OSError as error:
        raise UserError("GF403", f"{out}: {error.strerror or error}") from error
    return built


def build(module: torch.nn.Module, job: Job) -> Built:
    """The bundle of a module whose parameters are params0. Raises UserError GF402."""
    _refuse_layers(module)
    model = FlatModel(module)
    if not model.count:
        raise UserError("GF402", "the model has no parameters")
    _check_job(model, job)
    feeds = selfcheck.random_feeds(
        model, job.batch, job.input, job.target, job.classes, job.vocabulary
    )
    _check_output(model, job, feeds[0])
    try:
        selfcheck.add_clip(model, job.task, feeds)
        if job.dp_batch is None:
            job = replace(job, dp_batch=lots.dp_batch(model, job.task, job.batch, feeds[0]))
        graphs = _graphs(model, job, feeds[0])
    except Unsupported as error:
        raise UserError("GF402", str(error)) from error
    except (RuntimeError, ValueError) as error:
        why = f"it does not work on a single example: {reason(error)}"
        raise UserError("GF402", why) from error
    errors = selfcheck.check(model, job.task, graphs, feeds, job.private_batch)
    files = {**graphs, PARAMETERS: to_bytes(model.pack().numpy())}
    manifest = _manifest(model, job, files)
    return Built(archive.build(manifest, files), errors)


def _load(file: Path, class_name: str) -> Callable[[], torch.nn.Module]:
    """The class from the author's own file (which runs: it is the author's machine)."""
    spec = importlib.util.spec_from_file_location(f"_gossipfl_model_{file.stem}", file)
    if spec is None or spec.loader is None or not file.is_file():
        raise UserError("GF403", f"{file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the author's code: any error in it is the author's to read
        why = f"{file} cannot be imported: {type(error).__name__}: {error}"
        raise UserError("GF402", why) from error
    found = getattr(module, class_name, None)
    if not (isinstance(found, type) and issubclass(found, torch.nn.Module)):
        raise UserError("GF402", f"{file} has no torch.nn.Module named {class_name}")
    return found


def _make(model: Callable[[], torch.nn.Module], class_name: str) -> torch.nn.Module:
    try:
        return model()
    except Exception as error:  # as above
        why = f"{class_name}() does not work: {type(error).__name__}: {error}"
        raise UserError("GF402", why) from error


def _refuse_layers(module: torch.nn.Module) -> None:
    """BatchNorm, dropout and frozen parameters, by name, before anything is traced."""
    for name, layer in module.named_modules():
        kind = type(layer).__name__
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            raise UserError(
                "GF402",
                f"layer {name!r} is {kind}: it mixes the examples of a batch and keeps state "
                "beside the parameters",
                "use GroupNorm or LayerNorm",
            )
        if isinstance(layer, torch.nn.modules.dropout._DropoutNd) and layer.p > 0:
            raise UserError(
                "GF402",
                f"layer {name!r} is {kind}: it is random, and a bundle's graph is a function of "
                "its inputs",
                "leave it out, or replace it by nn.Identity",
            )
    for name, parameter in module.named_parameters():
        if parameter.dtype != torch.float32:
            raise UserError("GF402", f"parameter {name!r} is {parameter.dtype}, not float32")
        if not parameter.requires_grad:
            raise UserError("GF402", f"parameter {name!r} is frozen: make it a buffer")
    module.train()  # so that a functional dropout(training=self.training) shows itself
    for layer in module.modules():
        if isinstance(layer, torch.nn.modules.dropout._DropoutNd):
            layer.eval()  # p = 0 here: nothing but a name


def _check_output(model: FlatModel, job: Job, feed: selfcheck.Feed) -> None:
    """The model's output has the shape that the task needs."""
    try:
        with torch.no_grad():
            output = model.call(feed["params"], feed["x"])
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        shape = list(feed["x"].shape)
        why = f"the model does not take an input of {shape}: {reason(error)}"
        raise UserError("GF402", why) from error
    tail = () if job.task is Task.REGRESSION else (job.classes,)
    wanted = (job.batch, *job.target_shape, *tail)
    found = tuple(getattr(output, "shape", ()))
    if found != wanted or output.dtype != torch.float32:
        raise UserError("GF402", f"the model gives {list(found)}, this task needs {list(wanted)}")


def _graphs(model: FlatModel, job: Job, feed: selfcheck.Feed) -> dict[str, bytes]:
    parts = functions(model, job.task)
    args = [feed[name] for name in ("params", "x", "y", "w", "clip")]
    made = {
        GRADIENT: export(parts.gradient, args[:4], ["params", "x", "y", "w"], ["grads", "loss"]),
        DP_GRADIENT: _dp_graph(model, parts, job, args),
        EVALUATE: export(
            parts.evaluate, args[:4], ["params", "x", "y", "w"], ["loss_sum", "correct"]
        ),
        PREDICT: export(parts.predict, args[:2], ["params", "x"], ["logits"]),
    }
    return {name: graph.SerializeToString(deterministic=True) for name, graph in made.items()}


def _dp_graph(model: FlatModel, parts: Functions, job: Job, args: list[torch.Tensor]) -> Any:
    """All examples at once where that fits in memory and vmap knows the layers, else a Scan."""
    if 4 * job.private_batch * model.count <= job.vmap_bytes_max:
        names = ["params", "x", "y", "w", "clip"]
        some = [args[0], *(arg[: job.private_batch] for arg in args[1:4]), args[4]]
        with contextlib.suppress(Unsupported):
            return export(parts.per_example, some, names, ["grad_sum", "loss"])
    one = [args[0], args[1][0], args[2][0]]
    single = export(parts.single, one, ["params", "x", "y"], ["grads", "loss"])
    return scan.clipped_sum(single, job.private_batch)


def _check_job(model: FlatModel, job: Job) -> None:
    """What no device would take is said before the work, not after it."""
    blank = {name: b"0" for name in GRAPHS}
    draft = _draft(model, job, {**blank, PARAMETERS: bytes(4 * model.count)})
    try:
        parse(encode(draft))
    except BundleRefused as error:
        raise UserError("GF402", error.detail) from error


def _manifest(model: FlatModel, job: Job, files: Mapping[str, bytes]) -> Manifest:
    draft = _draft(model, job, files)
    batch = selftest_batch(draft)
    feed = {"params": model.pack().numpy(), "x": batch.x, "y": batch.y, "w": batch.w}
    grads, loss = selfcheck.session(files[GRADIENT]).run(None, feed)
    norm = math.sqrt(float(np.dot(grads.astype(np.float64), grads)))
    seen = SelfTest(
        seed=SELFTEST_SEED,
        gradient_norm=_rounded(norm),
        loss=_rounded(float(loss)),
        tolerance=SELFTEST_TOLERANCE,
    )
    return msgspec.structs.replace(draft, selftest=seen)


def _draft(model: FlatModel, job: Job, files: Mapping[str, bytes]) -> Manifest:
    """Everything but the figures of the self-test."""
    layout, at = [], 0
    for name, shape in model.named:
        layout.append(TensorEntry(name=name, shape=list(shape), offset=at))
        at += math.prod(shape)
    split = job.private_batch != job.batch
    rss = job.rss_max_mb or RSS_BASE_MB + math.ceil(RSS_COPIES * 4 * at / 1e6)
    return Manifest(
        format=SPLIT_FORMAT if split else FORMAT,
        name=job.name,
        task=job.task,
        batch=job.batch,
        dp_batch=job.private_batch if split else msgspec.UNSET,
        classes=job.classes,
        input=job.input,
        target=job.target,
        vocabulary=job.vocabulary,
        layout=layout,
        files={
            name: FileEntry(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
            for name, data in files.items()
        },
        budget=Budget(rss_max_mb=rss, step_max_ms=float(job.step_max_ms)),
        selftest=SelfTest(
            seed=SELFTEST_SEED, gradient_norm=0.0, loss=0.0, tolerance=SELFTEST_TOLERANCE
        ),
        optimizer=job.optimizer,
        preprocessing=job.preprocessing,
        producer=f"gossipfl {gossipfl.__version__}, torch {torch.__version__}",
    )


def _rounded(value: float) -> float:
    """Six digits: a hundred times finer than the tolerance, and equal on most machines."""
    return float(f"{value:.6g}")
