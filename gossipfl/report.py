"""A node's state as plain data for people and programs (`view.View`)."""

from __future__ import annotations

from msgspec import structs

from gossipfl.anomaly import Cause
from gossipfl.core import Core
from gossipfl.identity import device_name
from gossipfl.messages import Policy
from gossipfl.objects import digest
from gossipfl.parameters import to_bytes
from gossipfl.sums.described import described
from gossipfl.view import PeerView, Pulse, View


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
        peers=_peers(core),
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
        sums=core.sums.figures(),
        releases=core.budget.releases,
        trial=core.trial.figures(),
        blocked=tuple(map(device_name, sorted(core.blocked))),
    )


def pulse(core: Core) -> Pulse:
    rests = core.halt.cause is not None or bool(_waiting_for(core))
    return Pulse(core.rounds.number, core.rounds.phase.value, rests)


def _waiting_for(core: Core) -> str:
    job = core.job
    if core.restorer.has_lost_store:
        return core.restorer.waiting_for
    if job.failed:
        return f"a bundle that works here (this one is refused: {job.failed})"
    if job.policy is None:
        return "a policy"
    if job.lineage is None:
        return "the bundle to be checked" if job.loading else "the bundle"
    if not core.restraint.reconciled:
        return core.restorer.waiting_for
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
        "canaries": len(policy.canary),
        "rounds": policy.stop.rounds,
        "stop": structs.asdict(policy.stop),
        "privacy": described(policy.privacy),
    }


def _devices(core: Core) -> list[bytes]:
    """Everybody there is something to say about, but us."""
    known = set(core.book.peers) | {device for device, _ in core.evidence}
    reputation, now = core.reputation, core.now
    known |= {d for d in reputation.devices() if core.is_barred(d)}
    known |= {d for d in reputation.devices() if reputation.is_quarantined(d, now)}
    known |= set(core.roster.revoked()) | set(core.reputation.suspects()) | core.blocked
    return sorted(known - {core.device})


def _peers(core: Core) -> tuple[PeerView, ...]:
    contributions = core.reputation.contributions()
    return tuple(_peer(core, d, contributions.get(d, 0.0)) for d in _devices(core))


def _peer(core: Core, device: bytes, contribution: float) -> PeerView:
    peer = core.book.peers.get(device)
    reputation, now = core.reputation, core.now
    standing = reputation.of(device)
    manner = core.watch.conduct.of(device)
    state, cause, why = _state(core, device)
    head = peer.head if peer is not None else None
    return PeerView(
        device=device_name(device),
        addresses=tuple(str(a) for a in peer.addresses) if peer else (),
        state=state,
        why=why,
        reputation=round(reputation.level(device), 3),
        influence=standing.influence,
        distance=standing.ratio,
        last_seen_s=now - peer.live_at if peer else None,
        seq=head.seq if head else 0,
        round=head.update.round if head and head.update else None,
        sampled=device in core.rounds.sampled,
        faults=dict(standing.faults),
        cause=cause.value if cause is not None else "",
        weight=round(reputation.weight(device, now), 3),
        available=round(manner.available, 3),
        latency_s=manner.latency_s,
        update_age_s=core.watch.update_age_s(peer) if peer is not None else None,
        share=reputation.share(device),
        served_bytes=standing.served,
        contribution=contribution,
        quarantines=standing.quarantines,
        quarantine_left_s=standing.quarantined_until - now if state == "quarantined" else None,
        evidence={"apart": standing.outlying, "alike": standing.crowded},
        history=tuple(standing.entries),
        is_hub=core.roster.is_hub(device),
    )


def _state(core: Core, device: bytes) -> tuple[str, Cause | None, str]:
    revocation = core.roster.revocation(device)
    if revocation is not None:
        return "revoked", None, revocation.reason
    if device in core.blocked:
        return "blocked", None, "blocked by the fleet's policy"
    standing = core.reputation.of(device)
    cause, why = core.reputation.suspected(device, core.now)
    if standing.condemned:
        return "condemned", cause, why
    if core.reputation.is_quarantined(device, core.now):
        left = standing.quarantined_until - core.now
        return "quarantined", cause, f"{why} ({left:.0f} s left)"
    return ("live" if core.book.is_live(device, core.now) else "away"), cause, why
