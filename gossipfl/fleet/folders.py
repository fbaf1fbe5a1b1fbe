"""The folders of a fleet's owner: the fleet (with its root key), issuers and operators.

    FLEET/fleet.json  root.crt  root/root.key
    FLEET/issuers/NAME/    issuer.key issuer.crt root.crt member fleet.json tokens.db enrol.*
    FLEET/operators/NAME/  signing.key member fleet.json

`root/` is needed only to make another issuer: keep it offline. An issuer's or an operator's folder
works alone, on another machine.
"""

from __future__ import annotations

import re
import secrets
import socket
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509

from gossipfl.errors import UserError
from gossipfl.events import Address
from gossipfl.fleet import files, pki
from gossipfl.fleet.invitation import PORT, parse_address
from gossipfl.fleet.issuing import Issuer
from gossipfl.fleet.stored import (
    FLEET_FILE,
    MEMBER_FILE,
    ROOT_CERTIFICATE,
    SIGNING_KEY,
    FleetFile,
    read_fleet_file,
    read_member,
    write_fleet_file,
)
from gossipfl.identity import Signer, device_name
from gossipfl.messages import Member, Role
from gossipfl.objects import MemberObject, fleet_of, pack_member
from gossipfl.wire import encode, seal

FIRST = "first"  # the name of the first issuer and of the first operator
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")


@dataclass(frozen=True, slots=True)
class Official:
    """Somebody who signs policies: an operator, or an issuer."""

    signer: Signer
    member: Member
    member_object: bytes
    root_key: bytes


@dataclass(frozen=True, slots=True)
class OperatorFolder:
    path: Path

    def load(self) -> Official:
        """Raises UserError if a file is missing, open to others, or does not fit the rest."""
        signer = Signer(files.read_seed(self.path / SIGNING_KEY))
        return _official(self.path, signer)


@dataclass(frozen=True, slots=True)
class IssuerFolder:
    path: Path

    @property
    def tokens(self) -> Path:
        return self.path / "tokens.db"

    @property
    def tls(self) -> tuple[Path, Path]:
        """Key and chain of the enrolment service."""
        return self.path / "enrol.key", self.path / "enrol.crt"

    def load(self) -> Issuer:
        """Raises UserError if a file is missing, open to others, or does not fit the rest."""
        seed = files.read_seed(self.path / "issuer.key")
        official = _official(self.path, Signer(seed))
        certificate = read_certificate(self.path / "issuer.crt")
        root = read_certificate(self.path / ROOT_CERTIFICATE)
        try:
            pki.check_root(root, fleet_of(official.root_key))
            pki.check_issuer(certificate, root)
            fits = pki.raw_key(certificate) == official.signer.key_id
        except pki.CertificateError as error:
            raise UserError("GF211", f"{self.path}: {error}") from error
        if not fits or official.member.role is not Role.ISSUER:
            raise UserError("GF211", f"{self.path}: key, certificate and member do not fit")
        discovery = _discovery_key(self.path)
        return Issuer(seed, certificate, root, official.member, official.member_object, discovery)

    def remember_address(self, address: Address) -> None:
        """Where the service listens, for the invitations that are made next."""
        files.write_file(self.path / "address", f"{address}\n".encode())

    def advertised(self) -> Address:
        """Where joiners may find the service: as it last listened, with an address of this host."""
        path = self.path / "address"
        known = parse_address(files.read_file(path).decode().strip()) if path.exists() else None
        if known is not None and known.host not in ("0.0.0.0", "::"):
            return known
        return Address(own_address(), known.port if known else PORT)

    def official(self) -> Official:
        """The issuer as a signer of policies and revocations."""
        return _official(self.path, Signer(files.read_seed(self.path / "issuer.key")))


@dataclass(frozen=True, slots=True)
class RootKey:
    """The fleet's root, in memory only while an issuer is made."""

    seed: bytes = field(repr=False)
    certificate: x509.Certificate

    def new_issuer(self, path: Path, discovery_key: bytes, now: int) -> IssuerFolder:
        """A second, third, ... issuer in a new folder at `path`."""
        root = Signer(self.seed)
        seed = secrets.token_bytes(files.SEED_BYTES)
        signer = Signer(seed)
        certificate = pki.issuer_certificate(self.seed, self.certificate, signer.key_id, now)
        member = Member(
            fleet=fleet_of(root.key_id),
            device=signer.device,
            key=signer.key_id,
            role=Role.ISSUER,
            not_before=pki.not_before(certificate),
            not_after=pki.not_after(certificate),
            issued=now,
        )
        envelope = seal("member", encode(member), root)
        public = files.PUBLIC_MODE
        with files.new_folder(path) as staged:
            files.write_seed(staged / "issuer.key", seed)
            files.write_file(staged / "issuer.crt", pki.pem(certificate), public)
            files.write_file(staged / ROOT_CERTIFICATE, pki.pem(self.certificate), public)
            files.write_file(staged / MEMBER_FILE, pack_member(MemberObject(envelope, None)))
            write_fleet_file(staged, FleetFile(root.key_id.hex(), discovery_key.hex()))
        return IssuerFolder(path)


@dataclass(frozen=True, slots=True)
class FleetFolder:
    path: Path

    @classmethod
    def create(cls, path: Path, name: str, now: int) -> FleetFolder:
        """Root, first issuer, first operator: the whole folder at once or nothing of it."""
        if len(name) > 64 or not name.isprintable():
            raise UserError("GF100", "a fleet's name has at most 64 printable characters")
        with files.new_folder(path) as staged:
            cls(staged)._fill(name, now)
        return cls(path)

    def _fill(self, name: str, now: int) -> None:
        seed = secrets.token_bytes(files.SEED_BYTES)
        certificate = pki.root_certificate(seed, now)
        discovery_key = secrets.token_bytes(files.SEED_BYTES)
        files.make_folder(self.path / "root")
        files.write_seed(self.path / "root" / "root.key", seed)
        files.write_file(self.path / ROOT_CERTIFICATE, pki.pem(certificate), files.PUBLIC_MODE)
        root_key = Signer(seed).key_id.hex()
        write_fleet_file(self.path, FleetFile(root_key, discovery_key.hex(), name))
        root = RootKey(seed, certificate)
        issuer = root.new_issuer(self.path / "issuers" / FIRST, discovery_key, now)
        new_operator(issuer.load(), self.path / "operators" / FIRST, now)

    def load(self) -> FleetFile:
        return read_fleet_file(self.path)

    def issuer(self, name: str | None = None) -> IssuerFolder:
        """The issuer `name`, or the only one (the first, where there are several)."""
        return IssuerFolder(self._member_folder("issuers", name))

    def operator(self, name: str | None = None) -> OperatorFolder:
        return OperatorFolder(self._member_folder("operators", name))

    def names(self, kind: str) -> list[str]:
        """Names below `issuers` or `operators`."""
        folder = self.path / kind
        return sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []

    def add_issuer(self, name: str, now: int, root: Path | None = None) -> IssuerFolder:
        """Another issuer; `root` is the folder of the root key, wherever it is kept."""
        info = self.load()
        seed = files.read_seed((root or self.path / "root") / "root.key")
        certificate = read_certificate(self.path / ROOT_CERTIFICATE)
        if Signer(seed).key_id.hex() != info.root_key:
            raise UserError("GF211", "this root key is another fleet's")
        path = self.path / "issuers" / require_name(name)
        discovery_key = bytes.fromhex(info.discovery_key)
        return RootKey(seed, certificate).new_issuer(path, discovery_key, now)

    def add_operator(self, name: str, now: int, issuer: str | None = None) -> OperatorFolder:
        path = self.path / "operators" / require_name(name)
        return new_operator(self.issuer(issuer).load(), path, now)

    def _member_folder(self, kind: str, name: str | None) -> Path:
        names = self.names(kind)
        chosen = name or (FIRST if FIRST in names else names[0] if len(names) == 1 else None)
        if chosen is None or chosen not in names:
            shown = ", ".join(names) or "there is none"
            raise UserError("GF212", f"{self.path / kind}: {name or 'which one'}? ({shown})")
        return self.path / kind / chosen


def find_issuer(path: Path, name: str | None = None) -> IssuerFolder:
    """The issuer in `path`, which is a fleet's folder or an issuer's own."""
    if (path / "issuer.key").exists():
        return IssuerFolder(path)
    return FleetFolder(path).issuer(name)


def all_issuers(path: Path) -> list[IssuerFolder]:
    """The issuers in `path`: all of a fleet's folder, or the one whose folder it is."""
    if (path / "issuer.key").exists():
        return [IssuerFolder(path)]
    fleet = FleetFolder(path)
    return [fleet.issuer(name) for name in fleet.names("issuers")]


def find_official(path: Path) -> Official:
    """Who signs policies from `path`: an operator's, an issuer's or a fleet's folder."""
    if (path / SIGNING_KEY).exists():
        return OperatorFolder(path).load()
    if (path / "issuer.key").exists():
        return IssuerFolder(path).official()
    return FleetFolder(path).operator().load()


def new_operator(issuer: Issuer, path: Path, now: int) -> OperatorFolder:
    """A new operator's key and member object in a new folder."""
    seed = secrets.token_bytes(files.SEED_BYTES)
    member = issuer.operator(Signer(seed).key_id, now)
    with files.new_folder(path) as staged:
        files.write_seed(staged / SIGNING_KEY, seed)
        files.write_file(staged / MEMBER_FILE, member)
        write_fleet_file(staged, FleetFile(issuer.root_key.hex()))
    return OperatorFolder(path)


def own_address() -> str:
    """The address that this machine would use to reach others. Sends nothing (UDP)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # RFC 5737: an address that belongs to nobody
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def require_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise UserError("GF100", f"{name[:40]!r} is not a name: a-z, 0-9 and - (at most 32)")
    return name


def read_certificate(path: Path) -> x509.Certificate:
    try:
        chain = pki.load_chain(files.read_file(path))
    except pki.CertificateError as error:
        raise UserError("GF211", f"{path}: {error}") from error
    return chain[0]


def _official(path: Path, signer: Signer) -> Official:
    root_key = bytes.fromhex(read_fleet_file(path).root_key)
    member, data = read_member(path, root_key)
    if member.key != signer.key_id:
        raise UserError("GF211", f"{path}: the key is not that of {device_name(member.device)}")
    return Official(signer, member, data, root_key)


def _discovery_key(path: Path) -> bytes:
    key = bytes.fromhex(read_fleet_file(path).discovery_key)
    if not key:
        raise UserError("GF211", f"{path / FLEET_FILE} has no discovery key")
    return key
