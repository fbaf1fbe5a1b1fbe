"""What a policy says, for people and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gossipfl.cli.policy_privacy import privacy_line

if TYPE_CHECKING:
    from gossipfl.fleet.documents import OpenPolicy
    from gossipfl.messages import Policy

STOPS = ("rounds", "epochs", "bytes", "distance", "slope", "patience")


def describe(opened: OpenPolicy) -> dict[str, Any]:
    from gossipfl.identity import device_name

    return {
        "digest": opened.digest.hex(),
        **described_policy(opened.policy),
        "signer": device_name(opened.signer.device),
        "signer_role": opened.signer.role.value,
    }


def described_policy(policy: Policy) -> dict[str, Any]:
    """All of it, as JSON types."""
    import msgspec

    from gossipfl.identity import device_name
    from gossipfl.sums.described import described

    return {
        "fleet": policy.fleet.hex(),
        "term": policy.term,
        "version": policy.version,
        "prev": policy.prev.hex() if policy.prev else None,
        "run": policy.run,
        "bundle": policy.bundle.hex(),
        "bundle_object": policy.bundle_object.hex(),
        "bundle_bytes": policy.bundle_bytes,
        "n": policy.n,
        "attackers": policy.attackers,
        "rule": policy.rule,
        "f": policy.f,
        "sample": policy.sample,
        "codec": policy.codec,
        "training": msgspec.structs.asdict(policy.training),
        "rounds": policy.stop.rounds,
        "stop": msgspec.structs.asdict(policy.stop),
        "privacy": described(policy.privacy),
        "canary": [device_name(device) for device in policy.canary],
        "gate": msgspec.structs.asdict(policy.gate),
        "blocked": [device_name(device) for device in policy.blocked],
        "issued": policy.issued,
        "not_before": policy.not_before,
    }


def policy_text(shown: dict[str, Any]) -> str:
    """What people read; of a proposal too, which has neither digest nor signer."""
    from gossipfl.fleet.pki import show_time
    from gossipfl.trial import FAILURES_MAX

    training, digest = shown["training"], f" {shown['digest'][:16]}" if "digest" in shown else ""
    signed = "by nobody yet"
    if "signer" in shown:
        signed = f"by {shown['signer_role']} {shown['signer']}, {show_time(shown['issued'])}"
    more = []
    if shown["f"] is not None:
        more.append(f"  assumes   {shown['f']} liars in a merge, in place of the exact bound")
    if shown["not_before"]:
        more.append(f"  begins    {show_time(shown['not_before'])}")
    if shown["canary"]:
        gate, who = shown["gate"], ", ".join(shown["canary"])
        more.append(f"  canaries  {who}")
        more.append(
            f"  they      go back after {gate['rounds']} rounds below the accuracy before by "
            f"{gate['drop']:g}, {FAILURES_MAX} failed trainings, or if it cannot be loaded"
        )
    if shown["blocked"]:
        more.append(f"  blocked   {', '.join(shown['blocked'])}")
    return "\n".join(
        [
            f"policy {shown['term']}.{shown['version']}{digest}, run {shown['run']}",
            f"  fleet     {shown['fleet'][:16]}",
            f"  follows   {(shown['prev'] or 'nothing: it is the first')[:24]}",
            f"  signed    {signed}",
            f"  bundle    {shown['bundle'][:16]} ({shown['bundle_bytes']} bytes)",
            f"  devices   {shown['n']}, of which {shown['attackers']} assumed hostile",
            f"  rule      {shown['rule']}, sample {shown['sample'] or 'by the exact bound'}",
            f"  codec     {shown['codec']}",
            f"  training  {training['epochs']} epochs, learning rate {training['learning_rate']}, "
            f"momentum {training['momentum']}{_rest(training)}",
            f"  stops     {_stops(shown['stop'])}",
            f"  privacy   {privacy_line(shown['privacy'])}",
            *more,
        ]
    )


def _rest(training: dict[str, Any]) -> str:
    """What is seldom said."""
    batch = f", batch {training['batch']}" if training["batch"] is not None else ""
    return f"{batch}, prox {training['prox']}" if training["prox"] else batch


def _stops(stop: dict[str, Any]) -> str:
    """On one line: when devices rest and what ends that."""
    when = [f"{name} {stop[name]}" for name in STOPS if stop[name] is not None]
    if not when:
        return "never"
    again = ["new data"] if stop["new_data"] else []
    if stop["drift"] is not None:
        again.append(f"a drift of {stop['drift']} in {stop['drift_checks']} checks")
    return f"at {' or '.join(when)}; on again with {' or '.join([*again, 'another policy'])}"
