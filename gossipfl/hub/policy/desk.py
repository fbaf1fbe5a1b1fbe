"""Proposals, and what was issued here. All state is in the database: any instance may answer."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from gossipfl.config import Limits
from gossipfl.errors import PeerError, UserError
from gossipfl.fleet import proposals
from gossipfl.fleet.proposals import BundleRef, Change, Held
from gossipfl.holdings import wanted
from gossipfl.hub.database import Row, Transaction
from gossipfl.hub.policy.messages import Canary, CanaryView, SpreadView, State
from gossipfl.identity import device_name, short_name
from gossipfl.membership import Roster
from gossipfl.messages import Head, Policy
from gossipfl.policies import HISTORY_MAX, Accepted, Policies
from gossipfl.wire import decode

OPEN_MAX = 100  # guess: nobody reads more
KEPT_MAX = 1_000  # proposals in all, the oldest that is not open goes first
_DEVICES = "SELECT device, state, head FROM fleet_devices WHERE role = 'device' LIMIT ?"


@dataclass(frozen=True, slots=True)
class Proposal:
    """A row, with its policy opened."""

    id: str
    policy: Policy
    note: str
    made_by: str
    created: int
    state: State
    issued_as: str

    @classmethod
    def of(cls, row: Row) -> Proposal:
        policy = proposals.open_proposal(bytes(row["payload"]))
        state = State(row["state"])
        return cls(
            row["id"], policy, row["note"], row["made_by"], row["created"], state, row["policy"]
        )


@dataclass(frozen=True, slots=True)
class Seen:
    """A device as the census wrote it down."""

    device: bytes
    is_live: bool
    head: Head | None


# --- policies ----------------------------------------------------------------------------------


async def policies(tx: Transaction, root_key: bytes) -> Policies:
    """All that the hub's node holds, and what was issued here and is on its way to it."""
    rows = await tx.rows(
        "SELECT name, data FROM node_documents WHERE name IN ('policies', 'revocations')"
    )
    documents: Mapping[str, bytes] = {row["name"]: bytes(row["data"]) for row in rows}
    limits, roster = Limits(), Roster(root_key, Limits())
    if documents.get("revocations"):
        roster.load_revocations(documents["revocations"])
    found = Policies(
        roster.fleet,
        limits,
        roster.verify_chain,
        lambda device: roster.revocation(device) is not None,
    )
    if documents.get("policies"):
        found.load(documents["policies"])
    for row in await issued(tx):
        if not found.knows(bytes.fromhex(row["digest"])):
            with suppress(PeerError):  # its operator was revoked since
                found.add(found.verify(bytes(row["data"])))
    return found


async def issued(tx: Transaction) -> Sequence[Row]:
    """What was issued here, the newest last."""
    rows = await tx.rows(
        "SELECT digest, data FROM policy_issued ORDER BY term DESC, version DESC LIMIT ?",
        HISTORY_MAX,
    )
    return list(reversed(rows))


async def take(tx: Transaction, accepted: Accepted, by: str, now: int) -> bool:
    """Write down what is to be issued, and close the proposal that it is of. False: again."""
    policy = accepted.policy
    added = await tx.execute(
        "INSERT INTO policy_issued (digest, data, term, version, given_by, received) "
        "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (digest) DO NOTHING",
        accepted.digest.hex(),
        accepted.data,
        policy.term,
        policy.version,
        by,
        now,
    )
    for proposal in await listed(tx, State.OPEN):
        if proposals.is_signed_form(policy, proposal.policy):
            await _move(tx, proposal.id, State.ISSUED, accepted.digest.hex())
    return bool(added)


# --- proposals ---------------------------------------------------------------------------------


async def add(tx: Transaction, policy: Policy, note: str, by: str, now: int) -> Proposal | None:
    """None if so many are open already."""
    await alone(tx)
    if await count_open(tx) >= OPEN_MAX:
        return None
    made = Proposal(secrets.token_hex(8), policy, note, by, now, State.OPEN, "")
    await tx.execute(
        "INSERT INTO policy_proposals (id, payload, note, made_by, created, state, policy) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        made.id,
        proposals.pack_proposal(policy),
        note,
        by,
        now,
        made.state.value,
        "",
    )
    await tx.execute(
        "DELETE FROM policy_proposals WHERE state <> 'open' AND id NOT IN "
        "(SELECT id FROM policy_proposals ORDER BY created DESC LIMIT ?)",
        KEPT_MAX,
    )
    return made


async def count_open(tx: Transaction) -> int:
    row = await tx.row("SELECT COUNT(*) AS n FROM policy_proposals WHERE state = 'open'")
    return 0 if row is None else int(row["n"])


async def listed(tx: Transaction, state: State | None = None) -> list[Proposal]:
    where = "" if state is None else "WHERE state = ? "
    values = () if state is None else (state.value,)
    rows = await tx.rows(
        f"SELECT * FROM policy_proposals {where}ORDER BY created DESC, id LIMIT {OPEN_MAX}", *values
    )
    return [Proposal.of(row) for row in rows]


async def get(tx: Transaction, name: str) -> Proposal | None:
    row = await tx.row("SELECT * FROM policy_proposals WHERE id = ?", name)
    return None if row is None else Proposal.of(row)


async def alone(tx: Transaction) -> None:
    """Nobody else, at any instance, changes proposals or issues until this transaction ends."""
    await tx.lock("policy proposals")


async def withdraw(tx: Transaction, name: str) -> bool:
    """False if there is no open one of this name."""
    await alone(tx)
    found = await get(tx, name)
    if found is None or found.state is not State.OPEN:
        return False
    await _move(tx, name, State.WITHDRAWN, "")
    return True


async def forget(tx: Transaction, kind: str, device: bytes) -> None:
    """All proposals that name a device that was erased, open ones too. `kind`: of the database."""
    where = {"sqlite": "instr(payload, ?)", "postgresql": "position(? IN payload)"}[kind]
    words = f"%{short_name(device)}%"  # a full name begins with it
    await tx.execute(
        f"DELETE FROM policy_proposals WHERE {where} > 0 OR note LIKE ? OR note LIKE ?",
        *(device, words, f"%{device.hex()}%"),
    )


async def _move(tx: Transaction, name: str, state: State, policy: str) -> None:
    await tx.execute(
        "UPDATE policy_proposals SET state = ?, policy = ? WHERE id = ?", state.value, policy, name
    )


async def compose(tx: Transaction, held: Policies, change: Change, now: int) -> Policy:
    """The unsigned policy that follows the newest. UserError GF701."""
    newest, whole = held.newest(), held.for_all(now)
    if newest is None:
        raise UserError("GF701", "the fleet has no policy yet", "`gossipfl policy issue --help`")
    if change.canary_count is not None:
        change = await _drawn(tx, change, newest.policy)
    bundle = None
    if change.bundle is not None and bytes.fromhex(change.bundle) != newest.policy.bundle:
        bundle = await _bundle(tx, change.bundle)
    before = Held(newest.policy, newest.digest)
    return proposals.propose(change, before, whole.policy if whole else None, bundle)


async def _bundle(tx: Transaction, name: str) -> BundleRef:
    row = await tx.row("SELECT bundle, digest, data FROM star_bundles WHERE bundle = ?", name)
    if row is None:
        hint = "send the .gfl file to /api/v1/training/bundle first"
        raise UserError("GF701", f"bundle {name[:16]} is not here", hint)
    return BundleRef(bytes.fromhex(name), bytes.fromhex(row["digest"]), len(row["data"]))


async def _drawn(tx: Transaction, change: Change, newest: Policy) -> Change:
    """So many live devices, drawn by the operating system's chance: nobody can apply."""
    if change.canary is not None:
        raise UserError("GF701", "canary or canary_count, not both")
    shut = set(newest.blocked) | set(proposals.devices(change.block))
    live = sorted(s.device for s in await seen(tx) if s.is_live and s.device not in shut)
    count = change.canary_count or 0
    if len(live) < count:
        raise UserError("GF701", f"{count} canaries of {len(live)} devices that are there")
    chosen = secrets.SystemRandom().sample(live, count)
    return msgspec.structs.replace(change, canary=[device_name(d) for d in chosen])


# --- how far it has come -----------------------------------------------------------------------


async def seen(tx: Transaction) -> list[Seen]:
    """Devices, as the instance that leads saw them of late."""
    rows = await tx.rows(_DEVICES, Limits().devices)
    return [Seen(row["device"], row["state"] == "live", _head(row["head"])) for row in rows]


def _head(data: bytes | None) -> Head | None:
    try:
        return None if data is None else decode(bytes(data), Head, Limits().head_bytes)
    except PeerError:
        return None  # written by a newer version


def spread(devices: Sequence[Seen], held: Policies, name: bytes, now: int) -> SpreadView:
    """Of the policy with this digest."""
    names, whole = held.since(name), held.for_all(now)
    live = sum(s.is_live for s in devices)
    named = sum(s.head is not None and s.head.policy in names for s in devices)
    return SpreadView(named, live, wanted(whole.policy.attackers if whole else 0, live))


def canaries(devices: Sequence[Seen], newest: Accepted) -> list[CanaryView]:
    """How those of the newest policy do, in the order in which it names them."""
    heads = {s.device: s.head for s in devices}
    return [
        CanaryView(device_name(device), canary_state(heads.get(device), newest))
        for device in newest.policy.canary
    ]


def canary_state(head: Head | None, newest: Accepted) -> Canary:
    """What a canary's head says of the policy."""
    policy = newest.policy
    if head is None or head.policy != newest.digest:
        return Canary.UNHEARD
    if head.declined == newest.digest:
        return Canary.DECLINED
    lineage = head.lineage
    if lineage is None or (lineage.bundle, lineage.run) != (policy.bundle, policy.run):
        return Canary.WAITING
    return Canary.TRYING
