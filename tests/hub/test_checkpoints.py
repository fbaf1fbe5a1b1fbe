"""Checkpoints of star mode: what may become the global model again."""

from __future__ import annotations

import hashlib

import pytest

from gossipfl.hub.database import open_database
from gossipfl.hub.star import books, storage
from gossipfl.hub.star.values import Version


def version(number: int, bundle: bytes) -> Version:
    body = bytes([number]) * (8 * number)
    name = hashlib.sha256(body).digest()
    return Version(
        number, number - 1, number, 1, bundle, bytes(32), "merge", name, len(body), 0.0, body=body
    )


async def test_a_checkpoint_of_another_bundle_is_no_model_of_this_one(dsn: str) -> None:
    """Its parameters are others: clients would get a vector of another length."""
    database = await open_database(dsn)
    try:
        async with database.transaction() as tx:
            for made in (version(1, b"a" * 32), version(2, b"b" * 32), version(3, b"b" * 32)):
                await books.add_version(tx, made)
            await storage.add_checkpoint(tx, "old", 1, "", "ann", 0)
            await storage.add_checkpoint(tx, "new", 2, "", "ann", 0)
        with pytest.raises(storage.OtherBundle):
            async with database.transaction() as tx:
                await storage.restore(tx, "old", 1.0)
        async with database.transaction() as tx:
            restored = await storage.restore(tx, "new", 1.0)
        assert restored is not None
        assert (restored.number, restored.body) == (4, bytes([2]) * 16)
    finally:
        await database.close()
