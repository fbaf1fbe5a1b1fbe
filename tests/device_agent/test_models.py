"""Using the model: what `predict` says and what an exported file gives anywhere else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from device_agent.models import export_bytes, export_onnx, predict
from device_agent.trainer import OnnxTrainer
from gossipfl import bundles
from gossipfl.bundle import archive
from gossipfl.bundle.archive import Bundle
from gossipfl.bundle.manifest import Task
from gossipfl.errors import UserError
from gossipfl.messages import Training


def shipped(name: str) -> Bundle:
    return archive.read(bundles.read_bytes(name))


def raw(bundle: Bundle, count: int) -> np.ndarray:
    """Inputs in the raw range of the bundle's data."""
    scale = bundle.manifest.preprocessing.scale
    shape = (count, *bundle.manifest.input.shape)
    return np.random.default_rng(1).uniform(0, 1 / scale, shape).astype(np.float32)


def bare(path: Path, x: np.ndarray) -> np.ndarray:
    """The file in onnxruntime as anybody would use it: default options, padded batches."""
    session = onnxruntime.InferenceSession(str(path))
    (port,) = session.get_inputs()
    parts = []
    for start in range(0, len(x), port.shape[0]):
        piece = x[start : start + port.shape[0]]
        padded = np.zeros(port.shape, np.float32)
        padded[: len(piece)] = piece
        parts.append(session.run(None, {port.name: padded})[0][: len(piece)])
    return np.concatenate(parts)


@pytest.mark.parametrize("name", bundles.NAMES)
def test_an_exported_model_gives_exactly_what_predict_gives(name: str, tmp_path: Path) -> None:
    bundle = shipped(name)
    parameters = bundle.initial + np.float32(0.01)
    x = raw(bundle, 70)
    path = tmp_path / "model.onnx"
    export_onnx(bundle, parameters, path, {"round": "17", "lineage": "ab12"})
    found = predict(bundle, parameters, x)
    assert np.array_equal(bare(path, x), found.outputs)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert {opset.domain for opset in model.opset_import} == {""}
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["gossipfl.round"] == "17"
    assert metadata["gossipfl.lineage"] == "ab12"
    assert metadata["gossipfl.bundle"] == bundle.id.hex()
    assert [value.name for value in model.graph.input] == ["x"]


def test_an_exported_model_has_exactly_the_accuracy_that_the_device_reports(
    tmp_path: Path,
) -> None:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    bundle = shipped(bundles.DIGITS_MLP)
    trainer = OnnxTrainer(bundle, x[:1000], y[:1000], x[1000:], y[1000:])
    learnt = trainer.train(trainer.initial, Training(epochs=5), 1)
    path = tmp_path / "model.onnx"
    export_onnx(bundle, learnt, path, {})
    right = bare(path, x[1000:].astype(np.float32)).argmax(1) == y[1000:]
    assert right.mean() == trainer.evaluate(learnt).accuracy


def test_classes_and_probabilities() -> None:
    bundle = shipped(bundles.DIGITS_LOGISTIC)
    found = predict(bundle, bundle.initial, raw(bundle, 5))
    assert found.classes is not None
    assert found.probabilities is not None
    assert found.classes.shape == (5,)
    np.testing.assert_allclose(found.probabilities.sum(1), 1, atol=1e-6)
    assert np.array_equal(found.probabilities.argmax(1), found.classes)


def test_values_come_in_the_unit_of_the_raw_targets() -> None:
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True)
    bundle = shipped(bundles.REGRESSION)
    assert bundle.manifest.task is Task.REGRESSION
    trainer = OnnxTrainer(bundle, x[:342], y[:342], x[342:], y[342:])
    learnt = trainer.train(trainer.initial, Training(epochs=60, learning_rate=0.02), 1)
    found = predict(bundle, learnt, x[342:])
    assert found.classes is None
    assert found.outputs.shape == (100,)
    error = np.abs(found.outputs - y[342:]).mean()
    assert error < 0.75 * np.abs(y[342:] - y[:342].mean()).mean()
    loss = np.mean(0.5 * ((found.outputs - y[342:]) * 0.013) ** 2)
    assert trainer.evaluate(learnt).loss == pytest.approx(loss, rel=1e-4)


def test_no_inputs_no_answers() -> None:
    bundle = shipped(bundles.DIGITS_LOGISTIC)
    assert predict(bundle, bundle.initial, np.zeros((0, 64))).outputs.shape == (0, 10)


def test_parameters_of_another_model_are_refused() -> None:
    bundle = shipped(bundles.DIGITS_LOGISTIC)
    with pytest.raises(UserError, match="not 650"):
        export_bytes(bundle, np.zeros(651, np.float32))


def test_an_export_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    bundle = shipped(bundles.DIGITS_LOGISTIC)
    with pytest.raises(UserError) as caught:
        export_onnx(bundle, bundle.initial, tmp_path / "nowhere" / "m.onnx", {})
    assert caught.value.code == "GF403"


def test_equal_models_are_equal_files() -> None:
    bundle = shipped(bundles.MNIST_CNN)
    assert export_bytes(bundle, bundle.initial) == export_bytes(bundle, bundle.initial)
