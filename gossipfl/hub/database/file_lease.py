"""A lease as a lock on a file: the kernel gives it up when the process dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class FileLease:
    """See contract.Lease."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    @classmethod
    def take(cls, path: Path) -> FileLease | None:
        """None while another holds it. The file stays: removing it would let two in."""
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        return cls(handle)

    @property
    def held(self) -> bool:
        return self._handle >= 0

    async def check(self) -> bool:
        return self.held

    async def release(self) -> None:
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)
