"""Reads a log into a tally, checkpoint by checkpoint, each verified; and fetches proofs from it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from gossipfl.audit.checkpoints import Checkpoint, SignedCheckpoint, open_checkpoint
from gossipfl.audit.notes import Key, Note
from gossipfl.audit.proving import prove
from gossipfl.audit.reader import LogReader
from gossipfl.audit.refused import AuditRefused
from gossipfl.hub.page.auditing import Place, follow
from gossipfl.hub.reports.compliance import body_of, compose, wanted
from gossipfl.hub.reports.tally import Tally


class History:
    """What was read so far. One at a time may read."""

    def __init__(self, reader: LogReader, key: Key) -> None:
        self._reader = reader
        self._key = key
        self.tally = Tally()
        self.place = Place()

    async def read(self, size: int | None = None) -> None:
        """Up to the checkpoint of exactly `size` entries, or to the newest. Raises Forged,
        AuditRefused (no such checkpoint) and DatabaseError."""
        if size is not None and self.tally.size > size:
            raise ValueError("a history does not go back")
        if size is None or self.tally.size < size:
            steps = follow(self._reader, self._key, self.place)
            async with aclosing(steps):  # type: ignore[type-var]
                async for step in steps:
                    if size is not None and step.signed.checkpoint.size > size:
                        break
                    await asyncio.to_thread(self.tally.fed, step.logged)
                    self.place = step.after
                    if step.signed.checkpoint.size == size:
                        break
        if self.place.last is None:
            raise AuditRefused("the log has no checkpoint yet")
        if size is not None and self.tally.size != size:
            below = f"the one below covers {self.tally.size}"
            raise AuditRefused(f"no checkpoint covers exactly {size} entries; {below}")

    async def checkpoint(self) -> tuple[Checkpoint, bytes]:
        """Of the place where the tally stands, and its note with the log's signature alone: who
        else signs may come in later."""
        data = await self._reader.checkpoint(self.place.number)
        signed = open_checkpoint(data, self._key)
        return signed.checkpoint, own_note(signed, self._key)

    async def compliance(self, fleet: bytes) -> bytes:
        """The body of the compliance report on what was read."""
        checkpoint, note = await self.checkpoint()
        proofs = await prove(self._reader, wanted(self.tally), checkpoint.size)
        report = await asyncio.to_thread(compose, self.tally, checkpoint, note, fleet, proofs)
        return body_of(report)


def own_note(signed: SignedCheckpoint, key: Key) -> bytes:
    own = signed.note.of(key)
    if own is None:
        raise AuditRefused(f"not signed by {key.name}")
    return Note(signed.note.text, (own,)).encode()
