"""Real nodes on the real loop: mutual TLS, the peer protocol, worker threads, a failing store."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator

import pytest
from netkit import CALM, asking, head, until
from netkit import Fleet as Certificates
from nodekit import DAY_S, House

from gossipfl.config import PACES
from gossipfl.errors import Fault
from gossipfl.events import FetchFailed, HeadReceived, PolicyReceived, RevocationReceived
from gossipfl.memory import StoreFault
from sim.fleet import EPOCH


@pytest.fixture
async def house(fleet: Certificates) -> AsyncIterator[House]:
    made = House(fleet)
    yield made
    for agent in list(made.agents):
        await made.leave(agent)


async def test_three_nodes_train_one_model_over_mutual_tls(house: House) -> None:
    a, b, c = [await house.add(name) for name in "abc"]
    house.introduce(a, b, c)
    a.give(PolicyReceived(house.policy(3)))  # the others get it by pulls
    await until(lambda: all(agent.merges >= 5 for agent in (a, b, c)), 90.0)
    for agent, others in ((a, (b, c)), (b, (a, c)), (c, (a, b))):
        view = agent.node.view()
        assert view.seq >= 5
        assert view.evidence == 0
        for other in others:
            peer = agent.knows(other)
            assert peer is not None
            assert peer.state == "live"
            assert peer.faults == {}
            assert peer.influence > 0.2
    bases = [agent.node.base for agent in (a, b, c)]
    assert all(base is not None and 0.2 < float(base[0]) < 3.0 for base in bases)


async def test_a_bundle_is_fetched_from_whoever_has_it(house: House) -> None:
    a, b = [await house.add(name) for name in "ab"]
    late = await house.add("late", bundle=False)
    house.introduce(a, b, late)
    a.give(PolicyReceived(house.policy(3)))
    await until(lambda: late.merges >= 2, 90.0)


async def test_partial_updates_and_their_parts_cross_the_network(house: House) -> None:
    a, b, late = [await house.add(name) for name in ("a", "b", "late")]
    house.introduce(a, b)
    a.give(PolicyReceived(house.policy(3, "partial:0.25+int8+zlib")))
    await until(lambda: a.merges >= 3 and b.merges >= 3, 90.0)
    house.introduce(a, b, late)  # it lacks every part of both
    await until(lambda: late.merges >= 5 and a.knows(late) is not None, 90.0)
    for agent, others in ((a, (b, late)), (b, (a, late)), (late, (a, b))):
        for other in others:
            peer = agent.knows(other)
            assert peer is not None
            assert peer.faults == {}
            assert peer.influence > 0.1


async def test_one_that_stops_does_not_hold_the_others_up(house: House) -> None:
    a, b, c, d = [await house.add(name) for name in "abcd"]
    house.introduce(a, b, c, d)
    a.give(PolicyReceived(house.policy(4)))
    await until(lambda: all(agent.merges >= 2 for agent in house.agents), 90.0)
    await house.kill(d)
    before = a.merges
    began = time.monotonic()
    await until(lambda: a.merges >= before + 5, 90.0)
    # Each round ends at its deadline at the latest; the rest is for a machine that others use too.
    assert time.monotonic() - began < 5 * PACES["none"].round_deadline_s + 20


async def test_one_that_is_killed_resumes_with_what_was_durable(house: House) -> None:
    a, b, c = [await house.add(name) for name in "abc"]
    house.introduce(a, b, c)
    a.give(PolicyReceived(house.policy(3)))
    await until(lambda: c.merges >= 3, 90.0)
    durable = await house.kill(c)
    seq = durable._seq
    again = await house.add("c", store=durable, like=c)
    house.introduce(a, b, again)
    await until(lambda: again.merges >= 3, 90.0)
    assert again.node.view().seq > seq
    await until(lambda: (p := a.knows(again)) is not None and p.seq > seq, 90.0)
    assert a.node.view().evidence == b.node.view().evidence == 0


@pytest.mark.parametrize("fault", [StoreFault.NOT_DONE, StoreFault.DONE_BUT_ERROR])
async def test_a_doubtful_disk_costs_a_round_and_nothing_else(
    house: House, fault: StoreFault
) -> None:
    a, b, c = [await house.add(name) for name in "abc"]
    house.introduce(a, b, c)
    a.give(PolicyReceived(house.policy(3)))
    await until(lambda: b.merges >= 2, 90.0)
    b.store.faults = [fault, None, fault]
    await until(lambda: not b.store.faults, 90.0)
    before = b.merges
    await until(lambda: b.merges >= before + 3, 90.0)
    assert a.node.view().evidence == c.node.view().evidence == 0


async def test_a_membership_that_has_ended_passes_tls_and_is_refused_by_the_node(
    house: House,
) -> None:
    """TLS looks at no dates. The node does, by fleet time."""
    a, b = await house.add("a"), await house.add("b")
    old = await house.add("old", not_before=EPOCH - 90 * DAY_S)
    house.introduce(a, b, old)
    a.give(PolicyReceived(house.policy(3)))
    await until(lambda: a.merges >= 3 and b.merges >= 3, 90.0)
    refused = f"{old.address}"
    await until(lambda: any("membership has ended" in n.text for n in a.notices), 90.0)
    peer = a.knows(old)
    assert peer is None or (peer.influence == 0.0 and refused in peer.addresses)


async def test_a_revoked_device_that_nobody_here_ever_met_gets_no_answer(
    house: House, fleet: Certificates
) -> None:
    """Its member object never came here. The revocation names its TLS key."""
    a, b = [await house.add(name) for name in "ab"]
    house.introduce(a, b)
    a.give(PolicyReceived(house.policy(2)))
    stolen = fleet.device("stolen")
    keys = house.admit(stolen)
    await until(lambda: b.node.shelf.head(None) is not None, 90.0)
    async with asking(stolen, CALM) as thief:
        assert isinstance(await thief.fetch_head(head(b.address)), HeadReceived)
        assert any(c.tls_key == stolen.tls_key for c in b.server._connections)
        a.give(RevocationReceived(house.fleet.revoke(keys.device, "theft", tls=(stolen.tls_key,))))
        await until(lambda: b.node.refused(stolen.tls_key), 90.0)  # it spread by a pull
        await until(lambda: not any(c.tls_key == stolen.tls_key for c in b.server._connections))
        answer = await thief.fetch_head(head(b.address))
    assert isinstance(answer, FetchFailed)
    assert answer.fault is Fault.REFUSED


async def test_a_certificate_that_ended_by_fleet_time_gets_no_answer(
    house: House, fleet: Certificates
) -> None:
    """Nor one that ends while its connection is open. The member object is not needed for it."""
    a = await house.add("a")
    await until(lambda: a.node.deadline < math.inf)  # it has started
    time_now = a.node._core.time()
    ended, ending = (
        fleet.device(name, end=time_now + left) for name, left in (("ended", -10), ("ending", 600))
    )
    async with asking(ended) as gone, asking(ending) as still:
        refused = await gone.fetch_head(head(a.address))
        assert isinstance(await still.fetch_head(head(a.address)), HeadReceived)
        a.node._core.clock.raise_floor(time_now + 601)
        late = await still.fetch_head(head(a.address))
    for answer in (refused, late):
        assert isinstance(answer, FetchFailed)
        assert answer.fault is Fault.REFUSED


async def test_a_revoked_device_is_cut_off_and_gets_no_answer(house: House) -> None:
    a, b, c = [await house.add(name) for name in "abc"]
    house.introduce(a, b, c)
    a.give(PolicyReceived(house.policy(3)))
    await until(lambda: all(agent.merges >= 2 for agent in house.agents), 90.0)
    a.give(RevocationReceived(house.fleet.revoke(c.keys.device, "stolen")))
    await until(lambda: b.node.refused(c.tls.tls_key), 90.0)  # it spread by a pull
    assert b.node.refused(c.tls.tls_key) == "revoked: stolen"
    await until(
        lambda: (
            not any(
                connection.tls_key == c.tls.tls_key
                for agent in (a, b)
                for connection in agent.server._connections
            )
        ),
        30.0,
    )
