"""Canaries on the page: who tries what, who went back by itself, and what waits to be signed."""

from __future__ import annotations

from gossipfl.hub.page import words
from gossipfl.hub.page.facts import Facts
from gossipfl.hub.page.finding import Finding, Kind
from gossipfl.hub.page.model import Level


def is_trying(facts: Facts, device: bytes) -> bool:
    """Does it learn the job of the policy that it is a canary of, and not the fleet's?"""
    policy, usual = facts.chronicle.latest, facts.chronicle.policy
    sighting = facts.sightings.get(device)
    lineage = sighting.head.lineage if sighting is not None and sighting.head else None
    if policy is None or usual is None or lineage is None or device not in policy.canary:
        return False
    job = (lineage.bundle, lineage.run)
    return job == (policy.bundle, policy.run) != (usual.bundle, usual.run)


def has_declined(facts: Facts, device: bytes) -> bool:
    """Has it gone back from the newest policy, as its head says?"""
    policy, sighting = facts.chronicle.latest, facts.sightings.get(device)
    if policy is None or device not in policy.canary or sighting is None or sighting.head is None:
        return False
    declined = sighting.head.declined
    return declined is not None and declined == facts.chronicle.digest_of(policy)


def canary_note(facts: Facts, device: bytes) -> str:
    """What its row says of it; "" for who is no canary, or has not begun."""
    policy = facts.chronicle.latest
    if policy is None:
        return ""
    number = f"policy {policy.term}.{policy.version}"
    if has_declined(facts, device):
        return f"canary: went back from {number} by itself"
    return f"canary: tries {number}" if is_trying(facts, device) else ""


def of_rollout(facts: Facts) -> list[Finding]:
    """What a person should know of the trial, and of what was proposed."""
    found = []
    policy = facts.chronicle.latest
    back = [d for d in policy.canary if has_declined(facts, d)] if policy is not None else []
    if policy is not None and back:
        number = f"{policy.term}.{policy.version}"
        of = words.count(len(policy.canary), "canary", "canaries")
        title = f"{len(back)} of {of} went back from policy {number}"
        what = (
            "The bundle could not be loaded or trained there, or its model was worse on their own "
            "data; the model from before serves. `gossipfl status` on them says why."
        )
        command = "gossipfl policy propose"
        found.append(
            Finding(Kind.POLICY, f"declined {number}", Level.WARNING, title, what, "#fleet",
                    command, at_once=True)
        )  # fmt: skip
    if facts.proposals:
        title = f"{words.count(facts.proposals, 'policy', 'policies')} to be signed"
        what = "Proposed here, and worth nothing until an operator signs where the key is."
        command = "gossipfl policy sign --help"
        found.append(Finding(Kind.POLICY, "proposals", Level.NOTE, title, what, "", command))
    return found
