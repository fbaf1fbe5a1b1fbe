"""What a client of star mode signs, in the envelope that every signed thing has (`gossipfl.wire`).

    star-join   who I am, and that I hold this key now
    star-model  this update object is mine, trained from that version, with so much noise

An update object is one of `gossipfl.codecs`. Its header is the same for all clients of a lineage
and codec, so the hub hands it out, and a client that knows no codec sends header and float32.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from gossipfl.config import Limits
from gossipfl.errors import Fault, PeerError
from gossipfl.messages import Count, Device, Digest, Label, Lineage, Seconds, Seq
from gossipfl.privacy.protection import DevicePrivacy, RecordPrivacy
from gossipfl.wire import Envelope, check_signature, decode, open_envelope

JOIN, MODEL = "star-join", "star-model"
ENVELOPE_BYTES_MAX = Limits().head_bytes  # as a head, whose place it takes

Short = Annotated[str, Meta(min_length=1, max_length=64)]
Amount = Annotated[int, Meta(ge=0, le=2**40)]


class _Signed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    pass


class Join(_Signed, frozen=True):
    """`at`: this is shown once, now. `capability`: coarse facts, as memory_mb or cores."""

    fleet: Digest
    at: Seconds
    name: Annotated[str, Meta(max_length=64)] = ""
    capability: Annotated[
        dict[Short, Annotated[int, Meta(ge=0, le=2**40)]], Meta(max_length=8)
    ] = {}


class Noise(_Signed, frozen=True):
    """What was added before the update left, in the terms of `gossipfl.privacy.protection`."""

    unit: Annotated[str, Meta(pattern="^(device|record)$")]
    clip: Annotated[float, Meta(ge=1e-6, le=1e6)]
    z: Annotated[float, Meta(ge=0.25, le=1e5)]
    sample_rate: Annotated[float, Meta(ge=1e-6, le=1.0)] = 1.0
    steps: Annotated[int, Meta(ge=1, le=1_000_000)] = 1
    lot: Annotated[int, Meta(ge=1, le=65_536)] = 1

    @property
    def spec(self) -> DevicePrivacy | RecordPrivacy:
        if self.unit == "device":
            return DevicePrivacy(self.clip, self.z)
        return RecordPrivacy(self.clip, self.z, self.sample_rate, self.steps, self.lot)


class Model(_Signed, frozen=True):
    """One update. `seq` grows with each; `round` and `version` are those of the configuration that
    it was trained by."""

    fleet: Digest
    client: Device
    seq: Seq
    round: Count
    version: Count
    lineage: Lineage
    digest: Digest  # of the update object
    size: Annotated[int, Meta(ge=1, le=2**32)]
    codec: Label
    examples: Annotated[int, Meta(ge=1, le=2**40)]
    noise: Noise | None = None


def open_join(data: bytes, fleet: bytes) -> tuple[Join, Envelope]:
    """Who registers, with the key that signed it. Raises PeerError."""
    envelope = open_envelope(data, JOIN, ENVELOPE_BYTES_MAX)
    check_signature(envelope)
    join = decode(envelope.payload, Join, ENVELOPE_BYTES_MAX)
    if join.fleet != fleet:
        raise PeerError(Fault.WRONG_FLEET, "the registration is for another fleet")
    return join, envelope


def open_model(data: bytes, fleet: bytes, client: bytes) -> Model:
    """What a client signed of its update. Raises PeerError.

    The key is the client: its id is made of the key, and the token says the same id.
    """
    envelope = open_envelope(data, MODEL, ENVELOPE_BYTES_MAX)
    if envelope.device != client:
        raise PeerError(Fault.WRONG_DEVICE, "the update is signed by another client's key")
    check_signature(envelope)
    model = decode(envelope.payload, Model, ENVELOPE_BYTES_MAX)
    if model.fleet != fleet or model.client != client:
        raise PeerError(Fault.WRONG_FLEET, "the update is for another fleet or client")
    return model
