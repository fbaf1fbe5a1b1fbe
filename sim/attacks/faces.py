"""Chains of heads that a liar shows beside the one that its node keeps, signed by the same key.

A chain is made when somebody is first shown it: for each head of the node's own chain one with the
same number, that names another update and follows the last head of its own chain. So an asker who
walks back along what it was shown finds everything, and only two askers together can prove the lie.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import msgspec

from gossipfl.codecs import encode_update
from gossipfl.identity import Signer
from gossipfl.messages import Head, UpdateRef
from gossipfl.objects import digest
from gossipfl.parameters import Vector
from gossipfl.shelf import Served
from gossipfl.wire import decode, encode, open_envelope, seal

HEAD_BYTES = 4_096
HEADS_KEPT = 64  # protocol K: nobody walks back further
OBJECTS_MAX = 64 * 1024 * 1024  # bytes: guess, a hundred faces of a small model

Model = Callable[[int, int], Vector | None]
"""model(face, round): what that chain publishes in that round; None: what the node published."""


@dataclass(slots=True)
class _Chain:
    last: bytes | None = None  # digest of its newest head
    seq: int = 0
    heads: dict[int, Served] = field(default_factory=dict)  # by number
    updates: dict[bytes, tuple[UpdateRef, bytes]] = field(default_factory=dict)  # by the true one


class Faces:
    def __init__(self, signer: Signer, model: Model) -> None:
        self._signer = signer
        self._model = model
        self._own: OrderedDict[int, tuple[Head, bytes]] = OrderedDict()  # by number
        self._numbers: dict[bytes, int] = {}
        self._chains: dict[int, _Chain] = {}
        self._objects: OrderedDict[bytes, bytes] = OrderedDict()
        self._held = 0

    def published(self, envelope: bytes) -> None:
        """The node's own chain has grown by this head."""
        head = decode(open_envelope(envelope, "head", HEAD_BYTES).payload, Head)
        name = digest(envelope)
        self._own[head.seq] = (head, name)
        self._numbers[name] = head.seq
        while len(self._own) > HEADS_KEPT:
            _, (_, old) = self._own.popitem(last=False)
            self._numbers.pop(old, None)

    def shown(self, served: Served, face: int | None) -> Served:
        """What an asker sees instead of the node's own head; None: that head itself."""
        seq = self._numbers.get(served.digest)
        if face is None or seq is None:
            return served
        chain = self._chains.setdefault(face, _Chain())
        for number in [n for n in self._own if chain.seq < n <= seq]:
            self._grow(chain, face, number, served if number == seq else None)
        return chain.heads.get(seq, served)

    def object(self, name: bytes) -> bytes | None:
        """An object of any of the chains."""
        return self._objects.get(name)

    def _grow(self, chain: _Chain, face: int, number: int, served: Served | None) -> None:
        head, _ = self._own[number]
        ref, data = self._update(chain, face, head) if served is not None else (head.update, None)
        twin = msgspec.structs.replace(
            head, update=ref, prev=head.prev if chain.last is None else chain.last
        )
        envelope = seal("head", encode(twin), self._signer)
        chain.last, chain.seq = digest(envelope), number
        self._keep(chain.last, envelope)
        if served is not None:
            update = served.update if data is None else data
            chain.heads = {
                number: replace(
                    served,
                    envelope=envelope,
                    digest=chain.last,
                    update=update,
                    update_digest=ref.digest if ref is not None else None,
                )
            }

    def _update(
        self, chain: _Chain, face: int, head: Head
    ) -> tuple[UpdateRef | None, bytes | None]:
        """The update that this chain names instead, made once for each true one."""
        true = head.update
        if true is None or head.lineage is None:
            return true, None
        known = chain.updates.get(true.digest)
        if known is None:
            vector = self._model(face, true.round)
            if vector is None:
                return true, None
            data = encode_update(head.lineage, "f32", vector)
            ref = UpdateRef(digest(data), len(data), "f32", true.round)
            known = (ref, data)
            chain.updates = {true.digest: known}
            self._keep(ref.digest, data)
        return known

    def _keep(self, name: bytes, data: bytes) -> None:
        if name in self._objects:
            return
        self._objects[name] = data
        self._held += len(data)
        while self._held > OBJECTS_MAX:
            _, old = self._objects.popitem(last=False)
            self._held -= len(old)
