"""A systemd as PID 1 in namespaces and cgroups of its own, on an overlay of /."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

GOSSIPFL = "/opt/gossipfl/bin/gossipfl"  # the program, in the machine
CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids")
WAIT_S = 40.0
CPU_SHARES = 100_000  # the usual group has 1,024

T = TypeVar("T")


def log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run(*words: object, check: bool = True) -> str:
    done = subprocess.run(
        [str(w) for w in words], capture_output=True, text=True, check=False, timeout=WAIT_S
    )
    if check and done.returncode:
        raise RuntimeError(f"{words[0]} {words[1:4]}: {done.stderr.strip()[-500:]}")
    return done.stdout.strip()


def until(what: str, holds: Callable[[], T | None], bound_s: float = WAIT_S) -> T:
    """What `holds` gives, as soon as that is something. Raises RuntimeError."""
    ends = time.monotonic() + bound_s
    while time.monotonic() < ends:
        found = holds()
        if found:
            return found
        time.sleep(0.02)
    raise RuntimeError(f"{what}: not within {bound_s:g} s")


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
        peer = (GOSSIPFL, "run", "--config", "/etc/gossipfl/peer.toml")
        self.call("systemd-run", "--unit=peer", *peer)

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
