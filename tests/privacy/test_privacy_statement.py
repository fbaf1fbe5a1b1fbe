"""The statement names everything that a claim needs, and its digest changes with each of it."""

from __future__ import annotations

import json
import math

import pytest

from gossipfl.errors import PeerError
from gossipfl.privacy import DevicePrivacy, RecordPrivacy, Unit
from gossipfl.privacy.ledger import Terms, open_ledger
from gossipfl.privacy.statement import Statement, statement

SPEC = DevicePrivacy(clip=0.5, z=4.0)
TERMS = Terms(epsilon=4.0, delta=1e-5, z=1.0, unit=Unit.DEVICE)
RECORD = RecordPrivacy(clip=1.0, z=1.2, sample_rate=0.1, steps=10, lot=40)


def test_it_says_what_was_spent_and_how_often_more() -> None:
    ledger, _ = open_ledger(b"d" * 16)
    cap = ledger.affordable(SPEC, TERMS)
    for number in range(3):
        ledger, _ = ledger.release(SPEC, bytes([number]) * 32, TERMS)
    made = statement(ledger, SPEC, TERMS)
    assert made.releases == 3
    assert made.releases_max == cap
    assert made.epsilon == ledger.spent(1e-5, Unit.DEVICE)
    assert made.sigma == 2 * made.z * made.clip == 4.0
    assert made.ledger == ledger.ref


def test_both_units_say_who_is_whose_neighbour_and_what_is_not_covered() -> None:
    ledger, _ = open_ledger(b"d" * 16)
    of_device = statement(ledger, SPEC, TERMS)
    of_record = statement(ledger, RECORD, Terms(4.0, 1e-5, 0.5, Unit.RECORD))
    assert "any two" in of_device.neighbours
    assert "example" in of_record.neighbours
    assert len(of_record.not_covered) > len(of_device.not_covered) > 2
    assert of_record.steps == 10
    assert of_record.sigma == 1.2


def test_the_digest_is_that_of_the_content() -> None:
    ledger, _ = open_ledger(b"d" * 16)
    first = statement(ledger, SPEC, TERMS)
    assert statement(ledger, SPEC, TERMS).digest == first.digest
    assert Statement.load(first.dump()) == first
    after, _ = ledger.release(SPEC, bytes(32), TERMS)
    others = [
        statement(after, SPEC, TERMS),
        statement(ledger, DevicePrivacy(clip=0.5, z=5.0), TERMS),
        statement(ledger, SPEC, Terms(5.0, 1e-5, 1.0, Unit.DEVICE)),
    ]
    assert len({first.digest, *(other.digest for other in others)}) == 4
    with pytest.raises(PeerError):
        Statement.load(first.dump() + b"x")


def test_it_goes_into_json_also_when_nothing_is_promised() -> None:
    ledger, _ = open_ledger(b"d" * 16, unknown=True)
    made = statement(ledger, SPEC, TERMS)
    assert made.epsilon == math.inf
    plain = json.loads(json.dumps(made.plain(), allow_nan=False))
    assert plain["epsilon"] is None
    assert plain["unit"] == "device"
    assert plain["digest"] == made.digest.hex()
    assert {"adversary", "rng", "accountant", "neighbours", "not_covered"} <= set(plain)
