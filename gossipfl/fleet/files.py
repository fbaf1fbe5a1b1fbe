"""Files that must be whole and files that must be secret.

A file is written to a temporary name, fsynced, renamed and its folder fsynced, so that a crash
leaves the old one or the new one. Secrets are 0600 and are refused if others can read them.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gossipfl.errors import UserError

SECRET_MODE = 0o600
PUBLIC_MODE = 0o644
FOLDER_MODE = 0o700
SEED_BYTES = 32
LOCK = "store.lock"  # as device_agent.store has it
FILE_BYTES_MAX = 64 * 1024  # guess: the largest file of this room is a chain of three certificates


def make_folder(path: Path) -> Path:
    """`path` and its parents, 0700 where they are new. Raises UserError GF215."""
    try:
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
            sync_folder(folder.parent)
        if not path.is_dir():
            raise UserError("GF215", f"{path} is not a folder")
    except OSError as error:
        raise _failed(path, error) from error
    return path


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `path` at the end: the whole of it or nothing.

    Raises UserError GF212 if `path` is there already (an empty folder may be).
    """
    target = path.absolute()
    if target.is_symlink() or (target.exists() and (not target.is_dir() or any(target.iterdir()))):
        raise UserError("GF212", f"{path} exists and is not an empty folder")
    make_folder(target.parent)
    staged = target.with_name(f".{target.name}.{secrets.token_hex(4)}.new")
    try:
        make_folder(staged)
        yield staged
        staged.rename(target)
        sync_folder(target.parent)
    except OSError as error:
        raise _failed(path, error) from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)  # gone already if all went well


def sync_folder(path: Path) -> None:
    """Make renames and new names in `path` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: Path, data: bytes, mode: int = SECRET_MODE) -> None:
    """`data` at `path`, durable on return, whole or not at all. Raises UserError GF215."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        descriptor = os.open(temporary, flags, SECRET_MODE)
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(file.fileno(), mode)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise _failed(path, error) from error


def read_file(path: Path, bytes_max: int = FILE_BYTES_MAX) -> bytes:
    """The bytes of a file that need not be secret. Raises UserError GF215."""
    return _read(path, bytes_max, secret=False)


def read_secret(path: Path, bytes_max: int = FILE_BYTES_MAX) -> bytes:
    """The bytes of a file that only its owner can read. Raises UserError GF203 or GF215."""
    return _read(path, bytes_max, secret=True)


def require_private(path: Path) -> None:
    """Raises UserError GF203 if others can reach the file, without reading it."""
    try:
        with path.open("rb") as file:
            _require_private(path, os.fstat(file.fileno()))
    except OSError as error:
        raise _failed(path, error) from error


def write_seed(path: Path, seed: bytes) -> None:
    """A 32-byte Ed25519 seed as one line of hex, 0600."""
    write_file(path, seed.hex().encode() + b"\n")


def read_seed(path: Path) -> bytes:
    """The inverse of `write_seed`. No error shows what the file holds."""
    text = read_secret(path, bytes_max=256)
    try:
        seed = bytes.fromhex(text.decode("ascii").strip())
    except ValueError:
        seed = b""
    if len(seed) != SEED_BYTES:
        raise UserError("GF211", f"{path} is not a key of {SEED_BYTES} bytes in hex")
    return seed


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other writers out of a state folder; UserError GF503 if there is one.

    It is the lock that a running agent holds, so that nobody takes its identity from under it.
    """
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, SECRET_MODE)
    except OSError as error:
        raise _failed(folder, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError("GF503", f"another process uses {folder}") from error
        yield
    finally:
        os.close(descriptor)


def _read(path: Path, bytes_max: int, secret: bool) -> bytes:
    try:
        with path.open("rb") as file:
            if secret:
                _require_private(path, os.fstat(file.fileno()))
            data = file.read(bytes_max + 1)
    except OSError as error:
        raise _failed(path, error) from error
    if len(data) > bytes_max:
        raise UserError("GF211", f"{path} has more than {bytes_max} bytes")
    return data


def _require_private(path: Path, status: os.stat_result) -> None:
    """Asked of the open file, so that nobody can swap it between the question and the reading."""
    mode = stat.S_IMODE(status.st_mode)
    if mode & (0o037 if _is_credential(path) else 0o077):
        raise UserError(
            "GF203", f"{path} has mode {mode:04o}: others can reach it", f"chmod 600 {path}"
        )
    if status.st_uid not in (os.geteuid(), 0):
        raise UserError(
            "GF203",
            f"{path} belongs to user {status.st_uid}, not to the one who runs this",
            f"chown {os.geteuid()} {path}",
        )


def _is_credential(path: Path) -> bool:
    """Of systemd's `LoadCredential=` (systemd.exec(5)): a folder for this service alone, which it
    opens to the service's user by an ACL; an ACL's mask shows as the group's bits."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    return folder is not None and path.parent == Path(folder)


def _failed(path: Path, error: OSError) -> UserError:
    return UserError("GF215", f"{path}: {error.strerror or error}")
