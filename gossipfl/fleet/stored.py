"""What is stored of an identity, read without an X.509 library: this much of it an agent keeps.

The library costs 13 MB of memory, so an agent has its certificates checked by a short-lived child
(`gossipfl.fleet.verify`) and reads the rest here.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from gossipfl.config import Limits
from gossipfl.errors import ERRORS, PeerError, UserError
from gossipfl.fleet import files
from gossipfl.identity import Signer, device_name
from gossipfl.membership import Roster
from gossipfl.messages import Member

FLEET_FILE = "fleet.json"
ROOT_CERTIFICATE = "root.crt"
MEMBER_FILE = "member"
SIGNING_KEY = "signing.key"
TLS_KEY = "tls.key"
TLS_CHAIN = "tls.crt"
VERIFY_S = 60  # guess: a child that only reads six files is done in half a second


class FleetFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`fleet.json`: keys in hex. Holds a secret (the discovery key), so it is 0600."""

    root_key: str
    discovery_key: str = ""
    name: str = ""

    def __repr__(self) -> str:
        return f"FleetFile({self.name!r})"


@dataclass(frozen=True, slots=True)
class DeviceIdentity:
    """All that an agent needs to speak as this device. Paths are what `ssl` loads."""

    signer: Signer
    member: Member
    member_object: bytes
    root_key: bytes
    discovery_key: bytes = field(repr=False)
    tls_key: Path
    tls_chain: Path
    root_certificate: Path


def load_identity(path: Path) -> DeviceIdentity:
    """The identity in `path`, its certificates checked by a child. Raises UserError."""
    done = subprocess.run(
        [sys.executable, "-m", "gossipfl.fleet.verify", str(path)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=VERIFY_S,
        check=False,
    )
    if done.returncode != 0:
        code, _, cause = done.stdout.strip().partition(" ")
        if code not in ERRORS:
            code, cause = "GF211", f"{path}: checking it failed: {done.stderr.strip()[-300:]}"
        raise UserError(code, cause)
    return read_identity(path)


def read_identity(path: Path) -> DeviceIdentity:
    """The files of `path` as one identity; certificates are not looked into.

    Raises UserError GF201 (none yet), GF203 (open to others), GF211 (does not fit).
    """
    if not (path / MEMBER_FILE).exists():
        raise UserError("GF201", f"{path} has no {MEMBER_FILE} file")
    info = read_fleet_file(path)
    root_key = bytes.fromhex(info.root_key)
    signer = Signer(files.read_seed(path / SIGNING_KEY))
    member, member_object = read_member(path, root_key)
    files.require_private(path / TLS_KEY)
    if member.key != signer.key_id:
        raise UserError("GF211", f"{path}: the key is not that of {device_name(member.device)}")
    return DeviceIdentity(
        signer=signer,
        member=member,
        member_object=member_object,
        root_key=root_key,
        discovery_key=bytes.fromhex(info.discovery_key),
        tls_key=path / TLS_KEY,
        tls_chain=path / TLS_CHAIN,
        root_certificate=path / ROOT_CERTIFICATE,
    )


def write_fleet_file(folder: Path, content: FleetFile) -> None:
    files.write_file(folder / FLEET_FILE, msgspec.json.encode(content) + b"\n")


def read_fleet_file(folder: Path) -> FleetFile:
    """Raises UserError; keys in it are hex of 32 bytes."""
    path = folder / FLEET_FILE
    if not path.exists():
        raise UserError("GF201", f"{folder} has no {FLEET_FILE}")
    try:
        content = msgspec.json.decode(files.read_secret(path), type=FleetFile)
        keys = [bytes.fromhex(content.root_key), bytes.fromhex(content.discovery_key)]
    except (msgspec.MsgspecError, ValueError):
        # Without the decoder's words: they may quote the file, and a key is in it.
        raise UserError("GF211", f"{path} is not a fleet file") from None
    if len(keys[0]) != 32 or len(keys[1]) not in (0, 32):
        raise UserError("GF211", f"{path} has a key of a wrong length")
    return content


def read_member(folder: Path, root_key: bytes) -> tuple[Member, bytes]:
    """The verified member object of a folder. Raises UserError GF211."""
    limits = Limits()
    data = files.read_file(folder / MEMBER_FILE, limits.member_bytes)
    try:
        return Roster(root_key, limits).verify_chain(data), data
    except PeerError as error:
        raise UserError("GF211", f"{folder / MEMBER_FILE}: {error}") from error
