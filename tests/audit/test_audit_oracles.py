"""An export of 1,000 entries, checked by code that is not ours: Go's checksum database packages
(Debian: golang-golang-x-mod-dev) and PyPI's aics-tlog. Skipped, in so many words, without them."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from gossipfl.audit.notes import Key, log_key, witness_key
from sim.fleet import Fleet
from tests.audit.logs import HUB, HUB_KEY, WITNESS, WITNESS_KEY, export, fleet_log

GO_SOURCES = Path("/usr/share/gocode/src/golang.org/x/mod/sumdb/tlog")
ENTRIES = 1000


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The folder of an unpacked export, and how many checkpoints it has."""
    folder = tmp_path_factory.mktemp("export")
    fleet = Fleet(7)
    log = fleet_log(fleet, ENTRIES)
    with tarfile.open(fileobj=io.BytesIO(export(log, fleet=fleet.id))) as tar:
        tar.extractall(folder, filter="data")
    return folder, len(log.checkpoints)


@pytest.fixture(scope="module")
def go(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Go program, built once."""
    compiler = shutil.which("go")
    if compiler is None or not GO_SOURCES.is_dir():
        pytest.skip("go or golang-golang-x-mod-dev is not installed")
    folder = tmp_path_factory.mktemp("go")
    environment = {
        **os.environ,
        **{"GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "CGO_ENABLED": "0"},
        **{"GOCACHE": os.environ.get("GOCACHE", str(folder / "cache")), "GOFLAGS": ""},
    }
    source = Path(__file__).parent / "goverify" / "main.go"
    program = folder / "goverify"
    subprocess.run(
        [compiler, "build", "-o", str(program), str(source)], env=environment, check=True
    )
    return program


def run(program: Path, folder: Path, key: Key, checkpoints: int) -> tuple[int, str]:
    done = subprocess.run(
        [str(program), str(folder), str(key), str(checkpoints)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout.strip()


@pytest.mark.slow
def test_go_verifies_the_export(go: Path, unpacked: tuple[Path, int]) -> None:
    folder, checkpoints = unpacked
    code, said = run(go, folder, HUB_KEY, checkpoints)
    assert said == (
        f"VERIFIED: {ENTRIES} entries, {checkpoints} checkpoints, "
        f"{checkpoints - 1} consistency proofs"
    )
    assert code == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["checkpoint", "tile/entries/001", "tile/0/002", "checkpoints"])
def test_go_refuses_what_was_changed(
    go: Path, unpacked: tuple[Path, int], tmp_path: Path, name: str
) -> None:
    """So the program above is no rubber stamp."""
    folder, checkpoints = unpacked
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    path = copy / name
    if path.is_dir():
        path = next(p for p in sorted(path.rglob("*")) if p.is_file())
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)
    code, said = run(go, copy, HUB_KEY, checkpoints)
    assert code == 1
    assert said.startswith("REFUSED")
    assert run(go, folder, log_key(WITNESS.key_id), checkpoints)[0] == 1


def test_aics_tlog_verifies_the_export(unpacked: tuple[Path, int]) -> None:
    aics = pytest.importorskip("aics_tlog", reason="aics-tlog is not installed (Python >= 3.12)")
    from aics_tlog.checkpoint import checkpoint_from_note, verify_checkpoint
    from aics_tlog.note import parse_note
    from aics_tlog.tiles import (
        FileSystemTileReader,
        consistency_proof_from_tiles,
        inclusion_proof_from_tiles,
        parse_entry_bundle,
    )

    folder, _ = unpacked
    note = parse_note((folder / "checkpoint").read_bytes())
    log, cosigner = str(log_key(HUB.key_id)), str(witness_key(WITNESS.key_id))
    assert cosigner == str(WITNESS_KEY)
    result = verify_checkpoint(note, aics.parse_vkey(log), [aics.parse_vkey(cosigner)], quorum=1)
    assert result.ok, result
    assert not verify_checkpoint(note, aics.parse_vkey(log), [aics.parse_vkey(log)], quorum=1).ok
    checkpoint, _ = checkpoint_from_note(note)
    size, root = checkpoint.size, checkpoint.root
    assert size == ENTRIES
    reader = FileSystemTileReader(folder)
    assert aics.tree_root_from_tiles(reader, size) == root
    for index in range(0, size, 97):
        width = None if index // 256 < size // 256 else size % 256
        bundle = parse_entry_bundle(reader.read_entry_bundle(index // 256, width))
        proof = inclusion_proof_from_tiles(reader, index, size)
        assert aics.verify_leaf_inclusion(bundle[index % 256], index, size, proof, root)
        assert not aics.verify_leaf_inclusion(b"x", index, size, proof, root)
    for old in (1, 255, 256, 257, 999):
        old_root = aics.tree_root_from_tiles(reader, old, size)
        proof = consistency_proof_from_tiles(reader, old, size)
        assert aics.verify_consistency(old, size, old_root, root, proof)
