"""What is to be protected and how strongly: the parsed privacy settings of one training.

Three types, so that a function says in its signature which one it takes. Nothing here is computed
from private data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

Z_MIN = 0.25  # eps above 25 for one release: less noise is no protection, say `off` instead
Z_MAX = 1e5  # guess: more noise is no learning
CLIP_MIN = 1e-6
CLIP_MAX = 1e6  # `Limits.norm_max`: what is longer is refused by peers anyway
STEPS_MAX = 1_000_000
LOT_MAX = 65_536


class Unit(StrEnum):
    """Whose presence is hidden: the whole device's data, or one example among the device's."""

    DEVICE = "device"
    RECORD = "record"


@dataclass(frozen=True, slots=True)
class Off:
    """No privacy policy: models leave as they are."""


@dataclass(frozen=True, slots=True)
class DevicePrivacy:
    """unit=device. One release is base + clip(change, `clip`) + noise of deviation 2 z clip.

    Two data sets can give two opposite changes, 2 `clip` apart: hence the 2.
    """

    clip: float
    z: float

    def __post_init__(self) -> None:
        _require_range("clip", self.clip, CLIP_MIN, CLIP_MAX)
        _require_range("z", self.z, Z_MIN, Z_MAX)

    @property
    def sigma(self) -> float:
        """Deviation of the noise in each coordinate of the model."""
        return 2.0 * self.z * self.clip


@dataclass(frozen=True, slots=True)
class RecordPrivacy:
    """unit=record: DP-SGD (Abadi et al., CCS 2016). One release is `steps` steps.

    Each step takes every example with probability `sample_rate`, in secret, clips each gradient
    to `clip`, sums, adds noise of deviation z clip, and divides by `lot`, which is a public number:
    how many examples a step is expected to take on a typical device.
    """

    clip: float
    z: float
    sample_rate: float
    steps: int
    lot: int

    def __post_init__(self) -> None:
        _require_range("clip", self.clip, CLIP_MIN, CLIP_MAX)
        _require_range("z", self.z, Z_MIN, Z_MAX)
        _require_range("sample rate", self.sample_rate, 1e-6, 1.0)
        _require_range("steps", self.steps, 1, STEPS_MAX)
        _require_range("lot", self.lot, 1, LOT_MAX)

    @property
    def sigma(self) -> float:
        """Deviation of the noise in each coordinate of a step's sum."""
        return self.z * self.clip


OFF = Off()
Protection = Off | DevicePrivacy | RecordPrivacy


@dataclass(frozen=True, slots=True)
class GroupSum:
    """A model leaves in a sum of its group's only. `noise`: what is added to it before."""

    noise: Protection


def _require_range(what: str, value: float, lowest: float, highest: float) -> None:
    if not (math.isfinite(value) and lowest <= value <= highest):
        raise ValueError(f"{what} is {value}, allowed {lowest:g} to {highest:g}")
