"""When this process reached what, in seconds since it was started by the kernel.

The first seconds of a Python process are its imports, so a clock that starts in our own code would
flatter us; the kernel's start time is what a person with a stopwatch would measure.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

_STARTED_FIELD = 22  # proc(5): starttime, in clock ticks after boot


def seconds_since_start() -> float:
    """Since the kernel started this process. Both clocks count time asleep."""
    # The second field is the command in parentheses and may hold blanks.
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[_STARTED_FIELD - 3])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def rss_mb() -> float:
    """Resident memory of this process in MB (10^6 bytes), proc(5)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@dataclass(slots=True)
class Progress:
    """Seconds since process start; None: not yet. Merges are the ends of rounds."""

    ready_s: float | None = None
    first_training_s: float | None = None
    first_round_s: float | None = None
    last_round_s: float | None = None

    def ready(self) -> None:
        self.ready_s = self.ready_s or seconds_since_start()

    def training(self) -> None:
        self.first_training_s = self.first_training_s or seconds_since_start()

    def merged(self) -> None:
        self.last_round_s = seconds_since_start()
        self.first_round_s = self.first_round_s or self.last_round_s
