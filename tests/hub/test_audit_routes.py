"""The audit log over HTTP: what is answered verifies, and only auditors read what entries say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from authkit import user
from logkit import SIGNER, draft, log_on
from starkit import Stand, example, stand

from gossipfl.audit.checkpoints import open_checkpoint
from gossipfl.audit.notes import log_key
from gossipfl.audit.proofs import parse_proof, verify_proof
from gossipfl.audit.tree import leaf_hash, verify_consistency
from gossipfl.hub.rest.access import Role

KEY = log_key(SIGNER.key_id)
AUDIT = "/api/v1/audit"
ENTRIES = 300


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Stand]:
    async with stand(tmp_path) as hub:
        yield hub


async def fill(hub: Stand) -> None:
    """300 entries under three checkpoints, without what the log says of the operator's login."""
    async with hub.database.transaction() as tx:
        await tx.execute("DELETE FROM log_entries WHERE position IS NULL")
    log, writer = log_on(hub.database, batch_max=100)
    await log.append(draft(number) for number in range(ENTRIES))
    while await writer.integrate():
        pass


async def octets(hub: Stand, path: str) -> bytes:
    data: bytes = await asyncio.to_thread(hub.hand.call, "GET", f"{AUDIT}{path}")
    return data


async def refused(hub: Stand, path: str, token: str = "") -> str:
    hand: Any = example().Hub(hub.url, token=token or hub.token)
    with pytest.raises(example().Refused) as caught:
        await asyncio.to_thread(hand.call, "GET", f"{AUDIT}{path}")
    return str(caught.value)


async def test_what_the_log_answers_verifies(hub: Stand) -> None:
    await fill(hub)
    newest = await hub.ask("GET", f"{AUDIT}/checkpoint")
    checkpoint = open_checkpoint(newest["note"].encode(), KEY).checkpoint
    assert (newest["number"], newest["size"]) == (3, ENTRIES) == (3, checkpoint.size)
    assert newest["cosigners"] == []
    first = open_checkpoint(await octets(hub, "/checkpoints/1"), KEY).checkpoint
    found = await hub.ask("GET", f"{AUDIT}/consistency?old={first.size}&new={ENTRIES}")
    proof = [bytes.fromhex(text) for text in found["proof"]]
    verify_consistency(first.size, ENTRIES, first.root, checkpoint.root, proof)
    page = await hub.ask("GET", f"{AUDIT}/entries?first=298&count=50")
    assert [entry["entry"] for entry in page["entries"]] == [298, 299]
    assert bytes.fromhex(page["entries"][0]["says"]) == b"payload 298"
    leaf = leaf_hash(bytes.fromhex(page["entries"][1]["leaf"]))
    tile = await octets(hub, "/tiles/0/1")
    assert tile[-32:] == leaf
    assert len(tile) == (ENTRIES - 256) * 32
    proven = verify_proof(parse_proof(await octets(hub, "/proof/299")), KEY)
    assert proven.payload == b"payload 299"


async def test_what_is_not_there_is_absent(hub: Stand) -> None:
    for path in ("/checkpoint", "/entries", "/proof/0", "/tiles/0/0", "/consistency?old=1&new=2"):
        assert "GF823" in await refused(hub, path)
    await fill(hub)
    for path in (
        "/checkpoints/9",
        "/checkpoints/x",
        "/proof/300",
        "/proof/-1",
        "/tiles/9/0",
        "/tiles/0/2",
        f"/tiles/{10**15}/0",
        "/consistency?old=1&new=301",
    ):
        assert "GF823" in await refused(hub, path), path
    assert "GF824" in await refused(hub, "/consistency?old=5&new=4")
    assert "GF824" in await refused(hub, "/entries?count=257")


async def test_only_auditors_read_what_entries_say(hub: Stand) -> None:
    await fill(hub)
    viewer = await user(hub.auth, "vic", Role.VIEWER)
    auditor = await user(hub.auth, "aud", Role.AUDITOR)
    for path in ("/entries", "/proof/3"):
        assert "GF822" in await refused(hub, path, viewer)
        hand: Any = example().Hub(hub.url, token=auditor)
        assert await asyncio.to_thread(hand.call, "GET", f"{AUDIT}{path}")
    hand = example().Hub(hub.url, token=viewer)
    assert await asyncio.to_thread(hand.call, "GET", f"{AUDIT}/checkpoint")
