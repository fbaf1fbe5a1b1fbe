"""The verbs of a fleet's owner, called as a person calls them."""

from __future__ import annotations

import base64
import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gossipfl.errors import Exit, UserError
from gossipfl.fleet import documents
from gossipfl.fleet.device import load_identity
from gossipfl.fleet.folders import FleetFolder
from gossipfl.fleet.invitation import Invitation, parse
from gossipfl.fleet.local import enrol_local
from gossipfl.identity import device_name

Call = Callable[..., tuple[int, str, str]]
LINE_S = 90  # a bound, not a wait


@pytest.fixture
def bundle(root: Path) -> Path:
    return root / "gossipfl/bundles/digits-logistic.gfl"


@pytest.fixture
def lab(gossipfl: Call, tmp_path: Path) -> Path:
    assert gossipfl("fleet", "init", str(tmp_path / "lab"), "--name", "Lab")[0] == 0
    return tmp_path / "lab"


@pytest.fixture
def issuer(lab: Path) -> Iterator[subprocess.Popen[str]]:
    """`fleet issuer run` as a process of its own, listening."""
    command = [sys.executable, "-m", "gossipfl", "fleet", "issuer", "run", "--json"]
    process = subprocess.Popen(
        [*command, "--fleet", str(lab), "--listen", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["listening"].startswith("127.0.0.1:")
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate(timeout=LINE_S)


def answer(out: str) -> dict[str, object]:
    return json.loads(out.splitlines()[-1])["data"]


def test_init_makes_a_fleet_and_says_what_next(gossipfl: Call, tmp_path: Path) -> None:
    code, out, _ = gossipfl("fleet", "init", str(tmp_path / "lab"))
    assert code == 0
    assert f"gossipfl invite --fleet {tmp_path / 'lab'}" in out
    assert "offline" in out
    code, _, err = gossipfl("fleet", "init", str(tmp_path / "lab"))
    assert code == Exit.USAGE
    assert "GF212" in err


def test_more_operators_and_issuers(gossipfl: Call, lab: Path) -> None:
    assert gossipfl("fleet", "issue-operator", "ann", "--fleet", str(lab))[0] == 0
    assert gossipfl("fleet", "issue-issuer", "spare", "--fleet", str(lab))[0] == 0
    code, out, _ = gossipfl("fleet", "status", "--fleet", str(lab), "--json")
    data = answer(out)
    assert code == 0
    assert [entry["name"] for entry in data["operators"]] == ["ann", "first"]
    assert [entry["name"] for entry in data["issuers"]] == ["first", "spare"]


def test_an_invitation_is_one_line_with_the_pin(gossipfl: Call, lab: Path) -> None:
    code, out, _ = gossipfl(
        *("invite", "--fleet", str(lab), "--uses", "20", "--ttl", "2h"),
        *("--host", "hub.example:7443"),
    )
    line = out.splitlines()[0]
    invited = parse(line)
    assert code == 0
    assert invited.pin == FleetFolder(lab).issuer().load().fleet
    assert str(invited.address) == "hub.example:7443"
    assert "20 devices" in out


@pytest.mark.parametrize(
    "argv",
    [
        ("--ttl", "soon"),
        ("--uses", "0"),
        ("--host", "a b"),
        ("--replaces", "no-such-id"),
        ("--issuer", "nobody"),
    ],
)
def test_a_wrong_invitation_is_wrong_use(gossipfl: Call, lab: Path, argv: tuple[str, ...]) -> None:
    code, out, err = gossipfl("invite", "--fleet", str(lab), *argv)
    assert code == Exit.USAGE
    assert "gfl1:" not in out + err


@pytest.mark.parametrize("cut", [0, 10, 40, 70, 100, -12])
def test_a_mangled_line_is_refused_without_being_shown(
    gossipfl: Call, lab: Path, tmp_path: Path, cut: int
) -> None:
    _, out, _ = gossipfl("invite", "--fleet", str(lab), "--json")
    line = str(answer(out)["line"])
    mangled = line[: cut or None] + "!" + line[cut or len(line) :]
    code, out, err = gossipfl("join", mangled, "--state", str(tmp_path / "d"))
    assert code == Exit.USAGE
    assert "GF204" in err
    assert line.split(":")[3] not in out + err
    assert not (tmp_path / "d").exists()


def test_a_line_survives_print_and_parse() -> None:
    from gossipfl.events import Address

    for address in (Address("fd00::1", 7443), Address("hub.local", 1), Address("10.0.0.1", 65535)):
        invited = Invitation(bytes(range(32)), b"12345678", b"s" * 16, address)
        assert parse(invited.line()) == invited
        assert parse(f"  {invited.line()}\n") == invited
        assert base64.b32encode(b"s" * 16).decode()[:20] not in repr(invited)


@pytest.mark.e2e
def test_issuer_run_invite_join_status(
    gossipfl: Call,
    lab: Path,
    tmp_path: Path,
    issuer: subprocess.Popen[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, out, _ = gossipfl("invite", "--fleet", str(lab), "--uses", "3", "--json")
    line = str(answer(out)["line"])  # the host hint is where it listens
    (tmp_path / "line").write_text(line + "\n")
    code, out, _ = gossipfl("join", line, "--state", str(tmp_path / "a"), "--json")
    assert code == 0
    joined = [answer(out)["device"]]
    monkeypatch.setattr(sys, "stdin", io.StringIO(line + "\n"))
    assert gossipfl("join", "-", "--state", str(tmp_path / "b"))[0] == 0
    assert gossipfl("join", f"@{tmp_path / 'line'}", "--state", str(tmp_path / "c"))[0] == 0
    for name in "bc":
        code, out, _ = gossipfl("id", "--state", str(tmp_path / name))
        assert code == 0
        joined.append(out.strip())
    code, _, err = gossipfl("join", line, "--state", str(tmp_path / "d"))
    assert code == Exit.IDENTITY
    assert "invitation is used up" in err
    code, _, err = gossipfl("join", line, "--state", str(tmp_path / "a"))
    assert code == Exit.IDENTITY
    assert "--replace" in err
    _, out, _ = gossipfl("fleet", "status", "--fleet", str(lab), "--json")
    data = answer(out)
    assert [device["device"] for device in data["devices"]] == joined
    assert data["invitations"][0]["left"] == 0

    issuer.send_signal(signal.SIGTERM)
    out, err = issuer.communicate(timeout=LINE_S)
    assert issuer.returncode == 0
    assert answer(out) == {"admitted": 3}
    assert err.count("admitted") == 3
    assert line.split(":")[3] not in out + err


def test_an_issuer_that_is_not_there_is_exit_4(gossipfl: Call, lab: Path, tmp_path: Path) -> None:
    _, out, _ = gossipfl("invite", "--fleet", str(lab), "--host", "127.0.0.1:1", "--json")
    line = str(answer(out)["line"])
    code, _, err = gossipfl("join", line, "--state", str(tmp_path / "d"))
    assert code == Exit.UNREACHABLE
    assert "127.0.0.1:1" in err


def test_a_policy_is_issued_shown_and_followed(
    gossipfl: Call, lab: Path, bundle: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "policy.gfp", tmp_path / "policy-2.gfp"
    call = ("policy", "issue", "--operator", str(lab), "--bundle", str(bundle), "--n", "7")
    code, out, _ = gossipfl(*call, "--attackers", "1", "--rounds", "20", "-o", str(first))
    assert code == 0
    assert "7, of which 1 assumed hostile" in out
    code, out, _ = gossipfl(
        *(*call, "--attackers", "2", "--prev", str(first), "-o", str(second), "--json"),
        *("--codec", "partial:0.25+int8"),
    )
    assert code == 0
    assert answer(out)["version"] == 2
    before = first.read_bytes()
    code, _, err = gossipfl(*call, "--attackers", "1", "-o", str(first))
    assert code == Exit.USAGE
    assert f"--prev {first}" in err
    assert first.read_bytes() == before
    code, out, _ = gossipfl("policy", "show", str(second), "--json")
    shown = answer(out)
    assert (shown["attackers"], shown["rule"], shown["signer_role"]) == (
        2,
        "collapse+nna",
        "operator",
    )
    assert shown["codec"] == "partial:0.25+int8"
    assert shown["prev"] == documents.open_policy(first.read_bytes()).digest.hex()


LOCAL = ("--privacy", "local", "--epsilon", "8", "--clip", "0.5", "--z", "6")


def test_privacy_is_said_once_and_stays_until_it_is_turned_off(
    gossipfl: Call, lab: Path, bundle: Path, tmp_path: Path
) -> None:
    call = ("policy", "issue", "--operator", str(lab), "--bundle", str(bundle), "--n", "7")
    call += ("--attackers", "1")
    names = [tmp_path / f"{number}.gfp" for number in range(3)]
    code, out, _ = gossipfl(*call, *LOCAL, "-o", str(names[0]))
    assert code == 0
    assert "privacy   local, unit device, epsilon 8 at delta 1e-05, clip 0.5, z 6" in out
    _, out, _ = gossipfl(*call, "--prev", str(names[0]), "-o", str(names[1]), "--json")
    assert (answer(out)["privacy"]["mode"], answer(out)["privacy"]["z"]) == ("local", 6.0)
    off = ("--privacy", "off", "--prev", str(names[1]), "-o", str(names[2]))
    _, out, _ = gossipfl(*call, *off)
    assert "privacy   off" in out


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--privacy", "local"), "--privacy local needs --epsilon, --clip, --z"),
        ((*LOCAL, "--unit", "record"), "needs --sample-rate, --steps, --lot"),
        ((*LOCAL, "--lot", "9"), "--lot: for --unit record only"),
        (("--z", "6"), "--z without --privacy local"),
        ((*LOCAL, "--epsilon", "0.01"), "one publication costs more than epsilon 0.01"),
        ((*LOCAL, "--z", "0.1"), "z"),
        ((*LOCAL, "--delta", "nan"), "delta"),
    ],
)
def test_privacy_that_cannot_be_is_refused_before_it_is_signed(
    gossipfl: Call, lab: Path, bundle: Path, tmp_path: Path, argv: tuple[str, ...], said: str
) -> None:
    call = ("policy", "issue", "--operator", str(lab), "--bundle", str(bundle), "--n", "7")
    file = tmp_path / "policy.gfp"
    code, _, err = gossipfl(*call, "--attackers", "1", *argv, "-o", str(file))
    assert code == Exit.USAGE
    assert "GF701" in err
    assert said in err
    assert not file.exists()


def group_file(folder: Path, count: int) -> Path:
    file = folder / "names"
    names = [device_name(bytes([n]) * 16) for n in range(count)]
    file.write_text("# who sums\n\n" + "\n".join(names) + "  # the last\n")
    return file


def test_group_sums_are_issued_with_a_warning_and_stay(
    gossipfl: Call, lab: Path, bundle: Path, tmp_path: Path
) -> None:
    call = ("policy", "issue", "--operator", str(lab), "--bundle", str(bundle), "--n", "20")
    call += ("--attackers", "1", "--rule", "nna")
    first, second = tmp_path / "1.gfp", tmp_path / "2.gfp"
    flags = ("--privacy", "group-sum", "--group-devices", str(group_file(tmp_path, 20)))
    code, out, _ = gossipfl(*call, *flags, "--group-size", "4", "-o", str(first))
    assert code == 0
    assert "group-sum: 20 devices in 5 groups of about 4, 2 attempts" in out
    assert "no noise beside it" in out
    assert "mind: group sums hide attackers too: one spoils the mean of its whole group" in out
    assert "bears 1" in out
    _, out, _ = gossipfl(*call, "--prev", str(first), "-o", str(second), "--json")
    found = answer(out)["privacy"]
    assert (found["mode"], found["sums"]["devices"]) == ("group-sum", 20)
    third = tmp_path / "3.gfp"
    noise = ("--epsilon", "8", "--clip", "0.5", "--z", "6")
    _, out, _ = gossipfl(*call, *flags, "--group-size", "4", *noise, "-o", str(third))
    assert "epsilon 8 at delta 1e-05, clip 0.5, z 6" in out
    assert "noise beside it" in out


SUM = ("--privacy", "group-sum")


@pytest.mark.parametrize(
    ("count", "argv", "said"),
    [
        (8, SUM, "--privacy group-sum needs --group-devices"),
        (3, (*SUM, "FILE"), ">= 4"),
        (8, (*SUM, "FILE", "--n", "6"), "8 devices in groups, the fleet has --n 6"),
        (8, (*SUM, "FILE"), "could never merge the means of 1 groups with 1 attackers"),
        (12, (*SUM, "FILE", "--group-size", "4", "--attackers", "2"), "could never merge"),
        (8, (*SUM, "FILE", "--attackers", "0", "--codec", "partial:0.25+int8"), "without parts"),
        (8, (*SUM, "FILE", "--attackers", "0", "--sample", "3"), "leave --sample out"),
        (8, (*SUM, "FILE", "--attackers", "0", "--group-size", "3"), ">= 4"),
        (8, (*SUM, "FILE", "--attackers", "0", "--z", "6"), "needs --epsilon, --clip"),
        (8, ("FILE",), "--group-devices without --privacy group-sum"),
    ],
)
def test_group_sums_that_could_never_work_are_refused_before_they_are_signed(
    gossipfl: Call,
    lab: Path,
    bundle: Path,
    tmp_path: Path,
    count: int,
    argv: tuple[str, ...],
    said: str,
) -> None:
    call = ("policy", "issue", "--operator", str(lab), "--bundle", str(bundle), "--n", "20")
    names = ("--group-devices", str(group_file(tmp_path, count)))
    flags = [part for flag in argv for part in (names if flag == "FILE" else (flag,))]
    file = tmp_path / "policy.gfp"
    code, _, err = gossipfl(*call, "--attackers", "1", "--rule", "nna", *flags, "-o", str(file))
    assert code == Exit.USAGE
    assert "GF701" in err
    assert said in " ".join(err.split())
    assert not file.exists()


def test_stop_conditions_are_said_anew_with_each_policy(
    gossipfl: Call, lab: Path, bundle: Path, tmp_path: Path
) -> None:
    first, second = tmp_path / "policy.gfp", tmp_path / "policy-2.gfp"
    call = ("policy", "issue", "--operator", str(lab), "--bundle", str(bundle), "--n", "7")
    flags = (
        *("--rounds", "90", "--stop-epochs", "200", "--stop-bytes", "1000000"),
        *("--stop-distance", "0.1", "--stop-slope", "0.05", "--stop-patience", "8"),
        *("--no-restart-on-data", "--restart-drift", "0.5", "--drift-checks", "4"),
    )
    code, out, _ = gossipfl(*call, "--attackers", "1", *flags, "-o", str(first))
    assert code == 0
    assert (
        "stops     at rounds 90 or epochs 200 or bytes 1000000 or distance 0.1 or slope 0.05 or "
        "patience 8; on again with a drift of 0.5 in 4 checks or another policy"
    ) in out
    _, out, _ = gossipfl("policy", "show", str(first), "--json")
    assert answer(out)["stop"] == {
        "rounds": 90,
        "epochs": 200,
        "bytes": 1_000_000,
        "distance": 0.1,
        "slope": 0.05,
        "patience": 8,
        "new_data": False,
        "drift": 0.5,
        "drift_checks": 4,
    }
    code, out, _ = gossipfl(
        *call, "--attackers", "1", "--prev", str(first), "-o", str(second), "--rounds", "9"
    )
    assert code == 0
    assert "stops     at rounds 9; on again with new data or another policy" in out
    code, _, err = gossipfl(
        *(*call, "--attackers", "1", "--stop-patience", "0", "-o", str(tmp_path / "p3"))
    )
    assert code == Exit.USAGE
    assert "GF701" in err


def test_issue_hands_bundle_and_policy_to_the_agent(
    gossipfl: Call, lab: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []

    def call(path: Path, verb: str, /, **fields: str) -> dict[str, object]:
        asked.append((verb, fields.get("path", "")))
        if verb == "give-bundle" and len(asked) > 2:
            raise UserError("GF403", "Permission denied")
        if verb == "spread":
            return {"named": 3, "live": 5, "wanted": 3}
        return {"taken": True}

    monkeypatch.setattr("device_agent.local_api.call", call)
    argv = (
        *("policy", "issue", "--operator", str(lab), "--bundle", str(bundle)),
        *("--n", "7", "--attackers", "1", "--to", "agent.sock"),
    )
    code, out, _ = gossipfl(*argv, "-o", str(tmp_path / "p"))
    assert code == 0
    assert asked == [("give-bundle", str(bundle)), ("policy", ""), ("spread", "")]
    assert "3 of 5 other devices have it" in out
    assert "devices will refuse the bundle: not signed" in out
    code, out, _ = gossipfl(*argv, "-o", str(tmp_path / "p2"))
    assert code == 0
    assert "not the bundle: Permission denied" in out
    assert asked[-2:] == [("policy", ""), ("spread", "")]


def test_issue_waits_for_devices_and_says_how_many_have_it(
    gossipfl: Call, lab: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = iter([0, 1, 2, 4])
    named = 0

    def call(path: Path, verb: str, /, **fields: str) -> dict[str, object]:
        nonlocal named
        if verb == "spread":
            named = next(counts, named)
            return {"named": named, "live": 5, "wanted": 3}
        return {"taken": True}

    monkeypatch.setattr("device_agent.local_api.call", call)
    monkeypatch.setattr("gossipfl.cli.policy_rollout.LOOK_S", 0.0)
    argv = (
        *("policy", "issue", "--operator", str(lab), "--bundle", str(bundle)),
        *("--n", "7", "--attackers", "1", "--to", "agent.sock", "--json"),
    )
    code, out, _ = gossipfl(*argv, "-o", str(tmp_path / "p"))
    assert code == 0
    assert answer(out)["spread"] == {"named": 4, "live": 5, "wanted": 3}
    code, out, _ = gossipfl(*argv, "-o", str(tmp_path / "q"), "--wait-for", "5", "--wait", "0")
    assert answer(out)["spread"] == {"named": 4, "live": 5, "wanted": 5}, "time is bounded"


def test_a_bundle_signed_for_another_fleet_is_told(
    gossipfl: Call, lab: Path, bundle: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    gossipfl("fleet", "init", str(other))
    signed = tmp_path / "signed.gfl"
    signed.write_bytes(bundle.read_bytes())
    assert gossipfl("bundle", "sign", str(signed), "--operator", str(other))[0] == 0
    problems = []
    for fleet in (lab, other):
        code, out, _ = gossipfl(
            *("policy", "issue", "--operator", str(fleet), "--bundle", str(signed), "--json"),
            *("--n", "7", "--attackers", "1", "-o", str(fleet / "policy")),
        )
        assert code == 0
        problems.append(answer(out)["bundle_problem"])
    assert "not an operator of this fleet" in str(problems[0])
    assert problems[1] is None


def test_a_policy_file_that_was_changed_is_exit_5(
    gossipfl: Call, lab: Path, bundle: Path, tmp_path: Path
) -> None:
    file = tmp_path / "policy.gfp"
    gossipfl(
        *("policy", "issue", "--operator", str(lab), "--bundle", str(bundle), "-o", str(file)),
        *("--n", "7", "--attackers", "1"),
    )
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.write_bytes(data)
    code, _, err = gossipfl("policy", "show", str(file))
    assert code == Exit.IDENTITY
    assert "GF702" in err


def test_revoke_writes_what_an_agent_takes(
    gossipfl: Call, lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = enrol_local(FleetFolder(lab), tmp_path / "d").load().signer.device
    asked = []

    def call(path: Path, verb: str, /, **fields: str) -> dict[str, object]:
        asked.append((path, verb, base64.b64decode(fields["data"])))
        return {"revoked": True}

    monkeypatch.setattr("device_agent.local_api.call", call)
    file, socket = tmp_path / "r.gfr", tmp_path / "d" / "agent.sock"
    code, out, _ = gossipfl(
        *("revoke", device_name(device), "--fleet", str(lab), "--reason", "stolen"),
        *("-o", str(file), "--to", str(socket)),
    )
    assert code == 0
    assert "it spreads from there" in out
    revocation = documents.open_revocation(file.read_bytes())
    assert revocation.device == device
    assert revocation.tls == [load_identity(tmp_path / "d").member.tls]
    assert asked == [(socket, "revocation", file.read_bytes())]


def test_revoke_by_an_issuer_that_did_not_admit_the_device_says_what_is_missing(
    gossipfl: Call, lab: Path, tmp_path: Path
) -> None:
    FleetFolder(lab).add_issuer("second", int(time.time()))
    device = enrol_local(FleetFolder(lab), tmp_path / "d").load().signer.device
    for folder, said in ((lab, False), (lab / "issuers" / "second", True)):
        file = tmp_path / f"{said}.gfr"
        code, out, _ = gossipfl(
            *("revoke", device_name(device), "--fleet", str(folder), "--reason", "x"),
            *("-o", str(file)),
        )
        assert code == 0
        assert ("the issuer that admitted it" in out) is said
        assert bool(documents.open_revocation(file.read_bytes()).tls) is not said


def test_revoke_refuses_a_typo_and_the_issuer_itself(
    gossipfl: Call, lab: Path, tmp_path: Path
) -> None:
    own = device_name(FleetFolder(lab).issuer().official().signer.device)
    typo = ("b" if own[0] == "a" else "a") + own[1:]
    for name, said in ((own, "itself"), (typo, "check digits"), ("x", "not a device id")):
        code, _, err = gossipfl(
            *("revoke", name, "--fleet", str(lab), "--reason", "r", "-o", str(tmp_path / "r"))
        )
        assert code == Exit.USAGE
        assert said in err
        assert not (tmp_path / "r").exists()


def test_id_of_a_folder_without_identity_says_how_to_get_one(
    gossipfl: Call, tmp_path: Path
) -> None:
    code, _, err = gossipfl("id", "--state", str(tmp_path))
    assert code == Exit.IDENTITY
    assert "gossipfl join LINE" in err


def test_an_open_key_names_the_command_that_closes_it(
    gossipfl: Call, lab: Path, tmp_path: Path
) -> None:
    enrol_local(FleetFolder(lab), tmp_path / "d")
    key = tmp_path / "d" / "signing.key"
    key.chmod(0o644)
    code, _, err = gossipfl("id", "--state", str(tmp_path / "d"))
    assert code == Exit.IDENTITY
    assert f"next: chmod 600 {key}" in err
    key.chmod(0o600)
    assert load_identity(tmp_path / "d").signer.device
