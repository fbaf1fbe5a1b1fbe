"""`gossipfl audit verify` on a signed compliance report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gossipfl.cli.output import Result
from gossipfl.errors import Exit

if TYPE_CHECKING:
    from gossipfl.audit.notes import Key


def report_verdict(file: Any, hub: Key) -> Result:
    """Of a signed compliance report. Witnesses sign checkpoints, not reports."""
    from gossipfl.audit.refused import AuditRefused
    from gossipfl.cli.times import stamp
    from gossipfl.hub.reports.signing import DOCUMENT_BYTES_MAX, check

    try:
        found = check(file.read(DOCUMENT_BYTES_MAX + 1), hub)
    except AuditRefused as error:
        shown = {"valid": False, "problem": {"place": "report", "entry": None, "cause": str(error)}}
        return Result(shown, f"INVALID: {error}", Exit.NO)
    log = found.report.log
    claims = sum(claim.status == "evidence" for claim in found.report.claims)
    data: dict[str, Any] = {
        "valid": True,
        "report": "compliance",
        "log": log.origin,
        "entries": log.size,
        "checkpoint": log.number,
        "checkpoint_time": log.time,
        "proofs": found.proofs,
        "claims": claims,
        "problem": None,
    }
    text = (
        f"VALID: compliance report on {log.size} entries of {log.origin}\n  signed by the log's "
        f"key; checkpoint {log.number} of {stamp(log.time)}\n  {found.proofs} inclusion proofs, "
        f"all right, for {claims} claims\n  that its counts are those of the log: gossipfl report "
        "compliance EXPORT --hub-key FILE --against REPORT"
    )
    return Result(data, text)
