"""What a node knows of its fleet, as verified objects: for a hub, which records it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gossipfl.core import Core
from gossipfl.events import Address
from gossipfl.membership import Known
from gossipfl.messages import Head
from gossipfl.objects import unpack_list


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One device that has proved itself, its newest verified head, and where it answers."""

    known: Known
    head: Head | None
    addresses: tuple[Address, ...]
    is_live: bool

    @property
    def device(self) -> bytes:
        return self.known.member.device


@dataclass(frozen=True, slots=True)
class Holdings:
    """Objects by what they are about: the device that joined, signed, or is accused."""

    members: tuple[Known, ...]
    neighbours: tuple[Neighbour, ...]
    policies: tuple[tuple[bytes, bytes], ...]  # (signer's device, policy object)
    revocations: Mapping[bytes, bytes]  # device -> revocation object
    evidence: tuple[tuple[bytes, bytes], ...]  # (accused device, evidence object)

    def without(self, is_left_out: Callable[[bytes], bool]) -> Holdings:
        """The same without what is about some devices."""
        return Holdings(
            tuple(k for k in self.members if not is_left_out(k.member.device)),
            tuple(n for n in self.neighbours if not is_left_out(n.device)),
            self.policies,
            {d: data for d, data in self.revocations.items() if not is_left_out(d)},
            tuple(row for row in self.evidence if not is_left_out(row[0])),
        )


@dataclass(frozen=True, slots=True)
class Spread:
    """How far a policy has come: devices whose newest heads name it, or a later one; devices that
    answer; and how many should name it before whoever issued it may rest."""

    named: int
    live: int
    wanted: int


def spread(core: Core, name: bytes) -> Spread:
    """Of the policy whose object has this digest."""
    names = core.policies.since(name)
    devices = [p for p in core.book.peers.values() if _counts(core, p.device)]
    named = sum(p.head is not None and p.head.policy in names for p in devices)
    live = sum(core.book.is_live(p.device, core.now) for p in devices)
    whole = core.policies.for_all(core.time())
    return Spread(named, live, wanted(whole.policy.attackers if whole is not None else 0, live))


def wanted(attackers: int, live: int) -> int:
    """So many that one of them is honest and another may fail, if there are so many."""
    return min(attackers + 2, live)


def _counts(core: Core, device: bytes) -> bool:
    return not core.roster.is_hub(device) and not core.is_barred(device)


def holdings(core: Core) -> Holdings:
    """All of it: bounded by `Limits.devices`."""
    neighbours = []
    for peer in core.book.peers.values():
        known = core.roster.by_device(peer.device)
        if known is not None:
            live = core.book.is_live(peer.device, core.now)
            neighbours.append(Neighbour(known, peer.head, tuple(peer.addresses), live))
    revocations = core.roster.revocations()
    size = core.limits.devices * core.limits.entry_bytes
    entries = unpack_list(revocations, size) if revocations is not None else []
    return Holdings(
        tuple(core.roster.members()),
        tuple(neighbours),
        tuple((a.signer, a.data) for a in core.policies.accepted()),
        dict(zip(core.roster.revoked(), entries, strict=True)),
        tuple((device, data) for (device, _), data in sorted(core.evidence.items())),
    )
