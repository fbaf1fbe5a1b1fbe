"""What tests of bundles share: a fleet with an operator, and bundles with one thing changed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import onnx

from device_agent.bundles.signers import operator_of
from gossipfl import bundles
from gossipfl.bundle import archive, signing
from gossipfl.bundle.archive import Bundle
from gossipfl.bundle.manifest import FileEntry, Manifest
from gossipfl.config import Limits
from gossipfl.identity import Signer
from gossipfl.membership import Roster
from gossipfl.messages import Member, Role
from gossipfl.objects import MemberObject, fleet_of, pack_member
from gossipfl.wire import encode, seal

ROOT = Signer(b"r" * 32)
OPERATOR = Signer(b"o" * 32)
DEVICE = Signer(b"d" * 32)


def member_object(signer: Signer, role: Role, root: Signer = ROOT) -> bytes:
    """A member of the fleet of `root`, signed by the root itself."""
    member = Member(
        fleet=fleet_of(root.key_id),
        device=signer.device,
        key=signer.key_id,
        role=role,
        not_before=0,
        not_after=2**40,
        issued=1,
    )
    return pack_member(MemberObject(seal("member", encode(member), root), None))


MEMBER = member_object(OPERATOR, Role.OPERATOR)


def roster() -> Roster:
    return Roster(ROOT.key_id, Limits())


VERIFY = operator_of(roster())


def shipped(name: str = bundles.DIGITS_LOGISTIC) -> Bundle:
    return archive.read(bundles.read_bytes(name))


def signed(bundle: Bundle) -> bytes:
    """The bytes of the bundle, signed by the fleet's operator."""
    return archive.write(signing.sign(bundle, OPERATOR, MEMBER))


def changed(bundle: Bundle, files: Mapping[str, bytes] | None = None, **fields: Any) -> Bundle:
    """The bundle with other files (hashes put right) and other fields of its manifest."""
    parts = {**bundle.files, **(files or {})}
    entries = {
        name: FileEntry(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
        for name, data in parts.items()
    }
    manifest: Manifest = msgspec.structs.replace(bundle.manifest, files=entries, **fields)
    return archive.build(manifest, parts)


def edited(bundle: Bundle, name: str, edit: Callable[[onnx.ModelProto], None]) -> Bundle:
    """The bundle with one graph changed in place by `edit`."""
    model = onnx.ModelProto.FromString(bundle.files[name])
    edit(model)
    return changed(bundle, {name: model.SerializeToString()})
