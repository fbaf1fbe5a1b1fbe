"""The route by which an operator has a device or star client erased."""

from __future__ import annotations

import msgspec

from gossipfl.errors import UserError
from gossipfl.hub.erasing.asking import Stage, ask, parse
from gossipfl.hub.erasing.waiting import wait
from gossipfl.hub.hub import Hub
from gossipfl.hub.rest.access import OPERATORS
from gossipfl.hub.rest.problems import Problem
from gossipfl.hub.rest.routing import Call, Route

WAIT_S = 20.0  # an answer within what clients and proxies wait for
STATUS = {"GF850": 404, "GF851": 409, "GF852": 409}


class ErasureAnswer(msgspec.Struct, frozen=True):
    """`stage`: asked (not all rows are deleted yet), deleted (all rows are; the database's files
    are being written anew) or done. Ask again to learn how far it is."""

    stage: str


class ErasingApi:
    def routes(self) -> list[Route]:
        return [
            Route("POST", "/api/v1/clients/{client_id}/erase", self.erase, OPERATORS, None,
                  ErasureAnswer, "Delete all that the hub holds of a star client, or of a device "
                  "that has left the fleet.", refusals=(404, 409), tag="privacy"),
        ]  # fmt: skip

    async def erase(self, hub: Hub, call: Call) -> ErasureAnswer:
        try:
            subject = parse(call.path["client_id"])
            found = await ask(hub.database, subject, hub.identity.root_key, call.caller.subject)
        except UserError as error:
            raise Problem(STATUS[error.code], error.code, error.cause, hint=error.hint) from None
        if found is not Stage.DONE:
            found = await wait(hub.database, subject, WAIT_S)
        return ErasureAnswer(found.value)
