"""Star mode of one hub, put together. `run` leads rounds; the routes speak to the rest."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec

from gossipfl.config import Limits
from gossipfl.hub.auth.service import Auth
from gossipfl.hub.database import Database, Transaction
from gossipfl.hub.star import books
from gossipfl.hub.star.admission import Admission
from gossipfl.hub.star.engine import Engine
from gossipfl.hub.star.job import Job, Shelf
from gossipfl.hub.star.merging import Holdout
from gossipfl.hub.star.settings import StarSettings
from gossipfl.hub.star.values import Phase
from gossipfl.policies import Accepted


class Star:
    """`root_key`: the fleet's raw key. `clock`: seconds since the epoch. `seed`: entropy for whom
    to select, not for keys. `holdout`: judges models by public data. `said`: see `Engine`."""

    def __init__(
        self,
        database: Database,
        auth: Auth,
        root_key: bytes,
        settings: StarSettings,
        clock: Callable[[], float],
        seed: int,
        *,
        holdout: Holdout | None = None,
        said: Callable[[str, str], None] = lambda kind, words: None,
    ) -> None:
        limits = Limits()
        self.root_key = root_key
        self.database = database
        self.auth = auth
        self.settings = settings
        self.clock = clock
        self.limits = limits
        self.shelf = Shelf(root_key, limits)
        self.admission = Admission(database, self.shelf, settings, clock, limits)
        self.engine = Engine(
            database,
            self.shelf,
            settings,
            clock,
            entropy=random.Random(seed),
            holdout=holdout,
            said=said,
        )

    @property
    def fleet(self) -> bytes:
        return self.shelf.fleet

    async def run(self) -> None:
        """Until cancelled; to be supervised."""
        await self.engine.run()

    async def policy(self, tx: Transaction) -> Accepted | None:
        """The policy in force."""
        await self.shelf.load(tx)
        return self.shelf.in_force(int(self.clock()))

    async def job(self, tx: Transaction) -> Job | None:
        """What is trained now, if a policy and its bundle are here."""
        accepted = await self.policy(tx)
        return None if accepted is None else await self.shelf.job(tx, accepted)


async def phase(tx: Transaction) -> Phase:
    """What the leader said last."""
    data = await books.state(tx, "phase")
    return Phase() if data is None else msgspec.json.decode(data, type=Phase)
