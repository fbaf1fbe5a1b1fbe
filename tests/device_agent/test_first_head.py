"""The file that says that an identity has signed nothing yet: when it goes, who brings it back."""

from __future__ import annotations

from pathlib import Path

import pytest

from device_agent.first_head import FirstHeadStore
from gossipfl.durable import Batch
from gossipfl.errors import StoreError, UserError
from gossipfl.fleet.device import FIRST_START, DeviceFolder
from gossipfl.fleet.local import enrol_local, make_fleet
from gossipfl.memory import MemoryStore

HEAD = Batch(seq=1, head=b"head")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    enrol_local(make_fleet(tmp_path / "fleet"), tmp_path / "device")
    return tmp_path / "device"


def test_join_writes_it_and_the_first_head_removes_it(folder: Path) -> None:
    inner = MemoryStore()
    store = FirstHeadStore(inner, folder)
    assert store.first_start
    store.commit(Batch(seq=None, documents={"members": b"x"}))
    assert (folder / FIRST_START).exists(), "nothing is signed yet"
    store.commit(HEAD)
    assert not (folder / FIRST_START).exists()
    assert inner.load().head == b"head"
    assert store.load().head == b"head"
    assert not FirstHeadStore(MemoryStore(), folder).first_start, "a wiped disk is no first start"


def test_no_head_becomes_durable_while_the_file_cannot_go(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a disk that is wiped later would pass for a new one."""
    inner = MemoryStore()
    store = FirstHeadStore(inner, folder)

    def fail(path: Path, missing_ok: bool = False) -> None:
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", fail)
        with pytest.raises(StoreError, match="Read-only"):
            store.commit(HEAD)
    assert inner.load().head is None
    store.commit(HEAD)
    assert inner.load().head == b"head"


def test_a_person_can_say_it_again_but_not_without_an_identity(
    folder: Path, tmp_path: Path
) -> None:
    FirstHeadStore(MemoryStore(), folder).commit(HEAD)
    DeviceFolder(folder).say_first_start()
    assert FirstHeadStore(MemoryStore(), folder).first_start
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError) as caught:
        DeviceFolder(tmp_path / "empty").say_first_start()
    assert caught.value.code == "GF201"
