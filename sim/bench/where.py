"""Where a simulated round goes: shares of processor time by what the work is for.

The stack is looked at every so many microseconds of processor time (`ITIMER_PROF`), which slows
nothing down that is called often, as counting calls would. A sample belongs to the innermost frame
whose file is on the list: numpy under a merge is merging.
"""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path
from types import FrameType, TracebackType

EVERY_S = 0.002  # guess: some thousand samples in ten seconds; the kernel ticks at 1 to 4 ms

_ROOT = Path(__file__).resolve().parents[2]
ROOMS: tuple[tuple[str, str], ...] = (
    ("sim/checkers", "checkers"),
    ("sim/rows.py", "checkers"),
    ("sim/trace.py", "trace"),
    ("sim/learners.py", "training and evaluation"),
    ("sim/recall.py", "bytes: verify, hash, decode"),
    ("sim", "simulated network and schedule"),
    ("gossipfl/aggregation", "merging"),
    ("gossipfl/anomaly.py", "merging"),
    ("gossipfl/work.py", "merging"),
    ("gossipfl/codecs", "bytes: verify, hash, decode"),
    ("gossipfl/identity.py", "bytes: verify, hash, decode"),
    ("gossipfl/objects.py", "bytes: verify, hash, decode"),
    ("gossipfl/wire.py", "bytes: verify, hash, decode"),
    ("gossipfl", "the node"),
)
"""Path below the project, and what is done there; the first that fits."""
OTHER = "other"


class Where:
    """A context manager for the main thread: `shares` afterwards."""

    def __init__(self) -> None:
        self._found: Counter[str] = Counter()
        self._rooms: dict[str, str | None] = {}

    @property
    def samples(self) -> int:
        return self._found.total()

    def shares(self) -> dict[str, float]:
        """Room -> share of all samples, the greatest first."""
        total = max(1, self.samples)
        return {room: round(count / total, 3) for room, count in self._found.most_common()}

    def __enter__(self) -> Where:
        self._before = signal.signal(signal.SIGPROF, self._look)
        signal.setitimer(signal.ITIMER_PROF, EVERY_S, EVERY_S)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, self._before)

    def _look(self, _: int, frame: FrameType | None) -> None:
        while frame is not None:
            file = frame.f_code.co_filename
            if file not in self._rooms:
                self._rooms[file] = room(file)
            found = self._rooms[file]
            if found is not None:
                self._found[found] += 1
                return
            frame = frame.f_back
        self._found[OTHER] += 1


def room(file: str) -> str | None:
    """What the work in this file is for; None: its caller decides."""
    path = Path(file)
    if not path.is_relative_to(_ROOT):
        return None
    inside = path.relative_to(_ROOT)
    return next((name for place, name in ROOMS if inside.is_relative_to(place)), None)
