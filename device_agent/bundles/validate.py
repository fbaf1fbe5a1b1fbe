"""The one way from a bundle's bytes to a bundle that this device trains with."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from device_agent.bundles import dryrun
from device_agent.bundles.verdicts import Verdict, VerdictFile, checker
from gossipfl.bundle import archive, signing
from gossipfl.bundle.archive import Bundle
from gossipfl.bundle.refused import LASTING, BundleRefused, Reason
from gossipfl.bundle.signing import VerifySigner

VERDICTS = "bundle-verdicts.json"
_ROOT = Path(__file__).resolve().parents[2]
_CAUSE_BYTES = 300


@dataclass(frozen=True, slots=True)
class Limits:
    """What this device gives a bundle. The defaults are guesses for a board with 1 GB."""

    rss_max_mb: int = 512
    step_max_ms: float = 5_000.0
    memory_mb: int = 1_024  # address space of the trial above what its imports map
    cpu_s: int = 30  # importing onnx alone takes a slow board 5 s
    wall_s: float = 60.0


def admit(
    data: bytes, state: Path, verify_signer: VerifySigner | None, limits: Limits | None = None
) -> tuple[Bundle, Verdict]:
    """A bundle from the bytes of a `.gfl` file, after every check. Raises BundleRefused.

    `verify_signer` None skips the signature: for an author's own `bundle check`, never for a
    device. Blocks for seconds the first time that a bundle is seen; run it in a worker.
    """
    bundle = archive.read(data)
    if verify_signer is not None:
        signing.require_signature(bundle, verify_signer)
    return bundle, judge(bundle, state, limits or Limits())


def judge(bundle: Bundle, state: Path | None, limits: Limits) -> Verdict:
    """The verdict on a bundle's graphs, remembered in `state`. Raises BundleRefused if bad."""
    _check_budget(bundle, limits)
    file = VerdictFile(state / VERDICTS) if state is not None else None
    verdict = file.get(bundle.id) if file else None
    if verdict is None:
        verdict = try_out(bundle, limits)
        if file and (verdict.accepted or Reason(verdict.reason) in LASTING):
            file.put(bundle.id, verdict)
    if not verdict.accepted:
        raise BundleRefused(Reason(verdict.reason), verdict.detail)
    if verdict.step_ms > limits.step_max_ms or verdict.rss_mb > limits.rss_max_mb:
        raise BundleRefused(
            Reason.BUDGET, f"needs {verdict.rss_mb:.0f} MB and {verdict.step_ms:.1f} ms a step here"
        )
    return verdict


def _check_budget(bundle: Bundle, limits: Limits) -> None:
    budget = bundle.manifest.budget
    if budget.rss_max_mb > limits.rss_max_mb:
        raise BundleRefused(
            Reason.BUDGET, f"asks for {budget.rss_max_mb} MB, this device gives {limits.rss_max_mb}"
        )


def try_out(bundle: Bundle, limits: Limits) -> Verdict:
    """Walk and dry run in a child process, whatever becomes of it."""
    data = archive.write(bundle)
    memory_mb = min(limits.memory_mb, 2 * bundle.manifest.budget.rss_max_mb)
    command = [sys.executable, "-P", "-m", dryrun.__name__]
    command += [str(memory_mb), str(limits.cpu_s), str(len(data))]
    try:
        done = subprocess.run(
            command, input=data, capture_output=True, timeout=limits.wall_s, env=_environment()
        )
    except subprocess.TimeoutExpired:
        return _refusal(Reason.TIMEOUT, f"more than {limits.wall_s:.0f} s")
    except OSError as error:
        return _refusal(Reason.CRASHED, f"no child process: {error.strerror or error}")
    report = dryrun.parse(done.stdout)
    if done.returncode or report is None:
        return _refusal(Reason.CRASHED, _cause(done))
    if report.reason is not None:
        return _refusal(_reason(report.reason), report.detail)
    budget = bundle.manifest.budget
    if report.rss_mb > budget.rss_max_mb or report.step_ms > budget.step_max_ms:
        return _refusal(
            Reason.BUDGET,
            f"used {report.rss_mb:.0f} MB and {report.step_ms:.1f} ms a step, "
            f"declares {budget.rss_max_mb} MB and {budget.step_max_ms:.0f} ms",
        )
    return Verdict(
        accepted=True,
        step_ms=report.step_ms,
        rss_mb=report.rss_mb,
        nodes=report.nodes,
        operators=report.operators,
        checker=checker(),
    )


def _environment() -> dict[str, str]:
    """Nothing of the daemon's environment but what Python needs to find this very code."""
    return {
        "PATH": os.defpath,
        "PYTHONPATH": str(_ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "ORT_DISABLE_TELEMETRY": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "LC_ALL": "C.UTF-8",
    }


def _refusal(reason: Reason, detail: str) -> Verdict:
    return Verdict(accepted=False, reason=reason.value, detail=detail, checker=checker())


def _reason(text: str) -> Reason:
    try:
        return Reason(text)
    except ValueError:
        return Reason.CRASHED


def _cause(done: subprocess.CompletedProcess[bytes]) -> str:
    last = done.stderr[-_CAUSE_BYTES:].decode(errors="replace").strip().splitlines()
    ended = f"signal {-done.returncode}" if done.returncode < 0 else f"exit {done.returncode}"
    return f"{ended}; {last[-1]}" if last else ended
