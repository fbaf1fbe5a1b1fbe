"""`gossipfl report`: from an export, from a hub's database, and compared with a signed one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gossipfl.audit.notes import log_key
from gossipfl.hub.reports.signing import signed
from sim.fleet import Fleet
from tests.audit.logs import HUB, export, fleet_log

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def office(tmp_path: Path) -> Path:
    """An export of 120 entries, the log's key, and the report that its hub signed."""
    from gossipfl.hub.reports.history import History

    fleet = Fleet(11)
    log = fleet_log(fleet, 120)
    (tmp_path / "export.tar").write_bytes(export(log, fleet=fleet.id))
    (tmp_path / "hub.pub").write_text(f"{log_key(HUB.key_id)}\n")

    async def document() -> bytes:
        history = History(log, log_key(HUB.key_id))
        await history.read()
        return signed(await history.compliance(fleet.id), 120, log_key(HUB.key_id), HUB)

    (tmp_path / "signed.json").write_bytes(asyncio.run(document()))
    return tmp_path


def report(gossipfl: Cli, office: Path, *words: str) -> tuple[int, str]:
    key = str(office / "hub.pub")
    name, *more = words
    code, out, err = gossipfl("report", name, str(office / "export.tar"), "--hub-key", key, *more)
    assert not err, err
    return code, out


def verify(gossipfl: Cli, office: Path, *more: str) -> tuple[int, str]:
    key = str(office / "hub.pub")
    code, out, _ = gossipfl("audit", "verify", str(office / "signed.json"), "--hub-key", key, *more)
    return code, out


def test_an_auditor_checks_a_signed_report_and_remakes_it(gossipfl: Cli, office: Path) -> None:
    code, out = verify(gossipfl, office)
    assert code == 0
    assert out.startswith("VALID: compliance report on 120 entries")
    assert "inclusion proofs, all right" in out
    code, out = report(gossipfl, office, "compliance", "--against", str(office / "signed.json"))
    assert (code, "the same" in out) == (0, True)
    code, _ = report(
        gossipfl, office, "compliance", "--size", "100", "--against", str(office / "signed.json")
    )
    assert code == 1


def test_a_changed_report_is_invalid(gossipfl: Cli, office: Path) -> None:
    data = (office / "signed.json").read_bytes()
    (office / "signed.json").write_bytes(data.replace(b'"count":1,', b'"count":2,', 1))
    code, out = verify(gossipfl, office)
    assert (code, out.startswith("INVALID: ")) == (1, True)
    code, out = verify(gossipfl, office, "--json")
    assert json.loads(out)["data"]["valid"] is False


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("summary", "learned together"),
        ("compliance", "GDPR"),
        ("performance", "merges by"),
        ("cost", "not set price_per_gb"),
        ("contribution", "incentive ="),
    ],
)
def test_each_report_from_an_export(gossipfl: Cli, office: Path, name: str, word: str) -> None:
    code, out = report(gossipfl, office, name)
    assert (code, word in out) == (0, True), out
    code, out = report(gossipfl, office, name, "--json")
    assert json.loads(out)["status"] == "ok"
    for ending, begin in (("json", b"{"), ("csv", b""), ("html", b"<!doctype html>")):
        file = office / f"made.{ending}"
        assert report(gossipfl, office, name, "-o", str(file))[0] == 0
        data = file.read_bytes().lstrip()
        assert data.startswith(begin)
        assert b"<link" not in data  # a file of its own: nothing is loaded


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("summary",), "GF100"),
        (("summary", "export.tar"), "GF100"),
        (("summary", "none.tar", "--hub-key", "hub.pub"), "GF902"),
        (("compliance", "export.tar", "--hub-key", "hub.pub", "--size", "7"), "GF903"),
        (("cost", "export.tar", "--hub-key", "hub.pub", "--update-bytes", "0"), "GF100"),
        (("cost", "https://127.0.0.1:1"), "GF100"),
        (("cost", "http://hub.example", "--token-file", "token", "-o", "x.json"), "GF100"),
        (("cost", "http://127.0.0.1:9", "--token-file", "token", "-o", "x.json"), "GF806"),
    ],
)
def test_wrong_use_says_what_is_wrong(
    gossipfl: Cli,
    office: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    code: str,
) -> None:
    monkeypatch.chdir(office)
    token = office / "token"
    token.touch(0o600)
    token.write_text("abc")
    _, out, _ = gossipfl("report", *words, "--json")
    assert json.loads(out)["error"]["code"] == code, out
