"""A device's state folder: its identity, written as one step and checked whenever it is read.

    signing.key  tls.key  tls.crt (leaf, issuer)  root.crt  member  fleet.json  first-start

A new identity is staged in `.joined.new` and renamed to `.joined`: from then on it counts. Moving
its files into place can be repeated after a crash, and is, by whoever opens the folder next.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from gossipfl.errors import UserError
from gossipfl.fleet import files, pki
from gossipfl.fleet.folders import read_certificate
from gossipfl.fleet.joining import Enrolment
from gossipfl.fleet.stored import (
    FLEET_FILE,
    MEMBER_FILE,
    ROOT_CERTIFICATE,
    SIGNING_KEY,
    TLS_CHAIN,
    TLS_KEY,
    DeviceIdentity,
    FleetFile,
    read_identity,
    write_fleet_file,
)
from gossipfl.identity import Signer, short_name
from gossipfl.messages import Member
from gossipfl.objects import fleet_of

FIRST_START = "first-start"  # there until the identity signs its first head
IDENTITY_FILES = (
    *(SIGNING_KEY, TLS_KEY, TLS_CHAIN, ROOT_CERTIFICATE, FLEET_FILE, MEMBER_FILE),
    FIRST_START,
)
STATE = ("store.db", "store.db-wal", "store.db-shm", "objects")  # belong to one identity
FIRST_START_TEXT = (
    b"These keys have signed no head yet. The agent removes this file with the first.\n"
)
STAGED = ".joined"
OLD = "replaced"


@dataclass(frozen=True, slots=True)
class DeviceFolder:
    path: Path

    @property
    def joined(self) -> bool:
        """True if there is an identity in it, be it a good one or not."""
        return (self.path / MEMBER_FILE).exists() or (self.path / STAGED).exists()

    def load(self) -> DeviceIdentity:
        """Raises UserError GF201 (none yet), GF203 (open to others), GF211 (does not fit)."""
        self.finish()
        identity = read_identity(self.path)
        self._check_certificates(identity.root_key, identity.member)
        return identity

    def say_first_start(self) -> None:
        """A person says that this identity has signed nothing. Raises UserError GF201."""
        self.finish()
        if not self.joined:
            raise UserError("GF201", f"{self.path} has no identity")
        files.write_file(self.path / FIRST_START, FIRST_START_TEXT)

    def old_signer(self) -> Signer | None:
        """The key of the identity that is about to be replaced, if it can still be read."""
        self.finish()
        if not (self.path / SIGNING_KEY).exists():
            return None
        return Signer(files.read_seed(self.path / SIGNING_KEY))

    def write(self, enrolment: Enrolment) -> None:
        """Make `enrolment` this folder's identity; an old one is moved to `replaced/`.

        The caller holds `files.locked`. After a crash the folder has the old or the new one.
        """
        staged = self.path / f"{STAGED}.new"
        shutil.rmtree(staged, ignore_errors=True)
        files.make_folder(staged)
        files.write_seed(staged / SIGNING_KEY, enrolment.seed)
        files.write_file(staged / TLS_KEY, pki.key_pem(enrolment.tls_seed))
        chain = pki.pem(enrolment.leaf, enrolment.issuer)
        files.write_file(staged / TLS_CHAIN, chain, files.PUBLIC_MODE)
        files.write_file(staged / ROOT_CERTIFICATE, pki.pem(enrolment.root), files.PUBLIC_MODE)
        root_key = pki.raw_key(enrolment.root).hex()
        write_fleet_file(staged, FleetFile(root_key, enrolment.discovery_key.hex()))
        files.write_file(staged / MEMBER_FILE, enrolment.member_object)
        files.write_file(staged / FIRST_START, FIRST_START_TEXT)
        self._keep_old()
        try:
            staged.rename(self.path / STAGED)
            files.sync_folder(self.path)
        except OSError as error:
            raise UserError("GF215", f"{self.path}: {error.strerror or error}") from error
        self.finish()

    def finish(self) -> None:
        """Move a staged identity into place, if there is one. Can be repeated at any point."""
        staged = self.path / STAGED
        if not staged.is_dir():
            return
        try:
            self._retire_state()
            for name in IDENTITY_FILES:
                if (staged / name).exists():
                    (staged / name).replace(self.path / name)
            files.sync_folder(self.path)
            staged.rmdir()
            files.sync_folder(self.path)
        except OSError as error:
            raise UserError("GF215", f"{self.path}: {error.strerror or error}") from error

    def _keep_old(self) -> None:
        """Copies of the old identity's files, before they are overwritten."""
        if not (self.path / SIGNING_KEY).exists():
            return
        signer = Signer(files.read_seed(self.path / SIGNING_KEY))
        kept = files.make_folder(self.path / OLD / short_name(signer.device))
        for name in IDENTITY_FILES:
            if (self.path / name).exists():
                files.write_file(kept / name, files.read_file(self.path / name))

    def _retire_state(self) -> None:
        """The old identity's store may not become the new one's: its chain is another key's."""
        kept = self.path / OLD / "state"
        for name in STATE:
            old = self.path / name
            if old.exists():
                files.make_folder(kept)
                target = kept / name
                if target.is_dir():
                    shutil.rmtree(target)
                old.rename(target)

    def _check_certificates(self, root_key: bytes, member: Member) -> None:
        """Chain, keys and pin fit each other. Dates are for whoever knows the fleet's time."""
        try:
            root = read_certificate(self.path / ROOT_CERTIFICATE)
            chain = pki.load_chain(files.read_file(self.path / TLS_CHAIN))
            pki.check_root(root, fleet_of(root_key))
            pki.check_device_chain(chain, root, member.tls)
        except pki.CertificateError as error:
            raise UserError("GF211", f"{self.path}: {error}") from error


def load_identity(path: Path) -> DeviceIdentity:
    """What is in a device's state folder. See `DeviceFolder.load`."""
    return DeviceFolder(path).load()
