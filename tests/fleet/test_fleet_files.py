"""Files of the fleet: whole after a crash, closed to others, and refused where they do not fit."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fleetkit import NOW, NOWHERE, SERVER

from gossipfl.errors import UserError
from gossipfl.fleet import files
from gossipfl.fleet.desk import Desk
from gossipfl.fleet.device import DeviceFolder, load_identity
from gossipfl.fleet.folders import FleetFolder, IssuerFolder, find_issuer, find_official
from gossipfl.fleet.joining import Enrolment, Joiner
from gossipfl.fleet.local import enrol_local, make_fleet
from gossipfl.fleet.tokens import Tokens
from gossipfl.identity import Signer
from gossipfl.messages import Role


class Crash(BaseException):
    """The process ends here."""


def crash_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> Callable[[], bool]:
    """After `steps` renames and fsyncs none works any more. Tells whether that happened."""
    left = [steps]

    def counting(real: Callable[..., object]) -> Callable[..., object]:
        def step(*args: object, **more: object) -> object:
            left[0] -= 1
            if left[0] < 0:
                raise Crash
            return real(*args, **more)

        return step

    for name in ("replace", "rename", "fsync"):
        monkeypatch.setattr(os, name, counting(getattr(os, name)))
    return lambda: left[0] < 0


def enrolment(desk: Desk, old: Signer | None = None) -> Enrolment:
    joiner = Joiner(desk.invite(NOWHERE, NOW), desk.issuer.root, old)
    answer = desk.admit(joiner.request(desk.challenge(NOW), SERVER), SERVER, NOW)
    return joiner.accept(answer, NOW)


# --- single files -------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [0, 1])
def test_a_crash_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    files.write_file(tmp_path / "x", b"old")
    with monkeypatch.context() as patch:
        crash_after(patch, steps)
        with pytest.raises(Crash):
            files.write_file(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_files_are_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        files.make_folder(tmp_path / "a" / "b")
        files.write_seed(tmp_path / "a" / "b" / "key", b"k" * 32)
        fleet = make_fleet(tmp_path / "fleet", now=NOW)
        enrol_local(fleet, tmp_path / "device", now=NOW)
    finally:
        os.umask(before)
    for path in tmp_path.rglob("*"):
        mode = path.stat().st_mode & 0o777
        public = path.suffix == ".crt"
        assert mode == (0o700 if path.is_dir() else 0o644 if public else 0o600), path


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601])
def test_a_key_that_others_can_reach_is_refused_with_the_remedy(
    tmp_path: Path, fleet: FleetFolder, mode: int
) -> None:
    device = enrol_local(fleet, tmp_path / "device", now=NOW)
    for name in ("signing.key", "tls.key", "fleet.json"):
        path = device.path / name
        path.chmod(mode)
        with pytest.raises(UserError) as caught:
            device.load()
        assert caught.value.code == "GF203"
        assert caught.value.hint == f"chmod 600 {path}"
        path.chmod(0o600)
    device.load()


@pytest.mark.parametrize("content", ["", "abc", "zz" * 32, "ab" * 31, "secret " * 20])
def test_a_damaged_key_is_refused_without_showing_it(tmp_path: Path, content: str) -> None:
    files.write_file(tmp_path / "key", content.encode())
    with pytest.raises(UserError) as caught:
        files.read_seed(tmp_path / "key")
    assert caught.value.code == "GF211"
    assert not content or content.strip() not in caught.value.cause


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file") as caught:
        files.read_seed(tmp_path / "key")
    assert caught.value.code == "GF215"


# --- a device's folder --------------------------------------------------------------------------


def test_an_empty_folder_says_how_to_join(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_identity(tmp_path)
    assert caught.value.code == "GF201"
    assert "gossipfl join" in caught.value.hint


def test_a_crash_at_any_point_leaves_the_old_or_the_new_identity(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = enrolment(desk)
    old, new = Signer(first.seed), enrolment(desk, Signer(first.seed))
    DeviceFolder(files.make_folder(tmp_path / "before")).write(first)
    (tmp_path / "before" / "store.db").write_bytes(b"of the old device")
    seen = []
    for steps in range(200):
        folder = DeviceFolder(shutil.copytree(tmp_path / "before", tmp_path / f"d{steps}"))
        with monkeypatch.context() as patch:
            crashed = crash_after(patch, steps)
            try:
                folder.write(new)
            except Crash:
                assert crashed()
        found = load_identity(folder.path)  # checks that all files belong together
        is_new = found.signer.device == new.member.device
        assert is_new or found.signer.device == old.device
        assert is_new == (not (folder.path / "store.db").exists())
        seen.append(is_new)
        if not crashed():
            break
    assert seen == sorted(seen)  # one point of no return
    assert seen[0] is False
    assert seen[-1] is True
    assert len(seen) > 15


def test_a_crash_at_any_point_of_the_first_join_leaves_all_or_nothing(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = enrolment(desk)
    for steps in range(200):
        folder = DeviceFolder(files.make_folder(tmp_path / f"d{steps}"))
        with monkeypatch.context() as patch:
            crashed = crash_after(patch, steps)
            try:
                folder.write(new)
            except Crash:
                assert crashed()
        if folder.joined:
            assert folder.load().signer.device == new.member.device
        else:
            folder.write(new)  # the next attempt goes through
            assert folder.load().signer.device == new.member.device
        if not crashed():
            return
    pytest.fail("it never ended")


@pytest.mark.parametrize("name", ["signing.key", "tls.crt", "root.crt", "member", "fleet.json"])
def test_files_of_two_devices_do_not_mix(fleet: FleetFolder, tmp_path: Path, name: str) -> None:
    a = enrol_local(fleet, tmp_path / "a", now=NOW)
    other = make_fleet(tmp_path / "other", now=NOW) if name in ("root.crt", "fleet.json") else fleet
    b = enrol_local(other, tmp_path / "b", now=NOW)
    shutil.copy(b.path / name, a.path / name)
    with pytest.raises(UserError) as caught:
        a.load()
    assert caught.value.code == "GF211"


def test_every_flipped_bit_of_a_stored_member_is_noticed(
    fleet: FleetFolder, tmp_path: Path
) -> None:
    device = enrol_local(fleet, tmp_path / "a", now=NOW)
    path = device.path / "member"
    good = path.read_bytes()
    for place in range(len(good)):
        data = bytearray(good)
        data[place] ^= 1 << (place % 8)
        path.write_bytes(data)
        with pytest.raises(UserError) as caught:
            device.load()
        assert caught.value.code == "GF211"
    path.write_bytes(good)
    device.load()


def test_enrol_local_does_not_overwrite(fleet: FleetFolder, tmp_path: Path) -> None:
    first = enrol_local(fleet, tmp_path / "a", now=NOW).load().signer.device
    with pytest.raises(UserError) as caught:
        enrol_local(fleet, tmp_path / "a", now=NOW)
    assert caught.value.code == "GF202"
    assert load_identity(tmp_path / "a").signer.device == first


def test_a_hub_can_be_enrolled(fleet: FleetFolder, tmp_path: Path) -> None:
    assert enrol_local(fleet, tmp_path / "h", "hub", NOW).load().member.role is Role.HUB


# --- the owner's folders ------------------------------------------------------------------------


def test_a_fleet_is_made_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        crash_after(patch, 30)
        with pytest.raises(Crash):
            make_fleet(tmp_path / "fleet", now=NOW)
    assert list(tmp_path.iterdir()) == []
    fleet = make_fleet(tmp_path / "fleet", "lab", NOW)
    assert fleet.load().name == "lab"
    with pytest.raises(UserError) as caught:
        make_fleet(tmp_path / "fleet", now=NOW)
    assert caught.value.code == "GF212"


def test_the_root_signs_the_issuer_and_the_issuer_the_operator(fleet: FleetFolder) -> None:
    issuer, operator = fleet.issuer().official(), fleet.operator().load()
    assert issuer.member.role is Role.ISSUER
    assert issuer.member.not_after - NOW == 365 * 86_400
    assert operator.member.role is Role.OPERATOR
    assert operator.member.tls is None
    assert issuer.member.fleet == operator.member.fleet
    assert len({issuer.signer.device, operator.signer.device}) == 2


def test_an_issuer_works_away_from_home_and_without_the_root_key(
    fleet: FleetFolder, tmp_path: Path
) -> None:
    shutil.move(fleet.path / "issuers" / "first", tmp_path / "laptop")
    shutil.rmtree(fleet.path)
    folder = find_issuer(tmp_path / "laptop")
    desk = Desk(folder.load(), Tokens(folder.tokens))
    assert enrolment(desk).member.role is Role.DEVICE


def test_a_second_issuer_needs_the_root_key_wherever_it_is_kept(
    fleet: FleetFolder, tmp_path: Path
) -> None:
    shutil.move(fleet.path / "root", tmp_path / "stick")
    with pytest.raises(UserError) as caught:
        fleet.add_issuer("second", NOW)
    assert caught.value.code == "GF215"
    other = make_fleet(tmp_path / "other", now=NOW)
    with pytest.raises(UserError) as caught:
        fleet.add_issuer("second", NOW, other.path / "root")
    assert caught.value.code == "GF211"
    second = fleet.add_issuer("second", NOW, tmp_path / "stick")
    assert second.load().fleet == fleet.issuer("first").load().fleet
    assert fleet.names("issuers") == ["first", "second"]
    assert fleet.issuer().path.name == "first"


@pytest.mark.parametrize("name", ["", "../x", "UPPER", "a" * 33, "a b", "-a"])
def test_names_are_plain(fleet: FleetFolder, name: str) -> None:
    with pytest.raises(UserError) as caught:
        fleet.add_operator(name, NOW)
    assert caught.value.code == "GF100"


def test_officials_are_found_in_each_kind_of_folder(fleet: FleetFolder) -> None:
    assert find_official(fleet.path).member.role is Role.OPERATOR
    assert find_official(fleet.operator().path).member.role is Role.OPERATOR
    assert find_official(fleet.issuer().path).member.role is Role.ISSUER
    with pytest.raises(UserError) as caught:
        find_official(fleet.path / "root")
    assert caught.value.code == "GF212"
    with pytest.raises(UserError) as caught:
        fleet.issuer("third")
    assert "first" in caught.value.cause


def test_an_issuer_whose_files_do_not_fit_does_not_start(
    fleet: FleetFolder, tmp_path: Path
) -> None:
    second = fleet.add_issuer("second", NOW)
    for name in ("issuer.key", "issuer.crt", "member"):
        copy = tmp_path / name
        shutil.copytree(fleet.issuer("first").path, copy)
        shutil.copy(second.path / name, copy / name)
        with pytest.raises(UserError) as caught:
            IssuerFolder(copy).load()
        assert caught.value.code == "GF211"


def test_a_credential_of_systemd_may_be_open_to_its_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mask of the ACL by which the service's user reads it: 0440."""
    path = tmp_path / "api.key"
    path.write_bytes(b"secret")
    path.chmod(0o440)
    with pytest.raises(UserError, match="others can reach it"):
        files.read_secret(path)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert files.read_secret(path) == b"secret"
    path.chmod(0o444)
    with pytest.raises(UserError, match="others can reach it"):
        files.read_secret(path)
