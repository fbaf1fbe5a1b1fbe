"""The statement that goes with every claim: what is promised, by what, to whom, and what is not.

Every field of NIST SP 800-226's questions that this system can answer, typed and hashed, so that
receipts and reports can name it by digest. It holds no private value: terms, settings, counts.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from gossipfl.messages import ChainRef, Count, Text
from gossipfl.objects import digest
from gossipfl.privacy.entries import Mechanism
from gossipfl.privacy.ledger import Account, Ledger, Spec, Terms
from gossipfl.privacy.protection import DevicePrivacy, Unit
from gossipfl.wire import decode, encode

BYTES_MAX = 8_192
ACCOUNTANT_VERSION = 1  # grows when the same releases would give another epsilon
RNG = "ChaCha20, one key of the operating system's generator for each release"
ADVERSARY = "sees everything that this device ever publishes, knows all other data"
NEIGHBOURS = {
    Unit.DEVICE: "any two data sets of the device",
    Unit.RECORD: "two data sets of the device, one with an example more",
}
ACCOUNTANTS = {
    Unit.DEVICE: "Gaussian differential privacy, closed form",
    Unit.RECORD: "privacy loss distribution by FFT, pessimistic",
}
NOT_COVERED = (
    "what was published before this ledger began, or leaves the device by other ways",
    "side channels on the device: time, power, memory",
    "noise is computed in float64; what that rounds is not charged to delta",
    "what is true of the whole population, with or without these data",
)
NOT_COVERED_RECORD = ("people with more than one example: they are protected less",)


class Statement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    epsilon: float  # spent so far; infinite: nothing is promised
    epsilon_max: float
    delta: float
    unit: Unit
    neighbours: Text
    adversary: Text
    mechanism: Mechanism
    clip: float
    z: float
    sigma: float
    sample_rate: float
    steps: Count  # of one release
    releases: Count
    releases_max: Count  # with these settings, if nothing changes
    accountant: Text
    accountant_version: Count
    rng: Text
    not_covered: Annotated[list[Text], Meta(max_length=16)]
    ledger: ChainRef

    @property
    def digest(self) -> bytes:
        """SHA-256 of its bytes: what receipts name."""
        return digest(self.dump())

    def dump(self) -> bytes:
        return encode(self)

    @classmethod
    def load(cls, data: bytes) -> Statement:
        """Raises PeerError on anything that is not a statement's bytes."""
        return decode(data, cls, BYTES_MAX)

    def plain(self) -> dict[str, Any]:
        """For JSON: hex for bytes, null for an epsilon without bound."""
        data = {
            **{name: getattr(self, name) for name in self.__struct_fields__},
            "unit": self.unit.value,
            "mechanism": self.mechanism.value,
            "ledger": {"number": self.ledger.number, "digest": self.ledger.digest.hex()},
            "digest": self.digest.hex(),
        }
        if math.isinf(self.epsilon):
            data["epsilon"] = None
        return data


def statement(ledger: Ledger, spec: Spec, terms: Terms) -> Statement:
    """What can be promised now, for releases under `spec` within `terms`. Asks the accountant."""
    return said(ledger.account(spec, terms))


def said(account: Account) -> Statement:
    """The statement that an account makes; no more arithmetic."""
    ledger, spec, terms = account.ledger, account.spec, account.terms
    of_device = isinstance(spec, DevicePrivacy)
    unit = terms.unit
    return Statement(
        epsilon=account.spent,
        epsilon_max=terms.epsilon,
        delta=terms.delta,
        unit=unit,
        neighbours=NEIGHBOURS[unit],
        adversary=ADVERSARY,
        mechanism=Mechanism.ROUNDED_GAUSSIAN if of_device else Mechanism.DP_SGD,
        clip=spec.clip,
        z=spec.z,
        sigma=spec.sigma,
        sample_rate=1.0 if isinstance(spec, DevicePrivacy) else spec.sample_rate,
        steps=1 if isinstance(spec, DevicePrivacy) else spec.steps,
        releases=ledger.releases,
        releases_max=ledger.releases + account.affordable,
        accountant=ACCOUNTANTS[unit],
        accountant_version=ACCOUNTANT_VERSION,
        rng=RNG,
        not_covered=[*NOT_COVERED, *(NOT_COVERED_RECORD if unit is Unit.RECORD else ())],
        ledger=ledger.ref,
    )
