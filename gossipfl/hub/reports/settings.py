"""The section [reports] of hub.toml: the tariffs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from gossipfl.hub.reports.asked import is_currency
from gossipfl.hub.reports.costs import Tariffs
from gossipfl.setting_docs import Doc, between

_AMOUNT = between(0.0, 1e9)


def _currency(text: str) -> str | None:
    return None if is_currency(text) else "a currency has one to four letters"


@dataclass(frozen=True, slots=True)
class ReportsSection:
    """Tariffs: what costs in reports and on the page are reckoned with. What is not set is not
    reckoned with, and the report says so."""

    currency: Annotated[
        str,
        Doc(
            "Of all prices: one to four letters.",
            "guess",
            _currency,
        ),
    ] = "EUR"
    raw_mb_per_day: Annotated[
        float | None, Doc("Raw data that one device would upload a day, MB.", "not set", _AMOUNT)
    ] = None
    price_per_gb: Annotated[float | None, Doc("Traffic, per GB.", "not set", _AMOUNT)] = None
    kwh_per_gb: Annotated[
        float,
        Doc(
            "Energy of the network for a GB, kWh. An estimate.",
            "Aslan et al. 2018, fixed-line networks in 2015; it has halved about every two years",
            _AMOUNT,
        ),
    ] = 0.06
    price_per_kwh: Annotated[float | None, Doc("Power, per kWh.", "not set", _AMOUNT)] = None
    training_w: Annotated[
        float | None,
        Doc("What a device draws more while it trains, W. Measure it.", "not set", _AMOUNT),
    ] = None
    training_s: Annotated[
        float | None, Doc("Seconds of training in a round. Measure them.", "not set", _AMOUNT)
    ] = None
    device_month: Annotated[
        float | None, Doc("What it costs to keep one device, a month.", "not set", _AMOUNT)
    ] = None
    central_month: Annotated[
        float | None,
        Doc("What a central server for training would cost, a month.", "not set", _AMOUNT),
    ] = None

    @property
    def tariffs(self) -> Tariffs:
        return Tariffs(
            raw_mb=self.raw_mb_per_day,
            price=self.price_per_gb,
            kwh_per_gb=self.kwh_per_gb,
            kwh_price=self.price_per_kwh,
            training_w=self.training_w,
            training_s=self.training_s,
            device_month=self.device_month,
            central_month=self.central_month,
            currency=self.currency,
        )
