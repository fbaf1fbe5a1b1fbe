"""TLS between the devices of one fleet: 1.3 only, certificates both ways, one pinned root.

TLS proves membership of the fleet and tells us the peer's TLS key; it proves no name, so nobody
checks one and the server name sent is a constant. Dates are not checked here either: wall clocks of
small boards may be wrong, and one board that boots in 1970 must not fall out of its fleet. The
node checks dates itself, against fleet time: the end of the peer's leaf, which is read here, and
the dates of the member behind its TLS key.
"""

from __future__ import annotations

import hashlib
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from gossipfl.errors import UserError

# OpenSSL x509_vfy.h: X509_V_FLAG_NO_CHECK_TIME. The ssl module has no name for it.
NO_CHECK_TIME = 0x200000
VERSION_TAG = 0xA0  # tbsCertificate: [0] version, absent in version 1
SEQUENCE_TAG = 0x30
FIELDS_BEFORE_VALIDITY = 3  # serialNumber, signature, issuer
TIME_FORMATS = {0x17: "%y%m%d%H%M%SZ", 0x18: "%Y%m%d%H%M%SZ"}  # UTCTime, GeneralizedTime


@dataclass(frozen=True, slots=True)
class Leaf:
    """What we take from a peer's certificate."""

    tls_key: bytes  # SHA-256 of the SubjectPublicKeyInfo
    not_after: int  # seconds since the epoch


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where a device's TLS material lies: PEM files."""

    root: Path  # the fleet root's certificate, the only trust anchor
    certificate: Path  # the leaf, then the issuer that signed it
    key: Path  # the leaf's private key


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """For the listening side. Raises UserError(GF301) if the files are unusable."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, files)
    # A resumed session would not show us the certificate again, and a revoked peer could keep one.
    context.num_tickets = 0
    return context


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """For the asking side. Raises UserError(GF301) if the files are unusable."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, files)


def tls_key_of(ssl_object: ssl.SSLObject | ssl.SSLSocket | None) -> bytes | None:
    """SHA-256 of the SubjectPublicKeyInfo in the peer's leaf; None without a usable one."""
    leaf = leaf_of(ssl_object)
    return None if leaf is None else leaf.tls_key


def leaf_of(ssl_object: ssl.SSLObject | ssl.SSLSocket | None) -> Leaf | None:
    """The peer's leaf; None without a usable one."""
    certificate = None if ssl_object is None else ssl_object.getpeercert(binary_form=True)
    if certificate is None:
        return None
    try:
        return leaf_of_certificate(certificate)
    except ValueError:  # OpenSSL takes more than we can name
        return None


def leaf_of_certificate(der: bytes) -> Leaf:
    """Key and end of a DER certificate (RFC 5280, 4.1).

    Read by hand: a library for X.509 would cost every idle agent 13 MB for these few bytes. What is
    read was verified by OpenSSL before. Raises ValueError if it is no certificate.
    """
    _, certificate, _ = _element(der, 0)
    _, at, end = _element(der, certificate)  # tbsCertificate
    tag, _, after = _element(der, at)
    if tag == VERSION_TAG:
        at = after
    for _ in range(FIELDS_BEFORE_VALIDITY):
        _, _, at = _element(der, at)
    _, validity, at = _element(der, at)
    _, _, not_after = _element(der, validity)
    _, _, at = _element(der, at)  # subject
    tag, _, after = _element(der, at)
    if tag != SEQUENCE_TAG or after > end:
        raise ValueError("a certificate without a public key")
    return Leaf(hashlib.sha256(der[at:after]).digest(), _time(der, not_after))


def _time(der: bytes, at: int) -> int:
    """Seconds since the epoch of a UTCTime or GeneralizedTime (RFC 5280, 4.1.2.5)."""
    tag, start, end = _element(der, at)
    if tag not in TIME_FORMATS:
        raise ValueError("a certificate without an end")
    text = der[start:end].decode("ascii")
    return int(datetime.strptime(text, TIME_FORMATS[tag]).replace(tzinfo=UTC).timestamp())


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """Tag of the DER element at `at`, where its content begins, and where it ends."""
    if at + 2 > len(der):
        raise ValueError("DER ends too early")
    tag, size = der[at], der[at + 1]
    start = at + 2
    if size & 0x80:
        count = size & 0x7F
        if not 1 <= count <= 3 or start + count > len(der):
            raise ValueError("a DER length that no certificate has")
        size = int.from_bytes(der[start : start + count], "big")
        start += count
    if start + size > len(der):
        raise ValueError("a DER element that ends outside")
    return tag, start, start + size


def _context(protocol: int, files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VerifyFlags(NO_CHECK_TIME)
    try:
        context.load_verify_locations(cafile=files.root)
        context.load_cert_chain(files.certificate, files.key)
    except (OSError, ssl.SSLError) as error:
        names = f"{files.root}, {files.certificate}, {files.key}"
        raise UserError("GF301", f"{error} (files: {names})") from error
    return context
