"""Codes of the audit log: GF9."""

from __future__ import annotations

from gossipfl.codes.entry import ErrorEntry, Exit

AUDIT: dict[str, ErrorEntry] = {
    "GF901": ErrorEntry(
        "not an audit key",
        "a key file has one line, NAME+ID+BASE64: the hub's owner and each witness give you theirs",
        Exit.USAGE,
    ),
    "GF902": ErrorEntry(
        "no audit log can be read there",
        "name an export (a .tar that `gossipfl audit export` wrote), or what the hub keeps",
        Exit.USAGE,
    ),
    "GF903": ErrorEntry(
        "the audit log does not hold that",
        "`gossipfl audit show` prints which entries and checkpoints there are",
        Exit.USAGE,
    ),
}
