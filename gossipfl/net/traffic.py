"""Counters of the wire, and the budgets that keep one peer from using up another's share.

A budget belongs to a TLS key, which is a certified device: an address may be shared by several
devices, and one device may have several addresses. Nothing here knows sockets or clocks.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, fields

from gossipfl.config import Limits


@dataclass(slots=True)
class Traffic:
    """What one process sent, received and refused, at the HTTP layer: headers and bodies."""

    bytes_sent: int = 0
    bytes_received: int = 0
    requests_served: int = 0
    heads_served: int = 0
    updates_served: int = 0  # "pulls served": answers that carried our own update
    objects_served: int = 0
    not_modified: int = 0
    refused_budget: int = 0  # 429 and 503
    refused_request: int = 0  # not one of the two routes, or with a body
    refused_address: int = 0  # closed before the handshake: too many from there, or in all
    handshakes_aborted: int = 0  # of those who hold most, for others' sake; failed ones too
    refused_member: int = 0  # closed after the handshake: revoked, condemned, too many
    handshakes_failed: int = 0  # other fleet, no certificate, too slow
    handshakes: int = 0
    slow_headers: int = 0  # closed: no complete request within the header deadline
    stalled_readers: int = 0  # closed: did not read its answer
    fetches: int = 0
    fetches_failed: int = 0
    resumes: int = 0  # transfers continued by Range
    connections: int = 0  # open now, served side

    def items(self) -> Iterator[tuple[str, int]]:
        """(name, value) of every counter, in order."""
        for field in fields(self):
            yield field.name, getattr(self, field.name)


class Bucket:
    """A token bucket: `rate` tokens per second, at most `burst` of them."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = float(burst)
        self._at = now

    def take(self, now: float) -> float:
        """Take one token: 0.0 if there was one, else seconds until there will be."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / self._rate


@dataclass(slots=True)
class Account:
    """One TLS key's use of us."""

    requests: Bucket
    updates: Bucket
    serving: int = 0  # requests being answered now, held ones included
    connections: int = 0


class Accounts:
    """Accounts by TLS key, at most `limits.devices`; the least used without connections go."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._accounts: OrderedDict[bytes, Account] = OrderedDict()

    def of(self, tls_key: bytes, now: float) -> Account:
        """The account of this key, made full when it is new."""
        account = self._accounts.get(tls_key)
        if account is None:
            account = Account(
                Bucket(self._limits.requests_per_s, self._limits.burst, now),
                Bucket(self._limits.updates_per_s, self._limits.burst, now),
            )
            self._accounts[tls_key] = account
            self._trim()
        else:
            self._accounts.move_to_end(tls_key)
        return account

    def __len__(self) -> int:
        return len(self._accounts)

    def _trim(self) -> None:
        """Connections are bounded, so a key without one is found among the oldest few."""
        for key in list(self._accounts) if len(self._accounts) > self._limits.devices else ():
            if self._accounts[key].connections == 0:
                del self._accounts[key]
                return
