"""The first head of an identity: the file `first-start` says that its keys have signed none yet.

`join` writes the file. It goes, durably, before the first head is committed. So keys whose store
is empty and that have no such file lost their store, and the node asks a majority of the fleet for
heads of its own before it signs again: `gossipfl.restorer`.
"""

from __future__ import annotations

from pathlib import Path

from gossipfl.errors import StoreError
from gossipfl.events import Batch, Snapshot
from gossipfl.fleet import files
from gossipfl.fleet.device import FIRST_START
from gossipfl.interfaces import Store


class FirstHeadStore:
    """A store that lets the file in its folder go before it takes a head."""

    def __init__(self, store: Store, folder: Path) -> None:
        self._store = store
        self._file = folder / FIRST_START
        self._is_there = self._file.exists()

    @property
    def first_start(self) -> bool:
        """May this identity begin with head 1?"""
        return self._is_there

    def load(self) -> Snapshot:
        return self._store.load()

    def get(self, digest: bytes) -> bytes | None:
        return self._store.get(digest)

    def commit(self, batch: Batch) -> None:
        """As the store's own. Raises StoreError if the file cannot be removed."""
        if self._is_there and batch.head is not None:
            try:
                self._file.unlink(missing_ok=True)
                files.sync_folder(self._file.parent)
            except OSError as error:
                raise StoreError(f"cannot remove {self._file.name}: {error.strerror}") from error
            self._is_there = False
        self._store.commit(batch)
