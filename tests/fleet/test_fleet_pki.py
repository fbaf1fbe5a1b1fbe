"""Certificates: strict for OpenSSL, silent about who holds them, and no device can issue."""

from __future__ import annotations

import hashlib
import secrets
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from fleetkit import NOW

from gossipfl.fleet import pki
from gossipfl.fleet.desk import Desk
from gossipfl.fleet.device import DeviceIdentity
from gossipfl.fleet.folders import FleetFolder
from gossipfl.fleet.local import enrol_local, make_fleet
from gossipfl.identity import device_name
from gossipfl.messages import Role
from gossipfl.net.tls import TlsFiles, client_context, server_context, tls_key_of


def handshake(
    server: ssl.SSLContext, client: ssl.SSLContext, name: str = "peer.gossipfl"
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Both ends after a handshake in memory. Raises ssl.SSLError if either refuses."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(up, down, server_side=True)
    theirs = client.wrap_bio(down, up, server_hostname=name)
    for _ in range(4):
        for end in (theirs, ours):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    ours.do_handshake()
    theirs.do_handshake()
    return ours, theirs


def tls_files(identity: DeviceIdentity) -> TlsFiles:
    return TlsFiles(identity.root_certificate, identity.tls_chain, identity.tls_key)


@pytest.fixture
def two(fleet: FleetFolder, tmp_path: Path) -> tuple[DeviceIdentity, DeviceIdentity]:
    a, b = (enrol_local(fleet, tmp_path / name, now=NOW).load() for name in "ab")
    return a, b


def test_two_devices_know_each_other_by_tls_13(two: tuple[DeviceIdentity, DeviceIdentity]) -> None:
    a, b = two
    server, client = handshake(server_context(tls_files(a)), client_context(tls_files(b)))
    assert client.version() == "TLSv1.3"
    assert tls_key_of(server) == b.member.tls
    assert tls_key_of(client) == a.member.tls


def test_devices_of_two_issuers_of_one_fleet_trust_each_other(
    fleet: FleetFolder, tmp_path: Path
) -> None:
    fleet.add_issuer("second", NOW)
    a = enrol_local(fleet, tmp_path / "a", now=NOW).load()
    shutil.move(fleet.path / "issuers" / "first", tmp_path / "away")
    b = enrol_local(fleet, tmp_path / "b", now=NOW).load()
    server, client = handshake(server_context(tls_files(a)), client_context(tls_files(b)))
    assert tls_key_of(server) == b.member.tls
    assert tls_key_of(client) == a.member.tls


def test_a_device_of_another_fleet_is_refused(
    two: tuple[DeviceIdentity, DeviceIdentity], tmp_path: Path
) -> None:
    other = enrol_local(make_fleet(tmp_path / "other", now=NOW), tmp_path / "c", now=NOW).load()
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server_context(tls_files(other)), client_context(tls_files(two[0])))
    with pytest.raises(ssl.SSLError):
        handshake(server_context(tls_files(two[0])), client_context(tls_files(other)))


def test_a_device_cannot_issue(
    fleet: FleetFolder, two: tuple[DeviceIdentity, DeviceIdentity], tmp_path: Path
) -> None:
    mallory = two[0]
    leaf = pki.load_chain(mallory.tls_chain.read_bytes())[0]
    pem = mallory.tls_key.read_bytes()
    key = load_pem_private_key(pem, None)
    assert isinstance(key, Ed25519PrivateKey)
    seed = secrets.token_bytes(32)
    forged = pki.leaf_certificate(
        key.private_bytes_raw(), leaf, pki.public_bytes(seed), NOW, NOW + 60, pki.device_purpose()
    )
    with pytest.raises(pki.CertificateError):
        pki.check_issuer(leaf, fleet.issuer().load().root)
    (tmp_path / "key").write_bytes(pki.key_pem(seed))
    issuer = fleet.issuer().load().certificate
    (tmp_path / "chain").write_bytes(pki.pem(forged, leaf, issuer))
    files = TlsFiles(mallory.root_certificate, tmp_path / "chain", tmp_path / "key")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server_context(files), client_context(tls_files(two[1])))


def test_an_issuer_cannot_make_issuers(fleet: FleetFolder) -> None:
    issuer = fleet.issuer().load()
    second = pki.issuer_certificate(
        issuer.seed, issuer.certificate, pki.public_bytes(secrets.token_bytes(32)), NOW
    )
    with pytest.raises(pki.CertificateError, match="not signed by the one above"):
        pki.check_issuer(second, issuer.root)


def test_a_certificate_does_not_say_whose_it_is(
    fleet: FleetFolder, two: tuple[DeviceIdentity, DeviceIdentity]
) -> None:
    names = set()
    for identity in two:
        chain = pki.load_chain(identity.tls_chain.read_bytes())
        shown = b"".join(pki.der(certificate) for certificate in chain).lower()
        member = identity.member
        for secret in (
            *(member.device, member.key, device_name(member.device).encode()),
            *(member.device.hex().encode(), b"device", b"lab", b"role"),
        ):
            assert secret not in shown
        names.add(chain[0].subject.rfc4514_string())
    assert len(names) == 2


def test_the_fleet_id_is_the_pin_of_the_root(fleet: FleetFolder) -> None:
    issuer = fleet.issuer().load()
    spki = issuer.root.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert hashlib.sha256(spki).digest() == issuer.fleet


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl command here")
def test_the_openssl_command_accepts_the_chain_in_strict_mode(
    two: tuple[DeviceIdentity, DeviceIdentity], tmp_path: Path
) -> None:
    chain = pki.load_chain(two[0].tls_chain.read_bytes())
    (tmp_path / "leaf").write_bytes(pki.pem(chain[0]))
    (tmp_path / "issuer").write_bytes(pki.pem(chain[1]))
    for purpose in ("sslserver", "sslclient"):
        done = subprocess.run(
            [
                *("openssl", "verify", "-x509_strict", "-purpose", purpose, "-attime", str(NOW)),
                *("-CAfile", str(two[0].root_certificate), "-untrusted", str(tmp_path / "issuer")),
                str(tmp_path / "leaf"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


def test_a_leaf_ends_with_its_issuer(desk: Desk) -> None:
    late = pki.not_after(desk.issuer.certificate) - 10
    leaf = desk.issuer.grant(b"k" * 32, pki.public_bytes(b"t" * 32), Role.DEVICE, late).leaf
    assert pki.not_after(leaf) == pki.not_after(desk.issuer.certificate)


def test_dates_are_told_in_words(desk: Desk) -> None:
    with pytest.raises(pki.DateError, match=r"it is 1970-01-01 .* valid from 2027-01-14"):
        pki.check_dates(desk.issuer.certificate, 0)
    pki.check_dates(desk.issuer.certificate, NOW)


def test_a_signing_request_is_good_for_one_enrolment_and_one_kind_of_key() -> None:
    request = pki.signing_request(b"t" * 32, b"challenge")
    assert pki.open_request(request, b"challenge") == pki.public_bytes(b"t" * 32)
    with pytest.raises(pki.CertificateError, match="another enrolment"):
        pki.open_request(request, b"challengf")
    with pytest.raises(pki.CertificateError):
        pki.open_request(request[:-1] + bytes([request[-1] ^ 1]), b"challenge")
    foreign = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .sign(generate_private_key(SECP256R1()), SHA256())
        .public_bytes(Encoding.DER)
    )
    with pytest.raises(pki.CertificateError, match="Ed25519"):
        pki.open_request(foreign, b"challenge")
