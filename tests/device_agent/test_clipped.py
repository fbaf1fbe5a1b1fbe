"""unit=record by the real graphs: per-example clipping beside numpy, and examples that explode."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from device_agent.batches import Examples, pad
from device_agent.clipped import ClippedSums
from device_agent.runtime import session
from device_agent.trainer import OnnxTrainer
from gossipfl import bundles
from gossipfl.bundle import archive
from gossipfl.bundle.archive import Bundle
from gossipfl.messages import Training
from gossipfl.privacy import RecordPrivacy
from gossipfl.privacy.record_unit import SLACK, poisson
from gossipfl.privacy.stream import Stream

Array = npt.NDArray[np.float64]


def shipped(name: str) -> Bundle:
    return archive.read(bundles.read_bytes(name))


@pytest.fixture(scope="module")
def digits() -> tuple[Array, npt.NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return x[:300], y[:300]


def per_example(flat: Array, x: Array, y: npt.NDArray[np.int64]) -> Array:
    """float64[n, 650]: gradients of logistic regression, by hand."""
    weight, bias = flat[:640].reshape(10, 64), flat[640:]
    scores = x @ weight.T + bias
    p = np.exp(scores - scores.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    p[np.arange(len(y)), y] -= 1
    return np.concatenate([np.einsum("ni,nj->nij", p, x).reshape(len(y), 640), p], axis=1)


def clipped(grads: Array, clip: float) -> Array:
    norms = np.linalg.norm(grads, axis=1, keepdims=True)
    return grads * np.minimum(1.0, clip / np.maximum(norms, 1e-12))


@pytest.mark.parametrize("clip", [0.01, 0.5, 100.0])
@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 200])
def test_sums_are_those_of_numpy(digits: tuple[Array, Array], clip: float, count: int) -> None:
    x, y = digits
    bundle = shipped(bundles.DIGITS_LOGISTIC)
    sums = ClippedSums(bundle, Examples(bundle.manifest, x, y, "training"))
    flat = np.random.default_rng(1).standard_normal(650) * 0.1
    chosen = np.sort(np.random.default_rng(2).permutation(300)[:count])
    found = sums(flat.astype(np.float32), chosen, clip)
    grads = per_example(flat.astype(np.float32).astype(float), x[chosen] / 16, y[chosen])
    wanted = clipped(grads, clip).sum(0)
    assert np.linalg.norm(found - wanted) <= 1e-5 * clip * max(1, count)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 31, 32, 33])
def test_sums_of_a_split_batch_are_those_of_single_gradients(count: int) -> None:
    """The convolutions: dp_grad.onnx takes 8 at once, grad.onnx one after the other."""
    bundle = shipped(bundles.MNIST_CNN)
    rng = np.random.default_rng(4)
    x, y = rng.integers(0, 256, (40, 784)), rng.integers(0, 10, 40)
    examples = Examples(bundle.manifest, x, y, "training")
    chosen = np.sort(rng.permutation(40)[:count])
    single = session(bundle.files["grad.onnx"])
    w = np.zeros(32, np.float32)
    w[0] = 1.0
    wanted, clip = np.zeros(bundle.layout.count), 1.0
    for one in chosen:
        feed = {"params": bundle.initial, "w": w}
        feed["x"], feed["y"] = pad(examples.x[[one]], 32), pad(examples.y[[one]], 32)
        wanted += clipped(single.run(None, feed)[0][None].astype(float), clip)[0]
    found = ClippedSums(bundle, examples)(bundle.initial, chosen, clip)
    assert np.linalg.norm(found - wanted) <= 1e-5 * clip * max(1, count)
    assert count == 0 or np.linalg.norm(found) > 0.1 * clip


def test_a_split_batch_leaves_little_of_the_last_one_empty() -> None:
    """Lots of one batch: a sample of 33 is 40 rows of work, not 64."""
    bundle = shipped(bundles.MNIST_CNN)
    examples = Examples(bundle.manifest, np.zeros((40, 784)), np.zeros(40), "training")
    cuts = list(examples.taken(np.arange(33)))
    assert [start for start, _ in cuts] == [0, 8, 16, 24, 32]
    assert sum(len(cut.x) for _, cut in cuts) == 40
    assert sum(cut.w.sum() for _, cut in cuts) == 33


def test_an_example_that_explodes_adds_nothing_and_spoils_nobody(
    digits: tuple[Array, Array],
) -> None:
    """Otherwise one record could wipe out a batch, which is more than the clip."""
    x, y = digits[0][:40].copy(), digits[1][:40]
    bundle = shipped(bundles.DIGITS_LOGISTIC)
    flat = (np.random.default_rng(3).standard_normal(650) * 50).astype(np.float32)
    good = ClippedSums(bundle, Examples(bundle.manifest, x, y, "training"))
    wanted = good(flat, np.delete(np.arange(40), 7), 1.0)
    x[7] = 3e38
    broken = ClippedSums(bundle, Examples(bundle.manifest, x, y, "training"))
    (_, cut), *_ = Examples(bundle.manifest, x, y, "training").taken(np.arange(32))
    raw = session(bundle.files["dp_grad.onnx"]).run(
        None,
        {"params": flat, "x": cut.x, "y": cut.y, "w": cut.w, "clip": np.array(1.0, np.float32)},
    )[0]
    assert not np.isfinite(raw).all(), "the graph itself gives no usable sum"
    found = broken(flat, np.arange(40), 1.0)
    assert np.isfinite(found).all()
    assert np.linalg.norm(found - wanted) < 1e-4


@pytest.mark.parametrize("name", [bundles.DIGITS_LOGISTIC, "digits-mlp"])
def test_rounding_of_sums_is_far_within_the_slack(digits: tuple[Array, Array], name: str) -> None:
    """One example more moves all that follow into other batches: their sums round otherwise."""
    x, y = digits
    bundle = shipped(name)
    sums = ClippedSums(bundle, Examples(bundle.manifest, x, y, "training"))
    chosen = np.arange(100)
    worst = 0.0
    for extra in range(100, 110):
        # the same examples behind one that is taken as well: each in another place
        together = sums(bundle.initial, np.concatenate([[extra], chosen]), 0.1)
        alone = sums(bundle.initial, np.array([extra]), 0.1)
        change = together - alone - sums(bundle.initial, chosen, 0.1)
        worst = max(worst, float(np.linalg.norm(change)) / 0.1)
    assert worst < SLACK / 10


def test_no_example_moves_a_sum_by_more_than_the_clip(digits: tuple[Array, Array]) -> None:
    x, y = digits
    bundle = shipped("digits-mlp")
    sums = ClippedSums(bundle, Examples(bundle.manifest, x * 100, y, "training"))
    before = sums(bundle.initial, np.arange(50), 0.3)
    for extra in range(50, 80):
        after = sums(bundle.initial, np.append(np.arange(50), extra), 0.3)
        assert np.linalg.norm(after - before) <= 0.3 * (1 + SLACK / 2)


def test_private_training_is_dp_sgd_of_numpy(digits: tuple[Array, Array]) -> None:
    """The same key gives the same samples and noise, so both ways must meet."""
    from gossipfl.privacy.record_unit import noised_mean

    x, y = digits
    bundle = shipped(bundles.DIGITS_LOGISTIC)
    trainer = OnnxTrainer(bundle, x, y, x[:10], y[:10])
    mode = RecordPrivacy(clip=0.5, z=1.0, sample_rate=0.2, steps=12, lot=60)
    training = Training(learning_rate=0.5, momentum=0.9)
    key = b"k" * 32
    out = trainer.train_private(bundle.initial, training, mode, key)
    stream = Stream(key)
    flat, velocity = bundle.initial.astype(float), np.zeros(650)
    for _ in range(12):
        chosen = poisson(300, 0.2, stream)
        total = clipped(per_example(flat, x[chosen] / 16, y[chosen]), 0.5).sum(0)
        velocity = 0.9 * velocity + noised_mean(total, mode, stream)
        flat = flat - 0.5 * velocity
    assert out.spec == mode
    assert np.linalg.norm(out.vector - flat) < 1e-3 * np.linalg.norm(flat - bundle.initial)


def test_private_training_still_learns(digits: tuple[Array, Array]) -> None:
    x, y = digits
    bundle = shipped(bundles.DIGITS_LOGISTIC)
    trainer = OnnxTrainer(bundle, x, y, x, y)
    mode = RecordPrivacy(clip=1.0, z=0.5, sample_rate=0.2, steps=60, lot=60)
    model = trainer.train_private(
        bundle.initial, Training(learning_rate=0.5, momentum=0.5), mode, b"q" * 32
    )
    found = trainer.evaluate(model.vector).accuracy
    assert found is not None
    assert found > 0.8
