"""Who gets in, and what TLS does not decide: dates and names."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ssl
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from netkit import Device, Fleet, asking, closed, head, serving, until

from gossipfl.errors import Fault, UserError
from gossipfl.events import Address, FetchFailed, HeadReceived
from gossipfl.net.tls import (
    TlsFiles,
    client_context,
    leaf_of_certificate,
    server_context,
)

GET = b"GET /v1/heads/self HTTP/1.1\r\nHost: x\r\n\r\n"


async def _asked(address: Address, context: ssl.SSLContext | None) -> bytes:
    """What a client with this context gets, "" if it is closed without an answer."""
    try:
        reader, writer = await asyncio.open_connection(
            address.host,
            address.port,
            ssl=context,
            server_hostname="peer.gossipfl" if context else None,
        )
    except (ssl.SSLError, ConnectionError):
        return b""
    try:
        writer.write(GET)
        return await closed(reader)
    finally:
        writer.transport.abort()


async def test_a_foreign_fleets_certificate_is_refused_by_the_server(
    fleet: Fleet, foreign_fleet: Fleet
) -> None:
    mallory = foreign_fleet.device("mallory")
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # it would talk to anybody
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    trusting.load_cert_chain(mallory.files.certificate, mallory.files.key)
    async with serving(fleet.device("alice")) as site:
        site.publish("head 1")
        assert await _asked(site.address, trusting) == b""
        await until(lambda: site.traffic.handshakes_failed == 1)
        assert site.traffic.requests_served == 0


async def test_a_foreign_fleets_server_is_refused_by_the_client(
    fleet: Fleet, foreign_fleet: Fleet
) -> None:
    async with (
        serving(foreign_fleet.device("mallory")) as site,
        asking(fleet.device("alice")) as client,
    ):
        site.publish("head 1")
        answer = await client.fetch_head(head(site.address))
    assert isinstance(answer, FetchFailed)
    assert answer.fault is Fault.REFUSED
    assert answer.detail.startswith("its certificate is not of this fleet")


async def test_a_server_that_refuses_us_is_told_apart_from_one_that_is_away(
    fleet: Fleet, foreign_fleet: Fleet
) -> None:
    """In TLS 1.3 the client's handshake succeeds before the server has judged it."""
    alice, mallory = fleet.device("alice"), foreign_fleet.device("mallory")
    files = TlsFiles(alice.files.root, mallory.files.certificate, mallory.files.key)
    async with serving(alice) as site, asking(Device(files, mallory.tls_key)) as client:
        refused = await client.fetch_head(head(site.address))
        gone = site.address
    async with asking(fleet.device("bob")) as client:
        away = await client.fetch_head(head(gone))
    assert isinstance(refused, FetchFailed)
    assert refused.fault is Fault.REFUSED
    assert isinstance(away, FetchFailed)
    assert away.fault is Fault.UNREACHABLE


@pytest.mark.parametrize("kind", ["no certificate", "TLS 1.2", "plain text"])
async def test_nothing_less_than_mutual_tls_1_3_gets_an_answer(fleet: Fleet, kind: str) -> None:
    context: ssl.SSLContext | None = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    assert context is not None
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if kind == "TLS 1.2":
        bob = fleet.device("bob")
        context.load_cert_chain(bob.files.certificate, bob.files.key)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with serving(fleet.device("alice")) as site:
        site.publish("head 1")
        assert await _asked(site.address, None if kind == "plain text" else context) == b""
        await until(lambda: site.traffic.handshakes_failed == 1)
        assert site.traffic.requests_served == 0


async def test_dates_are_not_checked_by_tls_but_by_the_node(fleet: Fleet) -> None:
    """An expired leaf passes; the node, which knows the TLS key, is what refuses it."""
    expired = fleet.device("expired", end=int(time.time()) - 86_400)
    async with serving(expired) as site, asking(fleet.device("bob")) as client:
        site.publish("head 1")
        answer = await client.fetch_head(head(site.address))
        assert isinstance(answer, HeadReceived)
        assert answer.tls_key == expired.tls_key
    async with serving(fleet.device("alice")) as site, asking(expired) as client:
        site.publish("head 1")
        assert isinstance(await client.fetch_head(head(site.address)), HeadReceived)
    async with serving(fleet.device("alice")) as site, asking(expired) as client:
        site.publish("head 1")
        site.refused[expired.tls_key] = "its member object expired by fleet time"
        refused = await client.fetch_head(head(site.address))
    assert isinstance(refused, FetchFailed)
    assert refused.fault is Fault.REFUSED


def test_strict_checks_are_on_and_only_dates_are_off(fleet: Fleet) -> None:
    alice = fleet.device("alice")
    for context in (alice.server(), alice.client()):
        assert context.verify_flags & ssl.VERIFY_X509_STRICT
        assert context.verify_flags & 0x200000  # X509_V_FLAG_NO_CHECK_TIME, OpenSSL's x509_vfy.h
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.minimum_version is ssl.TLSVersion.TLSv1_3


def test_the_system_trust_store_is_not_asked(fleet: Fleet) -> None:
    assert [c["subject"] for c in fleet.device("alice").client().get_ca_certs()] == [
        c["issuer"] for c in fleet.device("bob").client().get_ca_certs()
    ]


@pytest.mark.parametrize("spoilt", ["root", "certificate", "key", "other key"])
def test_unusable_files_are_said_in_words(fleet: Fleet, tmp_path: Path, spoilt: str) -> None:
    files = fleet.device("alice").files
    bad = tmp_path / "bad"
    bad.write_bytes(b"nonsense")
    broken = {
        "root": TlsFiles(bad, files.certificate, files.key),
        "certificate": TlsFiles(files.root, tmp_path / "missing", files.key),
        "key": TlsFiles(files.root, files.certificate, bad),
        "other key": TlsFiles(files.root, files.certificate, fleet.device("bob").files.key),
    }[spoilt]
    for make in (server_context, client_context):
        with pytest.raises(UserError) as caught:
            make(broken)
        assert caught.value.code == "GF301"
        assert str(broken.certificate) in caught.value.cause


@pytest.mark.parametrize("year", [2026, 2049, 2050, 2100])
def test_key_and_end_are_read_as_the_x509_library_writes_them(year: int) -> None:
    """RFC 5280: two digits of the year until 2049, four from 2050 on."""
    for key in (Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256R1())):
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "n" * 60)])
        now = datetime(year, 12, 30, 23, 59, 58, tzinfo=UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + timedelta(days=1))
        )
        algorithm = None if isinstance(key, Ed25519PrivateKey) else hashes.SHA256()
        der = builder.sign(key, algorithm).public_bytes(Encoding.DER)
        spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        leaf = leaf_of_certificate(der)
        assert leaf.tls_key == hashlib.sha256(spki).digest()
        assert leaf.not_after == int((now + timedelta(days=1)).timestamp())
        for cut in range(len(der)):
            with contextlib.suppress(ValueError):
                assert leaf_of_certificate(der[:cut]) is not None
        with pytest.raises(ValueError, match="DER"):
            leaf_of_certificate(der[:20])
