"""Enrolment without a network: who is let in, who is not, and what a joiner refuses to believe."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from fleetkit import NOW, NOWHERE, SERVER

from gossipfl.errors import UserError
from gossipfl.fleet import pki
from gossipfl.fleet.desk import CHALLENGE_S, Desk
from gossipfl.fleet.enrolment import Answer, Request, Transcript
from gossipfl.fleet.folders import FleetFolder
from gossipfl.fleet.invitation import Invitation
from gossipfl.fleet.issuing import Issuer
from gossipfl.fleet.joining import Enrolment, Joiner
from gossipfl.fleet.local import make_fleet
from gossipfl.fleet.tokens import Refusal, RefusedError, Tokens
from gossipfl.identity import Signer, device_of
from gossipfl.messages import Role
from gossipfl.wire import decode, encode


def joiner(desk: Desk, invitation: Invitation, old: Signer | None = None) -> Joiner:
    return Joiner(invitation, desk.issuer.root, old)


def enrol(
    desk: Desk, invitation: Invitation, now: int = NOW, old: Signer | None = None
) -> Enrolment:
    one = joiner(desk, invitation, old)
    return one.accept(desk.admit(one.request(desk.challenge(now), SERVER), SERVER, now), now)


def refusal(desk: Desk, request: bytes, server: bytes = SERVER, now: int = NOW) -> Refusal:
    with pytest.raises(RefusedError) as caught:
        desk.admit(request, server, now)
    return caught.value.refusal


def changed(request: bytes, **fields: object) -> bytes:
    return encode(msgspec.structs.replace(decode(request, Request), **fields))


# --- who is let in ------------------------------------------------------------------------------


def test_a_joiner_gets_a_certificate_and_a_member_object_for_its_own_keys(desk: Desk) -> None:
    got = enrol(desk, desk.invite(NOWHERE, NOW))
    assert got.member.key == Signer(got.seed).key_id
    assert got.member.device == device_of(got.member.key)
    assert got.member.role is Role.DEVICE
    assert got.member.tls == pki.spki_sha256(got.leaf.public_key())
    assert got.member.fleet == desk.issuer.fleet
    assert got.member.not_after - NOW == 30 * 86_400
    assert got.discovery_key == desk.issuer.discovery_key


def test_five_uses_let_exactly_five_of_twenty_in_at_once(desk: Desk) -> None:
    invitation = desk.invite(NOWHERE, NOW, uses=5)
    requests = [joiner(desk, invitation).request(desk.challenge(NOW), SERVER) for _ in range(20)]

    def attempt(request: bytes) -> Refusal | None:
        try:
            desk.admit(request, SERVER, NOW)
        except RefusedError as error:
            return error.refusal
        return None

    with ThreadPoolExecutor(20) as pool:
        outcomes = list(pool.map(attempt, requests))
    assert outcomes.count(None) == 5
    assert outcomes.count(Refusal.USED_UP) == 15
    assert len(desk.tokens.admissions()) == 5


def test_an_invitation_ends_at_its_time(desk: Desk) -> None:
    invitation = desk.invite(NOWHERE, NOW, uses=2, ttl_s=60)
    enrol(desk, invitation, NOW + 60)
    request = joiner(desk, invitation).request(desk.challenge(NOW + 61), SERVER)
    assert refusal(desk, request, now=NOW + 61) is Refusal.EXPIRED


def test_an_unknown_token_and_a_wrong_secret_look_alike(desk: Desk) -> None:
    good = desk.invite(NOWHERE, NOW)
    for bad in (replace(good, token=b"unknown."), replace(good, secret=bytes(16))):
        request = joiner(desk, bad).request(desk.challenge(NOW), SERVER)
        assert refusal(desk, request) is Refusal.UNKNOWN
    assert desk.tokens.tokens()[0].left == 1


def test_a_request_counts_once(desk: Desk) -> None:
    request = joiner(desk, desk.invite(NOWHERE, NOW, uses=5)).request(desk.challenge(NOW), SERVER)
    desk.admit(request, SERVER, NOW)
    assert refusal(desk, request) is Refusal.REPLAYED
    assert refusal(desk, request, now=NOW + CHALLENGE_S + 1) is Refusal.CHALLENGE
    assert desk.tokens.tokens()[0].left == 4


def test_a_request_for_another_server_certificate_is_worth_nothing(desk: Desk) -> None:
    request = joiner(desk, desk.invite(NOWHERE, NOW)).request(desk.challenge(NOW), b"m" * 32)
    assert refusal(desk, request) is Refusal.UNKNOWN


def test_a_challenge_is_of_this_desk_and_of_this_minute(desk: Desk, fleet: FleetFolder) -> None:
    invitation = desk.invite(NOWHERE, NOW)
    other = Desk(desk.issuer, Tokens(fleet.issuer().tokens))
    for challenge in (other.challenge(NOW), desk.challenge(NOW - 61), desk.challenge(NOW + 1)):
        request = joiner(desk, invitation).request(challenge, SERVER)
        assert refusal(desk, request) is Refusal.CHALLENGE


def test_a_lost_answer_can_be_asked_for_again_by_the_same_joiner_only(desk: Desk) -> None:
    invitation = desk.invite(NOWHERE, NOW, uses=1)
    one = joiner(desk, invitation)
    desk.admit(one.request(desk.challenge(NOW), SERVER), SERVER, NOW)  # the answer is lost
    again = one.accept(desk.admit(one.request(desk.challenge(NOW), SERVER), SERVER, NOW), NOW)
    assert [a.device for a in desk.tokens.admissions()] == [again.member.device]
    request = joiner(desk, invitation).request(desk.challenge(NOW), SERVER)
    assert refusal(desk, request) is Refusal.USED_UP


def test_every_flipped_bit_of_a_request_is_refused(desk: Desk) -> None:
    request = joiner(desk, desk.invite(NOWHERE, NOW)).request(desk.challenge(NOW), SERVER)
    for place in range(len(request)):
        for bit in range(8):
            data = bytearray(request)
            data[place] ^= 1 << bit
            with pytest.raises(RefusedError):
                desk.admit(bytes(data), SERVER, NOW)
    assert desk.tokens.admissions() == []


def test_the_mac_alone_does_not_vouch_for_keys(desk: Desk) -> None:
    """Somebody with a valid invitation claims keys that are not his."""
    invitation = desk.invite(NOWHERE, NOW, uses=9)
    victim = Signer(b"v" * 32)

    def forged(csr_for: bytes | None = None, **fields: object) -> bytes:
        request = decode(joiner(desk, invitation).request(desk.challenge(NOW), SERVER), Request)
        request = msgspec.structs.replace(request, **fields)
        transcript = Transcript(
            *(invitation.pin, SERVER, request.challenge, request.nonce),
            *(request.token, request.key, request.old_key),
        )
        csr = pki.signing_request(b"t" * 32, csr_for or transcript.csr_challenge())
        mac = transcript.joiner_mac(invitation.secret, csr)
        return encode(msgspec.structs.replace(request, csr=csr, mac=mac))

    assert refusal(desk, forged(key=victim.key_id)) is Refusal.PROOF
    assert refusal(desk, forged(old_key=victim.key_id)) is Refusal.PROOF
    assert refusal(desk, forged(csr_for=b"seen elsewhere")) is Refusal.PROOF


def test_one_tls_key_is_one_device(desk: Desk) -> None:
    invitation = desk.invite(NOWHERE, NOW, uses=9)
    one, two = joiner(desk, invitation), joiner(desk, invitation)
    two._tls_seed = one._tls_seed
    desk.admit(one.request(desk.challenge(NOW), SERVER), SERVER, NOW)
    assert refusal(desk, two.request(desk.challenge(NOW), SERVER)) is Refusal.KNOWN_KEY


def test_nobody_is_admitted_with_an_expired_issuer(desk: Desk) -> None:
    late = pki.not_after(desk.issuer.certificate) + 1
    invitation = desk.invite(NOWHERE, late)
    request = joiner(desk, invitation).request(desk.challenge(late), SERVER)
    assert refusal(desk, request, now=late) is Refusal.ISSUER
    assert desk.tokens.tokens()[0].left == 1


# --- replacing ----------------------------------------------------------------------------------


def test_a_device_replaces_another_with_the_old_key(desk: Desk) -> None:
    invitation = desk.invite(NOWHERE, NOW, uses=2)
    first = enrol(desk, invitation)
    second = enrol(desk, invitation, old=Signer(first.seed))
    assert second.member.replaces == first.member.device
    assert second.member.device != first.member.device


def test_an_invitation_can_name_the_device_to_replace(desk: Desk) -> None:
    lost = Signer(b"l" * 32).device
    assert enrol(desk, desk.invite(NOWHERE, NOW, replaces=lost)).member.replaces == lost


def test_an_old_key_that_the_invitation_does_not_name_is_refused(desk: Desk) -> None:
    invitation = desk.invite(NOWHERE, NOW, replaces=Signer(b"l" * 32).device)
    one = joiner(desk, invitation, old=Signer(b"o" * 32))
    assert refusal(desk, one.request(desk.challenge(NOW), SERVER)) is Refusal.PROOF


@pytest.mark.parametrize(
    "more",
    [{"uses": 0}, {"uses": 10_001}, {"ttl_s": 0}, {"ttl_s": 31 * 86_400}, {"role": Role.OPERATOR}],
)
def test_an_invitation_has_bounds(desk: Desk, more: dict[str, object]) -> None:
    with pytest.raises(UserError) as caught:
        desk.invite(NOWHERE, NOW, **more)
    assert caught.value.code == "GF100"


# --- what a joiner refuses ----------------------------------------------------------------------


def test_another_root_is_refused_before_anything_is_said(desk: Desk, tmp_path: Path) -> None:
    other = make_fleet(tmp_path / "other", now=NOW).issuer().load()
    with pytest.raises(UserError) as caught:
        Joiner(desk.invite(NOWHERE, NOW), other.root, None)
    assert caught.value.code == "GF205"


def test_every_flipped_bit_of_an_answer_is_refused(desk: Desk) -> None:
    one = joiner(desk, desk.invite(NOWHERE, NOW))
    answer = desk.admit(one.request(desk.challenge(NOW), SERVER), SERVER, NOW)
    for place in range(len(answer)):
        for bit in range(8):
            data = bytearray(answer)
            data[place] ^= 1 << bit
            with pytest.raises(UserError):
                one.accept(bytes(data), NOW)
    assert one.accept(answer, NOW).member.role is Role.DEVICE


def _other_tls_key(issuer: Issuer, foreign: Issuer, request: Request, answer: Answer) -> Answer:
    grant = issuer.grant(request.key, pki.public_bytes(b"x" * 32), Role.DEVICE, NOW)
    return msgspec.structs.replace(answer, leaf=pki.der(grant.leaf), member=grant.member)


def _other_signing_key(issuer: Issuer, foreign: Issuer, request: Request, answer: Answer) -> Answer:
    tls = pki.raw_key(pki.load(answer.leaf))
    grant = issuer.grant(Signer(b"x" * 32).key_id, tls, Role.DEVICE, NOW)
    return msgspec.structs.replace(answer, leaf=pki.der(grant.leaf), member=grant.member)


def _operator(issuer: Issuer, foreign: Issuer, request: Request, answer: Answer) -> Answer:
    return msgspec.structs.replace(answer, member=issuer.operator(request.key, NOW))


def _foreign_issuer(issuer: Issuer, foreign: Issuer, request: Request, answer: Answer) -> Answer:
    tls = pki.raw_key(pki.load(answer.leaf))
    grant = foreign.grant(request.key, tls, Role.DEVICE, NOW)
    issuing = pki.der(foreign.certificate)
    return msgspec.structs.replace(answer, leaf=pki.der(grant.leaf), issuer=issuing)


def _foreign_member(issuer: Issuer, foreign: Issuer, request: Request, answer: Answer) -> Answer:
    tls = pki.raw_key(pki.load(answer.leaf))
    return msgspec.structs.replace(
        answer, member=foreign.grant(request.key, tls, Role.DEVICE, NOW).member
    )


def _server_leaf(issuer: Issuer, foreign: Issuer, request: Request, answer: Answer) -> Answer:
    tls = pki.raw_key(pki.load(answer.leaf))
    return msgspec.structs.replace(answer, leaf=pki.der(issuer.service_certificate(tls, NOW)))


@pytest.mark.parametrize(
    "tamper",
    [
        *(_other_tls_key, _other_signing_key, _operator),
        *(_foreign_issuer, _foreign_member, _server_leaf),
    ],
)
def test_an_answer_is_checked_even_from_somebody_who_knows_the_invitation(
    desk: Desk,
    tmp_path: Path,
    tamper: Callable[[Issuer, Issuer, Request, Answer], Answer],
) -> None:
    foreign = make_fleet(tmp_path / "foreign", now=NOW).issuer().load()
    invitation = desk.invite(NOWHERE, NOW)
    one = joiner(desk, invitation)
    data = one.request(desk.challenge(NOW), SERVER)
    request = decode(data, Request)
    answer = tamper(desk.issuer, foreign, request, decode(desk.admit(data, SERVER, NOW), Answer))
    transcript = Transcript(
        *(invitation.pin, SERVER, request.challenge, request.nonce),
        *(request.token, request.key, None),
    )
    mac = transcript.issuer_mac(invitation.secret, request.csr, answer)
    with pytest.raises(UserError) as caught:
        one.accept(encode(msgspec.structs.replace(answer, mac=mac)), NOW)
    assert caught.value.code == "GF213"


@pytest.mark.parametrize(("now", "said"), [(0, "1970"), (NOW + 31 * 86_400, "2027-02-15")])
def test_a_wrong_clock_is_named(desk: Desk, now: int, said: str) -> None:
    one = joiner(desk, desk.invite(NOWHERE, NOW))
    answer = desk.admit(one.request(desk.challenge(NOW), SERVER), SERVER, NOW)
    with pytest.raises(UserError, match=said) as caught:
        one.accept(answer, now)
    assert caught.value.code == "GF210"
    assert "clocks" in caught.value.hint


def test_an_issuer_that_does_not_know_the_invitation_cannot_answer(
    desk: Desk, fleet: FleetFolder
) -> None:
    """A second, honest issuer key in a thief's hands: no secret, so no false discovery key."""
    second = fleet.add_issuer("second", NOW).load()
    one = joiner(desk, desk.invite(NOWHERE, NOW))
    request = decode(one.request(desk.challenge(NOW), SERVER), Request)
    tls = pki.public_bytes(one._tls_seed)
    grant = second.grant(request.key, tls, Role.DEVICE, NOW)
    forged = Answer(
        *(pki.der(grant.leaf), pki.der(second.certificate), grant.member, b"d" * 32),
        mac=hashlib.sha256(b"guess").digest(),
    )
    with pytest.raises(UserError) as caught:
        one.accept(encode(forged), NOW)
    assert caught.value.code == "GF205"


def test_the_secret_is_in_no_message_and_in_no_words(desk: Desk) -> None:
    invitation = desk.invite(NOWHERE, NOW)
    one = joiner(desk, invitation)
    request = one.request(desk.challenge(NOW), SERVER)
    answer = desk.admit(request, SERVER, NOW)
    got = one.accept(answer, NOW)
    secrets = [invitation.secret, got.seed, got.tls_seed, desk.issuer.seed]
    words = f"{invitation!r} {got!r} {desk.issuer!r} {desk.tokens.tokens()!r}"
    for secret in secrets:
        assert secret not in request + answer
        assert secret.hex() not in words
        assert repr(secret)[2:-1] not in words
