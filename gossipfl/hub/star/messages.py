"""What the routes of star mode take and give. Bytes are base64 in JSON; ids are hex."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from gossipfl.hub.auth.messages import Label
from gossipfl.hub.auth.users import LABELS_MAX
from gossipfl.hub.star.values import Details, Version
from gossipfl.hub.star.wire import ENVELOPE_BYTES_MAX
from gossipfl.messages import Privacy, Stop, Training

Hex32 = Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
Number = Annotated[int, Meta(ge=0, le=2**53)]
Name = Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9._-]{0,63}$")]
Text = Annotated[str, Meta(max_length=512)]
Envelope = Annotated[bytes, Meta(min_length=1, max_length=ENVELOPE_BYTES_MAX)]
Figure = Annotated[float, Meta(ge=-1e12, le=1e12)]
Limit = Annotated[int, Meta(ge=1, le=1_000)]


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Answer(msgspec.Struct, frozen=True):
    pass


# --- clients -------------------------------------------------------------------------------------


class Invite(Request, frozen=True):
    """`labels`: of who registers with it. Nobody labels itself: viewers are limited by them."""

    uses: Annotated[int, Meta(ge=1, le=10_000)] = 1
    lasts_s: Annotated[int, Meta(ge=60, le=30 * 86_400)] = 7_200
    labels: Annotated[dict[Label, Label], Meta(max_length=LABELS_MAX)] = {}


class Invitation(Answer, frozen=True):
    code: str
    uses: int
    expires: int  # seconds since the epoch


class Register(Request, frozen=True):
    """`envelope`: a signed star-join. `code`: of an invitation; not asked of a known key."""

    envelope: Envelope
    code: Annotated[str, Meta(max_length=128)] = ""


class RegisterInfo(Answer, frozen=True):
    """What a client needs to sign its registration."""

    fleet: str
    now: int  # seconds since the epoch, by the hub's clock


class Registered(Answer, frozen=True):
    client_id: str
    access_token: str
    refresh_token: str
    expires_in: int  # seconds
    is_new: bool
    seq: int  # of its newest update here; the next one is higher
    token_type: str = "Bearer"


class ClientView(Answer, frozen=True):
    """One client, as people see it. `state`: live, away, quarantined or blocked, and `why`."""

    client_id: str
    name: str
    state: str
    why: str
    labels: dict[str, str]
    capability: dict[str, int]
    registered: int
    seen: int
    updates: int
    seq: int
    epsilon_spent: float | None  # None: no privacy policy, or no bound


class ClientList(Answer, frozen=True):
    clients: list[ClientView]


class MetricsReport(Request, frozen=True):
    """Of one version of the global model, on the client's own held-out data."""

    version: Number
    accuracy: Annotated[float, Meta(ge=0.0, le=1.0)] | None = None
    loss: Figure | None = None
    examples: Number = 0
    details: Annotated[
        dict[Annotated[str, Meta(min_length=1, max_length=64)], Figure], Meta(max_length=16)
    ] = {}


# --- training ------------------------------------------------------------------------------------


class TensorView(Answer, frozen=True):
    name: str
    shape: list[int]
    offset: int


class TrainingView(Training, frozen=True, omit_defaults=False):
    """As in the policy, with every field."""


class PrivacyView(Privacy, frozen=True, omit_defaults=False):
    """As in the policy, with every field."""


class StopView(Stop, frozen=True, omit_defaults=False):
    """As in the policy, with every field."""


class TrainingConfig(Answer, frozen=True):
    """What a client is to do now. `state`: waiting, running or finished, and `why`.

    An update object of codec f32 is `update_header` and the parameters as little-endian float32.
    """

    state: str
    why: str
    fleet: str
    round: int
    version: int
    is_selected: bool
    has_sent: bool
    deadline_in_s: float
    bundle: str
    run: int
    layout: str
    rule: str
    f: int
    codec: str
    update_header: bytes
    update_bytes: int
    parameters: int
    tensors: list[TensorView]
    training: TrainingView
    privacy: PrivacyView
    stop: StopView
    policy: str


class Submission(Request, frozen=True):
    """`envelope`: a signed star-model. The update is `update`, or in JSON the `parameters` of a
    small model in codec f32."""

    envelope: Envelope
    update: bytes | None = None
    parameters: list[float] | None = None


class Accepted(Answer, frozen=True):
    """Durable when it is answered. `is_repeat`: it was here already."""

    client_id: str
    round: int
    version: int
    seq: int
    digest: str
    is_repeat: bool = False


class VersionQuery(Request, frozen=True):
    version: Number | None = None


class VersionView(Answer, frozen=True):
    version: int
    parent: int
    round: int
    run: int
    bundle: str
    policy: str
    origin: str
    digest: str
    bytes: int
    created: float
    is_kept: bool
    details: Details


def view(version: Version) -> VersionView:
    return VersionView(
        version=version.number,
        parent=version.parent,
        round=version.round,
        run=version.run,
        bundle=version.bundle.hex(),
        policy=version.policy.hex(),
        origin=version.origin,
        digest=version.digest.hex(),
        bytes=version.size,
        created=version.created,
        is_kept=version.is_kept,
        details=version.details,
    )


class VersionList(Answer, frozen=True):
    """The newest first."""

    versions: list[VersionView]


class ListQuery(Request, frozen=True):
    limit: Limit = 100
    before: Number | None = None  # only what is older than this version


class HistoryEntry(Answer, frozen=True):
    """One merge. Distances are L2; `relative`: over the way come from the start."""

    version: int
    round: int
    rule: str
    f: int
    merged: int
    distance: float | None
    relative: float | None
    slope: float | None
    step: float | None
    accuracy: float | None
    loss: float | None
    stopped: str
    created: float


class History(Answer, frozen=True):
    """The newest first."""

    rounds: list[HistoryEntry]
