"""Boots a real systemd as PID 1 in namespaces of its own, and looks at the units in it.

    sudo .venv/bin/python script/boot_systemd.py

An overlay of / keeps this machine as it is: what is written there goes with it. It needs root,
overlayfs and cgroups that may be divided; about two minutes. The last line of stdout is the answer:
seconds and findings, and exit 1 if something is not as it should be.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from boot_disk import REPOSITORY, STATE, furnish, populate
from boot_machine import GOSSIPFL, Machine, cgroups, log, overlay, run, until


class Looking:
    """Each look is one row of the answer."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.found: dict[str, Any] = {}
        self.wrong: list[str] = []

    def timed(self, name: str, bound_s: float, work: Callable[[], Any]) -> None:
        began = time.monotonic()
        work()
        took = round(time.monotonic() - began, 2)
        self.found[name] = took
        self.holds(f"{name} took {took} s, at most {bound_s:g}", took <= bound_s)
        log(f"{name}: {took} s (at most {bound_s:g})")

    def holds(self, what: str, good: bool) -> None:
        if not good:
            self.wrong.append(what)

    def all(self) -> None:
        for which in ("agent", "hub"):
            self.life(which)
        self.reboot_keeps()
        for which in ("agent", "hub"):
            self.leaves(which)

    def life(self, which: str) -> None:
        m, unit = self._machine, f"gossipfl-{which}.service"
        m.call(GOSSIPFL, "service", "install", which)
        self.timed(f"{which}: start to active", 3.0, lambda: m.call("systemctl", "start", unit))
        # What a start costs, however busy this machine is.
        pid = m.show(unit, "MainPID")
        ticks = m.call("cat", f"/proc/{pid}/stat").rpartition(")")[2].split()
        spent_s = (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")
        self.found[f"{which}: processor seconds of a start"] = round(spent_s, 2)
        before = self.state(which)

        def again() -> bool:
            now = m.show(unit, "MainPID")
            return now not in ("0", pid) and m.show(unit, "ActiveState") == "active"

        def kill() -> None:
            m.call("systemctl", "kill", "--kill-who=main", "-s", "KILL", unit)
            until("a restart", again)

        self.timed(f"{which}: kill -9 to active", 2.0, kill)
        after = self.state(which)
        self.holds(f"{which}: resumes with {after}, it had {before}", _is_resumed(before, after))
        pid = m.show(unit, "MainPID")

        def hang() -> None:
            m.call("systemctl", "kill", "--kill-who=main", "-s", "STOP", unit)
            until("a restart by the watchdog", again)

        self.timed(f"{which}: hung to active", 20.0, hang)
        self.state(which)
        self.timed(f"{which}: stop", 5.0, lambda: m.call("systemctl", "stop", unit))
        self.holds(f"{which}: ended well", m.show(unit, "Result") == "success")
        said = m.call("journalctl", "-u", unit, "-o", "cat", "--no-pager", check=False)
        self.found[f"{which}: lines in the journal"] = len(said.splitlines())
        prefixed = [line for line in said.splitlines() if line.startswith("<")]
        self.holds(f"{which}: lines with prefixes: {prefixed[:2]}", not prefixed)
        self.found[f"{which}: user"] = m.show(unit, "User")

    def state(self, which: str) -> dict[str, Any]:
        """What it says of itself, once it answers."""
        m = self._machine
        if which == "hub":
            curl = ("curl", "-s", "http://127.0.0.1:8700/health")
            return until("the hub's health", lambda: _hub_health(m.call(*curl, check=False)))
        ask = (GOSSIPFL, "status", "--json", "--state", STATE)
        return until("the agent's rounds", lambda: _agent_status(m.call(*ask, check=False)))

    def reboot_keeps(self) -> None:
        """A new boot of the same disk: identity and numbers go on."""
        m = self._machine
        m.call("systemctl", "start", "gossipfl-agent")
        before = self.state("agent")
        m.end()
        m.boot()
        until(
            "the agent after the boot", lambda: m.show("gossipfl-agent", "ActiveState") == "active"
        )
        after = self.state("agent")
        self.found["reboot keeps identity"] = before["device"] == after["device"]
        self.holds(f"a reboot keeps {before}: {after}", _is_resumed(before, after))

    def leaves(self, which: str) -> None:
        m = self._machine
        m.call(GOSSIPFL, "service", "uninstall", which, "--purge", "--yes")
        rest = m.call("find", "/etc/systemd", "/var/lib", "/run/systemd/system", "-name",
                      "*gossipfl*", check=False)  # fmt: skip
        mine = [p for p in rest.splitlines() if which == "hub" or "hub" not in p]
        self.found[f"{which}: left behind"] = mine
        self.holds(f"{which}: left behind {mine}", not mine)


def _hub_health(text: str) -> dict[str, Any] | None:
    with contextlib.suppress(ValueError):
        found: dict[str, Any] = json.loads(text)
        if found.get("status") == "ok" and found.get("leads") and found.get("entries"):
            return {"entries": found["entries"]}
    return None


def _agent_status(text: str) -> dict[str, Any] | None:
    with contextlib.suppress(ValueError, KeyError, IndexError):
        found: dict[str, Any] = json.loads(text.splitlines()[-1])["data"]
        if found["round"]:
            return {"device": found["device"], "seq": found["seq"], "round": found["round"]}
    return None


def _is_resumed(before: dict[str, Any], after: dict[str, Any]) -> bool:
    if before.get("device") != after.get("device"):
        return False
    return all(after[key] >= before[key] for key in ("seq", "entries") if key in before)


def main() -> int:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        log("it needs root, and util-linux")
        return 2
    sys.path.insert(0, str(REPOSITORY))
    with (
        tempfile.TemporaryDirectory(prefix="gfl-boot-", dir="/var/tmp") as name,
        cgroups(),
        overlay(Path(name)) as root,
    ):
        furnish(root)
        populate(root)
        machine = Machine(root)
        looking = Looking(machine)
        try:
            machine.boot()
            looking.all()
        except Exception:
            with contextlib.suppress(Exception):
                log(machine.call("journalctl", "--no-pager", "-n", "60", check=False))
            raise
        finally:
            machine.end()
    version = run("systemctl", "--version").split("\n")[0]
    answer = {"systemd": version, **looking.found, "wrong": looking.wrong}
    print(json.dumps(answer, ensure_ascii=False))
    return 1 if looking.wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
