"""Child processes that never outlive their parent, whatever ends it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

STOP_S = 5.0
"""How long an agent may take to leave cleanly before it is killed: guess."""
_PR_SET_PDEATHSIG = 1  # prctl(2): the signal that a child gets when its parent dies


@dataclass(slots=True)
class Child:
    """One process. `log` holds all that it printed."""

    name: str
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def last_words(self, lines: int = 5) -> str:
        """The end of its log, for an error message."""
        text = self.log.read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def rss_mb(self) -> float | None:
        """Resident memory in MB (10^6 bytes), from /proc; None once it is gone."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text()
        except OSError:
            return None
        for line in status.splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024 / 1e6
        return None

    def cpu_s(self) -> float:
        """Processor seconds used so far (user and system), from /proc."""
        # The second field is the command in parentheses and may hold blanks.
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Children:
    """A context: every child started in it is gone when it is left, by whatever way."""

    def __init__(self, patience_s: float = STOP_S) -> None:
        self._patience_s = patience_s
        self.all: list[Child] = []
        self._die_with_parent = _die_with_parent()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(
        self,
        name: str,
        arguments: Sequence[str],
        log: Path,
        environment: dict[str, str] | None = None,
    ) -> Child:
        """Run this interpreter with `arguments`; output goes to `log`.

        A session of its own keeps Ctrl-C from reaching it directly: we stop children in order.
        """
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
                preexec_fn=self._die_with_parent,  # safe: we start no threads
            )
        child = Child(name, log, process)
        self.all.append(child)
        return child

    def stop(self) -> None:
        """SIGTERM to all, SIGKILL to who is left later. A second Ctrl-C kills at once."""
        for child in self.all:
            with contextlib.suppress(ProcessLookupError):
                child.process.send_signal(signal.SIGTERM)
        try:
            until = time.monotonic() + self._patience_s
            for child in self.all:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.process.wait(max(0.0, until - time.monotonic()))
        finally:
            for child in self.all:
                if child.is_alive:
                    child.process.kill()
                    child.process.wait()


def _die_with_parent() -> Callable[[], None]:
    """For Popen: ask the kernel for SIGTERM when this process dies, even by SIGKILL (Linux)."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died in between
            os._exit(1)

    return ask
