"""A hub among the peers: it is followed as everybody is, and never asked for a model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from harness import Table

from gossipfl.config import NodeSettings
from gossipfl.events import HeadReceived, LoadJob, Start
from gossipfl.messages import Role
from gossipfl.node import Node
from gossipfl.objects import digest
from sim.fleet import EPOCH


def test_a_hub_is_a_live_peer_that_no_round_waits_for() -> None:
    table = Table(n=3)
    devices = [table.device() for _ in range(3)]
    hub = table.puppet(Role.HUB)
    hub.publish()
    table.employ()
    table.introduce()
    table.until(lambda: all(d.node.view().merges >= 2 for d in devices), 300.0)
    for device in devices:
        peer = device.peer(hub)
        assert peer is not None
        assert peer.state == "live"
        assert device.node.view().sample <= 2
        assert not peer.sampled


def test_a_node_that_trains_nothing_keeps_the_bundle_for_who_asks() -> None:
    table = Table(n=3)
    device = table.device()
    settings = NodeSettings(pace=table.pace, limits=table.limits, trains=False)
    hub = table.device(keys=table.fleet.admit(Role.HUB))
    hub.node = Node(table.fleet.identity(hub.keys), settings, 7)
    table.send(hub, Start(hub.store.load(), table.wall))
    table.employ(device)
    table.introduce()
    table.until(lambda: hub.node.shelf.object(digest(table.job.data)) is not None, 120.0)
    table.advance(120.0)
    assert hub.sent(LoadJob) == []
    assert not [notice for notice in hub.notices if notice.warning]


def test_a_hub_reads_what_others_were_shown_and_proves_a_fork() -> None:
    """A liar shows the hub one chain and a device another; the device's receipt tells."""
    table = Table(n=4)
    devices = [table.device() for _ in range(3)]
    hub = table.device(keys=table.fleet.admit(Role.HUB))
    settings = NodeSettings(pace=table.pace, limits=table.limits, trains=False)
    hub.node = Node(table.fleet.identity(hub.keys), settings, 7)
    table.send(hub, Start(hub.store.load(), table.wall))
    liar = table.puppet()
    liar.publish_update(table.lineage, np.ones(table.count, np.float32))
    shown = liar.current
    other = liar.sign(liar.compose(seq=1, prev=None, issued=int(EPOCH) + 1))
    table.tamper = lambda device, effect, answer: (
        replace(answer, head=other, update=None)
        if device is hub and isinstance(answer, HeadReceived) and answer.head == shown
        else answer
    )
    table.employ(*devices)
    table.introduce()
    table.until(lambda: hub.node.view().evidence, 600.0)


def test_what_a_node_holds_of_its_fleet_is_there_for_a_recorder() -> None:
    table = Table(n=3)
    devices = [table.device() for _ in range(3)]
    table.employ()
    table.introduce()
    table.until(lambda: all(d.node.view().merges >= 3 for d in devices), 300.0)
    found = devices[0].node.holdings()
    assert {n.device for n in found.neighbours} == {d.id for d in devices[1:]}
    assert all(n.head is not None and n.head.receipts is not None for n in found.neighbours)
    assert {known.member.device for known in found.members} >= {d.id for d in devices}
    assert [data for _, data in found.policies] == [table.policy]
    assert (found.revocations, found.evidence) == ({}, ())
