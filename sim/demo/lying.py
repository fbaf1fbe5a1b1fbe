"""What makes an agent of this process lie: what it knows, what it trains, what it shows to whom.

The agent is the product's own: keys, node, network and store are unchanged. The liar sees what
any device sees, the models that it pulled, and guesses from them what the others publish next: last
round's steps, taken from this round's base.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

import numpy as np
from aiohttp import web

from gossipfl.codecs import decode_update
from gossipfl.config import Limits
from gossipfl.errors import PeerError
from gossipfl.events import Commit, Effect, Event, StartMerge, StartTraining
from gossipfl.identity import Signer
from gossipfl.interfaces import Trainer
from gossipfl.messages import Head, Training
from gossipfl.net.connection import Connection
from gossipfl.net.replies import Reply
from gossipfl.net.server import Server
from gossipfl.net.traffic import Account
from gossipfl.node import Node
from gossipfl.parameters import Vector
from gossipfl.privacy import Noised, RecordPrivacy
from gossipfl.shelf import Served, Shelf
from gossipfl.wire import decode, open_envelope
from sim.adversaries import PoisonedTrainer
from sim.attacks import Attack, Sight
from sim.attacks.faces import Faces
from sim.forgery import as_noised

SILENT_S = 60.0  # longer than anybody waits for an answer

_asker: ContextVar[int | None] = ContextVar("asker", default=None)
"""Number of the device whose request is being answered."""


class Knowledge:
    """The models that the node pulled, as they lie on its shelf. Used in the loop's thread; `sight`
    is also called from the worker's, and only reads what `look` left."""

    def __init__(self, node: Node, device: bytes, attackers: int) -> None:
        self._node = node
        self._device = device
        self._attackers = attackers
        self._numbers: dict[bytes, int] = {}
        self._before: Vector | None = None  # where training of the merged models started
        self._old: frozenset[bytes] = frozenset()  # digests of updates that were merged
        self._seen: dict[int, tuple[bytes, Vector]] = {}  # by number: newest update
        self.round = 0

    def number(self, device: bytes) -> int:
        """A number for each device, in the order in which they come up."""
        return self._numbers.setdefault(device, len(self._numbers))

    def number_of(self, tls_key: bytes) -> int:
        device = self._node.device_of_tls(tls_key)
        return self.number(device if device is not None else tls_key)

    def on_effect(self, effect: Effect) -> None:
        match effect:
            case StartTraining():
                self.round += 1
                self.look()
            case StartMerge():
                self.look()
                self._before = effect.before
                self._old = frozenset(name for name, _ in self._seen.values())
            case _:
                pass

    def look(self) -> None:
        """Decodes what is new on the shelf."""
        shelf = self._node.shelf
        for envelope in shelf.held_heads(self._device):
            head = decode(open_envelope(envelope, "head", Limits().head_bytes).payload, Head)
            number = self.number(head.device)
            ref = head.update
            if ref is None or head.lineage is None:
                continue
            if number in self._seen and self._seen[number][0] == ref.digest:
                continue
            served = shelf.head(head.device)
            data = served.update if served is not None else None
            data = data if data is not None else shelf.object(ref.digest)
            own = self._node.base
            if data is None or own is None:
                continue
            try:
                vector = decode_update(data, head.lineage, ref.codec, len(own))
            except PeerError:
                continue
            self._seen[number] = (ref.digest, vector)

    def sight(self, base: Vector, own: Vector) -> Sight:
        """With nothing pulled yet its own model stands for all."""
        seen = sorted(self._seen.items())
        rows, who = [], []
        for number, (name, vector) in seen:
            if vector.shape != base.shape:
                continue
            moved = name in self._old and self._before is not None
            rows.append(vector - self._before + base if moved else vector)  # type: ignore[operator]
            who.append(number)
        copies = [v for _, (_, v) in seen if v.shape == base.shape]
        return Sight(
            honest=np.stack(rows or [own]),
            before=base,
            own=own,
            base=base,
            round=self.round,
            attackers=self._attackers,
            who=who,
            copies=np.stack(copies) if copies else None,
        )


class Liar:
    """One lying device: its attack, what it knows, and the chains that it shows."""

    def __init__(self, attack: Attack, number: int, knowledge: Knowledge, signer: Signer) -> None:
        self.attack = attack
        self.knowledge = knowledge
        self._number = number
        self._own: tuple[Vector, Vector] | None = None
        self.forks = attack.per_victim or attack.is_forged
        self.faces = Faces(signer, lambda face, round_: self._told(face))

    def trained(self, base: Vector, own: Vector) -> Vector:
        """What its training gives instead. An honest node would refuse a forged one."""
        self._own = (base, own)
        if self.forks:
            return own
        lie = self.attack.vector(self.knowledge.sight(base, own).at(self._number))
        return own if lie is None else lie

    def _told(self, asker: int) -> Vector | None:
        """What the chain for this asker names; None: what the node published."""
        if self._own is None:
            return None
        base, own = self._own
        self.knowledge.look()
        sight = self.knowledge.sight(base, own)
        victim = list(sight.who).index(asker) if asker in sight.who else None
        return self.attack.vector(sight.at(self._number, victim))

    def shown(self, served: Served) -> Served:
        """Its own head, as the asker of this moment sees it."""
        asker = _asker.get()
        return served if asker is None else self.faces.shown(served, self.attack.face(asker))


class LyingTrainer(PoisonedTrainer):
    """Trains honestly, since the other way is known only then; gives what the attack says."""

    def __init__(self, trainer: Trainer, liar: Liar) -> None:
        super().__init__(trainer)
        self._liar = liar

    def train(self, base: Vector, training: Training, seed: int) -> Vector:
        return self._liar.trained(base, self.honest.train(base, training, seed))

    def train_private(
        self, base: Vector, training: Training, mode: RecordPrivacy, key: bytes
    ) -> Noised:
        honest = self.honest.train_private(base, training, mode, key)
        return as_noised(mode, self._liar.trained(base, honest.vector))


class LyingNode:
    """The node as the driver sees it. It is honest; the liar looks over its shoulder."""

    def __init__(self, node: Node, liar: Liar) -> None:
        self._node = node
        self._liar = liar

    @property
    def deadline(self) -> float:
        return self._node.deadline

    @property
    def shelf(self) -> Shelf:
        return self._node.shelf

    def handle(self, event: Event, now: float) -> list[Effect]:
        effects = self._node.handle(event, now)
        for effect in effects:
            self._liar.knowledge.on_effect(effect)
            if isinstance(effect, Commit) and effect.batch.head is not None:
                self._liar.faces.published(effect.batch.head)
        return effects


class LyingShelf:
    """The node's shelf, with the liar's chains in place of the node's own."""

    def __init__(self, shelf: Shelf, device: bytes, liar: Liar) -> None:
        self._shelf = shelf
        self._device = device
        self._liar = liar

    @property
    def member(self) -> bytes | None:
        return self._shelf.member

    def head(self, device: bytes | None) -> Served | None:
        served = self._shelf.head(device)
        if served is None or device not in (None, self._device) or not self._liar.forks:
            return served
        return self._liar.shown(served)

    def object(self, digest: bytes) -> bytes | None:
        forged = self._liar.faces.object(digest)
        return self._shelf.object(digest) if forged is None else forged


class LyingServer(Server):
    """Knows who asks, and lets some wait in vain."""

    def __init__(self, liar: Liar, *parts: Any) -> None:
        super().__init__(*parts)
        self._liar = liar

    async def _reply(self, request: web.BaseRequest, account: Account) -> Reply:
        connection = request.protocol
        if isinstance(connection, Connection):
            asker = self._liar.knowledge.number_of(connection.tls_key)
            _asker.set(asker)
            if not self._liar.attack.answers(asker):
                await asyncio.sleep(SILENT_S)
                raise ConnectionResetError
        return await super()._reply(request, account)
