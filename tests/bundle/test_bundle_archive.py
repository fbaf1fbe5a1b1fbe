"""The file `*.gfl`: what is written is read again, and everything else is refused."""

from __future__ import annotations

import contextlib
import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from bundlekit import changed, shipped

from gossipfl.bundle import archive
from gossipfl.bundle.archive import MANIFEST, Bundle
from gossipfl.bundle.manifest import (
    GRADIENT,
    PARAMETERS,
    Manifest,
    Preprocessing,
    TensorEntry,
    encode,
    parse,
)
from gossipfl.bundle.refused import BundleRefused, Reason
from gossipfl.errors import Exit

Parts = dict[str, bytes]
# as it shipped when there was only format 1
DIGITS_LOGISTIC_ID = "20a3a25d7bec1f534f28e75c50afb2852802428a8becd645d723d0dffe422e0c"


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return shipped()


@pytest.fixture
def parts(bundle: Bundle) -> Parts:
    return {MANIFEST: bundle.manifest_bytes, **bundle.files}


def zipped(entries: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as made:
        for name, data in entries:
            made.writestr(zipfile.ZipInfo(name), data, compress_type=method)
    return buffer.getvalue()


def refusal(data: bytes) -> Reason:
    with pytest.raises(BundleRefused) as caught:
        archive.read(data)
    assert caught.value.exit is Exit.BUNDLE
    assert caught.value.detail
    return caught.value.reason


class TestRoundTrip:
    def test_what_is_written_is_read_again(self, bundle: Bundle) -> None:
        again = archive.read(archive.write(bundle))
        assert again.id == bundle.id
        assert again.files == bundle.files
        assert again.layout.count == len(again.initial) == 650

    def test_equal_bundles_are_equal_bytes(self, bundle: Bundle, parts: Parts) -> None:
        shuffled = Bundle(
            bundle.id,
            bundle.manifest,
            bundle.manifest_bytes,
            dict(sorted(bundle.files.items(), reverse=True)),
        )
        assert archive.write(shuffled) == archive.write(bundle)

    def test_a_plain_zip_tool_may_make_one(self, bundle: Bundle, parts: Parts) -> None:
        assert archive.read(zipped(sorted(parts.items()))).id == bundle.id

    def test_a_folder_is_the_same(self, bundle: Bundle, parts: Parts, tmp_path: Path) -> None:
        for name, data in parts.items():
            (tmp_path / name).write_bytes(data)
        assert archive.read_path(tmp_path).id == bundle.id

    def test_the_id_covers_every_file_but_the_signature(self, bundle: Bundle) -> None:
        assert changed(bundle, {PARAMETERS: bytes(2_600)}).id != bundle.id
        assert bundle.signed(b"signature", b"member").id == bundle.id


class TestHostileZip:
    @pytest.mark.parametrize(
        "name", ["../grad.onnx", "/etc/passwd", "a/grad.onnx", "..\\grad.onnx", "grad.onnx/", "x"]
    )
    def test_paths_and_strange_names(self, parts: Parts, name: str) -> None:
        assert refusal(zipped([*parts.items(), (name, b"x")])) is Reason.NAME

    def test_a_name_cut_by_a_zero_byte(self, parts: Parts) -> None:
        data = zipped([("manifest.sigX", b"x"), *parts.items()])
        data = data.replace(b"manifest.sigX", b"manifest.sig\0")
        assert refusal(data) in (Reason.NAME, Reason.ARCHIVE)

    def test_one_name_twice(self, parts: Parts) -> None:
        entries = [*parts.items(), (MANIFEST, b"{}")]
        with pytest.warns(UserWarning, match="Duplicate"):
            data = zipped(entries)
        assert refusal(data) is Reason.ARCHIVE

    def test_compression_so_no_zip_bomb(self, parts: Parts) -> None:
        assert refusal(zipped(list(parts.items()), zipfile.ZIP_DEFLATED)) is Reason.ARCHIVE

    def test_an_encrypted_entry(self, parts: Parts) -> None:
        data = bytearray(zipped(list(parts.items())))
        data[6] |= 1  # local header of the first entry
        data[data.index(b"PK\x01\x02") + 8] |= 1
        assert refusal(bytes(data)) is Reason.ARCHIVE

    def test_bytes_behind_before_and_between(self, parts: Parts) -> None:
        good = zipped(list(parts.items()))
        assert refusal(good + b"x") is Reason.ARCHIVE
        assert refusal(b"x" + good) is Reason.ARCHIVE
        directory = good.index(b"PK\x01\x02")
        end = bytearray(good[-22:])
        struct.pack_into("<L", end, 16, directory + 4)
        assert refusal(good[:directory] + b"gap!" + good[directory:-22] + end) is Reason.ARCHIVE

    def test_a_directory_that_claims_another_size(self, parts: Parts) -> None:
        data = bytearray(zipped(list(parts.items())))
        struct.pack_into("<LL", data, data.index(b"PK\x01\x02") + 20, 5, 5)
        assert refusal(bytes(data)) is Reason.ARCHIVE

    def test_a_million_entries(self) -> None:
        entry = b"PK\x01\x02" + bytes(42)
        end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 65_535, 65_535, 46 * 10**6, 0, 0)
        assert refusal(entry * 10**6 + end) is Reason.ARCHIVE

    @pytest.mark.parametrize("size", [0, 1, 21, 22, 1_000])
    def test_what_is_no_zip(self, size: int) -> None:
        assert refusal(b"\0" * size) is Reason.ARCHIVE

    def test_every_truncation(self, bundle: Bundle) -> None:
        data = archive.write(bundle)
        for cut in range(0, len(data), 97):
            assert refusal(data[:cut]) in (Reason.ARCHIVE, Reason.NAME)

    def test_every_flipped_byte_is_noticed(self, bundle: Bundle) -> None:
        """Of contents and names; some bytes of zip headers (dates, modes) mean nothing."""
        data = bytearray(archive.write(bundle))
        for at in range(30 + len(MANIFEST), data.index(b"PK\x01\x02"), 61):
            data[at] ^= 0x40
            with contextlib.suppress(BundleRefused):
                assert archive.read(bytes(data)).files == bundle.files  # a date in a header
            data[at] ^= 0x40

    def test_oversized(self, parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
        assert refusal(b"\0" * (archive.ARCHIVE_BYTES_MAX + 1)) is Reason.OVERSIZED
        monkeypatch.setitem(archive.CAPS, GRADIENT, 100)
        assert refusal(zipped(list(parts.items()))) is Reason.OVERSIZED


class TestHostileFolder:
    @pytest.fixture
    def folder(self, parts: Parts, tmp_path: Path) -> Path:
        for name, data in parts.items():
            (tmp_path / name).write_bytes(data)
        return tmp_path

    def test_a_link_is_not_followed(self, folder: Path) -> None:
        (folder / GRADIENT).unlink()
        (folder / GRADIENT).symlink_to("/etc/passwd")
        with pytest.raises(BundleRefused, match="plain file"):
            archive.read_path(folder)

    def test_another_file_beside(self, folder: Path) -> None:
        (folder / "weights.bin").write_bytes(b"x")
        with pytest.raises(BundleRefused, match=r"weights\.bin"):
            archive.read_path(folder)

    def test_oversized(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(archive.CAPS, GRADIENT, 100)
        with pytest.raises(BundleRefused, match="more than 100"):
            archive.read_path(folder)


class TestHashes:
    def test_a_wrong_hash(self, parts: Parts) -> None:
        parts[GRADIENT] = parts[GRADIENT][:-1] + bytes([parts[GRADIENT][-1] ^ 1])
        assert refusal(zipped(list(parts.items()))) is Reason.HASH

    def test_a_wrong_size(self, parts: Parts) -> None:
        parts[GRADIENT] += b"\0"
        assert refusal(zipped(list(parts.items()))) is Reason.HASH

    @pytest.mark.parametrize("missing", [MANIFEST, GRADIENT, PARAMETERS])
    def test_a_missing_file(self, parts: Parts, missing: str) -> None:
        del parts[missing]
        assert refusal(zipped(list(parts.items()))) is Reason.ARCHIVE


def manifest_with(change: Callable[[dict], None]) -> bytes:  # type: ignore[type-arg]
    plain = json.loads(shipped().manifest_bytes)
    change(plain)
    return json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()


class TestManifest:
    def test_it_is_canonical(self, bundle: Bundle) -> None:
        text = bundle.manifest_bytes
        assert encode(parse(text)) == text
        for other in (
            text + b"\n",
            text.replace(b":", b": ", 1),
            text.replace(b'"batch":32', b'"batch":32,"batch":32'),
            json.dumps(dict(reversed(json.loads(text).items())), separators=(",", ":")).encode(),
        ):
            with pytest.raises(BundleRefused):
                parse(other)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("run_as_root", True),
            ("format", 2),
            ("task", "clustering"),
            ("task", "regression"),
            ("task", "sequence"),
            ("batch", 0),
            ("batch", 10**9),
            ("classes", 1),
            ("classes", 10**9),
            ("name", "../../x"),
            ("name", ""),
            ("input", {"dtype": "f64", "shape": [64]}),
            ("input", {"dtype": "f32", "shape": [0]}),
            ("input", {"dtype": "f32", "shape": [10**6, 10**6]}),
            ("input", {"dtype": "i64", "shape": [64]}),
            ("vocabulary", 50),
            ("target", {"dtype": "f32", "shape": []}),
            ("target", {"dtype": "i64", "shape": [3]}),
            ("layout", []),
            ("layout", [{"name": "a", "shape": [640], "offset": 4}]),
            ("layout", [{"name": "a", "shape": [2**20, 2**20], "offset": 0}]),
            ("layout", [{"name": "a", "shape": [649], "offset": 0}]),
            (
                "layout",
                [
                    {"name": "a", "shape": [325], "offset": 0},
                    {"name": "a", "shape": [325], "offset": 325},
                ],
            ),
            ("files", {}),
            ("files", {"grad.onnx": {"sha256": "00", "bytes": 1}}),
            ("budget", {"rss_max_mb": 10**9, "step_max_ms": 1.0}),
            ("optimizer", {"learning_rate": -1.0, "momentum": 0.0, "epochs": 1}),
            ("selftest", {"seed": 1, "gradient_norm": 1.0, "loss": 1.0, "tolerance": 1e9}),
            (
                "preprocessing",
                {"scale": 0.0, "offset": 0.0, "target_scale": 1.0, "target_offset": 0.0},
            ),
            (
                "preprocessing",
                {"scale": 1.0, "offset": 0.0, "target_scale": 2.0, "target_offset": 0.0},
            ),
        ],
    )
    def test_what_it_may_not_say(self, field: str, value: object) -> None:
        with pytest.raises(BundleRefused) as caught:
            parse(manifest_with(lambda plain: plain.update({field: value})))
        assert caught.value.reason is Reason.MANIFEST

    def test_a_split_batch_is_of_format_2_and_below_the_batch(self) -> None:
        found = parse(manifest_with(lambda plain: plain.update(format=2, dp_batch=8)))
        assert (found.batch, found.private_batch) == (32, 8)
        assert encode(found) == manifest_with(lambda plain: plain.update(format=2, dp_batch=8))
        for number, size in ((1, 8), (2, 32), (2, 33), (2, 0), (2, -8), (2, 8.0), (2, None)):
            fields = {"format": number, "dp_batch": size}
            with pytest.raises(BundleRefused) as caught:
                parse(manifest_with(lambda plain, fields=fields: plain.update(fields)))
            assert caught.value.reason is Reason.MANIFEST

    def test_a_bundle_of_format_1_keeps_its_bytes_and_its_id(self, bundle: Bundle) -> None:
        """Fleets train with bundles that were made before there was a format 2."""
        assert bundle.manifest.format == 1
        assert b"dp_batch" not in bundle.manifest_bytes
        assert bundle.manifest.private_batch == bundle.manifest.batch
        assert bundle.id.hex() == DIGITS_LOGISTIC_ID

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"null",
            b"[" * 100_000,
            b'{"a":' * 50_000,
            b"\xff\xfe",
            b'{"batch":NaN}',
            b'{"batch":1e999}',
        ],
        ids=["empty", "null", "deep array", "deep object", "not utf-8", "nan", "overflow"],
    )
    def test_what_is_no_manifest(self, data: bytes) -> None:
        with pytest.raises(BundleRefused) as caught:
            parse(data)
        assert caught.value.reason is Reason.MANIFEST

    def test_oversized(self) -> None:
        with pytest.raises(BundleRefused) as caught:
            parse(b" " * (256 * 1024 + 1))
        assert caught.value.reason is Reason.OVERSIZED

    def test_layout_keeps_order_and_names(self, bundle: Bundle) -> None:
        found = [(t.name, t.shape, t.offset) for t in bundle.layout.tensors]
        assert found == [("output.weight", (10, 64), 0), ("output.bias", (10,), 640)]

    def test_tensor_entries_are_values(self) -> None:
        entry = TensorEntry(name="a", shape=[1], offset=0)
        with pytest.raises(AttributeError):
            entry.offset = 3  # type: ignore[misc]
        assert Preprocessing() == Preprocessing()
        assert Manifest.__struct_config__.forbid_unknown_fields
