"""Bounds and paces, each with where it comes from. What a policy or a TOML file may change is here.

Sources: "protocol" is docs/explanation/protocol.md, "guess" is a value that nobody has measured.
"""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds of everything that peers can make us hold, read or wait for."""

    head_bytes: int = 4 * KIB  # protocol: one packet train on any link
    entry_bytes: int = 64 * KIB  # protocol: policy, receipt, evidence entry
    peers_bytes: int = 64 * KIB  # protocol
    member_bytes: int = 4 * KIB  # two envelopes of about 400 bytes, with room for longer names
    list_bytes: int = 512 * KIB  # a page of evidence or revocations: guess, 500 entries of 1 KiB
    chapter_bytes: int = 16 * KIB  # 256 digests of 34 bytes
    checkpoint_bytes: int = 16 * KIB  # a note and two links of 64 hashes: 5 KiB at most
    bundle_bytes: int = 64 * MIB  # guess: a 16 M parameter model
    ride_bytes: int = 256 * KIB  # an update up to this size rides in its head's answer (measured:
    # docs/decisions/0002-update-rides-in-head.md)
    chain: int = 64  # protocol K: heads walked back, kept and compared per device
    chain_fetches_per_round: int = 8  # guess: bounds what a gap can cost us; with 4, and 2 receipts
    # back, halves of a fleet did not agree again after a partition
    pulls_out: int = 4  # protocol: object transfers out at once
    pulls_queued: int = 256  # guess: more is dropped, newest first
    heads_out: int = 128  # head requests out at once: small, may be waiting on the server; a round
    # of 100 devices with a third of liars asks 75
    serves_per_device: int = 16  # protocol
    serves_total: int = 64  # protocol
    connections: int = 256  # guess: 4 per device in a fleet of 64
    requests_per_s: float = 10.0  # protocol, per device, small requests
    updates_per_s: float = 2.0  # protocol, per device
    burst: int = 30  # protocol
    header_deadline_s: float = 5.0  # protocol
    handshake_deadline_s: float = 5.0  # as headers
    stall_s: float = 10.0  # protocol
    transfer_base_s: float = 15.0  # protocol: whole transfer 15 s + size / 16 KiB/s
    transfer_bytes_per_s: int = 16 * KIB  # protocol
    head_wait_s: float = 20.0  # longest that a server holds a head request open: a round deadline
    candidates: int = 512  # guess: addresses known but not yet bound to a device
    devices: int = 4_096  # guess: members held
    peers: int = 4_096  # as members; a fleet of many sites may want fewer per device
    addresses_per_device: int = 8  # IPv4 and IPv6 on four links
    evidence_fetches_per_round: int = 2  # protocol, per peer; of revocation lists as many
    pages_per_round: int = 8  # guess: pages of a long list fetched per peer: at most 4 MiB
    receipt_peers_per_round: int = 2  # protocol "a few random peers"
    receipt_walk: int = 4  # receipts read back per peer and round: as above
    updates_kept: int = 3  # protocol: own updates kept
    cache_bytes: int = 8 * MIB  # others' objects kept in memory to serve: a tenth of an idle agent
    transfer_bytes: int = 64 * MIB  # being read from disk to serve, or half received: as a bundle
    chapter: int = 256  # protocol
    norm_max: float = 1e6  # absolute guard on an update's L2 norm: guess, far above real models


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a node lives. Seconds of monotonic time."""

    name: str
    round_interval_s: float
    round_jitter: float  # share of the interval, both ways, so that fleets do not beat in time
    round_deadline_s: float
    poll_interval_s: float
    poll_peers: int  # peers polled each time
    grace_s: float  # after a quorum of fresh updates: how long slower peers are waited for
    head_interval_s: float  # a head without a new update is issued at most this often
    join_wait_s: float  # a joiner looks for models to start from this long
    breaker_s: float  # first pause after a peer cannot be reached; doubles up to 32 times
    stale_s: float  # an update first seen longer ago is not merged any more
    live_s: float  # a peer not heard of for longer is taken for away


_LAN = Pace(
    name="lan",
    round_interval_s=30.0,  # protocol
    round_jitter=0.1,  # guess
    round_deadline_s=20.0,  # protocol
    poll_interval_s=2.0,  # protocol
    poll_peers=3,  # protocol
    grace_s=5.0,  # guess: a quarter of the deadline
    head_interval_s=2.0,  # as the poll
    join_wait_s=10.0,  # guess: mDNS needs 1.4 s for 8 nodes
    breaker_s=5.0,  # guess
    stale_s=150.0,  # guess: five rounds
    live_s=60.0,  # guess: two rounds
)


def _scaled(name: str, factor: float) -> Pace:
    return Pace(
        name=name,
        round_interval_s=_LAN.round_interval_s * factor,
        round_jitter=_LAN.round_jitter,
        round_deadline_s=_LAN.round_deadline_s * factor,
        poll_interval_s=_LAN.poll_interval_s * factor,
        poll_peers=_LAN.poll_peers,
        grace_s=_LAN.grace_s * factor,
        head_interval_s=_LAN.head_interval_s * factor,
        join_wait_s=_LAN.join_wait_s * factor,
        breaker_s=_LAN.breaker_s * factor,
        stale_s=_LAN.stale_s * factor,
        live_s=_LAN.live_s * factor,
    )


PACES: dict[str, Pace] = {
    "lan": _LAN,
    "demo": _scaled("demo", 0.1),  # protocol
    "wan": _scaled("wan", 10.0),  # protocol
    # Rounds back to back, for benchmarks: the next starts when the last merge is done.
    "none": Pace(
        name="none",
        round_interval_s=0.0,
        round_jitter=0.0,
        round_deadline_s=2.0,
        poll_interval_s=0.5,
        poll_peers=3,
        grace_s=0.2,
        head_interval_s=0.5,
        join_wait_s=5.0,
        breaker_s=0.5,
        stale_s=10.0,
        live_s=10.0,
    ),
}

WIRE_VERSION = 1
DISCOVERY_TYPE = "_gossipfl._tcp.local."
TLS_SERVER_NAME = "peer.gossipfl"  # protocol: a constant, TLS proves membership and not a name


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """What differs from node to node and is decided when it starts."""

    pace: Pace = PACES["lan"]
    limits: Limits = Limits()
    capability: str = ""  # coarse class of this machine, published in heads
    guard: bool = True  # the catastrophe guard; off where a privacy policy is on
    # False: these keys have signed heads, or may have. With an empty store they sign none before a
    # majority of the fleet has said what it holds of theirs.
    first_start: bool = True
    trains: bool = True  # False: a hub's node, which loads no bundle and so takes part in no round
    reputation: bool = True  # off: peers are watched, but only evidence has an effect
