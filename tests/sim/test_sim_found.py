"""Bugs that the simulator found, each with the smallest case that shows it again."""

from __future__ import annotations

from gossipfl.config import PACES, Limits
from gossipfl.errors import Fault
from gossipfl.events import Address, Source
from gossipfl.peers import BREAKER_FAILURES, PeerBook
from gossipfl.reputation import Reputation


def test_a_bad_network_puts_nobody_into_quarantine() -> None:
    """20 % loss at the lan pace: each stall cost 0.02, and all honest peers fell out of favour."""
    reputation = Reputation(round_s=30.0)
    for second in range(500):
        for fault in (Fault.STALLED, Fault.UNREACHABLE, Fault.REFUSED):
            assert reputation.fault(b"p" * 16, fault, float(second)) is None
    assert reputation.weight(b"p" * 16, 500.0) == 1.0


def test_one_lost_request_is_no_reason_to_leave_a_peer_alone() -> None:
    """20 % loss: the breaker opened at the first failure, so rounds found one peer in seven live."""
    book = PeerBook(PACES["lan"], Limits())
    address, device = Address("10.0.0.1", 1), b"p" * 16
    book.see(address, Source.MDNS, 0.0)
    book.bind(address, device, 0.0)
    for _ in range(BREAKER_FAILURES - 1):
        book.unreached(address, 1.0)
        assert book.is_live(device, 1.0)
    book.unreached(address, 1.0)
    assert not book.is_live(device, 1.0)
    book.reached(device, 2.0)
    assert book.is_live(device, 2.0)
