"""X.509 of a fleet (RFC 5280, Ed25519 by RFC 8410): root, issuers, leaves, signing requests.

Certificates serve TLS only: who a device is comes from its member object. A leaf has an opaque
random name, never a device id or a role, because a TLS server shows it to anybody who connects.
All of them pass OpenSSL's VERIFY_X509_STRICT. Dates are checked here, not by the TLS library.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import AttributeOID, ExtendedKeyUsageOID, NameOID

DAY_S = 86_400
ROOT_S = 20 * 365 * DAY_S  # guess: longer than the devices of a fleet live
ISSUER_S = 365 * DAY_S  # docs/explanation/trust.md: one year
LEAF_S = 30 * DAY_S  # docs/explanation/trust.md: 30 days, so that an issuer may be away for weeks
BACKDATE_S = DAY_S  # guess: boards' clocks that are some hours behind the issuer's
ENROL_NAME = "enrol.gossipfl"  # the issuer's service; no device's certificate ever has it
CSR_BYTES_MAX = 1_024  # one with an Ed25519 key and our attribute has about 250
CERTIFICATE_BYTES_MAX = 4_096  # ours have under 600

Extension = TypeVar("Extension", bound=x509.ExtensionType)


class CertificateError(Exception):
    """A certificate or signing request is not what it must be."""


class DateError(CertificateError):
    """A certificate is fine but for its dates: perhaps a clock is wrong."""


@dataclass(frozen=True, slots=True)
class Purpose:
    """What a leaf is for: its name and its extended key usages."""

    name: str
    client: bool
    server: bool = True


def device_purpose() -> Purpose:
    """A peer's leaf: client and server, with a name that says nothing."""
    return Purpose(secrets.token_hex(16), client=True)


ENROL_PURPOSE = Purpose(ENROL_NAME, client=False)


def public_bytes(seed: bytes) -> bytes:
    """The raw public key (32 bytes) of an Ed25519 seed."""
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def root_certificate(seed: bytes, now: int) -> x509.Certificate:
    """The self-signed root; `now` in seconds since the epoch, as everywhere here."""
    key = Ed25519PrivateKey.from_private_bytes(seed)
    name = _name(f"gossipfl root {spki_sha256(key.public_key()).hex()[:8]}")
    builder = _builder(name, name, key.public_key(), now - BACKDATE_S, now + ROOT_S)
    return _ca(builder, key, key.public_key(), path_length=1)


def issuer_certificate(
    root_seed: bytes, root: x509.Certificate, key: bytes, now: int
) -> x509.Certificate:
    """A certificate for an issuer's raw public `key`: it signs leaves and no other issuers."""
    public = Ed25519PublicKey.from_public_bytes(key)
    name = _name(f"gossipfl issuer {secrets.token_hex(4)}")
    end = min(now + ISSUER_S, not_after(root))
    builder = _builder(root.subject, name, public, now - BACKDATE_S, end)
    signing = Ed25519PrivateKey.from_private_bytes(root_seed)
    return _ca(builder, signing, public, path_length=0)


def leaf_certificate(
    issuer_seed: bytes, issuer: x509.Certificate, key: bytes, now: int, end: int, purpose: Purpose
) -> x509.Certificate:
    """A leaf for the raw public `key`, valid to `end` or to the issuer's own end."""
    public = Ed25519PublicKey.from_public_bytes(key)
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH] if purpose.client else []
    usages += [ExtendedKeyUsageOID.SERVER_AUTH] if purpose.server else []
    start = max(now - BACKDATE_S, not_before(issuer))
    signing = Ed25519PrivateKey.from_private_bytes(issuer_seed)
    builder = _builder(
        issuer.subject, _name(purpose.name), public, start, min(end, not_after(issuer))
    )
    return (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(purpose.name)]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()),
            critical=False,
        )
        .sign(signing, None)
    )


def signing_request(seed: bytes, challenge: bytes) -> bytes:
    """A PKCS #10 request (DER) by the TLS key; `challenge` ties it to one enrolment.

    It sits in the challengePassword attribute (RFC 2985 5.4.1), so a request that somebody saw
    cannot be used to have this TLS key named in another device's member object.
    """
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_attribute(AttributeOID.CHALLENGE_PASSWORD, challenge.hex().encode())
        .sign(Ed25519PrivateKey.from_private_bytes(seed), None)
        .public_bytes(Encoding.DER)
    )


def open_request(data: bytes, challenge: bytes) -> bytes:
    """The raw public key of a request that is signed by it and made for `challenge`.

    Names and extensions that it asks for are ignored. Raises CertificateError.
    """
    if len(data) > CSR_BYTES_MAX:
        raise CertificateError(f"a signing request of {len(data)} bytes")
    try:
        request = x509.load_der_x509_csr(data)
        key = request.public_key()
        if not isinstance(key, Ed25519PublicKey) or not request.is_signature_valid:
            raise CertificateError("a signing request must be signed by its own Ed25519 key")
        attribute = request.attributes.get_attribute_for_oid(AttributeOID.CHALLENGE_PASSWORD)
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.AttributeNotFound) as error:
        raise CertificateError("not a signing request of this protocol") from error
    if not secrets.compare_digest(attribute.value, challenge.hex().encode()):
        raise CertificateError("the signing request was made for another enrolment")
    return key.public_bytes_raw()


def check_root(root: x509.Certificate, pin: bytes) -> None:
    """Raises CertificateError unless `root` is a self-signed CA with the pinned SPKI."""
    if not secrets.compare_digest(spki_sha256(root.public_key()), pin):
        raise CertificateError("the root certificate is not the one that was pinned")
    _check_issued(root, by=root)
    _check_ca(root, path_length=1)


def check_issuer(issuer: x509.Certificate, root: x509.Certificate) -> None:
    """Raises CertificateError unless `root` made `issuer` an issuer of leaves. No dates."""
    _check_issued(issuer, by=root)
    _check_ca(issuer, path_length=0)


def check_leaf(leaf: x509.Certificate, issuer: x509.Certificate, purpose: Purpose) -> None:
    """Raises CertificateError unless `issuer` signed `leaf` for this use. No dates, no name."""
    _check_issued(leaf, by=issuer)
    if _extension(leaf, x509.BasicConstraints).ca:
        raise CertificateError("a leaf certificate is marked as an issuer")
    usages = set(_extension(leaf, x509.ExtendedKeyUsage))
    wanted = {ExtendedKeyUsageOID.CLIENT_AUTH} if purpose.client else set()
    wanted |= {ExtendedKeyUsageOID.SERVER_AUTH} if purpose.server else set()
    if not wanted <= usages:
        raise CertificateError("a leaf certificate lacks a use that it needs")


def check_device_chain(
    chain: Sequence[x509.Certificate], root: x509.Certificate, tls: bytes | None
) -> None:
    """Raises CertificateError unless `chain` is (leaf, issuer) under `root`, for `tls`."""
    if len(chain) != 2:
        raise CertificateError(f"{len(chain)} certificates where a leaf and its issuer should be")
    check_issuer(chain[1], root)
    check_leaf(chain[0], chain[1], device_purpose())
    if spki_sha256(chain[0].public_key()) != tls:
        raise CertificateError("certificate and member object are of two devices")


def check_dates(certificate: x509.Certificate, at: int) -> None:
    """Raises DateError if `certificate` is not valid at `at`, with both times in words."""
    if not not_before(certificate) <= at <= not_after(certificate):
        raise DateError(
            f"it is {show_time(at)} by the clock, and a certificate is valid from "
            f"{show_time(not_before(certificate))} to {show_time(not_after(certificate))}"
        )


YEAR_10000 = 253_402_300_800
"""In seconds since the epoch: Python's calendar ends there, a signed number need not."""


def show_time(at: int) -> str:
    if at >= YEAR_10000:
        return f"after the year 9999 ({at} s)"
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def not_before(certificate: x509.Certificate) -> int:
    return int(certificate.not_valid_before_utc.timestamp())


def not_after(certificate: x509.Certificate) -> int:
    return int(certificate.not_valid_after_utc.timestamp())


def spki_sha256(key: object) -> bytes:
    """SHA-256 of the DER SubjectPublicKeyInfo of an Ed25519 public key (pin, Member.tls)."""
    if not isinstance(key, Ed25519PublicKey):
        raise CertificateError("only Ed25519 keys are used in a fleet")
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).digest()


def raw_key(certificate: x509.Certificate) -> bytes:
    """The raw Ed25519 public key (32 bytes) of a certificate."""
    key = certificate.public_key()
    if not isinstance(key, Ed25519PublicKey):
        raise CertificateError("only Ed25519 keys are used in a fleet")
    return key.public_bytes_raw()


def load(data: bytes) -> x509.Certificate:
    """A certificate from DER bytes of bounded size. Raises CertificateError."""
    if len(data) > CERTIFICATE_BYTES_MAX:
        raise CertificateError(f"a certificate of {len(data)} bytes")
    try:
        certificate = x509.load_der_x509_certificate(data)
        raw_key(certificate)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CertificateError("not an X.509 certificate") from error
    return certificate


def load_chain(pem: bytes) -> list[x509.Certificate]:
    """The certificates of a PEM file, in order. Raises CertificateError."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CertificateError("not a PEM file of certificates") from error


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(c.public_bytes(Encoding.PEM) for c in certificates)


def key_pem(seed: bytes) -> bytes:
    """An Ed25519 seed as unencrypted PKCS #8, which is what TLS libraries read."""
    key = Ed25519PrivateKey.from_private_bytes(seed)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    issuer: x509.Name, subject: x509.Name, key: Ed25519PublicKey, start: int, end: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.fromtimestamp(start, UTC))
        .not_valid_after(datetime.fromtimestamp(end, UTC))
    )


def _ca(
    builder: x509.CertificateBuilder,
    signing: Ed25519PrivateKey,
    subject_key: Ed25519PublicKey,
    path_length: int,
) -> x509.Certificate:
    return (
        builder.add_extension(
            x509.BasicConstraints(ca=True, path_length=path_length), critical=True
        )
        .add_extension(_key_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(subject_key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()),
            critical=False,
        )
        .sign(signing, None)
    )


def _key_usage(ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _check_issued(certificate: x509.Certificate, by: x509.Certificate) -> None:
    try:
        certificate.verify_directly_issued_by(by)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise CertificateError("a certificate is not signed by the one above it") from error


def _check_ca(certificate: x509.Certificate, path_length: int) -> None:
    constraints = _extension(certificate, x509.BasicConstraints)
    if not constraints.ca or constraints.path_length != path_length:
        raise CertificateError("a certificate must not sign what it has signed")
    if not _extension(certificate, x509.KeyUsage).key_cert_sign:
        raise CertificateError("a certificate must not sign certificates")


def _extension(certificate: x509.Certificate, kind: type[Extension]) -> Extension:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
        raise CertificateError(f"a certificate has no usable {kind.__name__}") from error
