"""Everything that can happen to a node, and everything it can ask for.

`Node.handle(event, now)` takes one Event and returns Effects, to be executed in order. Two
interpreters exist: `gossipfl.net.driver` (asyncio) and `sim.world` (a heap). Requests carry a
number chosen by the node; an answer to a number it no longer knows is ignored.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gossipfl.aggregation import Merge
from gossipfl.anomaly import Traits
from gossipfl.audit.linked import CheckpointMade as CheckpointMade
from gossipfl.convergence import Convergence
from gossipfl.durable import Batch as Batch
from gossipfl.durable import Snapshot as Snapshot
from gossipfl.errors import Fault
from gossipfl.groups.heavy import SumMask as SumMask
from gossipfl.groups.heavy import SumMasked as SumMasked
from gossipfl.groups.heavy import SumUncover as SumUncover
from gossipfl.groups.heavy import SumUncovered as SumUncovered
from gossipfl.messages import Training
from gossipfl.notices import Notice as Notice
from gossipfl.notices import Topic as Topic
from gossipfl.parameters import Layout, Vector
from gossipfl.places import Address as Address
from gossipfl.places import Source as Source
from gossipfl.privacy import OFF, GroupSum, Hidden, Protection, Publishable
from gossipfl.reckoning import Reckon as Reckon
from gossipfl.reckoning import Reckoned as Reckoned

# --- events -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    snapshot: Snapshot
    wall: float  # seconds since the epoch by the wall clock, which may be wrong


@dataclass(frozen=True, slots=True)
class DeadlineReached:
    wall: float


@dataclass(frozen=True, slots=True)
class PeerSeen:
    address: Address
    source: Source


@dataclass(frozen=True, slots=True)
class PeerGone:
    address: Address


@dataclass(frozen=True, slots=True)
class OwnAddresses:
    """Where this device can be reached from now on."""

    addresses: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class HeadReceived:
    request: int
    head: bytes | None  # None: not modified, or (with `member`) it has published nothing yet
    member: bytes | None = None  # the head's member object digest, as the carrier hints it
    update: bytes | None = None  # the update that the head names, where it rode along
    tls_key: bytes | None = None  # SHA-256 of the carrier's TLS SPKI


@dataclass(frozen=True, slots=True)
class ObjectReceived:
    request: int
    data: bytes
    tls_key: bytes | None = field(default=None, compare=False)  # whom to charge if it is another


@dataclass(frozen=True, slots=True)
class FetchFailed:
    request: int
    fault: Fault
    detail: str
    absent: bool = False  # the peer answered that it does not have it: no failure of the link
    tls_key: bytes | None = field(default=None, compare=False)  # who answered, if anybody did


@dataclass(frozen=True, slots=True)
class TrainingFinished:
    job: int
    model: Publishable | Hidden
    problem: str = ""  # stays here: with privacy on, a failure goes out as noise alone


@dataclass(frozen=True, slots=True)
class TrainingFailed:
    job: int
    reason: str


@dataclass(frozen=True, slots=True)
class MergeFinished:
    job: int
    merge: Merge
    distances: tuple[float, ...]  # L2 distance of each received update to the own one
    kept_old: bool = False  # the catastrophe guard kept the previous base as the place to train
    accuracy: float | None = None  # of the new base on held-out data; local, never sent
    loss: float | None = None
    seen: Convergence | None = None
    traits: tuple[Traits, ...] = ()  # of each received update; none at a joiner's first merge


@dataclass(frozen=True, slots=True)
class MergeFailed:
    job: int
    reason: str


@dataclass(frozen=True, slots=True)
class Measured:
    """Answer to Measure: of local held-out data, never sent. `loss` None: it failed."""

    job: int
    loss: float | None
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class Stored:
    commit: int


@dataclass(frozen=True, slots=True)
class StoreFailed:
    commit: int
    reason: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """Answer to Reload."""

    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class PolicyReceived:
    """A policy object handed over locally (a file, the socket). Peers' come by digest."""

    data: bytes


@dataclass(frozen=True, slots=True)
class RevocationReceived:
    data: bytes


@dataclass(frozen=True, slots=True)
class BundleGiven:
    """A bundle file handed over locally, so that nobody needs to be asked for it."""

    data: bytes


@dataclass(frozen=True, slots=True)
class JobReady:
    """The trainer for a bundle passed validation and is loaded."""

    bundle: bytes  # bundle id
    layout: Layout
    initial: Vector


@dataclass(frozen=True, slots=True)
class JobFailed:
    bundle: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class ResourcesChanged:
    """Whether this machine may train now; if not, why, in words."""

    may_train: bool
    reason: str = ""
    of_data: bool = False  # for lack of examples, as opposed to how busy or warm the machine is


@dataclass(frozen=True, slots=True)
class DataChanged:
    """This device has other local examples than before. Stays here."""


@dataclass(frozen=True, slots=True)
class Release:
    """A person lifts a soft quarantine."""

    device: bytes


@dataclass(frozen=True, slots=True)
class Stop:
    pass


Event = (
    Start
    | DeadlineReached
    | PeerSeen
    | PeerGone
    | OwnAddresses
    | HeadReceived
    | ObjectReceived
    | FetchFailed
    | TrainingFinished
    | TrainingFailed
    | MergeFinished
    | MergeFailed
    | Measured
    | Reckoned
    | Stored
    | StoreFailed
    | Loaded
    | PolicyReceived
    | RevocationReceived
    | CheckpointMade
    | BundleGiven
    | JobReady
    | JobFailed
    | ResourcesChanged
    | DataChanged
    | Release
    | SumMasked
    | SumUncovered
    | Stop
)

# --- effects ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FetchHead:
    """GET /v1/heads/{device or self}. Answered by HeadReceived or FetchFailed."""

    request: int
    address: Address
    device: bytes | None  # None: the answering node's own
    etag: bytes | None  # digest of the head we hold: "not modified" is an answer
    wait_s: float  # the server may hold the answer this long until there is something new
    update_bytes: int  # ride-along wanted up to this size; 0: the head alone


@dataclass(frozen=True, slots=True)
class FetchObject:
    """GET /v1/objects/{digest}. Answered by ObjectReceived or FetchFailed."""

    request: int
    address: Address
    digest: bytes
    bytes_max: int  # the transport stops reading beyond it


@dataclass(frozen=True, slots=True)
class Cancel:
    """No answer to this request is wanted any more."""

    request: int


@dataclass(frozen=True, slots=True)
class StartTraining:
    job: int
    base: Vector
    training: Training
    seed: int
    protection: Protection | GroupSum = OFF


@dataclass(frozen=True, slots=True)
class StartMerge:
    job: int
    rule: str
    own: Vector | None
    received: tuple[Vector, ...]
    f: int
    previous: Vector | None  # last accepted base, for the guard; None: no guard
    initial: Vector | None = None  # params0; None: no Convergence is wanted
    before: Vector | None = None  # the base that this round's training started from
    weights: tuple[float, ...] | None = None  # weighted_mean only, the own model's first


@dataclass(frozen=True, slots=True)
class Measure:
    """Evaluate this model on local data: Measured."""

    job: int
    model: Vector


@dataclass(frozen=True, slots=True)
class Commit:
    """Make the batch durable, then Stored; on any doubt drop the rest and feed StoreFailed."""

    commit: int
    batch: Batch


@dataclass(frozen=True, slots=True)
class Reload:
    """Read what is durable again: Loaded."""


@dataclass(frozen=True, slots=True)
class LoadJob:
    """Validate this bundle and load its trainer: JobReady or JobFailed."""

    bundle: bytes  # bundle id that the policy names
    data: bytes


@dataclass(frozen=True, slots=True)
class CutOff:
    """Close live connections of this TLS key and take no more (revocation, evidence)."""

    device: bytes
    tls_key: bytes


Effect = (
    FetchHead
    | FetchObject
    | Cancel
    | StartTraining
    | StartMerge
    | Measure
    | Reckon
    | Commit
    | Reload
    | LoadJob
    | CutOff
    | SumMask
    | SumUncover
    | Notice
)
