"""The tariffs that somebody asks to compute with, as forms and queries send them: all texts."""

from __future__ import annotations

import math
from dataclasses import replace

import msgspec

from gossipfl.hub.reports.costs import Tariffs

AMOUNT_MAX = 1e9


class TariffQuery(msgspec.Struct, frozen=True):
    """An empty field says nothing: then the hub's own tariff counts, if there is one."""

    raw: str = ""
    price: str = ""
    energy: str = ""
    power: str = ""
    watts: str = ""
    training: str = ""
    device: str = ""
    central: str = ""
    currency: str = ""


_FIELDS = {
    "raw": ("raw_mb", "raw data"),
    "price": ("price", "the price per GB"),
    "energy": ("kwh_per_gb", "kWh per GB"),
    "power": ("kwh_price", "the price per kWh"),
    "watts": ("training_w", "the power of training"),
    "training": ("training_s", "seconds of training"),
    "device": ("device_month", "the price of a device"),
    "central": ("central_month", "the price of a server"),
}


def tariffs(query: TariffQuery, usual: Tariffs) -> tuple[Tariffs, str]:
    """`usual` with what is asked for instead, and what is wrong with it; a wrong one counts as not
    asked for."""
    problems: list[str] = []
    changes: dict[str, float] = {}
    for name, (field, what) in _FIELDS.items():
        plain = getattr(query, name).strip().replace(",", ".")
        if not plain:
            continue
        try:
            value = float(plain)
        except ValueError:
            value = math.nan
        if 0.0 <= value <= AMOUNT_MAX:
            changes[field] = value
        else:
            problems.append(f"{what} is a number from 0 to {AMOUNT_MAX:g}")
    currency = query.currency.strip()
    if currency and not is_currency(currency):
        problems.append("a currency has one to four letters")
        currency = ""
    made = replace(usual, **changes, currency=currency or usual.currency)
    return made, "; ".join(problems)


def is_currency(text: str) -> bool:
    return text.isalpha() and len(text) <= 4
