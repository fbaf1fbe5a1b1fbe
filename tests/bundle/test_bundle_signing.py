"""Who may vouch for a bundle, and how `bundle sign` puts it in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from bundlekit import DEVICE, MEMBER, OPERATOR, ROOT, VERIFY, member_object, roster, shipped

from device_agent.bundles.signers import operator_of
from gossipfl import bundles
from gossipfl.bundle import archive, signing
from gossipfl.bundle.refused import BundleRefused, Reason
from gossipfl.identity import Signer, device_name
from gossipfl.messages import Revocation, Role
from gossipfl.objects import Vouched, fleet_of, pack_vouched
from gossipfl.wire import encode, seal

Command = Callable[..., tuple[int, str, str]]


def reason(bundle: archive.Bundle, verify: signing.VerifySigner = VERIFY) -> Reason:
    with pytest.raises(BundleRefused) as caught:
        signing.require_signature(bundle, verify)
    return caught.value.reason


def test_an_operator_of_the_fleet_may_sign() -> None:
    bundle = archive.read(archive.write(signing.sign(shipped(), OPERATOR, MEMBER)))
    assert signing.require_signature(bundle, VERIFY) == OPERATOR.key_id


def test_no_signature() -> None:
    assert reason(shipped()) is Reason.UNSIGNED


def test_every_flipped_bit_of_the_signature_file() -> None:
    good = signing.sign(shipped(), OPERATOR, MEMBER)
    assert good.signature is not None
    for at in range(0, len(good.signature), 7):
        bad = bytearray(good.signature)
        bad[at] ^= 1
        found = reason(good.signed(bytes(bad), MEMBER))
        assert found in (Reason.SIGNATURE, Reason.SIGNER), at


def test_a_signature_over_another_manifest() -> None:
    other = signing.sign(shipped(bundles.DIGITS_MLP), OPERATOR, MEMBER)
    assert other.signature is not None
    assert reason(shipped().signed(other.signature, MEMBER)) is Reason.SIGNATURE


def test_a_signature_of_another_type_over_the_same_bytes() -> None:
    bundle = shipped()
    policy = seal("policy", bundle.manifest_bytes, OPERATOR)
    assert reason(bundle.signed(policy, MEMBER)) is Reason.SIGNATURE


def test_a_device_signs_no_bundles() -> None:
    member = member_object(DEVICE, Role.DEVICE)
    assert reason(signing.sign(shipped(), DEVICE, member)) is Reason.SIGNER


def test_an_operator_of_another_fleet() -> None:
    foreign = Signer(b"x" * 32)
    member = member_object(OPERATOR, Role.OPERATOR, root=foreign)
    assert reason(signing.sign(shipped(), OPERATOR, member)) is Reason.SIGNER


def test_somebody_elses_member_object() -> None:
    assert reason(signing.sign(shipped(), DEVICE, MEMBER)) is Reason.SIGNER


@pytest.mark.parametrize("member", [b"", b"\xc0", b"x" * 4_000])
def test_a_member_object_that_is_none(member: bytes) -> None:
    assert reason(signing.sign(shipped(), OPERATOR, member)) is Reason.SIGNER


def test_a_revoked_operator() -> None:
    issuer = Signer(b"i" * 32)
    known = roster()
    revocation = Revocation(fleet_of(ROOT.key_id), OPERATOR.device, "key lost", 1)
    envelope = seal("revocation", encode(revocation), issuer)
    known.revoke(pack_vouched(Vouched(envelope, member_object(issuer, Role.ISSUER))))
    bundle = signing.sign(shipped(), OPERATOR, MEMBER)
    assert reason(bundle, operator_of(known)) is Reason.SIGNER
    assert signing.require_signature(bundle, VERIFY)


def test_the_command_signs_and_checks(gossipfl: Command, tmp_path: Path) -> None:
    fleet, other = tmp_path / "fleet", tmp_path / "other"
    assert gossipfl("fleet", "init", str(fleet))[0] == 0
    assert gossipfl("fleet", "init", str(other))[0] == 0
    file = tmp_path / "m.gfl"
    file.write_bytes(bundles.read_bytes(bundles.DIGITS_LOGISTIC))
    before = archive.read_path(file).id

    code, out, _ = gossipfl("bundle", "sign", str(file), "--operator", str(fleet), "--json")
    assert code == 0, out
    signer = json.loads(out)["data"]["signer"]
    signed = archive.read_path(file)
    assert signed.id == before
    assert device_name(Signer(b"o" * 32).device) != signer

    code, out, _ = gossipfl("bundle", "check", str(file), "--fleet", str(fleet), "--json")
    assert code == 0, out
    data = json.loads(out)["data"]
    assert data["signer"] == signer
    assert data["signer_checked"] is True

    code, out, _ = gossipfl("bundle", "check", str(file), "--fleet", str(other), "--json")
    assert code == 7
    assert json.loads(out)["error"]["code"] == "GF401"
