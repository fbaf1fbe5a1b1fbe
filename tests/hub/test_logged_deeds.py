"""What people and clients do at a hub is in its log, in the same transaction, and names nobody."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from authkit import PASSWORD, Clock, bearer, client_of, make_auth, user
from starkit import example, side_by_side, stand

from gossipfl.audit.entries import EntryKind, account_subject
from gossipfl.audit.words import sentence
from gossipfl.hub import pseudonyms
from gossipfl.hub.database import Database, open_database
from gossipfl.hub.rest.access import Role

API = "/api/v1/auth"
Entry = tuple[EntryKind, bytes, dict[str, Any]]


async def staged(database: Database) -> list[Entry]:
    """Kind, whom it is about, and what it says, in order."""
    async with database.transaction(write=False) as tx:
        rows = await tx.rows("SELECT kind, subject, data FROM log_entries ORDER BY id")
    return [(EntryKind(r["kind"]), r["subject"], json.loads(r["data"])) for r in rows]


def actions(entries: list[Entry], about: str | bytes) -> list[str]:
    subject = account_subject(about) if isinstance(about, str) else about
    return [told["action"] for _, who, told in entries if who == subject]


async def test_who_comes_in_and_who_changes_accounts(dsn: str) -> None:
    database = await open_database(dsn)
    clock = Clock()
    auth = make_auth(database, clock)
    operator = bearer(await user(auth, "olga", Role.OPERATOR))
    async with client_of(auth) as http:
        made = await http.post(
            "/api/v1/users", json={"name": "vic", "role": "viewer"}, headers=operator
        )
        code = (await made.json())["code"]
        await http.post(f"{API}/link", json={"code": code, "password": PASSWORD})
        for _ in range(3):
            await http.post(f"{API}/token", json={"name": "vic", "password": PASSWORD})
        await http.post("/api/v1/users/vic/disable", headers=operator)
    found = await staged(database)
    assert actions(found, "vic") == ["create", "link", "password", "login", "login", "disable"]
    assert [t["how"] for _, _, t in found if t["action"] == "login"] == ["login code", "password"]
    names = await pseudonyms.of(database, [account_subject("olga")])
    by = [t.get("by") for _, who, t in found if who == account_subject("vic")]
    assert by == [names[account_subject("olga")]] * 2 + [None] * 3 + by[:1]
    async with database.transaction(write=False) as tx:
        rows = await tx.rows("SELECT data FROM log_entries")
    assert not any(name in row["data"] for row in rows for name in (b"olga", b"vic"))
    await database.close()


async def test_strangers_cannot_make_the_log_grow(dsn: str) -> None:
    database = await open_database(dsn)
    clock = Clock()
    auth = make_auth(database, clock)
    await user(auth, "olga", Role.OPERATOR)
    before = len(await staged(database))
    async with client_of(auth) as http:
        for number in range(14):
            name = "olga" if number % 2 else f"nobody{number}"
            answer = await http.post(f"{API}/token", json={"name": name, "password": "x"})
            assert answer.status in (401, 429)
            await http.post(f"{API}/link", json={"code": "0" * 32, "password": PASSWORD})
    found = await staged(database)
    assert actions(found[before:], "olga") == ["refused", "throttled"]
    assert actions(found[before:], "") == ["refused", "throttled"]
    assert len(found) == before + 4
    clock.now += 3_600.0
    async with client_of(auth) as http:
        await http.post(f"{API}/token", json={"name": "olga", "password": "x"})
    assert actions((await staged(database))[before:], "olga") == ["refused", "throttled", "refused"]
    async with database.transaction(write=False) as tx:
        rows = await tx.rows("SELECT subject FROM pseudonyms")
    assert len(rows) == 0
    await database.close()


async def test_what_happens_in_star_mode(tmp_path: Path, dsn: str) -> None:
    async with stand(tmp_path, dsn) as hub:
        await hub.start(epochs=1, rounds=2)
        members = example().fleet(hub.url, None, 10, 0)
        code = await hub.code()
        await side_by_side([partial(member.run, code) for member in members])
        await hub.ask("POST", "/api/v1/checkpoints", {"name": "best", "note": "n"})
        await hub.ask("POST", "/api/v1/checkpoints/best/restore")
        await asyncio.to_thread(hub.hand.call, "DELETE", "/api/v1/checkpoints/best")
        await hub.ask("POST", "/api/v1/storage/cleanup", {"versions_kept": 1, "is_dry_run": True})
        await hub.ask("POST", "/api/v1/storage/cleanup", {"versions_kept": 1, "is_dry_run": False})
        client = (await hub.ask("GET", "/api/v1/clients"))["clients"][0]["client_id"]
        block = {"client_id": client, "reason": "it lies"}
        await hub.ask("POST", "/api/v1/security/block-client", block)
        await hub.ask("POST", "/api/v1/security/unblock-client", {"client_id": client})
        block = {"client_id": "ab" * 16, "reason": "nobody"}
        with pytest.raises(example().Refused):
            await hub.ask("POST", "/api/v1/security/block-client", block)
        found = await staged(hub.database)
        names = await pseudonyms.of(hub.database, [account_subject("ann")])
    steps = ["bundle", "strategy", "invite", "checkpoint", "restore", "drop", "cleanup"]
    assert [a for a in actions(found, "ann") if a in steps] == steps
    assert actions(found, bytes.fromhex(client)) == ["admit", "block", "unblock"]
    told = [t for _, who, t in found if who == bytes.fromhex(client)]
    assert {t["by"] for t in told} == set(names.values())
    merges = [t for kind, _, t in found if kind is EntryKind.MODEL]
    assert [t["version"] for t in merges] == [1, 2]
    assert sum(t["action"] == "admit" for _, _, t in found) == 10
    assert not any(member in json.dumps(t) for _, _, t in found for member in (client, "ann"))


def test_every_action_is_told_in_words() -> None:
    def words(kind: EntryKind, **told: object) -> str:
        return sentence(kind, json.dumps(told).encode())

    assert words(EntryKind.DECISION, action="block", reason="it lies", by="p-abc") == (
        "blocked: it lies, by p-abc"
    )
    assert words(EntryKind.DECISION, action="release from quarantine", reason="mended") == (
        "let out of the hub's quarantine: mended"
    )
    assert words(EntryKind.LOGIN, action="login", how="browser") == "came in (browser)"
    assert sentence(EntryKind.ERASURE, b"3-5\n7-8\n") == "payloads erased: 3-5 7-8"
    assert "signed by" in sentence(EntryKind.RECEIPT, b"\x94abc")
    for odd in (
        b'{"action":"block"}',
        b'{"action":[]}',
        b"{",
        b'{"alarm":"x"}',
        b"{}" + b" " * 999,
    ):
        shown = sentence(EntryKind.DECISION, odd)
        assert shown == odd[:200].decode()
    line = words(EntryKind.DECISION, action="block", reason="a\nb\x1b[31m" + "c" * 500)
    assert len(line) == 200
    assert line.isprintable()
    assert words(EntryKind.DECISION, action="block", reason="{by.__class__}") == (
        "blocked: {by.__class__}"
    )
