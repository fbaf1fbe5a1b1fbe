"""What a page's address says: how the table is sorted and filtered, and a person's tariffs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlencode

import msgspec

from gossipfl.hub.page.model import DeviceRow, Tariffs

TEXT_MAX = 64
AMOUNT_MAX = 1e9
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


class Query(msgspec.Struct, frozen=True):
    """All texts, as forms send them: an empty field is one that says nothing."""

    find: str = ""
    state: str = ""
    sort: str = ""
    down: str = ""
    raw: str = ""
    price: str = ""
    energy: str = ""
    power: str = ""
    currency: str = ""

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


def tariffs(query: Query) -> tuple[Tariffs, str]:
    """The tariffs, and what is wrong with them; a wrong one counts as not given."""
    problems: list[str] = []

    def amount(text: str, name: str) -> float | None:
        plain = text.strip().replace(",", ".")
        if not plain:
            return None
        try:
            value = float(plain)
        except ValueError:
            value = math.nan
        if not 0.0 <= value <= AMOUNT_MAX:
            problems.append(f"{name} is a number from 0 to {AMOUNT_MAX:g}")
            return None
        return value

    energy = amount(query.energy, "kWh per GB")
    currency = query.currency.strip()
    if currency and not (currency.isalpha() and len(currency) <= 4):
        problems.append("a currency has one to four letters")
        currency = ""
    usual = Tariffs()
    made = Tariffs(
        raw_mb=amount(query.raw, "raw data"),
        price=amount(query.price, "the price per GB"),
        kwh_per_gb=usual.kwh_per_gb if energy is None else energy,
        kwh_price=amount(query.power, "the price per kWh"),
        currency=currency or usual.currency,
    )
    return made, "; ".join(problems)
