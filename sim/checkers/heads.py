"""Own heads: one digest per number, one chain, durable before anybody sees them."""

from __future__ import annotations

from gossipfl.events import Batch, Event, HeadReceived, SumMasked
from gossipfl.messages import Head
from gossipfl.objects import digest
from gossipfl.privacy.entries import Released, parse_entry
from gossipfl.shelf import Served
from sim.checkers.base import Checker, Heads
from sim.device import SimDevice


class OneHeadPerSeq(Checker):
    """An honest device's seq strictly grows, `prev` chains, and one seq has one public digest."""

    def __init__(self, heads: Heads | None = None) -> None:
        self._heads = heads or Heads()
        self._public: dict[tuple[bytes, int], bytes] = {}
        self._durable: dict[bytes, tuple[int, bytes]] = {}
        self._last: dict[int, Served] = {}  # by device: nobody can change it, once is enough
        self.heads = 0

    def on_restore(self, device: SimDevice) -> None:
        self._durable.pop(device.device, None)

    def on_commit(self, device: SimDevice, batch: Batch, done: bool) -> None:
        if not done or batch.head is None or not device.honest:
            return
        head = self._heads.get(batch.head, device.fleet.members)
        if head is None:
            raise self.broken(f"device {device.index} stores a head that it did not sign")
        self.heads += 1
        before = self._durable.get(device.device)
        if before is not None and not batch.adopt:
            if head.seq != before[0] + 1:
                raise self.broken(f"device {device.index}: head {head.seq} after {before[0]}")
            if head.prev != before[1]:
                raise self.broken(f"device {device.index}: head {head.seq} does not chain")
        self._durable[device.device] = (head.seq, digest(batch.head))

    def on_serve_head(self, server: SimDevice, asked: bytes | None, served: Served) -> None:
        if asked is not None or self._last.get(server.index) is served:
            return
        head = self._heads.get(served.envelope, server.fleet.members)
        if head is None:
            raise self.broken(f"device {server.index} serves a head that no member signed")
        first = self._public.setdefault((server.device, head.seq), served.digest)
        if first != served.digest:
            raise self.broken(f"device {server.index} served two heads with seq {head.seq}")
        self._last[server.index] = served


class LedgerGoesOn(Checker):
    """Once an honest device's heads commit to a privacy ledger, each new update adds to it and
    nothing is ever taken out of it; what is served was entered before, and peers never got more
    than is entered. Silent where no ledger is kept. `of_sums`: noise is beside group sums, so what
    is entered is the masked vector, before anybody can have it."""

    events = frozenset({HeadReceived, SumMasked})

    def __init__(self, heads: Heads | None = None) -> None:
        self.of_sums = False
        self._masked: dict[int, bytes] = {}  # machine -> its newest masked vector
        self._heads = heads or Heads()
        self._last: dict[bytes, Head] = {}
        self._entered: dict[bytes, tuple[int, set[bytes]]] = {}
        self._public: dict[bytes, set[bytes]] = {}  # also over restores: nobody forgets
        self._got: dict[bytes, set[int]] = {}  # release -> machines that have it

    def on_restore(self, device: SimDevice) -> None:
        self._last.pop(device.device, None)

    def on_commit(self, device: SimDevice, batch: Batch, done: bool) -> None:
        if not done or not device.honest:
            return
        if self.of_sums and self._masked.get(device.index) in dict(batch.objects):
            rows = [parse_entry(row.data) for row in device.store.load().ledger]
            names = {entry.released for entry in rows if isinstance(entry, Released)}
            if self._masked[device.index] not in names:
                raise self.broken(f"device {device.index}: a masked vector is not in its ledger")
        head = self._heads.get(batch.head, device.fleet.members) if batch.head else None
        if head is None:
            return
        before = self._last.get(device.device)
        self._last[device.device] = head
        if before is None or before.ledger is None:
            return
        entries = head.ledger.number if head.ledger is not None else 0
        if entries < before.ledger.number:
            raise self.broken(f"device {device.index}: its ledger lost entries")
        is_new = head.update is not None and head.update != before.update
        if is_new and entries == before.ledger.number and not self.of_sums:
            raise self.broken(f"device {device.index}: an update that is not in its ledger")

    def on_serve_head(self, server: SimDevice, asked: bytes | None, served: Served) -> None:
        if asked is not None or served.update_digest is None or self.of_sums:
            return
        rows = server.store.load().ledger
        if not rows:
            return
        count, entered = self._entered.get(server.device, (0, set()))
        if count != len(rows):
            entries = [parse_entry(row.data) for row in rows]
            entered = {entry.released for entry in entries if isinstance(entry, Released)}
            self._entered[server.device] = (len(rows), entered)
        public = self._public.get(server.device, set())
        if served.update_digest not in entered:
            raise self.broken(f"device {server.index} serves a release that is not in its ledger")
        if served.update_digest not in public and len(public) >= len(entered):
            raise self.broken(f"device {server.index} has released more than it has entered")

    def on_event(self, device: SimDevice, event: Event) -> None:
        """Counted is what two peers got: one may be away when it is asked what it knows."""
        if isinstance(event, SumMasked):
            self._masked[device.index] = event.name
        if not isinstance(event, HeadReceived) or event.head is None or not device.honest:
            return
        head = self._heads.get(event.head, device.fleet.members)
        if head is None or head.update is None or head.device == device.device:
            return
        got = self._got.setdefault(head.update.digest, set())
        got.add(device.index)
        if len(got) >= 2:
            self._public.setdefault(head.device, set()).add(head.update.digest)


class DurableBeforePublic(Checker):
    """An honest device serves its own head only when it, its update and its receipt are durable."""

    def __init__(self, heads: Heads | None = None) -> None:
        self._heads = heads or Heads()
        self._passed: set[tuple[int, bytes]] = set()

    def on_serve_head(self, server: SimDevice, asked: bytes | None, served: Served) -> None:
        if asked is not None or (server.index, served.digest) in self._passed:
            return
        head = self._heads.get(served.envelope, server.fleet.members)
        named = [served.digest]
        if head is not None:
            named += [ref.digest for ref in (head.update, head.receipts) if ref is not None]
        for name in named:
            if name not in server.durable:
                raise self.broken(
                    f"device {server.index} serves {name.hex()[:12]} before it is durable"
                )
        if served.update is not None and self._heads.digest(served.update) not in named:
            raise self.broken(f"device {server.index} lets another update ride along")
        self._passed.add((server.index, served.digest))

    def on_serve_object(self, server: SimDevice, name: bytes, data: bytes) -> None:
        if self._heads.digest(data) != name:
            raise self.broken(f"device {server.index} serves other bytes than {name.hex()[:12]}")
