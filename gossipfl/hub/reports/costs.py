"""Cost and value with their formulas: pure. What needs a tariff that nobody has set is not shown.

Money and energy are estimates of whoever sets the tariffs; only the models that moved are counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from gossipfl.hub.page import words
from gossipfl.hub.reports.timeline import DAY_S, MONTH_S

J_PER_KWH = 3.6e6


@dataclass(frozen=True, slots=True)
class Tariffs:
    """What whoever looks assumes; None: not set."""

    raw_mb: float | None = None  # per device, a day
    price: float | None = None  # per GB
    kwh_per_gb: float = 0.06  # Aslan et al. 2018 (J. Industrial Ecology), fixed-line, 2015
    kwh_price: float | None = None
    training_w: float | None = None  # what a device draws more while it trains
    training_s: float | None = None  # of training in a round
    device_month: float | None = None  # to keep a device, a month
    central_month: float | None = None  # what a central server would cost, a month
    currency: str = "EUR"


@dataclass(frozen=True, slots=True)
class Flow:
    """What is counted. `models`: merged, `update_bytes`: of each; `devices`: not revoked;
    `rounds`: of all devices; `first`, `last`: times of the log's first and newest entry."""

    models: int
    update_bytes: float
    devices: int
    rounds: int
    first: int
    last: int

    @property
    def moved_bytes(self) -> float:
        return self.models * self.update_bytes

    @property
    def seconds(self) -> int:
        return max(1, self.last - self.first)


@dataclass(frozen=True, slots=True)
class Figure:
    """`unit`: B, kWh, ratio, or a currency. `formula` has the numbers that it was made of."""

    key: str
    name: str
    value: float
    unit: str
    formula: str

    @property
    def shown(self) -> str:
        match self.unit:
            case "B":
                return words.size(self.value)
            case "kWh":
                return energy(self.value)
            case "ratio":
                return f"{self.value:.2f} ×"
            case "share":
                return f"{100 * self.value:.1f} %"
        return f"{money(self.value)} {self.unit}"


@dataclass(frozen=True, slots=True)
class Missing:
    """A figure that is not shown, and the tariffs that it lacks, by their names in hub.toml."""

    name: str
    tariffs: tuple[str, ...]


NAMES = {
    "raw_mb": "raw_mb_per_day",
    "price": "price_per_gb",
    "kwh_per_gb": "kwh_per_gb",
    "kwh_price": "price_per_kwh",
    "training_w": "training_w",
    "training_s": "training_s",
    "device_month": "device_month",
    "central_month": "central_month",
    "currency": "currency",
}
"""Field of `Tariffs` -> its name in the section [reports] of hub.toml."""

_NEEDS = {
    "traffic": ("Traffic", ("price",)),
    "power": ("Power", ("kwh_price",)),
    "training": ("Energy of training", ("training_w", "training_s")),
    "kept_local": ("Kept local, and against raw upload", ("raw_mb",)),
    "roi": (
        "Return on what is spent",
        (
            *("raw_mb", "price", "kwh_price", "training_w", "training_s"),
            *("device_month", "central_month"),
        ),
    ),
}


def missing(tariffs: Tariffs) -> tuple[Missing, ...]:
    """What cannot be said, and what it would need."""
    found = []
    for name, needed in _NEEDS.values():
        lacks = tuple(NAMES[n] for n in needed if getattr(tariffs, n) is None)
        if lacks:
            found.append(Missing(name, lacks))
    return tuple(found)


def costs(flow: Flow, tariffs: Tariffs) -> tuple[Figure, ...]:
    """All figures that the tariffs allow, in the order in which they build on each other."""
    moved, since = flow.moved_bytes, _day(flow.first)
    figures = [
        Figure(
            "moved",
            "Models moved",
            moved,
            "B",
            f"{flow.models:,} models merged × {words.size(flow.update_bytes)} each, since {since}",
        )
    ]
    network = moved / 1e9 * tariffs.kwh_per_gb
    told = f"{words.size(moved)} × {tariffs.kwh_per_gb:g} kWh/GB"
    figures.append(Figure("network", "Energy of the network", network, "kWh", told))
    training = _training(flow, tariffs)
    figures += [training] if training is not None else []
    whole = network + (training.value if training is not None else 0.0)
    if tariffs.price is not None:
        told = f"{words.size(moved)} × {tariffs.price:g} {tariffs.currency}/GB"
        paid = moved / 1e9 * tariffs.price
        figures.append(Figure("traffic", "Traffic", paid, tariffs.currency, told))
    if tariffs.kwh_price is not None:
        told = f"{energy(whole)} × {tariffs.kwh_price:g} {tariffs.currency}/kWh"
        paid = whole * tariffs.kwh_price
        figures.append(Figure("power", "Power", paid, tariffs.currency, told))
    if tariffs.raw_mb is not None:
        figures += _raw(flow, tariffs, tariffs.raw_mb)
    return (*figures, *_roi(flow, tariffs, {f.key: f.value for f in figures}))


def _training(flow: Flow, tariffs: Tariffs) -> Figure | None:
    if tariffs.training_w is None or tariffs.training_s is None:
        return None
    spent = flow.rounds * tariffs.training_s * tariffs.training_w / J_PER_KWH
    told = f"{flow.rounds:,} rounds × {tariffs.training_s:g} s × {tariffs.training_w:g} W"
    return Figure("training", "Energy of training", spent, "kWh", told)


def raw_bytes(flow: Flow, raw_mb: float) -> float:
    """What a server would have been sent."""
    return flow.devices * raw_mb * 1e6 * flow.seconds / DAY_S


def _raw(flow: Flow, tariffs: Tariffs, raw_mb: float) -> Iterable[Figure]:
    """Against sending the raw data to a server."""
    moved, raw, days = flow.moved_bytes, raw_bytes(flow, raw_mb), flow.seconds / DAY_S
    day = "day" if days == 1 else "days"
    who = words.count(flow.devices, "device")
    told = f"{who} × {raw_mb:g} MB a day × {days:.3g} {day}, none sent"
    yield Figure("kept_local", "Kept local", raw, "B", told)
    if raw > 0:
        told = f"{words.size(moved)} of models / {words.size(raw)} of raw data"
        yield Figure("against_raw", "Against raw upload", moved / raw, "ratio", told)
    if tariffs.price is not None:
        told = f"({words.size(raw)} − {words.size(moved)}) × {tariffs.price:g}"
        told += f" {tariffs.currency}/GB"
        saved = (raw - moved) / 1e9 * tariffs.price
        yield Figure("traffic_saved", "Traffic saved", saved, tariffs.currency, told)


def _roi(flow: Flow, tariffs: Tariffs, known: dict[str, float]) -> Iterable[Figure]:
    """All inputs or no figure: half of a sum is no estimate."""
    raw_mb, price, kwh_price = tariffs.raw_mb, tariffs.price, tariffs.kwh_price
    device_month, central_month = tariffs.device_month, tariffs.central_month
    if raw_mb is None or price is None or kwh_price is None or "training" not in known:
        return
    if device_month is None or central_month is None:
        return
    unit, months = tariffs.currency, flow.seconds / MONTH_S
    raw = raw_bytes(flow, raw_mb)
    keeping = device_month * flow.devices * months
    together = known["traffic"] + known["power"] + keeping
    told = f"traffic {money(known['traffic'])} + power {money(known['power'])}"
    who = words.count(flow.devices, "device")
    told += f" + {device_month:g} a month × {who} × {months:.3g} months"
    yield Figure("together", "Learning together costs", together, unit, told)
    power = raw / 1e9 * tariffs.kwh_per_gb * kwh_price
    central = raw / 1e9 * price + power + central_month * months
    told = f"raw upload {money(raw / 1e9 * price)} + its power {money(power)}"
    told += f" + {central_month:g} a month × {months:.3g} months"
    yield Figure("central", "A central server would cost", central, unit, told)
    told = f"{money(central)} − {money(together)}"
    yield Figure("saved", "Saved", central - together, unit, told)
    if together > 0:
        told = f"({money(central)} − {money(together)}) / {money(together)}"
        roi = (central - together) / together
        yield Figure("roi", "Return on what is spent", roi, "share", told)


def money(value: float) -> str:
    """Two decimals; three digits below one."""
    return f"{value:.2f}" if abs(value) >= 1 or value == 0 else f"{value:.3g}"


def energy(kwh: float) -> str:
    """Wh below 1 kWh."""
    return f"{kwh * 1e3:.2f} Wh" if abs(kwh) < 1 else f"{kwh:,.1f} kWh"


def _day(time: int) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M UTC")
