"""Training on the device: the same learning as torch's, from a bundle, with plain onnxruntime."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from device_agent.trainer import OnnxTrainer
from gossipfl import bundles
from gossipfl.bundle import archive
from gossipfl.bundle.archive import Bundle
from gossipfl.bundle.selftest import selftest_batch
from gossipfl.errors import UserError
from gossipfl.interfaces import Trainer
from gossipfl.messages import Training

Array = npt.NDArray[np.float32]
Split = tuple[Array, Array, Array, Array]
PLAIN = Training(epochs=1, learning_rate=0.1, momentum=0.0)


def shipped(name: str) -> Bundle:
    return archive.read(bundles.read_bytes(name))


@pytest.fixture(scope="module")
def digits() -> Split:
    """Raw pixels of 0..16: 1,437 to train on, 360 held out."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order], y[order]
    return x[:1437], y[:1437], x[1437:], y[1437:]


def softmax_gradient(flat: Array, x: Array, y: Array) -> Array:
    """Of the mean cross-entropy of logistic regression, by hand."""
    weight, bias = flat[:640].reshape(10, 64), flat[640:]
    scores = x @ weight.T + bias
    p = np.exp(scores - scores.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    p[np.arange(len(y)), y] -= 1
    return np.concatenate([(p.T @ x).ravel(), p.sum(0)]) / len(y)


class TestOptimizer:
    """Against formulas by hand, on logistic regression."""

    @pytest.fixture
    def trainer(self, digits: Split) -> OnnxTrainer:
        x, y, test_x, test_y = digits
        return OnnxTrainer(shipped(bundles.DIGITS_LOGISTIC), x[:70], y[:70], test_x, test_y)

    def steps(self, digits: Split, training: Training, seed: int) -> Array:
        x, y = digits[0][:70] / 16, digits[1][:70]
        base = shipped(bundles.DIGITS_LOGISTIC).initial.astype(np.float64)
        flat, velocity = base.copy(), np.zeros(650)
        rng = np.random.default_rng(seed)
        for _ in range(training.epochs):
            order = rng.permutation(70)
            size = training.batch or 32  # 70 examples: the last batch is a partial one
            for start in range(0, 70, size):
                chosen = order[start : start + size]
                step = softmax_gradient(flat, x[chosen], y[chosen])
                step += training.prox * (flat - base)
                velocity = training.momentum * velocity + step
                flat = flat - training.learning_rate * velocity
        return flat

    @pytest.mark.parametrize(
        "training",
        [
            PLAIN,
            Training(epochs=3, learning_rate=0.5, momentum=0.0),
            Training(epochs=3, learning_rate=0.05, momentum=0.9),
            Training(epochs=3, learning_rate=0.05, momentum=0.9, prox=1.0),
            Training(epochs=2, learning_rate=0.1, momentum=0.0, batch=9),
        ],
        ids=["plain", "epochs", "momentum", "prox", "small batches"],
    )
    def test_it_is_sgd_with_momentum_and_proximal_term(
        self, trainer: OnnxTrainer, digits: Split, training: Training
    ) -> None:
        found = trainer.train(trainer.initial, training, seed=5)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, self.steps(digits, training, 5), atol=2e-6)

    def test_the_proximal_term_keeps_it_near_the_base(self, trainer: OnnxTrainer) -> None:
        far, near = (
            trainer.train(trainer.initial, Training(epochs=5, prox=prox), 1) for prox in (0.0, 5.0)
        )
        assert np.linalg.norm(near - trainer.initial) < 0.5 * np.linalg.norm(far - trainer.initial)

    def test_more_examples_a_step_than_the_bundle_takes(self, trainer: OnnxTrainer) -> None:
        with pytest.raises(UserError, match="the bundle takes 32"):
            trainer.train(trainer.initial, Training(batch=33), 1)

    def test_it_is_a_pure_function(self, trainer: OnnxTrainer) -> None:
        base = trainer.initial.copy()
        first = trainer.train(base, PLAIN, seed=1)
        trainer.train(first, PLAIN, seed=9)
        trainer.evaluate(first)
        assert np.array_equal(trainer.train(base, PLAIN, seed=1), first)
        assert not np.array_equal(trainer.train(base, PLAIN, seed=2), first)
        assert np.array_equal(base, trainer.initial)

    def test_it_is_a_trainer(self, trainer: OnnxTrainer) -> None:
        seam: Trainer = trainer
        assert seam.layout.count == 650
        assert trainer.examples == 70

    def test_loss_is_the_mean_over_all_examples(self, trainer: OnnxTrainer, digits: Split) -> None:
        x, y = digits[0][:70] / 16, digits[1][:70]
        flat = trainer.train(trainer.initial, PLAIN, 1)
        scores = x @ flat[:640].reshape(10, 64).T + flat[640:]
        expected = np.mean(np.log(np.exp(scores).sum(1)) - scores[np.arange(70), y])
        assert trainer.loss(flat) == pytest.approx(expected, abs=1e-5)

    def test_held_out_accuracy_is_counted(self, trainer: OnnxTrainer, digits: Split) -> None:
        x, y = digits[2] / 16, digits[3]
        flat = trainer.train(trainer.initial, Training(epochs=10), 1)
        right = (x @ flat[:640].reshape(10, 64).T + flat[640:]).argmax(1) == y
        seen = trainer.evaluate(flat)
        assert seen.accuracy == pytest.approx(right.mean(), abs=1e-9)
        assert seen.examples == 360

    def test_without_held_out_examples_it_says_so(self, digits: Split) -> None:
        x, y = digits[0][:5], digits[1][:5]
        trainer = OnnxTrainer(shipped(bundles.DIGITS_LOGISTIC), x, y, x[:0], y[:0])
        seen = trainer.evaluate(trainer.initial)
        assert (seen.accuracy, seen.examples) == (None, 0)
        assert seen.loss == trainer.loss(trainer.initial)

    def test_a_learning_rate_too_high_ends_not_finite_and_not_in_an_error(
        self, digits: Split
    ) -> None:
        x, y, *held = digits
        trainer = OnnxTrainer(shipped(bundles.DIGITS_MLP), x, y, *held)
        wild = Training(epochs=20, learning_rate=100.0, momentum=0.99)
        found = trainer.train(trainer.initial, wild, 1)
        assert found.shape == trainer.initial.shape


class TestAgainstTorch:
    """Line by line the same run: same batches, same start, torch's own optimiser."""

    @pytest.mark.parametrize("momentum", [0.0, 0.9])
    def test_a_digits_run_ends_with_torchs_accuracy(
        self, digits: Split, momentum: float, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        torch = pytest.importorskip("torch")
        monkeypatch.syspath_prepend(root / "examples")
        from digits_mlp import Mlp

        bundle = shipped(bundles.DIGITS_MLP)
        trainer = OnnxTrainer(bundle, *digits)
        training = Training(epochs=20, learning_rate=0.1, momentum=momentum)
        ours = trainer.train(trainer.initial, training, seed=3)
        accuracy = trainer.evaluate(ours).accuracy
        assert accuracy is not None

        model = Mlp()
        flat = torch.from_numpy(bundle.initial.copy())
        torch.nn.utils.vector_to_parameters(flat, model.parameters())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=momentum)
        x = torch.from_numpy((digits[0] / 16).astype(np.float32))
        y = torch.from_numpy(digits[1])
        rng = np.random.default_rng(3)
        for _ in range(20):
            for chosen in torch.from_numpy(rng.permutation(len(x))).split(32):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(model(x[chosen]), y[chosen]).backward()
                optimizer.step()
        held = torch.from_numpy((digits[2] / 16).astype(np.float32))
        right = model(held).argmax(1).numpy() == digits[3]
        assert abs(accuracy - right.mean()) <= 0.005
        assert accuracy > 0.96
        theirs = torch.nn.utils.parameters_to_vector(model.parameters()).detach().numpy()
        assert np.abs(ours - theirs).max() < 0.01


def test_a_digits_run_learns(digits: Split) -> None:
    trainer = OnnxTrainer(shipped(bundles.DIGITS_MLP), *digits)
    before = trainer.evaluate(trainer.initial)
    after = trainer.evaluate(
        trainer.train(trainer.initial, Training(epochs=20, learning_rate=0.1, momentum=0.0), 1)
    )
    assert before.accuracy is not None
    assert after.accuracy is not None
    assert before.accuracy < 0.3
    assert after.accuracy > 0.96


def test_the_convolutional_net_learns_to_tell_bars(digits: Split) -> None:
    """Ten kinds of bright bars in noise, as 28x28 pictures of 0..255, given flat."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 10, 320)
    x = rng.uniform(0, 80, (320, 28, 28))
    for picture, label in zip(x, y, strict=True):
        if label < 5:
            picture[:, 3 + 5 * label : 6 + 5 * label] += 150
        else:
            picture[3 + 5 * (label - 5) : 6 + 5 * (label - 5)] += 150
    flat = x.reshape(320, 784)
    trainer = OnnxTrainer(shipped(bundles.MNIST_CNN), flat[:256], y[:256], flat[256:], y[256:])
    after = trainer.train(
        trainer.initial, Training(epochs=10, learning_rate=0.05, momentum=0.9), seed=1
    )
    assert (trainer.evaluate(after).accuracy or 0) > 0.95


def test_float_targets_train() -> None:
    """Four tenths of the variance of a year's progress are explained, as by a linear fit."""
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True)
    order = np.random.default_rng(1).permutation(len(x))
    x, y = x[order], y[order]
    trainer = OnnxTrainer(shipped(bundles.REGRESSION), x[:342], y[:342], x[342:], y[342:])
    training = Training(epochs=20, learning_rate=0.05, momentum=0.0)
    before = trainer.evaluate(trainer.initial)
    after = trainer.evaluate(trainer.train(trainer.initial, training, seed=1))
    assert after.accuracy is None
    assert after.loss < 0.7 * before.loss
    scaled = y[342:] * 0.013 - 2
    assert after.loss < 0.65 * 0.5 * np.var(scaled)


class TestData:
    """What does not fit is said before training, in numpy."""

    def make(self, x: object, y: object, name: str = bundles.DIGITS_LOGISTIC) -> OnnxTrainer:
        raw_x, raw_y = np.asarray(x), np.asarray(y)
        return OnnxTrainer(shipped(name), raw_x, raw_y, raw_x, raw_y)

    @pytest.mark.parametrize(
        ("x", "y", "word"),
        [
            (np.zeros((3, 64)), [0, 1, 10], "0 to 9"),
            (np.zeros((3, 64)), [0, 1, -1], "0 to 9"),
            (np.zeros((3, 64)), [0, 1, 2**40], "0 to 9"),
            (np.zeros((3, 64)), [0, 1, 0.5], "whole"),
            (np.zeros((3, 64)), [0, 1, np.nan], "whole"),
            (np.zeros((3, 64)), ["a", "b", "c"], "whole"),
            (np.zeros((3, 64)), [0, 1], "3 inputs and 2 targets"),
            (np.zeros((3, 63)), [0, 1, 2], "63"),
            (np.zeros((3, 64, 2)), [0, 1, 2], "64"),
            (np.full((3, 64), np.nan), [0, 1, 2], "NaN"),
            (np.full((3, 64), np.inf), [0, 1, 2], "NaN"),
            (np.full((3, 64), 1e300), [0, 1, 2], "NaN"),
            (np.array([["x"] * 64] * 3), [0, 1, 2], "not numbers"),
            (np.array(5.0), np.array(1), "shape"),
            (np.zeros((0, 64)), np.zeros(0), "no training examples"),
        ],
    )
    def test_refused(self, x: object, y: object, word: str) -> None:
        with pytest.raises(UserError, match=word) as caught:
            self.make(x, y)
        assert caught.value.code == "GF405"

    @pytest.mark.parametrize(
        "y", [[0, 1, 9], [0.0, 1.0, 9.0], [[0], [1], [9]], [False, True, True]]
    )
    def test_taken(self, y: object) -> None:
        trainer = self.make(np.ones((3, 8, 8), np.uint8), y)
        assert np.isfinite(trainer.loss(trainer.initial))

    def test_the_callers_arrays_stay_as_they_are(self) -> None:
        x, y = np.ones((3, 64), np.float32), np.zeros(3, np.int64)
        self.make(x, y)
        x[0, 0] = 5
        assert x.max() == 5
        assert x[1].max() == 1


def test_the_self_test_inputs_never_change() -> None:
    """They stand for the author's figures in every bundle that was ever signed."""
    batch = selftest_batch(shipped(bundles.DIGITS_LOGISTIC).manifest)
    assert batch.x.shape == (32, 64)
    assert batch.x[0, :3].tolist() == pytest.approx(FIRST_X, abs=0)
    assert batch.y[:6].tolist() == FIRST_Y
    assert batch.w.tolist() == [1.0] * 31 + [0.0]


FIRST_X = [-0.7551577091217041, -0.7960288524627686, -0.15668118000030518]
FIRST_Y = [5, 5, 2, 5, 0, 1]

TELEMETRY = """
import json, os, sys
import numpy as np
before = len(os.listdir("/proc/self/task"))
from device_agent.trainer import OnnxTrainer
from gossipfl import bundles
from gossipfl.bundle import archive
from gossipfl.messages import Training
x, y = np.ones((40, 64)), np.zeros(40)
trainer = OnnxTrainer(archive.read(bundles.read_bytes(bundles.DIGITS_MLP)), x, y, x, y)
trainer.evaluate(trainer.train(trainer.initial, Training(epochs=20), 1))
import onnxruntime
after = len(os.listdir("/proc/self/task"))
print(json.dumps({"threads": after - before, "version": onnxruntime.__version__}))
"""


def test_training_leaves_no_telemetry_file_and_no_thread(tmp_path: Path, root: Path) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "TMPDIR": str(tmp_path),
        "PYTHONPATH": str(root),
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", TELEMETRY],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["threads"] == 0
    assert list(tmp_path.rglob("*")) == []
