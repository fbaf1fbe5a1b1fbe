"""What a policy asks and what an owner demands, together."""

from __future__ import annotations

from typing import get_args, get_type_hints

import msgspec
import pytest

from gossipfl.messages import Privacy
from gossipfl.privacy import DevicePrivacy, RecordPrivacy, Unit, protection
from gossipfl.privacy.agreed import affordable, agreed
from gossipfl.privacy.ledger import Floors, Refusal, open_ledger

DEVICE = Privacy(mode="local", unit="device", epsilon=8.0, delta=1e-5, clip=0.5, z=6.0)
RECORD = Privacy(mode="local", unit="record", epsilon=8.0, z=1.2, sample_rate=0.1, steps=10, lot=40)


def test_without_privacy_nothing_is_agreed() -> None:
    assert agreed(Privacy()) is None
    assert agreed(Privacy(), Floors(z=9.0)) is None


def test_a_policy_says_how_releases_are_made() -> None:
    device, record = agreed(DEVICE), agreed(RECORD)
    assert device is not None
    assert device.spec == DevicePrivacy(clip=0.5, z=6.0)
    assert (device.terms.epsilon, device.terms.delta, device.terms.z) == (8.0, 1e-5, 6.0)
    assert record is not None
    assert record.spec == RecordPrivacy(1.0, 1.2, sample_rate=0.1, steps=10, lot=40)
    assert record.terms.unit is Unit.RECORD


@pytest.mark.parametrize(
    ("floors", "epsilon", "z"),
    [
        (Floors(epsilon=1.0), 1.0, 6.0),
        (Floors(epsilon=99.0), 8.0, 6.0),
        (Floors(z=30.0), 8.0, 30.0),
        (Floors(z=0.5), 8.0, 6.0),
    ],
)
def test_an_owner_is_stricter_and_never_looser(floors: Floors, epsilon: float, z: float) -> None:
    found = agreed(DEVICE, floors)
    assert found is not None
    assert (found.terms.epsilon, found.spec.z) == (epsilon, z)
    assert found.terms.z <= found.spec.z, "else no release would ever fit"


def test_who_protects_all_its_data_releases_nothing_for_single_examples() -> None:
    found = agreed(RECORD, Floors(unit=Unit.DEVICE))
    assert found is not None
    ledger, _ = open_ledger(b"d" * 16)
    assert ledger.refusal(found.spec, found.terms) is Refusal.WRONG_UNIT


def test_what_a_policy_pays_for() -> None:
    assert affordable(DEVICE) == 99  # z = 6.01 would pay for 100
    assert affordable(msgspec.structs.replace(DEVICE, epsilon=0.01)) == 0


@pytest.mark.parametrize(
    ("field", "low", "high"),
    [
        ("clip", protection.CLIP_MIN, protection.CLIP_MAX),
        ("z", protection.Z_MIN, protection.Z_MAX),
        ("sample_rate", 1e-6, 1.0),
        ("steps", 1, protection.STEPS_MAX),
        ("lot", 1, protection.LOT_MAX),
    ],
)
def test_the_message_has_the_bounds_of_the_mechanisms(field: str, low: float, high: float) -> None:
    _, meta = get_args(get_type_hints(Privacy, include_extras=True)[field])
    assert (meta.ge, meta.le) == (low, high)
