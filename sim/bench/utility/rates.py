"""Learning rates, by `script/bench privacy-utility --tune`: on other seeds, in lockstep."""

from __future__ import annotations

RATES: dict[tuple[str, str, float], float] = {
    ("mnist", "together", 0.0): 2.0,
    ("mnist", "alone", 0.0): 1.0,
    ("mnist", "together", 8.0): 8.0,
    ("mnist", "alone", 8.0): 2.0,
    ("mnist", "together", 4.0): 4.0,
    ("mnist", "alone", 4.0): 1.0,
    ("mnist", "together", 2.0): 2.0,
    ("mnist", "alone", 2.0): 1.0,
    ("mnist", "together", 1.0): 1.0,
    ("mnist", "alone", 1.0): 0.5,
    ("digits", "together", 0.0): 2.0,
    ("digits", "alone", 0.0): 4.0,
    ("digits", "together", 8.0): 2.0,
    ("digits", "alone", 8.0): 1.0,
    ("digits", "together", 4.0): 2.0,
    ("digits", "alone", 4.0): 0.5,
    ("digits", "together", 2.0): 1.0,
    ("digits", "alone", 2.0): 0.25,
    ("digits", "together", 1.0): 0.5,
    ("digits", "alone", 1.0): 0.125,
    ("vowels", "together", 0.0): 4.0,
    ("vowels", "alone", 0.0): 4.0,
    ("vowels", "together", 8.0): 8.0,
    ("vowels", "alone", 8.0): 16.0,
    ("vowels", "together", 4.0): 2.0,
    ("vowels", "alone", 4.0): 16.0,
    ("vowels", "together", 2.0): 2.0,
    ("vowels", "alone", 2.0): 4.0,
    ("vowels", "together", 1.0): 2.0,
    ("vowels", "alone", 1.0): 1.0,
}
"""(task, "together" or "alone", epsilon; 0 without privacy) -> rate. Powers of two."""

DEVICE_RATE = 1.0
"""unit = device: five passes at this rate; a longer step would be clipped anyway."""


def rate_of(task: str, row: str, epsilon: float | None) -> float:
    """Of a fleet with liars: that without."""
    return RATES[task, "alone" if row == "alone" else "together", epsilon or 0.0]
