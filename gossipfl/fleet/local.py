"""A fleet on one machine, without a network: for the demo, tests and simulations with real keys.

It runs the same code as `join` on both sides, in one process.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

from gossipfl.errors import UserError
from gossipfl.events import Address
from gossipfl.fleet import files, pki
from gossipfl.fleet.desk import Desk
from gossipfl.fleet.device import DeviceFolder
from gossipfl.fleet.folders import FleetFolder
from gossipfl.fleet.joining import Joiner
from gossipfl.fleet.tokens import RefusedError, Tokens
from gossipfl.messages import Role

_NOWHERE = Address("127.0.0.1", 0)


def make_fleet(path: Path, name: str = "", now: int | None = None) -> FleetFolder:
    """A new fleet in `path`: root, first issuer, first operator. Raises UserError GF212."""
    return FleetFolder.create(path, name, int(time.time()) if now is None else now)


def enrol_local(
    fleet: FleetFolder, device: Path, role: str = "device", now: int | None = None
) -> DeviceFolder:
    """An identity of `fleet` in the folder `device`. Raises UserError GF202 if it has one."""
    at = int(time.time()) if now is None else now
    folder = DeviceFolder(device)
    if folder.joined:
        raise UserError("GF202", f"{device} has an identity")
    issuer_folder = fleet.issuer()
    desk = Desk(issuer_folder.load(), Tokens(issuer_folder.tokens))
    invitation = desk.invite(_NOWHERE, at, Role(role))
    joiner = Joiner(invitation, desk.issuer.root, old=None)
    server = hashlib.sha256(pki.der(desk.issuer.certificate)).digest()
    try:
        answer = desk.admit(joiner.request(desk.challenge(at), server), server, at)
    except RefusedError as error:  # our own desk: only a broken issuer gets here
        raise UserError("GF211", f"{issuer_folder.path}: {error.refusal.value}") from error
    with files.locked(files.make_folder(device)):
        folder.write(joiner.accept(answer, at))
    return folder
