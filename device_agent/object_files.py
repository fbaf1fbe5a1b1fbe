"""A folder of large objects, each named by its SHA-256: `objects/ab/<hex>`.

A file is written under a temporary name, fsynced, renamed, and its folder is fsynced, before
anything may name it. `put` does a whole batch with one fsync per file and one per folder touched.
A file that nothing names is harmless: it is swept at the next start. `Files` is the seam to the
operating system; tests replace it by one that fails or dies at a chosen write.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

FILE_MODE = 0o600  # models are private to the device
FOLDER_MODE = 0o700
_TEMPORARY = ".tmp"


class Files:
    """The few calls that change a disk."""

    def write(self, path: Path, data: bytes) -> None:
        """A new file with these bytes, on the disk when this returns."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        handle = os.open(path, flags, FILE_MODE)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(handle, view) :]
            os.fsync(handle)
        finally:
            os.close(handle)

    def rename(self, source: Path, target: Path) -> None:
        source.replace(target)

    def make_folder(self, path: Path) -> None:
        path.mkdir(mode=FOLDER_MODE)

    def sync_folder(self, path: Path) -> None:
        """Makes the names in a folder durable, not only the bytes of the files."""
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def remove(self, path: Path) -> None:
        path.unlink()


class ObjectFiles:
    """Content-addressed files under `root`. Raises OSError; knows nothing of who names what."""

    def __init__(self, root: Path, files: Files | None = None) -> None:
        self._root = root
        self._files = files or Files()
        if not root.is_dir():
            self._files.make_folder(root)
            self._files.sync_folder(root.parent)

    def path(self, digest: bytes) -> Path:
        name = digest.hex()
        return self._root / name[:2] / name

    def put(self, items: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
        """Writes what is not here yet, durable on return: the digests written.

        On failure everything that this call wrote is removed again, as far as the disk lets us.
        """
        written: list[bytes] = []
        folders: set[Path] = set()
        try:
            for digest, data in items:
                path = self.path(digest)
                folders.add(path.parent)
                if self._holds(path, digest):
                    continue
                self._folder(path.parent)
                temporary = path.with_name(path.name + _TEMPORARY)
                try:
                    self._files.write(temporary, data)
                    self._files.rename(temporary, path)
                except OSError:
                    self._discard(temporary)
                    raise
                written.append(digest)
            for folder in sorted(folders):
                self._files.sync_folder(folder)
        except OSError:
            for digest in written:
                self._discard(self.path(digest))
            raise
        return written

    def get(self, digest: bytes) -> bytes:
        """The bytes of a file. Raises FileNotFoundError, OSError. The caller checks the digest."""
        return self.path(digest).read_bytes()

    def remove(self, digest: bytes) -> None:
        """Best effort: what stays is swept at the next start."""
        self._discard(self.path(digest))

    def sweep(self, named: frozenset[bytes]) -> int:
        """Removes temporary files and every file whose digest is not named: how many."""
        swept = 0
        for path in list(self._walk()):
            try:
                keep = path.suffix != _TEMPORARY and bytes.fromhex(path.name) in named
            except ValueError:
                keep = False
            if not keep:
                self._discard(path)
                swept += 1
        return swept

    def _walk(self) -> Iterator[Path]:
        for folder in sorted(self._root.iterdir()):
            if folder.is_dir():
                yield from sorted(folder.iterdir())

    def _holds(self, path: Path, digest: bytes) -> bool:
        """True if the file is here and whole: a damaged one is written again."""
        try:
            return hashlib.sha256(path.read_bytes()).digest() == digest
        except FileNotFoundError:
            return False

    def _folder(self, path: Path) -> None:
        if not path.is_dir():
            self._files.make_folder(path)
            self._files.sync_folder(self._root)

    def _discard(self, path: Path) -> None:
        with suppress(OSError):
            self._files.remove(path)
