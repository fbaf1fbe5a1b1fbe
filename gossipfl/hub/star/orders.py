"""What the routes that steer star mode take and give, and those that show security and budgets."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from gossipfl.hub.star.messages import Answer, Hex32, Name, Number, Request, Text


class StrategyView(Answer, frozen=True):
    """A rule. It needs `per_faulty` f + `least` models, the own one among them."""

    name: str
    words: str
    takes_weights: bool
    needs_own: bool
    models_for_f1: int


class StrategyList(Answer, frozen=True):
    current: str
    steps: list[str]
    strategies: list[StrategyView]


class StrategyAnswer(Answer, frozen=True):
    """The policy that was taken in, and the round from which it is in force at the latest."""

    policy: str
    term: int
    version: int
    run: int
    rule: str
    is_new: bool
    in_force_from_round: int


class BundleAnswer(Answer, frozen=True):
    bundle: str
    name: str
    parameters: int


class CheckpointRequest(Request, frozen=True):
    name: Name
    version: Number | None = None  # None: the newest
    note: Text = ""


class CheckpointView(Answer, frozen=True):
    name: str
    version: int
    digest: str
    bytes: int
    note: str
    made_by: str
    created: int


class CheckpointList(Answer, frozen=True):
    checkpoints: list[CheckpointView]


class StorageView(Answer, frozen=True):
    """Bytes by what they are of; `database_bytes` is what the store takes in all."""

    models: int
    model_bytes: int
    checkpoints: int
    checkpoint_bytes: int
    updates: int
    update_bytes: int
    database_bytes: int


class Cleanup(Request, frozen=True):
    versions_kept: Annotated[int, Meta(ge=1, le=1_000)] = 10
    is_dry_run: bool = False


class CleanupAnswer(Answer, frozen=True):
    """What was freed, or would be: checkpoints and the live version are kept."""

    bytes_freed: int
    models: int
    updates: int
    live_version: int


class BlockRequest(Request, frozen=True):
    client_id: Hex32
    reason: Annotated[str, Meta(min_length=3, max_length=256)]


class UnblockRequest(Request, frozen=True):
    client_id: Hex32


class BlockAnswer(Answer, frozen=True):
    client_id: str
    is_blocked: bool
    reason: str


class SecurityStatus(Answer, frozen=True):
    """`refused`: requests by error code at this instance since it started."""

    attackers_assumed: int
    rule: str
    quarantined: dict[str, str]
    blocked: dict[str, str]
    refused: dict[str, int]


class Budget(Answer, frozen=True):
    """epsilon at the policy's delta; None: no bound can be given."""

    client_id: str
    releases: int
    epsilon_spent: float | None
    epsilon_left: float | None
    releases_left: int


class BudgetView(Answer, frozen=True):
    mode: str
    unit: str
    epsilon: float
    delta: float
    z: float
    global_epsilon: float | None
    global_spent: float | None
    clients: list[Budget]
