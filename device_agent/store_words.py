"""What a failing disk says, in words, and whether it leaves the outcome of a commit in doubt."""

from __future__ import annotations

import errno
import sqlite3

_FULL = "the disk is full"
_READ_ONLY = "the disk or folder is read-only"
_IO = "the disk reported an input/output error"
_DENIED = "permission denied"
_DAMAGED = "store.db is damaged"
_BUSY = "another process holds store.db"

_BY_ERRNO = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file would be larger than this process may write",
    errno.EROFS: _READ_ONLY,
    errno.EIO: _IO,
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
}
_BY_SQLITE = {
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_READONLY: _READ_ONLY,
    sqlite3.SQLITE_IOERR: _IO,
    sqlite3.SQLITE_CANTOPEN: "store.db cannot be opened",
    sqlite3.SQLITE_PERM: _DENIED,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_BUSY: _BUSY,
    sqlite3.SQLITE_LOCKED: _BUSY,
}
# After these SQLite has rolled back, or never began: the commit surely did not happen.
_NOT_DONE = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_PERM}
)


def words(error: Exception) -> str:
    """One line for a person; the system's own words in brackets where ours are a summary."""
    if isinstance(error, sqlite3.Error):
        found = _BY_SQLITE.get(_code(error))
        return f"{found} ({error})" if found else str(error)
    if isinstance(error, OSError) and error.errno is not None:
        return _BY_ERRNO.get(error.errno) or error.strerror or str(error)
    return str(error)


def is_doubtful(error: Exception) -> bool:
    """True if a commit may or may not have reached the disk. File errors come before it."""
    return isinstance(error, sqlite3.Error) and _code(error) not in _NOT_DONE


def _code(error: sqlite3.Error) -> int:
    """The primary result code (sqlite.org/rescode.html): the low byte of the extended one."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
