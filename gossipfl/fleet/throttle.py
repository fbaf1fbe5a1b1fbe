"""Token buckets by address: what strangers may ask of an issuer. Memory is bounded."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from gossipfl.net import listener

ADDRESSES_MAX = 1_024  # guess: the longest unseen is forgotten first


@dataclass(slots=True)
class _Bucket:
    level: float
    at: float


class Throttle:
    """`allow(address, now)` with `burst` at once and `rate_per_s` after that, for each address."""

    def __init__(self, rate_per_s: float, burst: float) -> None:
        self._rate = rate_per_s
        self._burst = burst
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def allow(self, address: str, now: float, cost: float = 1.0) -> bool:
        """Take `cost`, or False. With cost 0 it only asks. `now`: monotonic seconds."""
        name = origin_of(address)
        bucket = self._buckets.setdefault(name, _Bucket(self._burst, now))
        self._buckets.move_to_end(name)
        if len(self._buckets) > ADDRESSES_MAX:
            self._buckets.popitem(last=False)
        bucket.level = min(self._burst, bucket.level + (now - bucket.at) * self._rate)
        bucket.at = now
        if bucket.level < max(cost, 1.0):
            return False
        bucket.level -= cost
        return True


def origin_of(address: str) -> str:
    """As `listener.origin_of`; what is no address as it is."""
    try:
        return listener.origin_of(address)
    except ValueError:
        return address
