"""A node's state as plain data for people and programs (`view.View`)."""

from __future__ import annotations

from msgspec import structs

from gossipfl.core import Core
from gossipfl.identity import device_name
from gossipfl.messages import Policy
from gossipfl.objects import digest
from gossipfl.parameters import to_bytes
from gossipfl.view import PeerView, View


def report(core: Core) -> View:
    job, rounds = core.job, core.rounds
    return View(
        device=device_name(core.device),
        fleet=core.fleet.hex(),
        phase=rounds.phase.value,
        round=rounds.number,
        seq=core.own.seq,
        merges=rounds.merges,
        below_quorum=rounds.below_quorum,
        listen_only=core.restraint.why,
        waiting_for=_waiting_for(core),
        finished=core.halt.cause is not None,
        policy=_policy(job.policy),
        bundle=job.policy.bundle.hex() if job.policy else None,
        base=digest(to_bytes(job.base)).hex() if job.base is not None else None,
        base_round=job.base_round,
        accuracy=job.accuracy,
        loss=job.loss,
        sample=core.collector.sample,
        f=core.collector.f,
        peers=tuple(_peer(core, device) for device in _devices(core)),
        candidates=len(core.book.candidates),
        revoked=tuple(
            device_name(d) for d in _devices(core) if core.roster.revocation(d) is not None
        ),
        evidence=len(core.evidence),
        fleet_time=core.time(),
        requests=core.pulls.size,
        finished_why=core.halt.why,
        convergence=core.halt.figures(),
        stopping=core.halt.progress(),
    )


def _waiting_for(core: Core) -> str:
    job = core.job
    if job.failed:
        return f"a bundle that works here (this one is refused: {job.failed})"
    if job.policy is None:
        return "a policy"
    if job.lineage is None:
        return "the bundle to be checked" if job.loading else "the bundle"
    if not core.restraint.reconciled:
        return "a first peer to answer"
    return ""


def _policy(policy: Policy | None) -> dict[str, object] | None:
    if policy is None:
        return None
    return {
        "term": policy.term,
        "version": policy.version,
        "run": policy.run,
        "rule": policy.rule,
        "n": policy.n,
        "attackers": policy.attackers,
        "codec": policy.codec,
        "rounds": policy.stop.rounds,
        "stop": structs.asdict(policy.stop),
    }


def _devices(core: Core) -> list[bytes]:
    """Everybody there is something to say about, but us."""
    known = set(core.book.peers) | {device for device, _ in core.evidence}
    known |= {device for device in core.reputation.devices() if core.is_barred(device)}
    known |= set(core.roster.revoked())
    return sorted(known - {core.device})


def _peer(core: Core, device: bytes) -> PeerView:
    peer = core.book.peers.get(device)
    standing = core.reputation.of(device)
    state, why = _state(core, device)
    head = peer.head if peer is not None else None
    return PeerView(
        device=device_name(device),
        addresses=tuple(str(a) for a in peer.addresses) if peer else (),
        state=state,
        why=why,
        reputation=round(standing.score, 3),
        influence=standing.influence,
        distance=standing.ratio,
        last_seen_s=core.now - peer.live_at if peer else None,
        seq=head.seq if head else 0,
        round=head.update.round if head and head.update else None,
        sampled=device in core.rounds.sampled,
        faults=dict(standing.faults),
    )


def _state(core: Core, device: bytes) -> tuple[str, str]:
    revocation = core.roster.revocation(device)
    if revocation is not None:
        return "revoked", revocation.reason
    standing = core.reputation.of(device)
    if standing.condemned:
        return "condemned", standing.why
    if core.reputation.is_quarantined(device, core.now):
        left = standing.quarantined_until - core.now
        return "quarantined", f"{standing.why} ({left:.0f} s left)"
    return ("live" if core.book.is_live(device, core.now) else "away"), ""
