"""What an owner of data sees: which files are read, which examples are held out, what is wrong."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from device_agent.data import DataSet, DataSource, DataSpec
from device_agent.settings import DataSection
from gossipfl.errors import UserError

LABELS = DataSpec((4,), "f32", (), "i64", classes=3)
IMAGES = DataSpec((1, 2, 2), "f32", (), "i64", classes=3)
FLOATS = DataSpec((2,), "f32", (2,), "f32")
TOKENS = DataSpec((3,), "i64", (), "i64", classes=2, vocabulary=10)


def examples(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.random((count, 4), dtype=np.float32), rng.integers(0, 3, count)


def source(folder: Path, spec: DataSpec = LABELS, **more: object) -> DataSource:
    return DataSource(DataSection(source=str(folder), **more), spec)  # type: ignore[arg-type]


def rows(array: np.ndarray) -> set[bytes]:
    return {row.tobytes() for row in array}


def told(folder: Path, spec: DataSpec = LABELS, **more: object) -> str:
    with pytest.raises(UserError) as refused:
        source(folder, spec, **more).load()
    assert refused.value.code in ("GF405", "GF407")
    return refused.value.cause


def test_npz_npy_and_csv_give_the_same_examples(tmp_path: Path) -> None:
    x, y = examples(50)
    folders = [tmp_path / name for name in ("npz", "npy", "csv")]
    for folder in folders:
        folder.mkdir()
    np.savez(folders[0] / "a.npz", x=x, y=y)
    np.save(folders[1] / "a_x.npy", x)
    np.save(folders[1] / "a_y.npy", y)
    lines = [
        "a,label,b,c,d",
        *(f"{p},{t},{q},{r},{s}" for (p, q, r, s), t in zip(x, y, strict=True)),
    ]
    (folders[2] / "a.csv").write_text("\n".join(lines) + "\n\n")
    found = [source(folder, target="label").load() for folder in folders]
    for data in found:
        assert len(data.train_x) + len(data.test_x) == 50
        assert data.train_x.dtype == np.float32
        assert data.train_y.dtype == np.int64
        np.testing.assert_array_equal(data.train_x, found[0].train_x)
        np.testing.assert_array_equal(data.test_y, found[0].test_y)


def test_held_out_examples_stay_held_out_as_files_come_and_go(tmp_path: Path) -> None:
    x, y = examples(200)
    np.savez(tmp_path / "m.npz", x=x[:100], y=y[:100])
    first = source(tmp_path).load()
    np.savez(tmp_path / "a.npz", x=x[100:], y=y[100:])
    (tmp_path / "m.npz").rename(tmp_path / "z.npz")
    second = source(tmp_path).load()
    assert len(second.train_x) + len(second.test_x) == 200
    assert rows(first.test_x) < rows(second.test_x)
    assert not rows(second.test_x) & rows(second.train_x)
    assert 20 <= len(second.test_x) <= 60  # a fifth, more or less


def test_two_copies_of_an_example_are_never_on_both_sides(tmp_path: Path) -> None:
    x, y = examples(60)
    np.savez(tmp_path / "a.npz", x=np.concatenate([x, x]), y=np.concatenate([y, y]))
    data = source(tmp_path, test_share=0.5).load()
    assert not rows(data.test_x) & rows(data.train_x)


def test_the_seed_chooses_other_examples(tmp_path: Path) -> None:
    x, y = examples(100)
    np.savez(tmp_path / "a.npz", x=x, y=y)
    assert rows(source(tmp_path).load().test_x) != rows(source(tmp_path, seed=1).load().test_x)


def test_a_test_folder_is_the_held_out_part(tmp_path: Path) -> None:
    x, y = examples(30)
    np.savez(tmp_path / "a.npz", x=x[:20], y=y[:20])
    (tmp_path / "test").mkdir()
    np.savez(tmp_path / "test" / "a.npz", x=x[20:], y=y[20:])
    data = source(tmp_path).load()
    np.testing.assert_array_equal(data.train_x, x[:20])
    np.testing.assert_array_equal(data.test_x, x[20:])


def test_new_files_are_picked_up_and_unchanged_ones_are_not_read_again(tmp_path: Path) -> None:
    x, y = examples(60)
    np.savez(tmp_path / "a.npz", x=x[:30], y=y[:30])
    data = source(tmp_path)
    data.load()
    assert data.newer() is None
    np.savez(tmp_path / "b.npz", x=x[30:], y=y[30:])
    second = data.newer()
    assert second is not None
    assert len(second.train_x) + len(second.test_x) == 60
    assert data.newer() is None


def test_a_bad_new_file_is_told_until_it_is_mended(tmp_path: Path) -> None:
    x, y = examples(30)
    np.savez(tmp_path / "a.npz", x=x, y=y)
    data = source(tmp_path)
    data.load()
    (tmp_path / "b.npz").write_bytes(b"half a file")
    assert data.newer() is None
    assert "b.npz" in data.problem
    np.savez(tmp_path / "b.npz", x=x, y=y)
    assert data.newer() is not None
    assert data.problem == ""


def test_an_image_may_lack_its_channel_dimension(tmp_path: Path) -> None:
    x, y = examples(20)
    np.savez(tmp_path / "a.npz", x=x.reshape(20, 2, 2), y=y.reshape(20, 1))
    assert source(tmp_path, IMAGES).load().train_x.shape[1:] == (1, 2, 2)


def test_a_csv_row_takes_the_bundles_shape(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b,c,d,y\n" + "".join(f"{i},2,3,4,0\n" for i in range(18)))
    assert source(tmp_path, IMAGES, test_share=0.5).load().train_x.shape[1:] == (1, 2, 2)


def test_float_targets_from_two_columns(tmp_path: Path) -> None:
    lines = [f"{i},{i + 0.5},{i},{2 * i}" for i in range(20)]
    (tmp_path / "a.csv").write_text("u,v,a,b\n" + "\n".join(lines))
    data = source(tmp_path, FLOATS, target="v,b").load()
    assert data.train_y.shape[1:] == (2,)
    assert data.train_y.dtype == np.float32
    np.testing.assert_array_equal(data.train_y[:, 0], data.train_x[:, 0] + 0.5)
    np.testing.assert_array_equal(data.train_y[:, 1], data.train_x[:, 1] * 2)


class TestWrong:
    """Each message names the file and the place in it."""

    def npz(self, folder: Path, x: object, y: object) -> Path:
        np.savez(folder / "a.npz", x=np.asarray(x), y=np.asarray(y))
        return folder

    def test_shapes(self, tmp_path: Path) -> None:
        cause = told(self.npz(tmp_path, np.zeros((3, 5)), np.zeros(3)))
        assert cause.endswith("a.npz: x has rows of shape (5,), the bundle wants (4,)")

    def test_same_size_but_another_arrangement(self, tmp_path: Path) -> None:
        assert "rows of shape (2, 2)" in told(self.npz(tmp_path, np.zeros((3, 2, 2)), np.zeros(3)))

    def test_lengths(self, tmp_path: Path) -> None:
        assert "3 rows of x and 2 of y" in told(self.npz(tmp_path, np.zeros((3, 4)), np.zeros(2)))

    @pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
    def test_values(self, tmp_path: Path, value: float) -> None:
        x = np.zeros((3, 4))
        x[2, 1] = value
        cause = told(self.npz(tmp_path, x, np.zeros(3)))
        assert f"a.npz, row 2 (from 0): x {value}" in cause

    @pytest.mark.parametrize(
        ("label", "what"), [(3, "within 0 .. 2"), (-1, "0 .. 2"), (0.5, "whole")]
    )
    def test_labels(self, tmp_path: Path, label: float, what: str) -> None:
        cause = told(self.npz(tmp_path, np.zeros((3, 4)), [0, label, 0]))
        assert "row 1 (from 0): y" in cause
        assert what in cause

    def test_tokens(self, tmp_path: Path) -> None:
        cause = told(self.npz(tmp_path, [[1, 2, 3], [4, 10, 0]], [0, 1]), TOKENS)
        assert "row 1 (from 0): x 10 is not within 0 .. 9" in cause

    def test_text_arrays_and_pickles(self, tmp_path: Path) -> None:
        assert "not numbers" in told(self.npz(tmp_path, np.full((3, 4), "a"), np.zeros(3)))
        np.savez(tmp_path / "a.npz", x=np.array([{}] * 3), y=np.zeros(3))
        assert "a.npz" in told(tmp_path)

    def test_missing_names_and_pairs(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", x=np.zeros(3), labels=np.zeros(3))
        assert "holds x, labels; x and y are wanted" in told(tmp_path)
        (tmp_path / "a.npz").unlink()
        np.save(tmp_path / "x.npy", np.zeros((3, 4)))
        assert "x.npy: has no y.npy beside it" in told(tmp_path)

    @pytest.mark.parametrize(
        ("text", "cause"),
        [
            ("a,b,c,d,y\n1,2,3,4,0\n1,2,x,4,0\n", "line 3, column 'c': 'x' is not a number"),
            ("a,b,c,d,y\n1,2,3,4\n", "line 2: 4 columns, the header has 5"),
            ("a,b,c,d,y\n", "a header and no rows"),
            ("", "needs a header line"),
            ("a,b,c,d,y\n1,2,3,4,7\n", "line 2: y 7 is not within 0 .. 2"),
        ],
    )
    def test_csv(self, tmp_path: Path, text: str, cause: str) -> None:
        (tmp_path / "a.csv").write_text(text)
        assert cause in told(tmp_path)

    def test_csv_target(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("a,b\n1,2\n")
        assert "has no column label: a, b" in told(tmp_path, target="label")

    def test_folders(self, tmp_path: Path) -> None:
        assert "is not a folder" in told(tmp_path / "none")
        (tmp_path / "notes.txt").write_text("hello")
        assert "holds no examples" in told(tmp_path)
        (tmp_path / "a.parquet").write_bytes(b"PAR1")
        assert "write .npz or .csv" in told(tmp_path)

    def test_too_few_examples(self, tmp_path: Path) -> None:
        assert "part is empty, of 1 examples" in told(self.npz(tmp_path, np.zeros((1, 4)), [0]))

    def test_more_than_the_memory_allowed_is_refused_unread(self, tmp_path: Path) -> None:
        buffer = io.BytesIO()
        np.save(buffer, np.zeros((600_000, 4), np.float32))
        with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x.npy", buffer.getvalue())
            archive.writestr("y.npy", buffer.getvalue())
        assert os.path.getsize(tmp_path / "a.npz") < 100_000  # noqa: PTH202
        assert "max_mb" in told(tmp_path, max_mb=5)


def load_two() -> tuple[np.ndarray, np.ndarray]:
    return examples(40)


def load_four() -> tuple[np.ndarray, ...]:
    return *examples(40), *examples(7, seed=1)


def load_badly() -> None:
    raise RuntimeError("sensor is unplugged")


class TestEntryPoint:
    def given(self, function: str) -> DataSet:
        return DataSource(DataSection(source=f"{__name__}:{function}"), LABELS).load()

    def test_two_arrays_are_split(self) -> None:
        data = self.given("load_two")
        assert len(data.train_x) + len(data.test_x) == 40

    def test_four_arrays_are_taken_as_they_are(self) -> None:
        data = self.given("load_four")
        assert (len(data.train_x), len(data.test_x)) == (40, 7)

    @pytest.mark.parametrize(
        ("function", "cause"),
        [("load_badly", "RuntimeError: sensor is unplugged"), ("nothing", "AttributeError")],
    )
    def test_its_failure_is_told(self, function: str, cause: str) -> None:
        with pytest.raises(UserError, match=cause):
            self.given(function)
