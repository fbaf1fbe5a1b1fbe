"""TLS between the devices of one fleet: 1.3 only, certificates both ways, one pinned root.

TLS proves membership of the fleet and tells us the peer's TLS key; it proves no name, so nobody
checks one and the server name sent is a constant. Dates are not checked here either: wall clocks of
small boards may be wrong, and one board that boots in 1970 must not fall out of its fleet. The
node checks dates itself, against fleet time, when it looks up the member behind a TLS key.
"""

from __future__ import annotations

import hashlib
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gossipfl.errors import UserError

# OpenSSL x509_vfy.h: X509_V_FLAG_NO_CHECK_TIME. The ssl module has no name for it.
NO_CHECK_TIME = 0x200000


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
    certificate = None if ssl_object is None else ssl_object.getpeercert(binary_form=True)
    if certificate is None:
        return None
    try:
        return tls_key_of_certificate(certificate)
    except (ValueError, UnsupportedAlgorithm):  # OpenSSL takes more than we can name
        return None


def tls_key_of_certificate(der: bytes) -> bytes:
    """SHA-256 of the SubjectPublicKeyInfo in a DER certificate."""
    key = x509.load_der_x509_certificate(der).public_key()
    return hashlib.sha256(
        key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ).digest()


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
