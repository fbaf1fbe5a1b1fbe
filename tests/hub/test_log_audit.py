"""`gossipfl audit` on the log that a hub keeps, on both stores."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from logkit import SIGNER, log_on

from gossipfl.audit.entries import EntryKind
from gossipfl.audit.notes import log_key
from gossipfl.hub.database import open_database
from gossipfl.hub.log.drafts import Draft
from sim.fleet import Fleet
from tests.audit.logs import START, fleet_log

Cli = Callable[..., tuple[int, str, str]]
ENTRIES = 300


async def fill(dsn: str, entries: int = ENTRIES) -> bytes:
    """A hub's log of really signed things; the fleet id."""
    fleet = Fleet(3)
    made = fleet_log(fleet, entries)
    database = await open_database(dsn)
    log, writer = log_on(database, batch_max=100)
    await writer.start()
    await log.append(
        Draft(EntryKind(entry[1]), payload.subject, payload.data, START + index)
        for index, (entry, payload) in enumerate(zip(made._entries, made._payloads, strict=True))
        if payload is not None
    )
    while await writer.integrate():
        pass
    await database.close()
    return fleet.id


async def integrate(dsn: str) -> None:
    database = await open_database(dsn)
    _, writer = log_on(database)
    await writer.start()
    await writer.integrate()
    await database.close()


def test_a_hubs_log_is_exported_verified_shown_and_proven(
    gossipfl: Cli, dsn: str, tmp_path: Path
) -> None:
    fleet = asyncio.run(fill(dsn))
    key, tar, proof = (str(tmp_path / name) for name in ("hub.pub", "export.tar", "one.proof"))
    Path(key).write_text(str(log_key(SIGNER.key_id)))
    code, out, err = gossipfl("audit", "export", dsn, "-o", tar, "--json")
    assert code == 0, err
    assert json.loads(out)["data"]["fleet"] == fleet.hex()
    assert Path(tar).stat().st_mode & 0o777 == 0o600
    code, out, _ = gossipfl("audit", "verify", tar, "--hub-key", key)
    assert code == 0, out
    assert out.startswith(f"VALID: {ENTRIES} entries")
    code, out, _ = gossipfl("audit", "show", dsn, "--count", "3")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:]] == ["297", "298", "299"]
    assert gossipfl("audit", "prove", dsn, "299", "-o", proof)[0] == 0
    assert gossipfl("audit", "verify", proof, "--hub-key", key)[0] == 0
    # That the export was taken is the next entry of the log.
    asyncio.run(integrate(dsn))
    code, out, _ = gossipfl("audit", "show", dsn, "--count", "1")
    assert " export " in out.splitlines()[-1]
    assert "took an export of" in out.splitlines()[-1]
    assert "(command line)" not in out


def test_an_export_without_what_entries_say(gossipfl: Cli, dsn: str, tmp_path: Path) -> None:
    asyncio.run(fill(dsn, 20))
    (tmp_path / "hub.pub").write_text(str(log_key(SIGNER.key_id)))
    full, bare = str(tmp_path / "full.tar"), str(tmp_path / "bare.tar")
    assert gossipfl("audit", "export", dsn, "-o", full)[0] == 0
    assert gossipfl("audit", "export", full, "--no-payloads", "-o", bare)[0] == 0
    code, out, _ = gossipfl("audit", "verify", bare, "--hub-key", str(tmp_path / "hub.pub"))
    assert code == 0
    assert "without payloads" in out
    assert b"ann" in Path(full).read_bytes()
    assert b"ann" not in Path(bare).read_bytes()
    code, _, err = gossipfl("audit", "export", bare, "-o", full)
    assert code == 2
    assert "no payloads" in err


@pytest.mark.parametrize("asked", ["show", "export", "prove"])
def test_an_empty_log_says_so(gossipfl: Cli, tmp_path: Path, asked: str) -> None:
    dsn = f"sqlite:///{tmp_path / 'hub.db'}"

    async def make() -> None:
        await (await open_database(dsn)).close()

    asyncio.run(make())
    more = {"show": [], "export": ["-o", str(tmp_path / "x")], "prove": ["0"]}[asked]
    code, out, err = gossipfl("audit", asked, dsn, *more)
    assert (code, "no checkpoint" in out) == (0, True) if asked == "show" else code == 2
    assert not (tmp_path / "x").exists()
    assert "Traceback" not in err


def test_no_database_is_made_where_there_is_none(gossipfl: Cli, tmp_path: Path) -> None:
    code, _, err = gossipfl("audit", "show", f"sqlite:///{tmp_path / 'none.db'}")
    assert code == 2
    assert "GF902" in err
    assert not (tmp_path / "none.db").exists()
