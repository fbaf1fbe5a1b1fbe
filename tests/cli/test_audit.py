"""`gossipfl audit`: an auditor with an export, a key, and no reason to trust anybody."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gossipfl.audit.entries import EntryKind, account_subject
from gossipfl.audit.notes import log_key, witness_key
from gossipfl.identity import Signer
from sim.fleet import Fleet
from tests.audit.logs import HUB, START, WITNESS, export, fleet_log

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def office(tmp_path: Path) -> Path:
    """A folder with an export of 300 entries and the keys that an auditor was given."""
    fleet = Fleet(11)
    (tmp_path / "export.tar").write_bytes(export(fleet_log(fleet, 300), fleet=fleet.id))
    (tmp_path / "hub.pub").write_text(f"{log_key(HUB.key_id)}\n")
    (tmp_path / "box.pub").write_text(f"{witness_key(WITNESS.key_id)}\n")
    (tmp_path / "other.pub").write_text(f"{witness_key(Signer(b'o' * 32).key_id)}\n")
    return tmp_path


def verify(gossipfl: Cli, office: Path, *more: str, file: str = "export.tar") -> tuple[int, str]:
    code, out, err = gossipfl(
        "audit", "verify", str(office / file), "--hub-key", str(office / "hub.pub"), *more
    )
    assert not err
    return code, out


def test_a_whole_export_is_valid(gossipfl: Cli, office: Path) -> None:
    witness = str(office / "box.pub")
    code, out = verify(gossipfl, office, "--witness", witness)
    assert code == 0
    assert out.startswith("VALID: 300 entries")
    assert "291 receipt" in out
    assert "300 payloads opened, 0 erased" in out
    assert f"cosigned by gossipfl/{WITNESS.device.hex()}: checkpoint 7, 300 entries" in out
    assert "hub's word" not in out
    code, out = verify(gossipfl, office, "--witness", witness, "--json")
    data = json.loads(out)["data"]
    assert (data["valid"], data["entries"], data["problem"]) == (True, 300, None)
    assert data["witnesses"][0]["entries"] == 300
    assert data["entries_cosigned"] == 300


def test_one_flipped_byte_and_the_entry_is_named(gossipfl: Cli, office: Path) -> None:
    data = bytearray((office / "export.tar").read_bytes())
    place = data.index(b'"user":"ann"')  # what the login says, entry 8
    data[place + 9] ^= 1
    (office / "export.tar").write_bytes(data)
    code, out = verify(gossipfl, office)
    assert code == 1
    assert out.startswith("INVALID: entry 8:")
    assert "first bad entry: 8" in out
    code, out = verify(gossipfl, office, "--json")
    assert code == 1
    assert json.loads(out)["data"]["problem"]["entry"] == 8


def test_a_witness_who_did_not_sign_is_missed(gossipfl: Cli, office: Path) -> None:
    code, out = verify(gossipfl, office, "--witness", str(office / "other.pub"))
    assert code == 1
    assert "cosigned none" in out


def test_an_old_cosignature_covers_what_is_under_it_and_no_more(
    gossipfl: Cli, office: Path
) -> None:
    fleet = Fleet(11)
    log = fleet_log(fleet, 300)
    for number in range(20):
        log.append(EntryKind.LOGIN, START + 400, account_subject("ann"), b'{"n":%d}' % number)
    log.publish(START + 310 + 7_200)  # two hours later, and nobody cosigns
    (office / "export.tar").write_bytes(export(log, fleet=fleet.id))
    witness = ("--witness", str(office / "box.pub"))
    code, out = verify(gossipfl, office, *witness)
    assert code == 0
    assert "checkpoint 7, 300 entries" in out
    assert "the last 20 entries rest on the hub's word" in out
    code, out = verify(gossipfl, office, *witness, "--witness-age", "2h", "--json")
    data = json.loads(out)["data"]
    assert (code, data["entries"], data["entries_cosigned"]) == (0, 320, 300)
    assert data["witnesses"][0]["behind_s"] == 7_200
    code, out = verify(gossipfl, office, *witness, "--witness-age", "119m")
    assert code == 1
    assert "older than the last" in out


def test_an_age_needs_a_witness_and_is_a_time(gossipfl: Cli, office: Path) -> None:
    command = ("audit", "verify", str(office / "export.tar"), "--hub-key", str(office / "hub.pub"))
    witness = ("--witness", str(office / "box.pub"))
    for more in (("--witness-age", "2h"), (*witness, "--witness-age", "2")):
        code, _, err = gossipfl(*command, *more)
        assert code == 2
        assert "GF100" in err


def test_without_a_witness_it_says_what_is_not_checked(gossipfl: Cli, office: Path) -> None:
    code, out = verify(gossipfl, office)
    assert code == 0
    assert "no witness was named" in out


def test_a_file_that_is_no_export_is_invalid_not_a_crash(gossipfl: Cli, office: Path) -> None:
    for data in (b"", b"\x00" * 5000, b"hello", (office / "export.tar").read_bytes()[:20_000]):
        (office / "bad.tar").write_bytes(data)
        code, out = verify(gossipfl, office, file="bad.tar")
        assert code == 1
        assert out.startswith("INVALID")


def test_keys_and_files_that_are_none_say_so(gossipfl: Cli, office: Path) -> None:
    export_file, hub = str(office / "export.tar"), str(office / "hub.pub")
    for argv, code, word in (
        ((export_file, "--hub-key", export_file), 2, "GF901"),
        ((export_file, "--hub-key", str(office / "none.pub")), 3, "GF215"),
        ((str(office / "none.tar"), "--hub-key", hub), 3, "GF215"),
    ):
        found, _, err = gossipfl("audit", "verify", *argv)
        assert found == code
        assert word in err


def test_show_prints_the_last_entries_or_the_ones_asked_for(gossipfl: Cli, office: Path) -> None:
    log = str(office / "export.tar")
    code, out, _ = gossipfl("audit", "show", log)
    assert code == 0
    assert len(out.splitlines()) == 21
    assert out.splitlines()[-1].split()[0] == "299"
    code, out, _ = gossipfl("audit", "show", log, "--first", "8", "--count", "1", "--json")
    data = json.loads(out)["data"]
    assert data["size"] == 300
    assert data["entries"][0]["kind"] == "login"
    assert json.loads(data["entries"][0]["says"]) == {"outcome": "in", "user": "ann"}
    code, _, err = gossipfl("audit", "show", log, "--first", "999")
    assert code == 2
    assert "GF903" in err
    assert gossipfl("audit", "show", log, "--count", "0")[0] == 2
    code, _, err = gossipfl("audit", "show", str(office / "hub.pub"))
    assert code == 2
    assert "GF902" in err


def test_the_proof_of_one_entry_stands_alone(gossipfl: Cli, office: Path) -> None:
    log, file = str(office / "export.tar"), office / "login.tlog-proof"
    code, _, _ = gossipfl("audit", "prove", log, "8", "-o", str(file))
    assert code == 0
    assert file.stat().st_mode & 0o777 == 0o600
    (office / "export.tar").unlink()
    witness = ("--witness", str(office / "box.pub"))
    code, out = verify(gossipfl, office, *witness, file=file.name)
    assert code == 0
    assert out.startswith("VALID: entry 8 of")
    assert '"user":"ann"' in out
    code, out = verify(gossipfl, office, "--witness", str(office / "other.pub"), file=file.name)
    assert code == 1
    data = bytearray(file.read_bytes())
    data[60] ^= 1
    file.write_bytes(data)
    assert verify(gossipfl, office, file=file.name)[0] == 1


def test_a_closed_proof_does_not_say_what_the_entry_says(gossipfl: Cli, office: Path) -> None:
    log, file = str(office / "export.tar"), office / "closed.tlog-proof"
    assert gossipfl("audit", "prove", log, "8", "--closed", "-o", str(file))[0] == 0
    code, out = verify(gossipfl, office, "--json", file=file.name)
    assert code == 0
    assert json.loads(out)["data"]["payload"] is None
    code, _, err = gossipfl("audit", "prove", log, "300", "-o", str(file))
    assert code == 2
    assert "GF903" in err
