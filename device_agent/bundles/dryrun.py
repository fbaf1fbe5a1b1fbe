"""The limited child, `python -m device_agent.bundles.dryrun`: a bundle in, a report out.

It limits itself before it reads a byte: address space, CPU seconds, no core file, no file may be
written. The parent adds the wall clock. A report is one line of JSON; a child that dies without
one is a refusal too.
"""

from __future__ import annotations

import json
import resource
import sys
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from gossipfl.bundle.archive import Bundle


@dataclass(frozen=True, slots=True)
class Report:
    """What the child found. `reason` is None if it found nothing wrong."""

    reason: str | None = None
    detail: str = ""
    step_ms: float = 0.0
    rss_mb: float = 0.0
    nodes: dict[str, int] = field(default_factory=dict)
    operators: list[str] = field(default_factory=list)


def main(arguments: list[str]) -> int:
    """`arguments`: address space above the present one (MB), CPU seconds, bytes on stdin."""
    memory_mb, cpu_s, size = (int(a) for a in arguments)
    # The imports are ours and come first: they map hundreds of megabytes that are never touched.
    import device_agent.bundles.trial
    import device_agent.bundles.walk  # noqa: F401
    from gossipfl.bundle import archive
    from gossipfl.bundle.refused import BundleRefused, Reason

    _limit(memory_mb, cpu_s)
    try:
        report = examine(archive.read(sys.stdin.buffer.read(size)))
    except BundleRefused as refused:
        report = Report(reason=refused.reason.value, detail=refused.detail)
    except MemoryError:
        report = Report(reason=Reason.BUDGET.value, detail=f"more than {memory_mb} MB")
    sys.stdout.write(json.dumps(asdict(report)) + "\n")
    return 0


def examine(bundle: Bundle) -> Report:
    """The walk over every graph, then the dry run. Raises BundleRefused. No limits of its own."""
    from device_agent.bundles import trial, walk
    from gossipfl.bundle.manifest import GRAPHS

    walked = {name: walk.walk(name, bundle.files[name], bundle.manifest) for name in GRAPHS}
    seen = trial.run(bundle)
    return Report(
        step_ms=seen.step_ms,
        rss_mb=_peak_rss_mb(),
        nodes={name: found.nodes for name, found in walked.items()},
        operators=sorted({op for found in walked.values() for op in found.operators}),
    )


def parse(line: bytes) -> Report | None:
    """The parent's reading of what a child wrote; None if it is not a report."""
    try:
        return msgspec.json.decode(line, type=Report)
    except (msgspec.MsgspecError, RecursionError):
        return None


def _peak_rss_mb() -> float:
    """VmHWM of this program. ru_maxrss would do if it did not start with the parent's peak."""
    with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0


def _limit(memory_mb: int, cpu_s: int) -> None:
    with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123 (no pathlib needed)
        mapped = int(statm.read().split()[0]) * resource.getpagesize()
    space = mapped + memory_mb * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_AS, (space, space))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
