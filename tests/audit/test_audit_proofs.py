"""Proofs of one entry: in a file that stands alone, and an export that is read as a log."""

from __future__ import annotations

import asyncio
import base64
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossipfl.audit.memory import MemoryLog
from gossipfl.audit.notes import log_key
from gossipfl.audit.opened import ExportReader
from gossipfl.audit.proofs import EntryProof, make_proof, parse_proof, verify_proof
from gossipfl.audit.reader import LogReader
from gossipfl.audit.refused import AuditRefused
from gossipfl.audit.tiles import Tile, TiledNodes, tiles_for
from gossipfl.audit.tree import inclusion_ranges, nodes_of, prove_inclusion
from tests.audit.logs import HUB_KEY, WITNESS, export, make_log

LOG = make_log(300)


async def proof_of(reader: LogReader, index: int, size: int = 300) -> EntryProof:
    wanted = tiles_for(nodes_of(inclusion_ranges(index, size)), size)
    nodes = TiledNodes(size, {tile: await reader.tile(tile) for tile in wanted})
    entry = (await reader.entries(index, index + 1))[0]
    payload = (await reader.payloads(index, index + 1))[0]
    assert payload is not None
    salt = (await reader.salts())[payload.subject]
    note = await reader.checkpoint(await reader.newest())
    hashes = prove_inclusion(index, size, nodes)
    return make_proof(index, entry, hashes, note, (salt, payload.data))


@pytest.mark.parametrize("index", [0, 1, 255, 256, 299])
def test_a_proof_says_what_the_entry_says(index: int) -> None:
    proof = asyncio.run(proof_of(LOG, index))
    proven = verify_proof(parse_proof(proof.encode()), HUB_KEY)
    assert proven.payload == b"payload %d." % index
    assert proven.index == index
    assert proven.signed.checkpoint.size == 300


def test_the_file_is_a_c2sp_tlog_proof() -> None:
    lines = asyncio.run(proof_of(LOG, 7)).encode().decode().split("\n")
    assert lines[0] == "c2sp.org/tlog-proof@v1"
    assert lines[1].startswith("extra ")
    assert lines[2] == "index 7"
    gap = lines.index("")
    assert all(len(base64.b64decode(line)) == 32 for line in lines[3:gap])
    assert lines[gap + 1] == HUB_KEY.name


PROOF = asyncio.run(proof_of(LOG, 200)).encode()
# A witness's line is checked by whoever knows the witness, so a change there is none of the proof.
HUB_PART = PROOF.index(b"\xe2\x80\x94 " + HUB_KEY.name.encode(), PROOF.index(b"\n\n")) + 40


@given(st.integers(0, HUB_PART), st.integers(1, 255))
def test_a_changed_byte_is_refused(place: int, change: int) -> None:
    hurt = bytearray(PROOF)
    hurt[place] ^= change
    with pytest.raises(AuditRefused):
        verify_proof(parse_proof(bytes(hurt)), HUB_KEY)


@given(st.integers(0, HUB_PART))
def test_a_cut_off_proof_is_refused(length: int) -> None:
    with pytest.raises(AuditRefused):
        verify_proof(parse_proof(PROOF[:length]), HUB_KEY)


def test_a_proof_from_another_log_is_refused() -> None:
    with pytest.raises(AuditRefused, match="not signed by"):
        verify_proof(parse_proof(PROOF), log_key(WITNESS.key_id))


def same(one: LogReader, other: LogReader, size: int, payloads: bool = True) -> None:
    async def compare() -> None:
        assert await one.newest() == await other.newest()
        for number in range(1, await one.newest() + 1):
            assert await one.checkpoint(number) == await other.checkpoint(number)
        for first, end in ((0, 0), (0, 3), (250, 260), (40, 296), (size, size)):
            assert list(await one.entries(first, end)) == list(await other.entries(first, end))
            if payloads:
                found = list(await one.payloads(first, end))
                assert found == list(await other.payloads(first, end))
        for tile in (Tile(0, 0), Tile(0, 1, 44), Tile(0, 0, 17), Tile(1, 0, 1)):
            assert await one.tile(tile) == await other.tile(tile)
        if payloads:
            assert await one.salts() == await other.salts()

    asyncio.run(compare())


def test_an_export_reads_as_the_log_itself() -> None:
    same(LOG, ExportReader(io.BytesIO(export(LOG))), 300)


def test_an_export_without_payloads_reads_as_a_log_without_them() -> None:
    reader = ExportReader(io.BytesIO(export(LOG, payloads=False)))
    same(LOG, reader, 300, payloads=False)
    assert asyncio.run(reader.salts()) == {}  # type: ignore[comparison-overlap]
    assert asyncio.run(reader.payloads(0, 2)) == [None, None]  # type: ignore[arg-type]


@pytest.mark.parametrize("reader", [LOG, ExportReader(io.BytesIO(export(LOG)))])
def test_what_is_not_there_is_told(reader: MemoryLog | ExportReader) -> None:
    for asked in (
        reader.entries(299, 301),
        reader.entries(-1, 1),
        reader.entries(0, 257),
        reader.payloads(300, 301),
        reader.checkpoint(0),
        reader.checkpoint(99),
        reader.tile(Tile(0, 1, 45)),
        reader.tile(Tile(3, 0, 1)),
    ):
        with pytest.raises(AuditRefused):
            asyncio.run(asked)  # type: ignore[arg-type]


def test_what_is_no_export_is_told() -> None:
    for data in (b"", b"x" * 2000, export(LOG)[512:]):
        with pytest.raises(AuditRefused):
            ExportReader(io.BytesIO(data))
