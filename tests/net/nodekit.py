"""Whole devices for the tests of the wire: a real node, driver, server and client each.

`House` composes them as the service does, on the real loop or on a simulated network.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from netkit import CALM, Device
from netkit import Fleet as Certificates

from gossipfl.config import PACES, NodeSettings, Pace
from gossipfl.events import (
    Address,
    BundleGiven,
    Event,
    Notice,
    OwnAddresses,
    PeerSeen,
    Source,
)
from gossipfl.identity import Signer
from gossipfl.interfaces import Evaluation
from gossipfl.memory import MemoryStore
from gossipfl.messages import Role, Training
from gossipfl.net.client import Client
from gossipfl.net.driver import Driver
from gossipfl.net.ports import Ports
from gossipfl.net.server import Server
from gossipfl.net.traffic import Traffic
from gossipfl.net.worker import ThreadWorker, Worker
from gossipfl.node import Node
from gossipfl.objects import MemberObject, pack_member
from gossipfl.parameters import Layout, Tensor, Vector
from gossipfl.view import PeerView
from sim.fleet import EPOCH, Fleet, Keys

T = TypeVar("T")
LAYOUT = Layout((Tensor("w", (64,), 0),))
DAY_S = 86_400


class Toy:
    """Training goes half the way to a goal of its own; merging meets in the middle."""

    layout = LAYOUT
    initial: Vector = np.zeros(64, np.float32)

    def __init__(self, goal: float) -> None:
        self._goal = np.full(64, goal, np.float32)

    def train(self, base: Vector, training: Training, seed: int) -> Vector:
        return base + np.float32(0.5) * (self._goal - base)

    def evaluate(self, parameters: Vector) -> Evaluation:
        return Evaluation(self.loss(parameters), 0.5, 10)

    def loss(self, parameters: Vector) -> float:
        return float(np.mean(np.abs(parameters - self._goal)))


@dataclass
class Agent:
    """One device as the service composes it, without its files."""

    node: Node
    driver: Driver
    server: Server
    client: Client
    store: MemoryStore
    address: Address
    tls: Device
    keys: Keys
    notices: list[Notice] = field(default_factory=list)
    running: asyncio.Task[None] | None = None

    def knows(self, other: Agent) -> PeerView | None:
        wanted = str(other.address)
        return next((p for p in self.node.view().peers if wanted in p.addresses), None)

    @property
    def merges(self) -> int:
        return self.node.view().merges

    def give(self, event: Event) -> None:
        assert self.driver.offer(event)


@dataclass(frozen=True)
class World:
    """What differs between the real machine and a simulated network."""

    listen: Callable[[str, Server, Device], Awaitable[Address]]
    worker: Callable[[str], Worker]
    wall: Callable[[], float]
    pace: Pace


async def _listen(_: str, server: Server, __: Device) -> Address:
    return Address("127.0.0.1", server.start(["127.0.0.1"]))


REAL = World(_listen, ThreadWorker, time.time, PACES["none"])


class House:
    """A fleet of such devices; nothing is found by itself, `introduce` is the static seed."""

    def __init__(self, certificates: Certificates, world: World = REAL) -> None:
        self.fleet = Fleet(1)
        self.job = self.fleet.job("toy", LAYOUT)
        self.agents: list[Agent] = []
        self._certificates = certificates
        self._world = world

    def admit(self, tls: Device, not_before: float = EPOCH - DAY_S) -> Keys:
        """A member whose object names a real TLS key; valid for 31 days."""
        signer = Signer(self.fleet.random.randbytes(32))
        envelope = self.fleet._member_envelope(
            signer,
            Role.DEVICE,
            tls.tls_key,
            signer=self.fleet._issuer,
            days=30,
            not_before=not_before,
        )
        member = pack_member(MemberObject(envelope, self.fleet._issuer_envelope))
        return Keys(signer, member, tls.tls_key)

    def policy(self, n: int, codec: str = "f32") -> bytes:
        return self.fleet.policy(self.job, n=n, rule="mean", codec=codec)

    async def add(
        self,
        name: str,
        store: MemoryStore | None = None,
        like: Agent | None = None,
        not_before: float = EPOCH - DAY_S,
        bundle: bool = True,
    ) -> Agent:
        """A running device; `like` gives it the keys of one that was there before."""
        tls = like.tls if like else self._certificates.device(name)
        keys = like.keys if like else self.admit(tls, not_before)
        settings = NodeSettings(pace=self._world.pace, limits=CALM)
        node = Node(self.fleet.identity(keys), settings, seed=len(self.agents))
        store = store or MemoryStore()
        traffic = Traffic()

        async def load(digest: bytes) -> bytes | None:
            return store.get(digest)

        server = Server(node.shelf, load, tls.server(), node.refused, CALM, traffic)
        address = await self._world.listen(name, server, tls)
        client = Client(tls.client(), CALM, traffic)
        client.start()
        notices: list[Notice] = []
        goal = float(len(self.agents))
        ports = Ports(
            client,
            store,
            lambda *_: Toy(goal),
            notices.append,
            server.cut_off,
            server.head_changed,
            self._world.worker("work"),
            self._world.worker("disk"),
        )
        driver = Driver(node, ports, wall=self._world.wall)
        agent = Agent(node, driver, server, client, store, address, tls, keys, notices)
        agent.running = asyncio.create_task(agent.driver.run())
        agent.give(OwnAddresses((address,)))
        if bundle:
            agent.give(BundleGiven(self.job.data))
        self.agents.append(agent)
        return agent

    def introduce(self, *agents: Agent) -> None:
        for agent in agents:
            for other in agents:
                if other is not agent:
                    agent.give(PeerSeen(other.address, Source.STATIC))

    async def leave(self, agent: Agent) -> None:
        self.agents.remove(agent)
        await agent.driver.stop()
        await agent.client.close()
        await agent.server.close()
        assert agent.running is not None
        await agent.running

    async def kill(self, agent: Agent) -> MemoryStore:
        """As SIGKILL: nobody gets another answer and nothing more is decided. What is durable."""
        await agent.server.close()
        assert agent.running is not None
        agent.running.cancel()
        await asyncio.wait([agent.running])
        await agent.client.close()
        self.agents.remove(agent)
        return agent.store.copy()
