"""Envelopes and bounded msgpack: one byte string per meaning, and no bytes that do any harm."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from harness import fault_of
from hypothesis import given, settings
from hypothesis import strategies as st

from gossipfl.config import Limits
from gossipfl.errors import Fault, PeerError
from gossipfl.identity import Signer
from gossipfl.messages import (
    Chapter,
    Evidence,
    Head,
    Lineage,
    Member,
    Merged,
    Policy,
    Receipt,
    Record,
    Revocation,
    Training,
)
from gossipfl.wire import (
    ENVELOPE_OVERHEAD_MAX,
    TYPES,
    check_signature,
    decode,
    encode,
    open_envelope,
    pack,
    pre_authentication_encoding,
    seal,
    unpack,
)

SIGNER = Signer(b"\x01" * 32)
MESSAGES = [Member, Head, Receipt, Policy, Revocation, Record, Evidence, Chapter]
D = b"\x22" * 32


def head(**fields: Any) -> Head:
    values: dict[str, Any] = {"fleet": D, "device": SIGNER.device, "seq": 1, "member": D}
    return Head(**{**values, "issued": 5, **fields})


def refusal(data: bytes, kind: str = "head", most: int = 4096) -> Fault | None:
    return fault_of(open_envelope, data, kind, most)


# --- what is signed ------------------------------------------------------------------------------


def test_pre_authentication_encoding_is_dsse() -> None:
    """secure-systems-lab/dsse protocol.md: DSSEv1 SP LEN(type) SP type SP LEN(body) SP body."""
    assert (
        pre_authentication_encoding("head", b"hello world")
        == b"DSSEv1 32 application/vnd.gossipfl.v1.head 11 hello world"
    )
    assert (
        pre_authentication_encoding("policy", b"")
        == b"DSSEv1 34 application/vnd.gossipfl.v1.policy 0 "
    )


def test_lengths_are_signed_so_that_parts_cannot_slide() -> None:
    one = pre_authentication_encoding("head", b"1 x")
    other = pre_authentication_encoding("head 1", b"x")
    assert one != other


def test_the_same_payload_under_another_type_is_another_message() -> None:
    """A member's signature on one kind of thing must not serve as one on another."""
    payload = encode(head())
    kind, body, key, signature = unpack(seal("head", payload, SIGNER), 4096)
    assert kind == "head"
    relabelled = open_envelope(pack(["receipt", body, key, signature]), "receipt", 4096)
    with pytest.raises(PeerError) as caught:
        check_signature(relabelled)
    assert caught.value.fault is Fault.BAD_SIGNATURE


@given(st.sampled_from(sorted(TYPES)), st.binary(max_size=300))
def test_what_is_sealed_opens_and_verifies(kind: str, payload: bytes) -> None:
    data = seal(kind, payload, SIGNER)
    envelope = open_envelope(data, kind, len(data))
    check_signature(envelope)
    assert (envelope.payload, envelope.key_id, envelope.device) == (
        payload,
        SIGNER.key_id,
        SIGNER.device,
    )
    assert len(data) - len(payload) <= ENVELOPE_OVERHEAD_MAX
    assert seal(kind, payload, SIGNER) == data, "signing is deterministic: a retry is the same"


def test_only_types_of_the_protocol_are_sealed() -> None:
    with pytest.raises(ValueError, match="not a type"):
        seal("love letter", b"", SIGNER)


# --- envelopes that are refused ------------------------------------------------------------------


def test_an_envelope_above_its_limit_is_not_even_parsed() -> None:
    data = seal("head", bytes(3900), SIGNER)
    open_envelope(data, "head", len(data))
    assert refusal(data, most=len(data) - 1) is Fault.OVERSIZED
    assert refusal(bytes(10_000_000)) is Fault.OVERSIZED


@pytest.mark.parametrize(
    ("parts", "fault"),
    [
        (["head", b"", b"k" * 32], Fault.MALFORMED),
        (["head", b"", b"k" * 32, b"s" * 64, b""], Fault.MALFORMED),
        (["head", b"", b"k" * 31, b"s" * 64], Fault.MALFORMED),
        (["head", b"", b"k" * 32, b"s" * 63], Fault.MALFORMED),
        (["head", "text", b"k" * 32, b"s" * 64], Fault.MALFORMED),
        (["head", b"", "k" * 32, b"s" * 64], Fault.MALFORMED),
        ([b"head", b"", b"k" * 32, b"s" * 64], Fault.MALFORMED),
        ([1, b"", b"k" * 32, b"s" * 64], Fault.MALFORMED),
        ([None, None, None, None], Fault.MALFORMED),
        (["receipt", b"", b"k" * 32, b"s" * 64], Fault.UNKNOWN_TYPE),
        (["unheard of", b"", b"k" * 32, b"s" * 64], Fault.UNKNOWN_TYPE),
        ({"type": "head"}, Fault.MALFORMED),
        ("head", Fault.MALFORMED),
        (None, Fault.MALFORMED),
    ],
)
def test_shapes_that_are_no_envelope(parts: Any, fault: Fault) -> None:
    assert refusal(pack(parts)) is fault


def test_every_proper_prefix_of_an_envelope_is_refused() -> None:
    data = seal("head", encode(head()), SIGNER)
    assert {refusal(data[:size]) for size in range(len(data))} == {Fault.MALFORMED}


def test_bytes_after_an_envelope_are_refused() -> None:
    data = seal("head", encode(head()), SIGNER)
    assert refusal(data + b"\xc0") is Fault.MALFORMED
    assert refusal(data + data) is Fault.MALFORMED


def test_an_envelope_has_one_byte_string() -> None:
    """Longer length forms mean the same to msgpack; they would give one head many digests."""
    payload = encode(head())
    _, _, key, signature = unpack(seal("head", payload, SIGNER), 4096)
    shortest = [
        b"\x94",
        b"\xa4head",
        b"\xc4" + bytes([len(payload)]) + payload,
        b"\xc4\x20" + key,
        b"\xc4\x40" + signature,
    ]
    longer = [
        b"\xdc\x00\x04",
        b"\xd9\x04head",
        b"\xc5" + struct.pack(">H", len(payload)) + payload,
        b"\xc5\x00\x20" + key,
        b"\xc6\x00\x00\x00\x40" + signature,
    ]
    assert b"".join(shortest) == seal("head", payload, SIGNER)
    for at in range(5):
        parts = list(shortest)
        parts[at] = longer[at]
        assert refusal(b"".join(parts)) is Fault.MALFORMED, at


# --- msgpack within limits -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"\x91" * 4000,  # arrays in arrays
        b"\x81\xa1a" * 1300,  # maps in maps
        b"\x91" * 4000 + b"\xc0",
        b"\xdd\xff\xff\xff\xff",  # an array of 2^32 - 1
        b"\xdf\xff\xff\xff\xff",  # a map of 2^32 - 1
        b"\xc6\xff\xff\xff\xff",  # 4 GiB of bytes
        b"\xdb\xff\xff\xff\xff",  # 4 GiB of text
        b"\xdd\x00\x00\x40\x01" + b"\xc0" * 0x4001,  # 16,385 elements
        b"\xde\x01\x01" + b"\xa1a\xc0" * 257,  # 257 entries
        b"\xc9\x00\x00\x00\x01\x05x",  # an extension
        b"\xd4\x05x",  # a fixed extension
        b"\xd6\xff\x00\x00\x00\x00",  # a timestamp
        b"\xc7\x00\xff",  # an empty timestamp
        b"\x81\x01\x02",  # a key that is no text
        b"\x81\xc0\xc0",
        b"\x81\x91\x01\x01",  # a key that cannot be hashed
        b"\xc1",  # never used
        b"\xa2\xff\xfe",  # text that is not UTF-8
        b"\xd9\x05\xed\xa0\x80ab",  # a lone surrogate
        b"",
        b"\xc0\xc0",
    ],
)
def test_bombs_and_what_is_no_msgpack(data: bytes) -> None:
    with pytest.raises(PeerError) as caught:
        unpack(data, 1 << 20)
    assert caught.value.fault is Fault.MALFORMED


def test_the_size_is_looked_at_first() -> None:
    with pytest.raises(PeerError) as caught:
        unpack(bytes(101), 100)
    assert caught.value.fault is Fault.OVERSIZED


@settings(max_examples=400)
@given(st.binary(max_size=200))
def test_any_bytes_give_a_value_or_a_peer_error(data: bytes) -> None:
    for shape in MESSAGES:
        assert fault_of(decode, data, shape) in (None, Fault.MALFORMED)
    assert fault_of(unpack, data, 4096) in (None, Fault.MALFORMED)


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)


@settings(max_examples=400)
@given(st.sampled_from(MESSAGES), st.data())
def test_any_value_in_any_field_gives_a_value_or_a_peer_error(shape: Any, data: Any) -> None:
    names = data.draw(st.lists(st.sampled_from(shape.__struct_fields__), unique=True))
    fields = {name: data.draw(JUNK) for name in names}
    assert fault_of(decode, pack(fields), shape) in (None, Fault.MALFORMED)


def test_an_extension_of_no_bytes_gets_into_no_message() -> None:
    """msgpack's length limit lets an empty extension through: the types must stop it."""
    empty = b"\xc7\x00\x05"
    for name in Head.__struct_fields__:
        data = b"\x81" + pack(name) + empty
        with pytest.raises(PeerError) as caught:
            decode(data, Head)
        assert caught.value.fault is Fault.MALFORMED


# --- typed decode --------------------------------------------------------------------------------


def test_a_head_comes_back_as_it_was_sent() -> None:
    sent = head(seq=9, prev=D, lineage=Lineage(D, 3, D), capability="arm64")
    assert decode(encode(sent), Head) == sent


def test_unknown_fields_are_refused() -> None:
    fields = unpack(encode(head()), 4096)
    with pytest.raises(PeerError) as caught:
        decode(pack({**fields, "backdoor": 1}), Head)
    assert caught.value.fault is Fault.MALFORMED
    assert "backdoor" in caught.value.detail


@pytest.mark.parametrize("name", ["fleet", "device", "seq", "member", "issued"])
def test_missing_fields_are_refused(name: str) -> None:
    fields = unpack(encode(head()), 4096)
    del fields[name]
    with pytest.raises(PeerError, match=name):
        decode(pack(fields), Head)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fleet", D + b"x"),
        ("fleet", D[:31]),
        ("fleet", D.hex()),
        ("device", D),
        ("device", b""),
        ("seq", 0),
        ("seq", -1),
        ("seq", 2**53 + 1),
        ("seq", 1.0),
        ("seq", "1"),
        ("seq", True),
        ("issued", -1),
        ("issued", 2**40 + 1),
        ("prev", b""),
        ("capability", "x" * 65),
        ("capability", None),
        ("lineage", {"bundle": D, "run": 0}),
        ("lineage", [D, 0, D]),
        ("update", {"digest": D, "size": 0, "codec": "f32", "round": 1}),
        ("update", {"digest": D, "size": 2**32 + 1, "codec": "f32", "round": 1}),
        ("receipts", {"number": 0, "digest": D}),
    ],
)
def test_values_out_of_their_bounds_are_refused(name: str, value: Any) -> None:
    fields = unpack(encode(head()), 4096)
    with pytest.raises(PeerError) as caught:
        decode(pack({**fields, name: value}), Head)
    assert caught.value.fault is Fault.MALFORMED


@pytest.mark.parametrize("share", [float("nan"), float("inf"), -0.1, 1.1])
def test_an_influence_is_a_share(share: float) -> None:
    receipt = {
        **{"fleet": D, "device": SIGNER.device, "number": 1, "round": 1, "base": D, "rule": "mean"},
        **{"lineage": unpack(encode(Lineage(D, 0, D)), 200), "f": 0, "issued": 1},
    }
    decode(pack({**receipt, "merged": [[SIGNER.device, 1, D, D, 0.5]]}), Receipt)
    with pytest.raises(PeerError):
        decode(pack({**receipt, "merged": [[SIGNER.device, 1, D, D, share]]}), Receipt)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", float("nan")),
        ("learning_rate", 0.0),
        ("learning_rate", float("inf")),
        ("momentum", 1.0),
        ("momentum", float("nan")),
        ("epochs", 0),
        ("epochs", 1_001),
        ("prox", float("nan")),
    ],
)
def test_training_settings_have_bounds(name: str, value: Any) -> None:
    with pytest.raises(PeerError):
        decode(pack({name: value}), Training)


def test_lists_in_messages_have_bounds() -> None:
    row = Merged(SIGNER.device, 1, D, D, 0.0)
    receipt = Receipt(D, SIGNER.device, 1, 1, Lineage(D, 0, D), D, "mean", 0, 1, merged=[row] * 257)
    with pytest.raises(PeerError) as caught:
        decode(encode(receipt), Receipt)
    assert caught.value.fault is Fault.MALFORMED
    assert len(encode(receipt)) < Limits().entry_bytes, "a full receipt fits its limit"
