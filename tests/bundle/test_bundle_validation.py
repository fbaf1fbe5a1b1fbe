"""A corpus of hostile bundles, each signed by a real operator: all refused, nobody harmed."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from bundlekit import DEVICE, MEMBER, OPERATOR, VERIFY, changed, edited, shipped, signed
from hostile import CASES, Edit, add, constant, node
from onnx import TensorProto, helper

from device_agent.batches import pad
from device_agent.bundles import validate
from device_agent.bundles.dryrun import examine
from device_agent.bundles.validate import VERDICTS, Limits, admit, judge, try_out
from device_agent.bundles.verdicts import ENTRIES_MAX, Verdict, VerdictFile, checker
from device_agent.runtime import session
from device_agent.trainer import OnnxTrainer
from gossipfl import bundles
from gossipfl.bundle import archive, signing
from gossipfl.bundle.archive import Bundle
from gossipfl.bundle.manifest import DP_GRADIENT, EVALUATE, GRADIENT, PARAMETERS, Budget
from gossipfl.bundle.refused import BundleRefused, Reason
from gossipfl.bundle.selftest import selftest_batch
from gossipfl.messages import Training

Command = Callable[..., tuple[int, str, str]]


def refusal(bundle: Bundle, state: Path, limits: Limits | None = None) -> Reason:
    with pytest.raises(BundleRefused) as caught:
        admit(signed(bundle), state, VERIFY, limits)
    return caught.value.reason


@pytest.mark.parametrize(
    ("file", "edit", "reason"), [c[:1] + c[2:] for c in CASES], ids=[c[1] for c in CASES]
)
def test_a_hostile_graph_is_refused(file: str, edit: Edit, reason: Reason) -> None:
    """What the child does, here, because it is quick; the child itself is tested below."""
    bundle = edited(shipped(), file, edit)
    with pytest.raises(BundleRefused) as caught:
        examine(bundle)
    assert caught.value.reason is reason


def graph(name: str) -> bytes:
    """The signed bundle with the hostile graph `name` of the corpus."""
    file, _, edit, _ = next(case for case in CASES if case[1] == name)
    return signed(edited(shipped(), file, edit))


def other_hash() -> bytes:
    """A file swapped inside the archive, its zip checksum put right."""
    honest = signing.sign(shipped(), OPERATOR, MEMBER)
    swapped = {**honest.files, PARAMETERS: bytes(len(honest.files[PARAMETERS]))}
    return archive.write(dataclasses.replace(honest, files=swapped))


def other_signature() -> bytes:
    stranger = signing.sign(shipped(), DEVICE, MEMBER)
    return archive.write(stranger)


def climbing_path() -> bytes:
    return signed(shipped()).replace(b"params0.bin", b"../../x.bin")


TEN = {
    "external data": lambda: graph("external data, relative"),
    "custom domain": lambda: graph("custom domain"),
    "com.microsoft operator": lambda: graph("com.microsoft operator"),
    "Loop": lambda: graph("endless Loop"),
    "1.6 TB ConstantOfShape": lambda: graph("ConstantOfShape of 1.6 TB"),
    "wrong hash": other_hash,
    "wrong signature": other_signature,
    "opset 99": lambda: graph("opset 99"),
    "zip path": climbing_path,
    "oversized": lambda: bytes(archive.ARCHIVE_BYTES_MAX + 1),
}


def test_ten_hostile_bundles_ten_refused_and_this_process_goes_on(tmp_path: Path) -> None:
    refused = {}
    for name, make in TEN.items():
        with pytest.raises(BundleRefused) as caught:
            admit(make(), tmp_path, VERIFY)
        refused[name] = caught.value.reason
    assert len(refused) == 10
    bundle, verdict = admit(signed(shipped()), tmp_path, VERIFY)
    assert verdict.accepted
    pixels = np.zeros((40, 64))
    trainer = OnnxTrainer(bundle, pixels, np.zeros(40), pixels, np.zeros(40))
    assert trainer.loss(trainer.train(trainer.initial, Training(), 1)) < trainer.loss(
        trainer.initial
    )


def _unclipped(model: onnx.ModelProto) -> None:
    for one in model.graph.node:
        for position, name in enumerate(one.input):
            if name == "clip":
                one.input[position] = "far"
    model.graph.initializer.append(constant("far", 1e9, np.float32))


def _of_the_batch(model: onnx.ModelProto) -> None:
    for value in model.graph.input:
        if value.name in ("x", "y", "w"):
            value.type.tensor_type.shape.dim[0].dim_value = 32


@pytest.mark.parametrize(
    ("edit", "reason"), [(_unclipped, Reason.SELFTEST), (_of_the_batch, Reason.INTERFACE)]
)
def test_a_graph_for_fewer_examples_than_the_batch_is_checked_as_well(
    edit: Edit, reason: Reason
) -> None:
    bundle = shipped(bundles.MNIST_CNN)
    assert bundle.manifest.private_batch == 8
    with pytest.raises(BundleRefused) as caught:
        examine(edited(bundle, DP_GRADIENT, edit))
    assert caught.value.reason is reason
    wrong = changed(bundle, dp_batch=4)
    with pytest.raises(BundleRefused) as caught:
        examine(wrong)
    assert caught.value.reason is Reason.INTERFACE


def test_a_batch_that_is_only_called_dynamic_is_refused_since_its_gradients_are_wrong() -> None:
    """Sizes of the batch sit in constants: one example is spread over all places, silently."""
    bundle = shipped(bundles.REGRESSION)

    def free(model: onnx.ModelProto) -> None:
        for value in model.graph.input:
            if value.name in ("x", "y", "w"):
                value.type.tensor_type.shape.dim[0].dim_param = "N"

    loose = edited(bundle, DP_GRADIENT, free)
    batch = selftest_batch(bundle.manifest)
    feed = {"params": bundle.initial, "clip": np.array(1e9, np.float32)}
    one = {"x": batch.x[:1], "y": batch.y[:1], "w": batch.w[:1]}
    padded = {name: pad(value, bundle.manifest.batch) for name, value in one.items()}
    right = session(bundle.files[DP_GRADIENT]).run(None, {**feed, **padded})[0]
    found = session(loose.files[DP_GRADIENT]).run(None, {**feed, **one})[0]
    assert np.linalg.norm(found - right) > np.linalg.norm(right), "and onnxruntime says nothing"
    with pytest.raises(BundleRefused) as caught:
        examine(loose)
    assert caught.value.reason in (Reason.INTERFACE, Reason.SHAPE)


@pytest.mark.parametrize("name", bundles.NAMES)
def test_the_shipped_bundles_are_accepted(name: str, tmp_path: Path) -> None:
    bundle, verdict = admit(signed(shipped(name)), tmp_path, VERIFY)
    assert verdict.accepted
    assert 0 < verdict.step_ms < bundle.manifest.budget.step_max_ms
    assert 5 < verdict.rss_mb < bundle.manifest.budget.rss_max_mb


def test_bytes_that_are_no_protobuf(tmp_path: Path) -> None:
    for data in (b"\x00", b"\x08\x0agarbage" * 50, os.urandom(4_096)):
        assert refusal(changed(shipped(), {GRADIENT: data}), tmp_path) is Reason.MALFORMED


def test_a_protobuf_that_grows_a_hundredfold_when_parsed(tmp_path: Path) -> None:
    graph = b"\x0a\x00" * (8 * 1024 * 1024 - 64)  # eight million empty nodes
    size = len(graph)
    length = bytearray()
    while size:
        length.append(size & 0x7F | (0x80 if size > 0x7F else 0))
        size >>= 7
    model = b"\x08\x0a\x3a" + bytes(length) + graph  # ir_version 10, field 7: graph
    bundle = changed(shipped(), {GRADIENT: model})
    limits = Limits(memory_mb=200)
    assert refusal(bundle, tmp_path, limits) in (
        Reason.BUDGET,
        Reason.CRASHED,
        Reason.TOO_LARGE,
        Reason.VERSION,
        Reason.MALFORMED,
    )


def _work(times: int, size: int) -> Edit:
    """`times` products of size x size matrices whose sum, times zero, joins the gradients."""

    def edit(model: onnx.ModelProto) -> None:
        nodes = [
            node("ReduceMin", ["w"], ["low"], keepdims=0),  # 0, but nothing to fold at load
            node("Expand", ["low", "square"], ["m0"]),
        ]
        nodes += [node("MatMul", [f"m{i}", f"m{i}"], [f"m{i + 1}"]) for i in range(times)]
        nodes += [
            node("ReduceMax", [f"m{times}"], ["top"], keepdims=0),
            node("Add", ["w", "top"], ["w_used"]),
        ]
        for one in model.graph.node:
            for position, name in enumerate(one.input):
                if name == "w":
                    one.input[position] = "w_used"
        add(
            *nodes, constants=(constant("tiny", 0.0, np.float32), constant("square", [size, size]))
        )(model)

    return edit


def test_a_graph_that_computes_for_minutes_ends_with_its_cpu_time(tmp_path: Path) -> None:
    bundle = edited(shipped(), GRADIENT, _work(times=400, size=2_048))
    assert refusal(bundle, tmp_path, Limits(cpu_s=3, wall_s=60)) is Reason.CRASHED


def test_a_graph_that_computes_for_minutes_ends_with_the_wall_clock(tmp_path: Path) -> None:
    bundle = edited(shipped(), GRADIENT, _work(times=400, size=2_048))
    assert refusal(bundle, tmp_path, Limits(cpu_s=600, wall_s=3)) is Reason.TIMEOUT


def test_a_graph_that_wants_more_memory_than_there_is(tmp_path: Path) -> None:
    def edit(model: onnx.ModelProto) -> None:
        tensors = [node("Expand", ["tiny", "big"], [f"m{i}"]) for i in range(40)]
        total = node("Sum", [f"m{i}" for i in range(40)], ["total"])
        rest = [
            node("ReduceMax", ["total"], ["top"], keepdims=0),
            node("Add", ["w", "top"], ["w_used"]),
        ]
        for one in model.graph.node:
            for position, name in enumerate(one.input):
                if name == "w":
                    one.input[position] = "w_used"
        constants = (constant("tiny", 0.0, np.float32), constant("big", [60_000_000]))
        add(*tensors, total, *rest, constants=constants)(model)

    found = refusal(edited(shipped(), GRADIENT, edit), tmp_path)
    assert found in (Reason.RUNTIME, Reason.BUDGET, Reason.CRASHED)


def test_a_graph_that_aborts_onnx_itself_ends_the_child_alone(tmp_path: Path) -> None:
    """Found by flipping bits: a negative size makes shape inference of some versions abort."""

    def edit(model: onnx.ModelProto) -> None:
        convolution = next(n for n in model.graph.node if n.op_type == "Conv")
        dilations = next(a for a in convolution.attribute if a.name == "dilations")
        dilations.ints[:] = [1, 200]

    bundle = edited(shipped(bundles.MNIST_CNN), EVALUATE, edit)
    assert refusal(bundle, tmp_path) in (Reason.CRASHED, Reason.SHAPE)


def test_a_child_that_dies_is_a_refusal(tmp_path: Path) -> None:
    """No address space at all: Python itself cannot go on."""
    bundle = changed(shipped(), budget=Budget(rss_max_mb=32, step_max_ms=1_000.0))
    found = refusal(bundle, tmp_path, Limits(memory_mb=0))
    assert found in (Reason.CRASHED, Reason.BUDGET, Reason.RUNTIME, Reason.MALFORMED)


def test_a_budget_above_the_devices(tmp_path: Path) -> None:
    bundle = changed(shipped(), budget=Budget(rss_max_mb=4_096, step_max_ms=1_000.0))
    assert refusal(bundle, tmp_path) is Reason.BUDGET
    assert not (tmp_path / VERDICTS).exists()


def test_a_bundle_above_its_own_budget(tmp_path: Path) -> None:
    bundle = changed(shipped(), budget=Budget(rss_max_mb=512, step_max_ms=1e-6))
    assert refusal(bundle, tmp_path) is Reason.BUDGET


def test_another_self_test(tmp_path: Path) -> None:
    bundle = shipped()
    for wrong in (
        {"loss": bundle.manifest.selftest.loss + 0.1},
        {"gradient_norm": bundle.manifest.selftest.gradient_norm * 1.1},
    ):
        selftest = msgspec.structs.replace(bundle.manifest.selftest, **wrong)
        assert refusal(changed(bundle, selftest=selftest), tmp_path) is Reason.SELFTEST


def test_a_scan_that_clips_is_allowed(tmp_path: Path) -> None:
    """dp_grad.onnx in its other form, as authoring writes it for large models."""
    torch = pytest.importorskip("torch")
    from gossipfl.authoring.from_torch import Job, build

    job = Job(name="scan", input_shape=(4,), batch=8, classes=3, vmap_bytes_max=0)
    bundle = build(torch.nn.Linear(4, 3), job).bundle
    assert "Scan" in admit(signed(bundle), tmp_path, VERIFY)[1].operators


class TestVerdicts:
    def test_a_verdict_is_remembered(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        bundle = shipped()
        first = judge(bundle, tmp_path, Limits())
        assert stat.S_IMODE((tmp_path / VERDICTS).stat().st_mode) == 0o600
        monkeypatch.setattr(validate, "try_out", None)  # a second trial would fail loudly
        assert judge(bundle, tmp_path, Limits()) == first

    def test_a_refusal_is_remembered_too(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bundle = edited(shipped(), GRADIENT, CASES[0][2])
        assert refusal(bundle, tmp_path) is Reason.EXTERNAL
        monkeypatch.setattr(validate, "try_out", None)
        assert refusal(bundle, tmp_path) is Reason.EXTERNAL

    def test_chance_is_not_remembered(self, tmp_path: Path) -> None:
        assert refusal(shipped(), tmp_path, Limits(wall_s=0.01)) is Reason.TIMEOUT
        assert admit(signed(shipped()), tmp_path, VERIFY)[1].accepted

    def test_other_checks_or_runtime_mean_another_trial(self, tmp_path: Path) -> None:
        file = VerdictFile(tmp_path / VERDICTS)
        file.put(shipped().id, Verdict(accepted=True, checker="checks 0, onnxruntime 1.0"))
        assert file.get(shipped().id) is None

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"00":{"accepted":1}}'])
    def test_a_broken_file_counts_as_empty(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / VERDICTS).write_bytes(content)
        assert judge(shipped(), tmp_path, Limits()).accepted
        assert json.loads((tmp_path / VERDICTS).read_bytes())[shipped().id.hex()]["accepted"]

    def test_the_file_does_not_grow(self, tmp_path: Path) -> None:
        file = VerdictFile(tmp_path / VERDICTS)
        for number in range(ENTRIES_MAX + 5):
            file.put(bytes([number]) * 32, Verdict(accepted=True, checker=checker()))
        assert len(json.loads((tmp_path / VERDICTS).read_bytes())) == ENTRIES_MAX
        assert file.get(bytes(32)) is None
        assert file.get(bytes([ENTRIES_MAX + 4]) * 32) is not None


def test_the_trial_writes_no_file_and_reads_none_of_the_daemons_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SECRET_OF_THE_DAEMON", "x")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "onnx.py").write_text("raise SystemExit('code from the working directory')")
    assert try_out(shipped(), Limits()).accepted
    assert sorted(p.name for p in tmp_path.iterdir()) == ["onnx.py"]
    assert "SECRET_OF_THE_DAEMON" not in validate._environment()


def test_the_command_tells_what_a_device_would_say(gossipfl: Command, tmp_path: Path) -> None:
    file = tmp_path / "m.gfl"
    file.write_bytes(bundles.read_bytes(bundles.DIGITS_MLP))
    code, out, _ = gossipfl("bundle", "check", str(file), "--json")
    data = json.loads(out)["data"]
    assert code == 0
    assert data["verdict"] == "accepted"
    assert data["parameters"] == 9_610
    assert data["bytes_per_exchange"]["f32"] == 38_440
    assert data["step_ms"] > 0
    assert data["signer"] is None
    code, out, _ = gossipfl("bundle", "check", str(file))
    assert code == 0
    assert "38,440 bytes" in out

    file.write_bytes(signed(edited(shipped(), GRADIENT, CASES[0][2])))
    code, out, err = gossipfl("bundle", "check", str(file))
    assert code == 7
    assert out == ""
    assert "GF401" in err
    assert "external data" in err


def test_helper_types_are_what_the_walk_sees() -> None:
    """The corpus itself is well-formed: most of it passes onnx.checker, so the walk is needed."""
    passed = 0
    for file, _, edit, _ in CASES:
        model = onnx.ModelProto.FromString(shipped().files[file])
        edit(model)
        try:
            onnx.checker.check_model(model)
            passed += 1
        except (onnx.checker.ValidationError, ValueError):
            pass
    assert passed > len(CASES) // 3
    assert helper.tensor_dtype_to_np_dtype(TensorProto.FLOAT) == np.float32
