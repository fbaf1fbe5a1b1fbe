"""The node's durable state by name: how each document is written, and how all are taken over."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from msgspec import MsgspecError

from gossipfl.core import Core
from gossipfl.durable import LEDGER_BEHIND, LEDGER_CARRIED
from gossipfl.errors import PeerError, StoreError
from gossipfl.events import Snapshot
from gossipfl.objects import pack_list
from gossipfl.ownchain import ChapterLog
from gossipfl.parameters import to_bytes
from gossipfl.wire import encode, pack, unpack

T = TypeVar("T")
EMPTY_KEPT = pack([[], [], []])


def dump(core: Core, name: str, log: ChapterLog | None) -> bytes:
    """The bytes of one document as of now. `log` is the head log that the commit makes true."""
    match name:
        case "members":
            return core.roster.dump()
        case "revocations":
            return core.roster.revocations() or pack_list([])
        case "evidence":
            return core.evidence_object() or pack_list([])
        case "policies":
            return core.policies.dump()
        case "reputation":
            return core.reputation.dump(core.now)
        case "clock":
            core.time()  # moves the floor, if this time is confirmed
            return pack(core.clock.floor)
        case "heads":
            return pack_list(core.shelf.held_heads(core.device))
        case "records":
            return pack_list([envelope for _, envelope in core.records.values()])
        case "bundle":
            return core.steering.bundle or b""
        case "base":
            return _base(core)
        case "stopping":
            return core.halt.dump()
        case "history":
            return core.publisher.keeper.retention.dump()
        case "statements":
            return core.publisher.keeper.statements.dump()
        case "witness":
            return core.witnessing.dump()
        case "logs":
            return core.own.dump_logs(log)
        case "sums":
            return core.sums.turns.dump()
        case "trial":
            return core.trial.dump()
        case "spare":
            return core.trial.dump_spare()
        case _ if name == LEDGER_BEHIND:
            return core.budget.behind
    raise ValueError(f"no document {name!r}")


def _base(core: Core) -> bytes:
    job = core.job
    if job.base is None or job.lineage is None:
        return b""
    header = pack([encode(job.lineage), job.base_round, core.rounds.number])
    return len(header).to_bytes(4, "little") + header + to_bytes(job.base)


def split_base(data: bytes) -> tuple[tuple[bytes, int, int], bytes]:
    """The header (encoded lineage, base round, round) and the raw float32 of a base document."""
    size = int.from_bytes(data[:4], "little")
    lineage, base_round, number = unpack(data[4 : 4 + size], 4096)
    return (lineage, base_round, number), data[4 + size :]


def restore(core: Core, snapshot: Snapshot) -> None:
    """Take over what is durable. The order matters: members before what they signed."""
    documents = snapshot.documents
    loaders: list[tuple[str, Callable[[bytes], object]]] = [
        ("members", core.roster.load),
        ("revocations", core.roster.load_revocations),
        ("evidence", core.parcels.restore_evidence),
        ("policies", core.policies.load),
        ("reputation", lambda data: core.reputation.load(data, core.now)),
        ("clock", core.upkeep.restore_clock),
        ("heads", core.intake.restore_heads),
        ("records", core.addresses.restore),
        ("bundle", core.steering.restore_bundle),
        ("base", lambda data: core.steering.restore_base(*split_base(data))),
        ("stopping", core.halt.restore),
        ("logs", core.own.load_logs),
        ("sums", core.sums.turns.restore),
        ("trial", core.trial.restore),
        ("spare", core.trial.restore_spare),
        ("history", core.publisher.keeper.retention.load),
        ("statements", core.publisher.keeper.statements.load),
        ("witness", core.witnessing.load),
    ]
    for name, load in loaders:
        data = documents.get(name)
        if data:
            _taken_over(name, load, data)
    if snapshot.head is not None:
        envelope = snapshot.head
        head = _taken_over("head", core.own.restore, envelope)
        _taken_over("kept", core.publisher.keeper.load, documents.get("kept") or EMPTY_KEPT)
        core.publisher.restored(envelope, head)
    committed = core.own.refs.ledger if core.own.refs is not None else None
    core.budget.restore(snapshot.ledger, committed, LEDGER_CARRIED in documents)
    if LEDGER_BEHIND in documents:
        core.budget.recall(documents[LEDGER_BEHIND])
    core.steering.apply()


def _taken_over(name: str, load: Callable[[bytes], T], data: bytes) -> T:
    """What cannot be read back is our own disk's fault, whatever the parts call it."""
    try:
        return load(data)
    except (PeerError, MsgspecError, ValueError, TypeError) as error:
        raise StoreError(f"the stored {name} cannot be read: {error}") from error
