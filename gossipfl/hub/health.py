"""`GET /health`: whether this instance does its work, for monitors and balancers."""

from __future__ import annotations

from typing import Any

import msgspec

from gossipfl import __version__
from gossipfl.hub.database import DatabaseError
from gossipfl.hub.hub import Hub
from gossipfl.hub.rest.access import PUBLIC
from gossipfl.hub.rest.routing import Call, Raw, Route


class HealthAnswer(msgspec.Struct, frozen=True):
    """Nothing here names a device or a person."""

    status: str  # "ok" or "degraded"
    version: str
    leads: bool  # whether this instance follows the fleet and writes the log
    entries: int  # in the log, by its newest checkpoint
    problems: list[str]
    restarts: dict[str, int]  # of background tasks


class HealthApi:
    def routes(self) -> list[Route]:
        return [
            Route(
                "GET",
                "/health",
                self.health,
                PUBLIC,
                None,
                HealthAnswer,
                "Whether this instance does its work; 503 if not.",
                refusals=(503,),
                tag="health",
                is_exempt=True,
            )
        ]

    async def health(self, hub: Hub, call: Call) -> Any:
        parts = (hub.supervisor, hub.leader.supervisor)
        problems = [problem for part in parts for problem in part.kinds_of_problems()]
        if hub.database.is_full:
            problems.append("the disk is full: the hub only reads until there is space")
        entries = 0
        try:
            entries = await hub.log.reader.size()
        except DatabaseError as error:
            problems.append(f"database: {type(error).__name__}")
        tasks = {**hub.supervisor.health, **hub.leader.supervisor.health}
        answer = HealthAnswer(
            status="degraded" if problems else "ok",
            version=__version__,
            leads=hub.leader.leads,
            entries=entries,
            problems=problems,
            restarts={name: task.restarts for name, task in tasks.items()},
        )
        if not problems:
            return answer
        return Raw(msgspec.json.encode(answer), status=503)
