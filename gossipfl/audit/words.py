"""What an entry of the hub's own says, as a sentence for people. Pure; unknown ones stay JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping

from gossipfl.audit.entries import EntryKind

SHOWN_CHARS = 200
_WORDS: Mapping[tuple[EntryKind, str], str] = {
    (EntryKind.LOGIN, "login"): "came in ({how})",
    (EntryKind.LOGIN, "refused"): "was refused: no such name, password or code (within this hour)",
    (EntryKind.LOGIN, "throttled"): "has to wait: too many failures (within this hour)",
    (EntryKind.ACCOUNT, "create"): "account made: {role}",
    (EntryKind.ACCOUNT, "link"): "got a new login code; older ones count no more",
    (EntryKind.ACCOUNT, "password"): "set a password ({how})",
    (EntryKind.ACCOUNT, "disable"): "shut out, its sessions ended",
    (EntryKind.DECISION, "invite"): "made an invitation for {uses} clients",
    (EntryKind.DECISION, "admit"): "registered as a client of star mode",
    (EntryKind.DECISION, "block"): "blocked: {reason}",
    (EntryKind.DECISION, "unblock"): "let in again",
    (EntryKind.DECISION, "release from quarantine"): "let out of the hub's quarantine: {reason}",
    (EntryKind.DECISION, "bundle"): "gave the hub the bundle {bundle}",
    (EntryKind.DECISION, "strategy"): "gave the hub a policy: {rule}, run {run}, object {policy}",
    (EntryKind.DECISION, "checkpoint"): "kept version {version} as checkpoint {name}",
    (EntryKind.DECISION, "restore"): "restored checkpoint {name} as version {version}",
    (EntryKind.DECISION, "drop"): "let checkpoint {name} go",
    (EntryKind.DECISION, "cleanup"): "let {models} old models and {updates} old updates go",
    (EntryKind.DECISION, "erase"): "had somebody erased: the payloads of {entries} entries",
    (EntryKind.MODEL, "merge"): "round {round} merged {updates} updates into version {version} "
    "({rule}), model {digest}",
    (EntryKind.REPORT, "report"): "had a {report} report made of {entries} entries, {sha256}",
    (EntryKind.EXPORT, "export"): "took an export of {bytes} bytes, payloads {payloads}",
}


def sentence(kind: EntryKind, payload: bytes) -> str:
    """On one line, at most 200 characters."""
    if kind is EntryKind.ERASURE:
        return f"payloads erased: {payload.decode('ascii', 'replace')}".replace("\n", " ")[
            :SHOWN_CHARS
        ].strip()
    if payload[:1] != b"{":
        return f"{len(payload)} bytes, signed by whom it is about or by who decided it"
    try:
        told = json.loads(payload)
        words = _WORDS[kind, told.pop("action")].format(**told)
    except (ValueError, KeyError, AttributeError, TypeError, IndexError, RecursionError):
        return payload[:SHOWN_CHARS].decode("utf-8", "replace")
    by = f", by {told['by']}" if isinstance(told.get("by"), str) else ""
    return "".join(c if c.isprintable() else " " for c in words + by)[:SHOWN_CHARS]
