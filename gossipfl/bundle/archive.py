"""Reading and writing `*.gfl`: a zip without compression, or a folder with the same files.

The archive is hostile until proven otherwise: a cap before anything is read, a whitelist of flat
names, no compression (so no bomb), no duplicates, nothing before, between or behind the files, and
each size is known from the manifest before its bytes are taken. Written archives are reproducible:
the same parts give the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from gossipfl.bundle.manifest import (
    GRAPH_BYTES_MAX,
    GRAPHS,
    HASHED,
    MANIFEST_BYTES_MAX,
    PARAMETERS,
    PARAMETERS_MAX,
    Manifest,
    encode,
    identify,
    parse,
)
from gossipfl.bundle.refused import BundleRefused, Reason
from gossipfl.errors import UserError
from gossipfl.parameters import Layout, Vector, from_bytes

MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"
MEMBER = "manifest.member"
SIGNATURE_BYTES_MAX = MANIFEST_BYTES_MAX + 256  # an envelope holds the manifest again
MEMBER_BYTES_MAX = 4_096  # a member object has under 1 kB
CAPS = {
    MANIFEST: MANIFEST_BYTES_MAX,
    SIGNATURE: SIGNATURE_BYTES_MAX,
    MEMBER: MEMBER_BYTES_MAX,
    PARAMETERS: 4 * PARAMETERS_MAX,
    **dict.fromkeys(GRAPHS, GRAPH_BYTES_MAX),
}
ARCHIVE_BYTES_MAX = sum(CAPS.values()) + 4_096
_DIRECTORY_BYTES_MAX = 4_096  # eight entries of under 100 bytes
_END = struct.Struct("<4s4H2LH")  # APPNOTE.TXT 4.3.16: end of central directory record
_LOCAL = struct.Struct("<4s5H3L2H")  # 4.3.7: local file header
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can say: no clock in reproducible bytes


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose hashes are right. That says nothing about who made it or what it does."""

    id: bytes
    manifest: Manifest
    manifest_bytes: bytes
    files: Mapping[str, bytes]
    signature: bytes | None = None
    member: bytes | None = None

    @property
    def layout(self) -> Layout:
        return self.manifest.parameters

    @property
    def initial(self) -> Vector:
        """params0 as float32[P], read-only."""
        return from_bytes(self.files[PARAMETERS])

    def signed(self, signature: bytes, member: bytes) -> Bundle:
        """The same bundle (same id) with another signature."""
        return replace(self, signature=signature, member=member)


def build(manifest: Manifest, files: Mapping[str, bytes]) -> Bundle:
    """A bundle of parts that belong together. Raises BundleRefused if they do not."""
    return _assemble({MANIFEST: encode(manifest), **files})


def read_path(path: Path) -> Bundle:
    """A bundle from a `.gfl` file or from a folder. Raises BundleRefused or UserError."""
    try:
        if path.is_dir():
            return _assemble(_read_folder(path))
        with path.open("rb") as file:
            data = file.read(ARCHIVE_BYTES_MAX + 1)
    except OSError as error:
        raise UserError("GF403", f"{path}: {error.strerror or error}") from error
    return read(data)


def read(data: bytes) -> Bundle:
    """A bundle from the bytes of a `.gfl` file. Raises BundleRefused."""
    if len(data) > ARCHIVE_BYTES_MAX:
        raise BundleRefused(Reason.OVERSIZED, f"more than {ARCHIVE_BYTES_MAX} bytes")
    _check_end(data)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            _check_entries(data, entries)
            return _assemble({e.filename: archive.read(e) for e in entries})
    except (zipfile.BadZipFile, zlib.error, struct.error) as error:
        raise BundleRefused(Reason.ARCHIVE, str(error)) from error
    except (NotImplementedError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise BundleRefused(Reason.ARCHIVE, f"not a plain zip: {error}") from error


def write(bundle: Bundle) -> bytes:
    """The bytes of the `.gfl` file: equal bundles give equal bytes."""
    parts = {MANIFEST: bundle.manifest_bytes}
    if bundle.signature is not None and bundle.member is not None:
        parts[SIGNATURE] = bundle.signature
        parts[MEMBER] = bundle.member
    parts |= {name: bundle.files[name] for name in HASHED}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED, allowZip64=False) as archive:
        for name, content in parts.items():
            info = zipfile.ZipInfo(name, _EPOCH)
            info.create_system = 3  # unix, whatever machine writes it
            info.external_attr = 0o100644 << 16
            archive.writestr(info, content)
    return buffer.getvalue()


def _check_end(data: bytes) -> None:
    """The end record sits at the very end and its directory is small: checked before zipfile,

    which would read a directory of any length into memory.
    """
    if len(data) < _END.size:
        raise BundleRefused(Reason.ARCHIVE, "too short for a zip")
    end = _END.unpack(data[-_END.size :])
    magic, disk, first_disk, here, total, size, offset, comment = end
    if magic != b"PK\x05\x06" or comment or disk or first_disk or here != total:
        raise BundleRefused(Reason.ARCHIVE, "no plain zip directory at the end")
    if total > len(CAPS) or size > _DIRECTORY_BYTES_MAX:
        raise BundleRefused(Reason.ARCHIVE, f"{total} entries, at most {len(CAPS)}")
    if offset + size + _END.size != len(data):
        raise BundleRefused(Reason.ARCHIVE, "bytes that belong to no file")


def _check_entries(data: bytes, entries: list[zipfile.ZipInfo]) -> None:
    """Names, sizes, storage and placement of all entries, before any is read."""
    seen: set[str] = set()
    at = 0
    for entry in sorted(entries, key=lambda e: e.header_offset):
        name = entry.filename
        if name not in CAPS or entry.orig_filename != name:
            raise BundleRefused(Reason.NAME, repr(entry.orig_filename[:80]))
        if name in seen:
            raise BundleRefused(Reason.ARCHIVE, f"{name} twice")
        seen.add(name)
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise BundleRefused(Reason.ARCHIVE, f"{name} is compressed")
        if entry.flag_bits & ~0x800:  # only "name is UTF-8": no encryption, no data descriptor
            raise BundleRefused(Reason.ARCHIVE, f"{name} has flags {entry.flag_bits:#x}")
        if entry.file_size > CAPS[name]:
            raise BundleRefused(
                Reason.OVERSIZED, f"{name} has {entry.file_size} bytes, at most {CAPS[name]}"
            )
        if entry.header_offset != at:
            raise BundleRefused(Reason.ARCHIVE, f"{name} overlaps, or bytes lie before it")
        header = _LOCAL.unpack(data[at : at + _LOCAL.size])
        if header[7:9] != (entry.file_size, entry.file_size):
            raise BundleRefused(Reason.ARCHIVE, f"{name} has two sizes")
        at += _LOCAL.size + header[9] + header[10] + entry.file_size
    if at != _END.unpack(data[-_END.size :])[6]:
        raise BundleRefused(Reason.ARCHIVE, "bytes between the files and the directory")


def _read_folder(folder: Path) -> dict[str, bytes]:
    """The files of a folder, with the same whitelist and caps. Links are not followed."""
    parts: dict[str, bytes] = {}
    for number, path in enumerate(sorted(folder.iterdir())):
        if path.name not in CAPS or number >= len(CAPS):
            raise BundleRefused(Reason.NAME, repr(path.name[:80]))
        if path.is_symlink() or not path.is_file():
            raise BundleRefused(Reason.NAME, f"{path.name} is not a plain file")
        with path.open("rb") as file:
            content = file.read(CAPS[path.name] + 1)
        if len(content) > CAPS[path.name]:
            raise BundleRefused(
                Reason.OVERSIZED, f"{path.name} has more than {CAPS[path.name]} bytes"
            )
        parts[path.name] = content
    return parts


def _assemble(parts: Mapping[str, bytes]) -> Bundle:
    """Manifest first; then each file against the size and hash that the manifest declares."""
    if MANIFEST not in parts:
        raise BundleRefused(Reason.ARCHIVE, f"{MANIFEST} is missing")
    manifest_bytes = parts[MANIFEST]
    manifest = parse(manifest_bytes)
    files: dict[str, bytes] = {}
    for name, entry in sorted(manifest.files.items()):
        content = parts.get(name)
        if content is None:
            raise BundleRefused(Reason.ARCHIVE, f"{name} is missing")
        if len(content) != entry.bytes:
            raise BundleRefused(
                Reason.HASH, f"{name} has {len(content)} bytes, declared {entry.bytes}"
            )
        if hashlib.sha256(content).hexdigest() != entry.sha256:
            raise BundleRefused(Reason.HASH, f"{name} is not the file that the manifest names")
        files[name] = content
    return Bundle(
        id=identify(manifest_bytes),
        manifest=manifest,
        manifest_bytes=manifest_bytes,
        files=files,
        signature=parts.get(SIGNATURE),
        member=parts.get(MEMBER),
    )
