"""Star mode at a glance: for status, metrics and the page."""

from __future__ import annotations

import msgspec

from gossipfl.hub.database import Transaction
from gossipfl.hub.star import books
from gossipfl.hub.star.service import Star, phase
from gossipfl.hub.star.values import RoundState


class StarStatus(msgspec.Struct, frozen=True):
    """`state`: waiting, running or finished, and `why`. `round` and `version`: the newest."""

    state: str
    why: str
    round: int
    version: int
    selected: int
    received: int
    deadline_in_s: float
    clients: int
    clients_live: int
    blocked: int
    quarantined: int
    policy: str
    rule: str
    attackers: int


async def overview(star: Star, tx: Transaction) -> StarStatus:
    now = star.clock()
    told = await phase(tx)
    round_ = await books.newest_round(tx)
    version = await books.version(tx)
    accepted = await star.policy(tx)
    if accepted is not None:
        told = told.under(accepted.digest)
    counts = await tx.row(
        "SELECT COUNT(*) AS n, COALESCE(SUM(CASE WHEN seen >= ? THEN 1 ELSE 0 END), 0) AS live,"
        " COALESCE(SUM(CASE WHEN blocked <> '' THEN 1 ELSE 0 END), 0) AS out FROM star_clients",
        int(now - star.settings.live_s),
    )
    is_open = round_ is not None and round_.state is RoundState.OPEN
    policy = accepted.policy if accepted is not None else None
    return StarStatus(
        state="running" if is_open else told.name,
        why=told.why,
        round=round_.number if round_ is not None else 0,
        version=version.number if version is not None else 0,
        selected=len(round_.selected) if round_ is not None and is_open else 0,
        received=await books.count_updates(tx, round_.number) if round_ is not None else 0,
        deadline_in_s=max(0.0, round_.deadline - now) if round_ is not None and is_open else 0.0,
        clients=int(counts["n"]) if counts is not None else 0,
        clients_live=int(counts["live"]) if counts is not None else 0,
        blocked=int(counts["out"]) if counts is not None else 0,
        quarantined=len(told.shut_out),
        policy=accepted.digest.hex() if accepted is not None else "",
        rule=policy.rule if policy is not None else "",
        attackers=policy.attackers if policy is not None else 0,
    )
