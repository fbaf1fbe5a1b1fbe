"""What a network does to bytes: delay, loss, duplicates, reordering, rate, partitions, sleep.

Knows hosts by number and nothing of the protocol. Every draw comes from one seeded generator, in
the order of the calls. Delays are in virtual seconds. A host is one sender with one uplink, so
its transfers queue behind each other.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Link:
    """One direction between two hosts. The defaults are a good LAN (guess)."""

    latency_s: float = 0.002
    jitter_s: float = 0.001  # uniform, added to the latency
    loss: float = 0.0  # share of messages that never arrive
    duplicate: float = 0.0  # share of messages that arrive twice
    reorder: float = 0.0  # share of messages held back by up to `reorder_s`, so that others pass
    reorder_s: float = 0.5
    bytes_per_s: float = 12_500_000.0  # 100 Mbit/s of the sender's uplink


@dataclass(slots=True)
class Counters:
    """Bytes and messages of one host."""

    bytes_sent: int = 0
    bytes_received: int = 0
    requests: int = 0
    lost: int = 0


class Network:
    def __init__(self, seed: int, link: Link | None = None) -> None:
        self._random = random.Random(f"network {seed}")
        self.default = link or Link()
        self._links: dict[tuple[int, int], Link] = {}
        self._sites: dict[int, str] = {}
        self._between: Link | None = None
        self._blocked: set[tuple[int, int]] = set()
        self._asleep: set[int] = set()
        self._uplink_free: dict[int, float] = {}
        self.counters: dict[int, Counters] = {}

    def counter(self, host: int) -> Counters:
        found = self.counters.get(host)
        if found is None:
            found = self.counters[host] = Counters()
        return found

    def link(self, sender: int, receiver: int) -> Link:
        """A special one of this direction, that between their sites, or the default."""
        special = self._links.get((sender, receiver)) if self._links else None
        if special is not None:
            return special
        if self._between is None or self.same_site(sender, receiver):
            return self.default
        return self._between

    def place(self, host: int, site: str, between: Link) -> None:
        """The host is at that site; `between` is every link from one site to another."""
        self._sites[host] = site
        self._between = between

    def same_site(self, a: int, b: int) -> bool:
        """Whether multicast reaches from one to the other. Without sites it reaches everybody."""
        return self._sites.get(a) == self._sites.get(b)

    def set_link(self, sender: int, receiver: int, link: Link) -> None:
        """For this direction only."""
        self._links[sender, receiver] = link

    def change_all(self, **changes: float) -> None:
        """The default link and every special one, with these fields replaced."""
        self.default = replace(self.default, **changes)
        self._links = {pair: replace(link, **changes) for pair, link in self._links.items()}
        if self._between is not None:
            self._between = replace(self._between, **changes)

    # --- who can reach whom -----------------------------------------------------------------

    def block(self, senders: Iterable[int], receivers: Iterable[int]) -> None:
        """Nothing passes from any sender to any receiver (one direction: asymmetric)."""
        into = tuple(receivers)
        self._blocked.update((a, b) for a in senders for b in into if a != b)

    def partition(self, *groups: Sequence[int]) -> None:
        """Each group hears itself only."""
        for group in groups:
            for other in groups:
                if other is not group:
                    self.block(group, other)

    def heal(self) -> None:
        self._blocked.clear()

    def sleep(self, host: int) -> None:
        """Powered down or off the network: nothing in, nothing out."""
        self._asleep.add(host)

    def wake(self, host: int) -> None:
        self._asleep.discard(host)

    def passes(self, sender: int, receiver: int) -> bool:
        if not self._blocked and not self._asleep:
            return True
        return (
            (sender, receiver) not in self._blocked
            and sender not in self._asleep
            and receiver not in self._asleep
        )

    def reaches(self, a: int, b: int) -> bool:
        """Both ways, as a TCP connection needs."""
        return self.passes(a, b) and self.passes(b, a)

    # --- messages ---------------------------------------------------------------------------

    def transit(self, sender: int, receiver: int, size: int, now: float) -> tuple[float, ...]:
        """Delays after which `size` bytes arrive: one, two if duplicated, none if lost."""
        link = self.link(sender, receiver) if self._links or self._between else self.default
        sent = self.counters.get(sender) or self.counter(sender)
        sent.bytes_sent += size
        free = self._uplink_free.get(sender, now)
        leaves = (free if free > now else now) + size / link.bytes_per_s
        self._uplink_free[sender] = leaves
        lost = link.loss > 0.0 and self._random.random() < link.loss
        if lost or not self.passes(sender, receiver):
            sent.lost += 1
            return ()
        twice = link.duplicate > 0.0 and self._random.random() < link.duplicate
        heard = self.counters.get(receiver) or self.counter(receiver)
        heard.bytes_received += size * (1 + twice)
        first = leaves - now + self._delay(link)
        return (first, leaves - now + self._delay(link)) if twice else (first,)

    def _delay(self, link: Link) -> float:
        delay = link.latency_s + self._random.random() * link.jitter_s
        if link.reorder > 0.0 and self._random.random() < link.reorder:
            delay += self._random.random() * link.reorder_s
        return delay
