"""`gossipfl service` on an image: the unit is this installation's, and nothing of it stays."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gossipfl.cli import service
from gossipfl.errors import UserError

Gossipfl = Callable[..., tuple[int, str, str]]


def everything(root: Path) -> set[str]:
    return {str(p.relative_to(root)) for p in root.rglob("*") if not p.is_dir() or p.is_symlink()}


@pytest.mark.parametrize("which", ["agent", "hub"])
def test_install_and_uninstall_leave_nothing(
    tmp_path: Path, gossipfl: Gossipfl, which: str
) -> None:
    unit = f"etc/systemd/system/gossipfl-{which}.service"
    argv = ("service", "install", which, "--root", str(tmp_path))
    assert gossipfl(*argv)[0] == 0
    code, out, _ = gossipfl(*argv)  # again is no error
    assert code == 0
    assert "its settings are missing yet" in out
    text = (tmp_path / unit).read_text()
    assert f"Environment=PATH={Path(sys.executable).parent}:/opt/gossipfl/bin" in text
    link = tmp_path / f"etc/systemd/system/multi-user.target.wants/gossipfl-{which}.service"
    assert link.readlink() == Path("/") / unit
    (tmp_path / f"{unit}.d").mkdir()
    (tmp_path / f"{unit}.d/override.conf").write_text("[Service]\n")
    state = {"agent": "gossipfl", "hub": "gossipfl-hub"}[which]
    private = tmp_path / "var/lib/private" / state
    private.mkdir(parents=True)
    (private / "key").write_text("secret")
    (tmp_path / "var/lib" / state).symlink_to(f"private/{state}")
    undo = ("service", "uninstall", which, "--root", str(tmp_path))
    assert gossipfl(*undo, "--purge")[0] == 2  # keys are not deleted by a slip
    assert (private / "key").exists()
    assert gossipfl(*undo)[0] == 0
    assert everything(tmp_path) == {f"var/lib/private/{state}/key", f"var/lib/{state}"}
    assert gossipfl(*undo, "--purge", "--yes")[0] == 0
    assert everything(tmp_path) == set()
    code, out, _ = gossipfl(*undo)
    assert (code, "was not installed" in out) == (0, True)


def test_a_program_that_no_service_sees_is_refused() -> None:
    for hidden in ("/home/ann/venv/bin", "/root/venv/bin", "/tmp/x/bin"):
        with pytest.raises(UserError, match="a service sees nothing of"):
            service.with_program("", Path(hidden), is_image=False)
    text = service.with_program("Environment=PATH=/usr/bin\n", Path("/srv/bin"), is_image=False)
    assert text == "Environment=PATH=/srv/bin:/usr/bin\n"
    again = service.with_program(text, Path("/srv/bin"), is_image=False)
    assert again == text


def test_what_systemctl_says_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object, **__: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 1, "", "Access denied\nmore\n")

    monkeypatch.setattr(service.subprocess, "run", refuses)
    with pytest.raises(UserError, match="systemctl enable: Access denied"):
        service._systemctl("enable", "x")
    service._systemctl("reset-failed", "x", may_fail=True)
