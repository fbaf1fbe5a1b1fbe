"""What star mode knows of clients, rounds and versions, as values."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum

import msgspec
from msgspec import structs

from gossipfl.hub.star.budget import Account


@dataclass(frozen=True, slots=True)
class Client:
    """A registered client. Times are seconds since the epoch; `blocked` is why, or ""."""

    id: bytes
    key_id: bytes
    name: str
    capability: Mapping[str, int]
    labels: Mapping[str, str]
    registered: int
    proved: int
    seen: int
    seq: int
    updates: int
    account: Account
    blocked: str


class RoundState(IntEnum):
    OPEN = 0
    CLOSED = 1  # nothing is accepted any more; what was accepted is to be merged
    DONE = 2


@dataclass(frozen=True, slots=True)
class Round:
    """One round: trained from `version`, under the policy with this digest. `selected`: who may
    take part; `faulty`: how many of them are assumed to lie."""

    number: int
    version: int
    policy: bytes
    opened: float
    deadline: float
    needed: int
    faulty: int
    selected: frozenset[bytes]
    state: RoundState = RoundState.OPEN


class Part(msgspec.Struct, frozen=True, array_like=True):
    """One client's update in a merge."""

    client: str
    update: str
    seq: int
    influence: float
    examples: int


class Details(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of how a version came about. Distances are L2; see `gossipfl.convergence`."""

    rule: str = ""
    f: int = 0
    merged: list[Part] = []
    distance: float | None = None
    relative: float | None = None
    step: float | None = None
    slope: float | None = None
    accuracy: float | None = None  # on the hub's holdout, else the median of what clients report
    loss: float | None = None  # on the hub's holdout
    kept_old: bool = False  # the merge would have harmed the model
    stopped: str = ""

    def without(self, clients: Container[str]) -> Details:
        """Shares in the merge stay, whose they were does not."""
        parts = [
            Part("", "", 0, part.influence, 0) if part.client in clients else part
            for part in self.merged
        ]
        return structs.replace(self, merged=parts)


@dataclass(frozen=True, slots=True)
class Version:
    """One global model and where it comes from. `body` None: cleaned up, or not asked for."""

    number: int
    parent: int
    round: int
    run: int
    bundle: bytes
    policy: bytes
    origin: str
    digest: bytes
    size: int
    created: float
    details: Details = field(default_factory=Details)
    body: bytes | None = None
    is_kept: bool = True  # whether the parameters are still here

    def without(self, clients: Container[str]) -> Version:
        """The same, of which it is not said that these clients (ids in hex) took part."""
        return replace(self, details=self.details.without(clients))


class Phase(msgspec.Struct, frozen=True):
    """What the leader tells all instances: whether rounds go on, who is shut out and why."""

    name: str = "waiting"  # waiting, running or finished
    why: str = "no policy has been given to this hub"
    shut_out: dict[str, str] = {}
    policy: str = ""  # digest of the policy that this was said under

    def under(self, policy: bytes) -> Phase:
        """What this says now that `policy` is in force: another one may set training going."""
        if self.name != "finished" or self.policy == policy.hex():
            return self
        return Phase("waiting", "a new policy was given", self.shut_out, policy.hex())
