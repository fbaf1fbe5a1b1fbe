"""The alone reference: what it shows, when it stops, and that it never touches the real model."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest

from device_agent.data import DataSet, DataSource, DataSpec
from device_agent.figures import FigureFile
from device_agent.local_training import LocalTrainer
from device_agent.settings import DataSection
from device_agent.shadow import PATIENCE, ShadowReference
from gossipfl.errors import LocalError
from gossipfl.interfaces import Evaluation
from gossipfl.messages import Training
from gossipfl.objects import digest
from gossipfl.parameters import Layout, Tensor, Vector, to_bytes

TRAINING = Training()


class Steps:
    """Adds one to each parameter; accuracy rises with it up to `best` steps."""

    layout = Layout((Tensor("w", (3,), 0),))
    initial: Vector = np.zeros(3, np.float32)

    def __init__(self, best: int = 3) -> None:
        self.best = best
        self.trained: list[float] = []

    def train(self, base: Vector, training: Training, seed: int) -> Vector:
        self.trained.append(float(base[0]))
        return base + np.float32(1)

    def evaluate(self, parameters: Vector) -> Evaluation:
        return Evaluation(1.0, min(float(parameters[0]), self.best) / 10, 5)

    def loss(self, parameters: Vector) -> float:
        return 0.5


def reference(path: Path, initial: Vector = Steps.initial) -> ShadowReference:
    return ShadowReference(Steps.layout, initial, path)


def steps(shadow: ShadowReference, count: int, trainer: Steps | None = None) -> list[float]:
    """What the reference trained from in `count` rounds."""
    trainer = trainer or Steps()
    for seed in range(count):
        shadow.step(trainer, TRAINING, seed)
    return trainer.trained


def test_it_starts_at_params0_and_goes_on_from_itself(tmp_path: Path) -> None:
    shadow = reference(tmp_path / "alone.bin")
    assert shadow.progress.best is None
    assert steps(shadow, 2) == [0.0, 1.0]
    assert shadow.progress.best == Evaluation(1.0, 0.2, 5)


def test_it_stops_when_it_no_longer_improves(tmp_path: Path) -> None:
    shadow = reference(tmp_path / "alone.bin")
    assert len(steps(shadow, 30, Steps(best=3))) == 3 + PATIENCE
    assert shadow.progress.is_frozen
    assert shadow.progress.best == Evaluation(1.0, 0.3, 5)


def test_it_goes_on_after_a_restart(tmp_path: Path) -> None:
    steps(reference(tmp_path / "alone.bin"), 2)
    shadow = reference(tmp_path / "alone.bin")
    assert shadow.progress.best == Evaluation(1.0, 0.2, 5)
    assert steps(shadow, 1) == [2.0]


def test_another_job_starts_again(tmp_path: Path) -> None:
    steps(reference(tmp_path / "alone.bin"), 2)
    shadow = reference(tmp_path / "alone.bin", np.full(3, 7, np.float32))
    assert shadow.progress.best is None
    assert steps(shadow, 1) == [7.0]


@pytest.mark.parametrize("damage", [b"", b"{}\n", b"[1]\n", b"\xff" * 50, None])
def test_a_damaged_file_starts_it_again(tmp_path: Path, damage: bytes | None) -> None:
    path = tmp_path / "alone.bin"
    steps(reference(path), 2)
    path.write_bytes(path.read_bytes()[:-1] + b"!" if damage is None else damage)
    assert reference(path).progress.best is None


def test_its_failure_does_not_fail_the_round(tmp_path: Path) -> None:
    class Failing(Steps):
        def evaluate(self, parameters: Vector) -> Evaluation:
            raise RuntimeError("no")

    shadow = reference(tmp_path / "alone.bin")
    assert steps(shadow, 3, Failing()) == [0.0]
    assert shadow.progress.best is None


def test_the_file_is_private(tmp_path: Path) -> None:
    steps(reference(tmp_path / "alone.bin"), 1)
    assert (tmp_path / "alone.bin").stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["alone.bin"]  # noqa: PTH208


def test_without_accuracy_a_clearly_lower_loss_counts(tmp_path: Path) -> None:
    class Regression(Steps):
        def evaluate(self, parameters: Vector) -> Evaluation:
            return Evaluation(1.0 / min(float(parameters[0]), 4.0), None, 5)

    shadow = reference(tmp_path / "alone.bin")
    steps(shadow, 20, Regression())
    assert shadow.progress.best == Evaluation(0.25, None, 5)
    assert shadow.progress.rounds == 4 + PATIENCE


class TestLocalTrainer:
    """New files reach the next training, without a restart."""

    def make(self, tmp_path: Path, count: int = 40) -> tuple[LocalTrainer, list[int], Path]:
        folder = tmp_path / "data"
        folder.mkdir(exist_ok=True)
        if count:
            self.add(folder, "a", count)
        source = DataSource(
            DataSection(source=str(folder)), DataSpec((2,), "f32", (), "i64", classes=2)
        )
        sizes: list[int] = []

        def build(data: DataSet) -> Steps:
            sizes.append(len(data.train_x) + len(data.test_x))
            return Steps()

        figures = FigureFile(tmp_path / "figures.json")
        alone = tmp_path / "alone.bin"
        made = LocalTrainer(Steps.layout, Steps.initial, source, build, figures, alone)
        return made, sizes, folder

    def add(self, folder: Path, name: str, count: int) -> None:
        rng = np.random.default_rng(count)
        np.savez(folder / f"{name}.npz", x=rng.random((count, 2)), y=rng.integers(0, 2, count))

    def test_the_reference_never_touches_the_real_model(self, tmp_path: Path) -> None:
        trainer, _, _ = self.make(tmp_path)
        for seed in range(3):
            assert trainer.train(np.full(3, 50, np.float32), TRAINING, seed).tolist() == [51.0] * 3
        assert trainer.alone == Evaluation(1.0, 0.3, 5)

    def test_new_files_are_trained_on(self, tmp_path: Path) -> None:
        trainer, sizes, folder = self.make(tmp_path)
        trainer.train(Steps.initial, TRAINING, 0)
        self.add(folder, "b", 20)
        trainer.train(Steps.initial, TRAINING, 1)
        trainer.train(Steps.initial, TRAINING, 2)
        assert sizes == [40, 60]
        assert sum(trainer.examples) == 60
        assert trainer.alone == Evaluation(1.0, 0.3, 5)

    def test_a_broken_file_is_told_once_and_training_goes_on(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        trainer, sizes, folder = self.make(tmp_path)
        (folder / "c.npz").write_bytes(b"?")
        for seed in range(3):
            trainer.train(Steps.initial, TRAINING, seed)
        assert sizes == [40]
        assert "c.npz" in trainer.problem
        assert len([r for r in caplog.records if r.levelname == "WARNING"]) == 1

    def test_it_waits_for_its_first_examples(self, tmp_path: Path) -> None:
        trainer, _, folder = self.make(tmp_path, count=0)
        assert not trainer.is_ready
        assert "holds no examples" in trainer.problem
        with pytest.raises(LocalError, match="holds no examples"):
            trainer.train(Steps.initial, TRAINING, 0)
        self.add(folder, "a", 30)
        trainer.refresh()
        assert trainer.is_ready
        assert trainer.problem == ""
        assert trainer.train(Steps.initial, TRAINING, 0).tolist() == [1.0] * 3

    def test_data_that_changed_are_told_even_if_it_was_off_meanwhile(self, tmp_path: Path) -> None:
        trainer, _, folder = self.make(tmp_path)
        assert trainer.version == 1
        trainer.evaluate(Steps.initial)
        again, _, _ = self.make(tmp_path)
        assert again.version == 2, "the file was written anew"
        again.evaluate(Steps.initial)
        self.add(folder, "b", 20)
        again.refresh()
        again.refresh()
        assert again.version == 3
        again.evaluate(Steps.initial)
        figures = FigureFile(tmp_path / "figures.json")
        assert len(figures.data) == 64
        assert "b.npz" not in (tmp_path / "figures.json").read_text()

    def test_the_same_data_are_nothing_new(self, tmp_path: Path) -> None:
        trainer, _, folder = self.make(tmp_path)
        trainer.evaluate(Steps.initial)
        source = DataSource(
            DataSection(source=str(folder)), DataSpec((2,), "f32", (), "i64", classes=2)
        )
        figures = FigureFile(tmp_path / "figures.json")
        again = LocalTrainer(Steps.layout, Steps.initial, source, lambda _: Steps(), figures)
        assert again.version == 1

    def test_a_device_at_rest_makes_no_trainer_and_still_knows_its_figures(
        self, tmp_path: Path
    ) -> None:
        trainer, sizes, _ = self.make(tmp_path)
        model = np.full(3, 2, np.float32)
        found = trainer.evaluate(model)
        assert sizes == [40]
        again, sizes, _ = self.make(tmp_path)
        assert again.measured(digest(to_bytes(model)).hex()) == found
        assert again.measured(digest(to_bytes(Steps.initial)).hex()) is None
        assert again.measured(None) is None
        assert sizes == []


def test_a_device_without_data_never_trains(tmp_path: Path) -> None:
    figures = FigureFile(tmp_path / "figures.json")
    trainer = LocalTrainer(Steps.layout, Steps.initial, None, lambda _: Steps(), figures)
    assert not trainer.is_ready
    with pytest.raises(LocalError, match=r"data\.source"):
        trainer.train(Steps.initial, TRAINING, 0)
    assert math.isnan(trainer.loss(Steps.initial))
    assert trainer.evaluate(Steps.initial).accuracy is None
