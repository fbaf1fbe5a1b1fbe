"""Boots a real systemd as PID 1 in namespaces of its own, and looks at the units in it.

    sudo .venv/bin/python script/boot_systemd.py [--json]

An overlay of / keeps this machine as it is: what is written there goes with it. It needs root,
overlayfs and cgroups that may be divided; about a minute. The last line of stdout is the answer:
seconds and findings, and exit 1 if something is not as it should be.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
STATE = Path("/var/lib/gossipfl")
HUB_STATE = Path("/var/lib/gossipfl-hub")
PEER_STATE = Path("/var/lib/peer")  # of another device, without which nobody merges
CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids")
WAIT_S = 40.0
CPU_SHARES = 100_000  # the usual group has 1,024
KEPT = {"gossipfl-agent.service", "gossipfl-hub.service", "multi-user.target.wants"}

PROGRAM = """#!/opt/gossipfl/bin/python
from gossipfl.cli.main import entry

raise SystemExit(entry())
"""


def log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run(*words: object, check: bool = True) -> str:
    done = subprocess.run(
        [str(w) for w in words], capture_output=True, text=True, check=False, timeout=WAIT_S
    )
    if check and done.returncode:
        raise RuntimeError(f"{words[0]} {words[1:4]}: {done.stderr.strip()[-500:]}")
    return done.stdout.strip()


@contextlib.contextmanager
def cgroups() -> Iterator[None]:
    """This process in cgroups of its own, of every hierarchy: the root of the new systemd's."""
    made: list[Path] = []
    before: list[Path] = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        name = names.removeprefix("name=") or "unified"
        root = Path("/sys/fs/cgroup")
        root = root / name if (root / name).is_dir() else root
        parent = root / path.lstrip("/")
        own = parent / f"gossipfl-boot-{os.getpid()}"
        own.mkdir()
        if name == "cpuset":
            for key in ("cpuset.cpus", "cpuset.mems"):
                (own / key).write_text((parent / key).read_text())
        if name in ("cpu", "cpu,cpuacct"):
            # As much as is wanted: what else runs on this machine is not what is measured.
            (own / "cpu.shares").write_text(str(CPU_SHARES))
        (own / "cgroup.procs").write_text(str(os.getpid()))
        made.append(own)
        before.append(parent)
    try:
        yield
    finally:
        for parent in before:
            (parent / "cgroup.procs").write_text(str(os.getpid()))
        for own in made:
            for folder in sorted(own.rglob("*"), key=lambda p: -len(p.parts)):
                if folder.is_dir():
                    with contextlib.suppress(OSError):
                        folder.rmdir()
            with contextlib.suppress(OSError):
                own.rmdir()


INNER = r"""
set -e
root=$1
mount --make-rprivate /
mount --rbind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for name in null zero full random urandom tty; do
    touch "$root/dev/$name"; mount --bind "/dev/$name" "$root/dev/$name"
done
mkdir "$root/dev/shm" "$root/dev/pts"
mount -t tmpfs tmpfs "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s /proc/self/fd/1 "$root/dev/stdout"
ln -s /proc/self/fd/2 "$root/dev/stderr"
if [ -d /sys/fs/cgroup/memory ]; then
    mount -t tmpfs -o mode=755 tmpfs "$root/sys/fs/cgroup"
    for name in CONTROLLERS; do
        mkdir "$root/sys/fs/cgroup/$name"
        mount -t cgroup -o "$name" cgroup "$root/sys/fs/cgroup/$name"
    done
    mkdir "$root/sys/fs/cgroup/systemd" "$root/sys/fs/cgroup/unified"
    mount -t cgroup -o none,name=systemd cgroup "$root/sys/fs/cgroup/systemd"
    mount -t cgroup2 cgroup "$root/sys/fs/cgroup/unified"
else
    mount -t cgroup2 cgroup "$root/sys/fs/cgroup"
fi
cd "$root"
mkdir -p .before
pivot_root . .before
umount -l /.before
exec env -i container=gossipfl PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
    /lib/systemd/systemd --system
""".replace("CONTROLLERS", " ".join(CONTROLLERS))


class Machine:
    """The booted systemd. `call` runs something in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._inner = root.parent / "inner.sh"
        self._inner.write_text(INNER)
        self._process: subprocess.Popen[bytes] | None = None
        self._pid = 0

    def boot(self) -> None:
        words = ["unshare", "--cgroup", "--mount", "--uts", "--ipc", "--pid", "--net"]
        words += ["--fork", "--kill-child", "bash", str(self._inner), str(self.root)]
        self._process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        self._pid = until("the first process", self._first)
        until("systemd", lambda: self.call("systemctl", "is-system-running", check=False) in (
            "running", "degraded"))  # fmt: skip
        self.call("ip", "link", "set", "lo", "up")
        peer = ("gossipfl", "run", "--config", "/etc/gossipfl/peer.toml")
        self.call("systemd-run", "--unit=peer", f"/opt/gossipfl/bin/{peer[0]}", *peer[1:])

    def _first(self) -> int:
        process = self._process
        if process is None or process.poll() is not None:
            said = process.stderr.read().decode() if process and process.stderr else ""
            raise RuntimeError(f"it did not boot: {said[-500:]}")
        for pid in run("pgrep", "-P", process.pid, check=False).split():
            if Path(f"/proc/{pid}/comm").read_text().strip() == "systemd":
                return int(pid)
        return 0

    def call(self, *words: object, check: bool = True) -> str:
        return run("nsenter", "-t", self._pid, "-m", "-u", "-i", "-p", "-n", "-C", *words,
                   check=check)  # fmt: skip

    def show(self, unit: str, name: str) -> str:
        return self.call("systemctl", "show", "-p", name, "--value", unit)

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)


def until(what: str, holds: Callable[[], Any], bound_s: float = WAIT_S) -> Any:
    ends = time.monotonic() + bound_s
    while time.monotonic() < ends:
        found = holds()
        if found:
            return found
        time.sleep(0.02)
    raise RuntimeError(f"{what}: not within {bound_s:g} s")


@contextlib.contextmanager
def overlay(folder: Path) -> Iterator[Path]:
    """/ with everything that is written to it in memory."""
    memory, root = folder / "memory", folder / "root"
    memory.mkdir()
    root.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=2g", "tmpfs", memory)
    try:
        (memory / "upper").mkdir()
        (memory / "work").mkdir()
        options = f"lowerdir=/,upperdir={memory / 'upper'},workdir={memory / 'work'}"
        run("mount", "-t", "overlay", "overlay", "-o", options, root)
        try:
            yield root
        finally:
            run("umount", "-R", "-l", root, check=False)
    finally:
        run("umount", "-l", memory, check=False)


def furnish(root: Path) -> None:
    """The program, a fleet of one, and no unit of this machine's own."""
    units = root / "etc/systemd/system"
    for path in units.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for name in ("networking", "ssh", "cron", "getty@tty1", "console-getty", "systemd-udevd",
                 "postgresql", "avahi-daemon", "docker", "containerd"):  # fmt: skip
        (units / f"{name}.service").symlink_to("/dev/null")
    install(root)


def install(root: Path) -> None:
    """A virtual environment in /opt, of this interpreter and its packages: the units see neither
    /home nor /root."""
    opt = root / "opt/gossipfl"
    python = f"python3.{sys.version_info.minor}"
    for place, source in (("source", REPOSITORY), ("site", _site())):
        (opt / place).mkdir(parents=True)
        run("mount", "--bind", source, opt / place)
    (root / "opt/python").mkdir()
    run("mount", "--bind", sys.base_prefix, root / "opt/python")
    # An interpreter that lies where units see nothing finds its library beside the system's.
    for library in Path(sys.base_prefix, "lib").glob("libpython*.so.*"):
        shutil.copy(library, root / "usr/lib" / sysconfig.get_config_var("MULTIARCH"))
    packages = opt / "lib" / python / "site-packages"
    packages.mkdir(parents=True)
    (packages / "all.pth").write_text("/opt/gossipfl/source\n/opt/gossipfl/site\n")
    (opt / "pyvenv.cfg").write_text("home = /opt/python/bin\n")
    (opt / "bin").mkdir()
    (opt / "bin/python").symlink_to(f"/opt/python/bin/{python}")
    program = opt / "bin/gossipfl"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    for path in (root / "opt", opt, opt / "bin", opt / "lib"):
        path.chmod(0o755)


def _site() -> Path:
    import numpy

    return Path(numpy.__file__).resolve().parent.parent


def populate(root: Path) -> None:
    """Identities, settings, a job with its data: what a person does before the first start."""
    import numpy as np

    from device_agent.setting_template import template
    from gossipfl.bundle.archive import read, write
    from gossipfl.bundle.signing import sign
    from gossipfl.bundles import DIGITS_LOGISTIC, read_bytes
    from gossipfl.fleet import documents
    from gossipfl.fleet.local import enrol_local, make_fleet
    from gossipfl.hub import settings as hub_settings

    fleet = make_fleet(root / "root/fleet")
    enrol_local(fleet, root / STATE.relative_to("/"))
    enrol_local(fleet, root / PEER_STATE.relative_to("/"))
    enrol_local(fleet, root / HUB_STATE.relative_to("/"), role="hub")
    operator = fleet.operator().load()
    bundle = sign(read(read_bytes(DIGITS_LOGISTIC)), operator.signer, operator.member_object)
    data = write(bundle)
    choices = documents.Choices(n=2, attackers=0, rule="mean")
    policy = documents.next_policy(
        documents.Job.of(bundle, data), choices, None, operator.member, int(time.time())
    )
    etc = root / "etc/gossipfl"
    etc.mkdir()
    etc.chmod(0o755)
    (etc / "job.gfl").write_bytes(data)
    (etc / "policy").write_bytes(documents.policy_object(policy, operator))
    generator = np.random.default_rng(1)
    x = generator.random((200, 64), np.float32)
    (etc / "data").mkdir()
    np.savez(etc / "data/a.npz", x=x, y=generator.integers(0, 10, 200))
    agent = {
        "data.source": "/etc/gossipfl/data",
        "job.bundle": "/etc/gossipfl/job.gfl",
        "job.policy": "/etc/gossipfl/policy",
        "network.hosts": ["127.0.0.1"],
        "network.port": 7_701,
        "network.peers": ["127.0.0.1:7702"],
        "discovery.enabled": False,
        "pace.preset": "demo",
    }
    (etc / "config.toml").write_text(template(agent))
    other = {"network.port": 7_702, "network.peers": [], "device.state": str(PEER_STATE)}
    (etc / "peer.toml").write_text(template({**agent, **other}))
    hub = {
        "network.hosts": ["127.0.0.1"],
        "network.peers": ["127.0.0.1:7702"],
        "discovery.enabled": False,
        "pace.preset": "demo",
    }
    (etc / "hub.toml").write_text(hub_settings.template(hub))
    for path in etc.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


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
        program = "/opt/gossipfl/bin/gossipfl"
        m.call(program, "service", "install", which)
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
        user = m.call("systemctl", "show", "-p", "User", "--value", unit)
        self.found[f"{which}: user"] = user

    def state(self, which: str) -> dict[str, Any]:
        """What it says of itself, once it answers."""
        m = self._machine
        if which == "hub":
            ask = ("curl", "-s", "http://127.0.0.1:8700/health")
            return until("the hub's health", lambda: _hub_health(m.call(*ask, check=False)))
        ask = ("/opt/gossipfl/bin/gossipfl", "status", "--json", "--state", STATE)
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
        program = "/opt/gossipfl/bin/gossipfl"
        m.call(program, "service", "uninstall", which, "--purge", "--yes")
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
