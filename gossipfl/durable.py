"""What a node asks its store to keep, and what it gets back: snapshots and batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gossipfl.privacy.entries import Row

LEDGER_CARRIED = "ledger carried"
"""Name of a document of the store's own: what the identity before spent is in the ledger here."""

LEDGER_BEHIND = "ledger behind"
"""Name of a document: more was spent than the ledger here says, so no new identity may trust it."""

BEHIND_OWN = b"1"  # what is in it: more under this very key, as its own heads say
BEHIND_OLD = b"old key"  # more under the key before, whose ledger was taken over


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is durable: read at start and after every failed or doubtful commit."""

    head: bytes | None = None  # own newest head, as an envelope
    receipt: bytes | None = None  # own newest receipt, as an envelope
    documents: Mapping[str, bytes] = field(default_factory=dict)
    """the node's own state by name; what is large (a base, an update) is in here too"""
    ledger: tuple[Row, ...] = ()  # all of the privacy ledger, its links not yet checked


@dataclass(frozen=True, slots=True)
class Batch:
    """One transaction. Objects are made durable before what names them; all or nothing."""

    seq: int | None = None  # compare-and-swap: must be exactly one more than the durable head's
    head: bytes | None = None
    receipt: bytes | None = None
    objects: tuple[tuple[bytes, bytes], ...] = ()  # (digest, bytes)
    documents: Mapping[str, bytes] = field(default_factory=dict)  # replaced whole, by name
    retire: tuple[bytes, ...] = ()  # digests that nothing names any more
    links: tuple[tuple[str, int, bytes], ...] = ()  # (chain, number, digest) of own links in it
    prune: tuple[tuple[str, int], ...] = ()  # (chain, number): own links below it leave
    adopt: bool = False  # own head found at a peer after a restore: seq may jump forward
    ledger: tuple[Row, ...] = ()  # new rows: they must follow the durable ones
