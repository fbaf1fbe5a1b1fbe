"""`bundle from-torch`: what it writes is what torch computes, or it writes nothing."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from gossipfl import bundles  # noqa: E402
from gossipfl.authoring import decompositions, lots, selfcheck  # noqa: E402
from gossipfl.authoring.from_torch import Job, build  # noqa: E402
from gossipfl.authoring.functions import FlatModel  # noqa: E402
from gossipfl.bundle import archive  # noqa: E402
from gossipfl.bundle.manifest import DP_GRADIENT, GRAPHS, DType, Task, TensorSpec  # noqa: E402
from gossipfl.errors import UserError  # noqa: E402

nn = torch.nn
Command = Callable[..., tuple[int, str, str]]
SHIPPED = {
    bundles.DIGITS_LOGISTIC: ("digits_logistic", "Logistic"),
    bundles.DIGITS_MLP: ("digits_mlp", "Mlp"),
    bundles.MNIST_CNN: ("mnist_cnn", "Cnn"),
    bundles.MNIST_LOGISTIC: ("mnist_logistic", "Logistic"),
    bundles.VOWELS_LOGISTIC: ("vowels_logistic", "Logistic"),
    bundles.REGRESSION: ("regression", "Progress"),
}


@pytest.fixture
def examples(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(root / "examples")
    return root / "examples"


@pytest.mark.parametrize("name", bundles.NAMES)
def test_every_graph_that_ships_is_within_1e_5_of_torch(name: str, examples: Path) -> None:
    file, class_name = SHIPPED[name]
    bundle = archive.read(bundles.read_bytes(name))
    manifest = bundle.manifest
    torch.manual_seed(3)  # another point than the one it was made at
    model = FlatModel(getattr(importlib.import_module(file), class_name)())
    assert [n for n, _ in model.named] == [t.name for t in bundle.layout.tensors]
    feeds = selfcheck.random_feeds(
        model, manifest.batch, manifest.input, manifest.target, manifest.classes, None
    )
    selfcheck.add_clip(model, manifest.task, feeds)
    graphs = {graph: bundle.files[graph] for graph in GRAPHS}
    errors = selfcheck.check(model, manifest.task, graphs, feeds, manifest.private_batch)
    assert set(errors) == set(GRAPHS)
    assert max(errors.values()) < 1e-5


@pytest.mark.slow
def test_the_command_makes_the_very_file_that_ships(
    gossipfl: Command, examples: Path, tmp_path: Path
) -> None:
    out = tmp_path / "m.gfl"
    shape = ("--input", "64", "--classes", "10", "--batch", "32", "--scale", "0.0625")
    model = f"{examples / 'digits_logistic.py'}:Logistic"
    code, text, _ = gossipfl("bundle", "from-torch", model, *shape, "-o", str(out), "--json")
    assert code == 0
    data = json.loads(text)["data"]
    assert data["parameters"] == 650
    assert max(data["self_check"].values()) < 1e-5
    made = archive.read_path(out)
    ours = archive.read(bundles.read_bytes(bundles.DIGITS_LOGISTIC))
    if made.manifest.producer == ours.manifest.producer:
        assert out.read_bytes() == bundles.read_bytes(bundles.DIGITS_LOGISTIC)
    assert made.manifest.layout == ours.manifest.layout


def conv_net() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(27, 4)
    )


@pytest.mark.slow
@pytest.mark.parametrize("dp_batch", [1, 3])
def test_private_training_is_the_same_whatever_the_batch_of_its_graph(dp_batch: int) -> None:
    """Up to the rounding of float32 sums: the same samples, the same noise, the same model."""
    import numpy as np

    from device_agent.trainer import OnnxTrainer
    from gossipfl.messages import Training
    from gossipfl.privacy import RecordPrivacy

    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((60, 64)), rng.integers(0, 4, 60)
    mode = RecordPrivacy(clip=0.5, z=1.0, sample_rate=0.2, steps=8, lot=12)
    models = []
    for size in (8, dp_batch):
        job = Job(name="split", input_shape=(1, 8, 8), batch=8, dp_batch=size, classes=4)
        bundle = build(conv_net(), job).bundle
        assert bundle.manifest.private_batch == size
        assert bundle.manifest.format == (2 if size < 8 else 1)
        trainer = OnnxTrainer(bundle, x, y, x, y)
        training = Training(learning_rate=0.5, momentum=0.9)
        models.append(trainer.train_private(bundle.initial, training, mode, b"k" * 32).vector)
    before, after = models
    assert np.linalg.norm(after - before) < 1e-5 * np.linalg.norm(before - bundle.initial)


class TestHowManyAtOnce:
    def test_costly_examples_few_at_once_and_cheap_ones_the_whole_batch(
        self, examples: Path
    ) -> None:
        for name, batch, size in (("mnist_cnn", 32, 8), ("digits_mlp", 32, 32)):
            class_name = SHIPPED[name.replace("_", "-")][1]
            model = FlatModel(getattr(importlib.import_module(name), class_name)())
            shape = [1, 28, 28] if name == "mnist_cnn" else [64]
            specs = TensorSpec(dtype=DType.F32, shape=shape), TensorSpec(dtype=DType.I64)
            (feed, *_) = selfcheck.random_feeds(model, batch, *specs, 10, None)
            assert lots.dp_batch(model, Task.CLASSIFICATION, batch, feed) == size

    @pytest.mark.parametrize("example_s", [1e-7, 1e-5, 3e-5, 1e-4, 1e-3, 1e-1])
    def test_no_other_power_of_two_costs_clearly_less(
        self, monkeypatch: pytest.MonkeyPatch, example_s: float
    ) -> None:
        model, batch = FlatModel(nn.Linear(4, 3)), 32
        monkeypatch.setattr(lots, "seconds_per_example", lambda *_: example_s)
        found = lots.dp_batch(model, Task.CLASSIFICATION, batch, {})

        def cost(size: int) -> float:
            runs = sum(-(-n // size) for n in range(20, 45)) / 25  # a lot of 32, more or less
            return runs * (lots.RUN_S + lots.PARAMETER_S * model.count + example_s * size)

        assert cost(found) <= 1.1 * min(cost(2**power) for power in range(6))

    @pytest.mark.parametrize("dp_batch", [0, -1, 5, 10**6])
    def test_one_that_makes_no_sense_is_refused(self, dp_batch: int) -> None:
        job = Job(name="x", input_shape=(4,), batch=4, dp_batch=dp_batch, classes=3)
        with pytest.raises(UserError) as caught:
            build(nn.Linear(4, 3), job)
        assert caught.value.code == "GF402"


@pytest.mark.slow
def test_a_planted_wrong_decomposition_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Max-pool that hands its gradient to every tap with the maximum: wrong on ties alone."""

    def all_win(grad: Any, x: Any, kernel: Any, *rest: Any) -> Any:
        best, _ = decompositions.max_pool2d_with_indices(x, kernel)
        window = decompositions._Window.of(kernel, (), (0,), (1,), False)
        zero = torch.zeros(())
        return window.scatter([torch.where(t == best, grad, zero) for t in window.slices(x)], x)

    honest = decompositions.table()
    aten = torch.ops.aten
    monkeypatch.setattr(
        decompositions,
        "table",
        lambda: {**honest, aten.max_pool2d_with_indices_backward.default: all_win},
    )
    with pytest.raises(UserError, match=r"self-check: .*grad\.onnx differs") as caught:
        build(conv_net(), Job(name="planted", input_shape=(1, 8, 8), batch=4, classes=4))
    assert caught.value.code == "GF402"


@pytest.mark.slow
def test_without_own_decompositions_nothing_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gossipfl: Command, examples: Path
) -> None:
    """torch's own table alone: an error or a difference, and no file either way."""
    from torch._decomp import core_aten_decompositions

    monkeypatch.setattr(decompositions, "table", lambda: dict(core_aten_decompositions()))
    out = tmp_path / "m.gfl"
    shape = ("--input", "1,28,28", "--classes", "10", "--batch", "2")
    code, _, err = gossipfl(
        "bundle", "from-torch", f"{examples / 'mnist_cnn.py'}:Cnn", *shape, "-o", str(out)
    )
    assert code == 1
    assert "GF402" in err
    assert not out.exists()


class Sampling(nn.Module):
    """Per-step classes of a tiny recurrent net."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(3, 5, batch_first=True)
        self.out = nn.Linear(5, 4)

    def forward(self, x: Any) -> Any:
        return self.out(self.cell(x)[0])


class Words(nn.Module):
    """Attention over tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.out = nn.Linear(8, 3)

    def forward(self, x: Any) -> Any:
        return self.out(self.layer(self.embed(x)).mean(1))


KINDS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "conv, max-pool, Scan": (
        conv_net,
        {"input_shape": (1, 8, 8), "classes": 4, "vmap_bytes_max": 0},
    ),
    "sequence of an LSTM": (
        Sampling,
        {"input_shape": (4, 3), "classes": 4, "task": Task.SEQUENCE, "target_shape": (4,)},
    ),
    "attention on tokens": (Words, {"input_shape": (5,), "classes": 3, "vocabulary": 11}),
    "several float targets": (
        lambda: nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2)),
        {"input_shape": (6,), "task": Task.REGRESSION, "target_shape": (2,)},
    ),
}

SCANNED = ("conv, max-pool, Scan", "sequence of an LSTM")  # asked for; vmap cannot do an LSTM


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_other_kinds_of_models_and_a_device_takes_them(kind: str, tmp_path: Path) -> None:
    from device_agent.bundles.validate import Limits, judge

    make, fields = KINDS[kind]
    torch.manual_seed(0)
    built = build(make(), Job(name="kind", batch=4, **fields))
    assert max(built.errors.values()) < 1e-5
    verdict = judge(built.bundle, tmp_path, Limits())
    assert verdict.accepted
    assert ("Scan" in verdict.operators) == (
        kind in ("conv, max-pool, Scan", "sequence of an LSTM")
    )
    assert DP_GRADIENT in verdict.nodes


class FunctionalDropout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(4, 3)

    def forward(self, x: Any) -> Any:
        return self.out(nn.functional.dropout(x, 0.5, self.training))


class Noise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(4, 3)

    def forward(self, x: Any) -> Any:
        return self.out(x + torch.randn_like(x))


def frozen() -> Any:
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    module[0].weight.requires_grad_(False)
    return module


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "batch norm": (lambda: nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3)), "BatchNorm1d"),
    "dropout": (lambda: nn.Sequential(nn.Dropout(0.1), nn.Linear(4, 3)), "Dropout"),
    "functional dropout": (FunctionalDropout, "random"),
    "noise": (Noise, "random"),
    "frozen parameter": (frozen, "frozen"),
    "double parameters": (lambda: nn.Linear(4, 3).double(), "float64"),
    "no parameters": (nn.Flatten, "no parameters"),
    "another number of classes": (lambda: nn.Linear(4, 5), "this task needs"),
    "another input": (lambda: nn.Linear(9, 3), "does not take an input"),
    "transposed convolution": (
        lambda: nn.Sequential(
            nn.Unflatten(1, (1, 4)), nn.ConvTranspose1d(1, 1, 2), nn.Flatten(), nn.Linear(5, 3)
        ),
        "transposed",
    ),
    "ceil mode": (
        lambda: nn.Sequential(
            nn.Unflatten(1, (1, 2, 2)),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.Flatten(),
            nn.Linear(1, 3),
        ),
        "ceil_mode",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_become_a_bundle_is_told_by_name(kind: str) -> None:
    make, word = REFUSED[kind]
    with pytest.raises(UserError, match=word) as caught:
        build(make(), Job(name="refused", input_shape=(4,), batch=4, classes=3))
    assert caught.value.code == "GF402"
    assert caught.value.hint


@pytest.mark.parametrize(
    ("field", "value"),
    [("name", "Not A Name"), ("batch", 0), ("batch", 10**6), ("classes", 1), ("rss_max_mb", 1)],
)
def test_what_no_device_would_take_is_told_before_the_work(field: str, value: Any) -> None:
    job = Job(**{"name": "x", "input_shape": (4,), "batch": 4, "classes": 3, field: value})
    with pytest.raises(UserError) as caught:
        build(nn.Linear(4, 3), job)
    assert caught.value.code == "GF402"


@pytest.mark.parametrize(
    ("text", "model", "code"),
    [
        ("", "m.py:Model", "GF402"),
        ("Model = 3", "m.py:Model", "GF402"),
        ("import a_module_that_is_not_there", "m.py:Model", "GF402"),
        ("1/0", "m.py:Model", "GF402"),
        ("", "missing.py:Model", "GF403"),
        ("", "m.py", "GF100"),
    ],
)
def test_files_that_hold_no_model(
    gossipfl: Command, tmp_path: Path, text: str, model: str, code: str
) -> None:
    (tmp_path / "m.py").write_text(text)
    out = tmp_path / "m.gfl"
    shape = ("--input", "4", "--classes", "3", "-o", str(out))
    exit_code, stdout, _ = gossipfl("bundle", "from-torch", f"{tmp_path}/{model}", *shape, "--json")
    assert exit_code in (1, 2)
    assert json.loads(stdout)["error"]["code"] == code
    assert not out.exists()
