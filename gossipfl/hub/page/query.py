"""What a page's address says: how the table is sorted and filtered, and a person's tariffs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlencode

import msgspec

from gossipfl.hub.page.model import DeviceRow
from gossipfl.hub.reports.asked import TariffQuery

TEXT_MAX = 64
COLUMNS = (
    ("device", "Device", ""),
    ("state", "State", ""),
    ("round", "Round", "number"),
    ("behind", "Behind", "number"),
    ("receipts", "Receipts", "number"),
    ("merged", "Merged by", "number"),
    ("weight", "Weight", "number"),
    ("reputation", "Reputation", "number"),
    ("sent", "Sent", "number"),
    ("seen", "Heard of", "number"),
)
"""(key, heading, class) of what the table can be sorted by."""
_KEYS: dict[str, Callable[[DeviceRow], Any]] = {
    "device": lambda row: row.name,
    "state": lambda row: row.state.value,
    "round": lambda row: row.round,
    "behind": lambda row: row.behind,
    "receipts": lambda row: row.receipts,
    "merged": lambda row: row.merged_of,
    "weight": lambda row: row.weight,
    "reputation": lambda row: row.reputation,
    "sent": lambda row: row.sent_bytes,
    "seen": lambda row: row.seen_s,
}


class Query(TariffQuery, frozen=True):
    """All texts, as forms send them: an empty field is one that says nothing."""

    find: str = ""
    state: str = ""
    sort: str = ""
    down: str = ""

    def given(self) -> dict[str, str]:
        return {k: v for k, v in msgspec.to_builtins(self).items() if v}

    def link(self, key: str) -> str:
        """The same page sorted by `key`; the other way round if it is already."""
        wanted = {**self.given(), "sort": key, "down": ""}
        if self.sort == key and not self.down:
            wanted["down"] = "1"
        return "/?" + urlencode({k: v for k, v in wanted.items() if v}) + "#fleet"

    def kept(self) -> list[tuple[str, str]]:
        """What the filter's form carries along."""
        return [(k, v) for k, v in self.given().items() if k not in ("find", "state")]


def rows(query: Query, devices: Sequence[DeviceRow]) -> list[DeviceRow]:
    """Filtered and sorted; what has no value comes last either way."""
    wanted = query.find.strip().lower()[:TEXT_MAX]
    found = [
        row
        for row in devices
        if (not query.state or row.state.value == query.state)
        and (wanted in row.name or wanted in row.note.lower())
    ]
    key = _KEYS.get(query.sort)
    if key is None:
        return found
    known = [row for row in found if key(row) is not None]
    known.sort(key=key, reverse=bool(query.down))
    return known + [row for row in found if key(row) is None]
