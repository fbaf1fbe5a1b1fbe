"""Keys, signatures and device names: RFC 8032 to the letter, and nothing hostile raises."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossipfl.identity import (
    Signer,
    device_name,
    device_of,
    parse_device_name,
    short_name,
    verify,
)

# RFC 8032, section 7.1: secret key, public key, message, signature.
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bac"
        "c61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e"
        "458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290"
        "ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
    (
        "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        hashlib.sha512(b"abc").hexdigest(),
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ec"
        "fdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
    ),
]
GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493  # RFC 8032, L
# The eight points of small order in their encodings, canonical and not: keys that verify anything
# under some implementations.
SMALL_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


@pytest.mark.parametrize(("secret", "public", "message", "signature"), RFC_8032)
def test_rfc_8032_vectors(secret: str, public: str, message: str, signature: str) -> None:
    signer = Signer(bytes.fromhex(secret))
    assert signer.key_id.hex() == public
    assert signer.sign(bytes.fromhex(message)).hex() == signature
    assert verify(signer.key_id, bytes.fromhex(message), bytes.fromhex(signature))


@pytest.mark.parametrize(("secret", "public", "message", "signature"), RFC_8032)
def test_every_flipped_bit_of_a_signature_or_key_is_refused(
    secret: str, public: str, message: str, signature: str
) -> None:
    key, text, signed = (bytes.fromhex(part) for part in (public, message, signature))
    for bit in range(64 * 8):
        other = bytearray(signed)
        other[bit // 8] ^= 1 << bit % 8
        assert not verify(key, text, bytes(other)), bit
    for bit in range(32 * 8):
        other = bytearray(key)
        other[bit // 8] ^= 1 << bit % 8
        assert not verify(bytes(other), text, signed), bit


def test_a_signature_has_one_form_only() -> None:
    """S and S + L satisfy the same equation: a carrier could mint a second head from a first."""
    signer = Signer(bytes(32))
    signature = signer.sign(b"head")
    shifted = int.from_bytes(signature[32:], "little") + GROUP_ORDER
    assert not verify(signer.key_id, b"head", signature[:32] + shifted.to_bytes(32, "little"))


@pytest.mark.parametrize("key", SMALL_ORDER)
def test_keys_of_small_order_sign_nothing(key: str) -> None:
    """With such a key and R = key, S = 0 some verifiers accept any message."""
    point = bytes.fromhex(key)
    for r in (point, bytes(32), b"\x01" + bytes(31)):
        assert not verify(point, b"anything", r + bytes(32))


@given(key=st.binary(max_size=40), message=st.binary(max_size=80), signature=st.binary(max_size=70))
def test_hostile_input_is_refused_and_never_raises(
    key: bytes, message: bytes, signature: bytes
) -> None:
    assert verify(key, message, signature) is False


@given(
    key=st.binary(min_size=32, max_size=32),
    message=st.binary(max_size=80),
    signature=st.binary(min_size=64, max_size=64),
)
def test_hostile_input_of_the_right_length(key: bytes, message: bytes, signature: bytes) -> None:
    assert verify(key, message, signature) is False


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_signing_key_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Signer(bytes(size))


def test_a_device_id_follows_from_the_signing_key() -> None:
    signer = Signer(b"\x07" * 32)
    assert signer.device == hashlib.sha256(signer.key_id).digest()[:16] == device_of(signer.key_id)


@given(st.binary(min_size=16, max_size=16))
def test_device_names_come_back(device: bytes) -> None:
    name = device_name(device)
    assert parse_device_name(name) == device
    assert parse_device_name(f"  {name.upper()} ") == device
    assert parse_device_name(name.replace("-", "")) == device
    assert name.startswith(short_name(device))


def test_a_typo_in_a_device_name_is_found() -> None:
    name = device_name(b"0123456789abcdef")
    for at, letter in enumerate(name):
        if letter != "-":
            typo = name[:at] + ("b" if letter != "b" else "c") + name[at + 1 :]
            with pytest.raises(ValueError, match=r"check digits|characters|letters"):
                parse_device_name(typo)


@pytest.mark.parametrize(
    "text", ["", "-", "abcd", "1" * 29, "a" * 30, "ä" * 29, "=" * 29, "a" * 28]
)
def test_what_is_no_device_name_is_said_to_be_none(text: str) -> None:
    with pytest.raises(ValueError, match="is not a device id"):
        parse_device_name(text)
