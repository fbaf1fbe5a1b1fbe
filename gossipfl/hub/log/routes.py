"""The audit log over HTTP: checkpoints, tiles and proofs for everybody who may log in, what entries
say for auditors. Whoever asks verifies; nothing here asks to be believed."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import msgspec
from msgspec import Meta

from gossipfl.audit.checkpoints import Checkpoint, parse_checkpoint
from gossipfl.audit.entries import parse_entry
from gossipfl.audit.notes import parse_note
from gossipfl.audit.proving import fetch_nodes, prove_entry
from gossipfl.audit.reader import LogReader
from gossipfl.audit.refused import AuditRefused
from gossipfl.audit.tiles import WIDTH, tile_at
from gossipfl.audit.tree import SIZE_MAX, consistency_ranges, nodes_of, prove_consistency
from gossipfl.hub.hub import Hub
from gossipfl.hub.rest.access import EVERYBODY, Role, only
from gossipfl.hub.rest.bodies import OCTETS
from gossipfl.hub.rest.problems import absent, malformed
from gossipfl.hub.rest.routing import Call, Raw, Route

API = "/api/v1/audit"
TEXT = "text/plain"
AUDITORS = only(Role.OPERATOR, Role.AUDITOR)
"""Who sees what entries say, and the salts that open them."""

Size = Annotated[int, Meta(ge=0, le=SIZE_MAX)]


class CheckpointAnswer(msgspec.Struct, frozen=True):
    """The newest checkpoint. `note` is what is signed, with all signatures."""

    log: str
    number: int
    size: int
    root: str
    time: int
    note: str
    cosigners: list[str]


class EntryAnswer(msgspec.Struct, frozen=True):
    """`leaf`: the 42 bytes in hex. `about` and `says` (hex) are null once they were erased."""

    entry: int
    time: int
    kind: str
    leaf: str
    about: str | None
    says: str | None


class EntriesAnswer(msgspec.Struct, frozen=True):
    entries: list[EntryAnswer]


class ConsistencyAnswer(msgspec.Struct, frozen=True):
    """RFC 6962 section 2.1.2: hashes in hex."""

    old: int
    new: int
    proof: list[str]


class PageQuery(msgspec.Struct, frozen=True):
    first: Size = 0
    count: Annotated[int, Meta(ge=1, le=WIDTH)] = 50


class ConsistencyQuery(msgspec.Struct, frozen=True):
    old: Annotated[int, Meta(ge=1, le=SIZE_MAX)]
    new: Annotated[int, Meta(ge=1, le=SIZE_MAX)]


class AuditApi:
    """Needs nothing but the log, which every instance of a hub can read."""

    def routes(self) -> list[Route]:
        table = [
            Route("GET", f"{API}/checkpoint", self.newest, EVERYBODY, None, CheckpointAnswer,
                  "The newest checkpoint.", refusals=(404,)),
            Route("GET", f"{API}/checkpoints/{{number}}", self.checkpoint, EVERYBODY, None, None,
                  "A checkpoint as a C2SP signed note.", answer_kind=TEXT, refusals=(404,)),
            Route("GET", f"{API}/tiles/{{level}}/{{index}}", self.tile, EVERYBODY, None, None,
                  "A hash tile of the newest tree: up to 256 hashes of 32 bytes.",
                  answer_kind=OCTETS, refusals=(404,)),
            Route("GET", f"{API}/consistency", self.consistency, EVERYBODY, None,
                  ConsistencyAnswer, "The proof that a larger tree begins with a smaller one.",
                  query=ConsistencyQuery, refusals=(404,)),
            Route("GET", f"{API}/entries", self.entries, AUDITORS, None, EntriesAnswer,
                  "A page of entries and what they say.", query=PageQuery, refusals=(404,)),
            Route("GET", f"{API}/proof/{{entry}}", self.proof, AUDITORS, None, None,
                  "One entry, its payload and its inclusion as a C2SP tlog-proof, which "
                  "`gossipfl audit verify` reads.", answer_kind=TEXT, refusals=(404,)),
        ]  # fmt: skip
        return [replace(route, tag="audit") for route in table]

    async def newest(self, hub: Hub, call: Call) -> CheckpointAnswer:
        note, checkpoint = await _newest(hub.log.reader)
        signers = [s.name for s in parse_note(note).signatures if s.name != checkpoint.origin]
        return CheckpointAnswer(
            checkpoint.origin,
            checkpoint.number,
            checkpoint.size,
            checkpoint.root.hex(),
            checkpoint.time,
            note.decode(),
            signers,
        )

    async def checkpoint(self, hub: Hub, call: Call) -> Raw:
        number = _number(call.path["number"])
        try:
            return Raw(await hub.log.reader.checkpoint(number))
        except AuditRefused as error:
            raise absent(str(error)) from error

    async def tile(self, hub: Hub, call: Call) -> Raw:
        level, index = _number(call.path["level"]), _number(call.path["index"])
        _, checkpoint = await _newest(hub.log.reader)
        try:
            return Raw(await hub.log.reader.tile(tile_at(level, index, checkpoint.size)))
        except AuditRefused as error:
            raise absent(str(error)) from error

    async def consistency(self, hub: Hub, call: Call) -> ConsistencyAnswer:
        old, new = call.query.old, call.query.new
        _, checkpoint = await _newest(hub.log.reader)
        if new > checkpoint.size:
            raise absent(f"the log has {checkpoint.size} entries")
        if old > new:
            raise malformed("`old` is at most `new`")
        nodes = await fetch_nodes(hub.log.reader, nodes_of(consistency_ranges(old, new)), new)
        proof = prove_consistency(old, new, nodes)
        return ConsistencyAnswer(old, new, [value.hex() for value in proof])

    async def entries(self, hub: Hub, call: Call) -> EntriesAnswer:
        reader, first = hub.log.reader, call.query.first
        _, checkpoint = await _newest(reader)
        end = min(checkpoint.size, first + call.query.count)
        if first >= end:
            return EntriesAnswer([])
        leaves, payloads = await reader.entries(first, end), await reader.payloads(first, end)
        found = []
        for index, (leaf, payload) in enumerate(zip(leaves, payloads, strict=True), first):
            entry = parse_entry(leaf)
            about = payload.subject.hex() if payload is not None else None
            says = payload.data.hex() if payload is not None else None
            word = entry.kind.word
            found.append(EntryAnswer(index, entry.time, word, leaf.hex(), about, says))
        return EntriesAnswer(found)

    async def proof(self, hub: Hub, call: Call) -> Raw:
        reader, index = hub.log.reader, _number(call.path["entry"])
        note, checkpoint = await _newest(reader)
        if index >= checkpoint.size:
            raise absent(f"the log has {checkpoint.size} entries")
        return Raw((await prove_entry(reader, note, index)).encode())


async def _newest(reader: LogReader) -> tuple[bytes, Checkpoint]:
    number = await reader.newest()
    if number == 0:
        raise absent("the log has no checkpoint yet")
    note = await reader.checkpoint(number)
    return note, parse_checkpoint(parse_note(note).text)


def _number(text: str) -> int:
    """A number in a path. Problem 404 for what is none: no such thing is there."""
    if not (text.isascii() and text.isdigit() and len(text) <= 16):
        raise absent("there is a number in this path")
    return int(text)
