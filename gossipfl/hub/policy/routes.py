"""The routes of policies: what is in force, proposals, and issuing what an operator signed.

The hub has no policy key. It writes down what is wanted, an operator signs it elsewhere, and the
hub hands it to its own node, from whose head it spreads as from any other.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from gossipfl.errors import PeerError, UserError
from gossipfl.events import PolicyReceived
from gossipfl.fleet import proposals
from gossipfl.hub.policy import desk
from gossipfl.hub.policy import messages as m
from gossipfl.hub.rest.access import INSIGHT, OPERATORS
from gossipfl.hub.rest.bodies import KIB, OCTETS
from gossipfl.hub.rest.problems import Problem, absent, conflict, malformed
from gossipfl.hub.rest.routing import Call, Raw, Route
from gossipfl.hub.star.service import Star
from gossipfl.policies import Accepted, Policies

API = "/api/v1/policy"
LOOK_S = 0.2  # as the demo's poll


class PolicyApi:
    """Handlers. Of star mode only the database and the fleet's root key are used."""

    def __init__(self, star: Star) -> None:
        self._star = star

    def routes(self) -> list[Route]:
        one = f"{API}/proposals/{{proposal}}"
        table = [
            Route("GET", API, self.policy_state, INSIGHT, None, m.PolicyState,
                  "The newest policy, how far it has come, and how its canaries do."),
            Route("GET", f"{API}/history", self.policy_history, INSIGHT, None, m.PolicyHistory,
                  "The policies that this hub knows."),
            Route("GET", f"{API}/objects/{{digest}}", self.policy_object, INSIGHT, None, None,
                  "A signed policy, as devices hold it.", answer_kind=OCTETS, refusals=(404,)),
            Route("GET", f"{API}/proposals", self.policy_proposals, INSIGHT, None, m.ProposalList,
                  "What was proposed, and what became of it."),
            Route("POST", f"{API}/proposals", self.policy_propose, OPERATORS, m.ProposalRequest,
                  m.ProposalView, "Propose a change: an unsigned policy after the newest.",
                  status=201, refusals=(409,)),
            Route("GET", one, self.policy_proposal, INSIGHT, None, m.ProposalView, "One of them.",
                  refusals=(404,)),
            Route("GET", f"{one}/payload", self.policy_payload, INSIGHT, None, None,
                  "The unsigned policy, for `gossipfl policy sign`.", answer_kind=OCTETS,
                  refusals=(404,)),
            Route("DELETE", one, self.policy_withdraw, OPERATORS, None, None,
                  "Withdraw an open proposal.", status=204, refusals=(404,)),
            Route("POST", f"{API}/issue", self.policy_issue, OPERATORS, bytes, m.IssueAnswer,
                  "Issue a signed policy: answers once k devices' heads name it, or time is over.",
                  query=m.IssueQuery, kinds=(OCTETS,), bytes_max=64 * KIB, refusals=(409,)),
        ]  # fmt: skip
        return [replace(route, tag="policy") for route in table]

    # --- looking ---------------------------------------------------------------------------

    async def policy_state(self, hub: Any, call: Call) -> m.PolicyState:
        async with self._star.database.transaction(write=False) as tx:
            held = await self._held(tx)
            devices = await desk.seen(tx)
            waiting = await desk.count_open(tx)
        newest, whole = held.newest(), held.for_all(hub.clock())
        return m.PolicyState(
            _shown(newest),
            _shown(whole),
            desk.spread(devices, held, newest.digest, hub.clock()) if newest else None,
            desk.canaries(devices, newest) if newest else [],
            waiting,
        )

    async def policy_history(self, hub: Any, call: Call) -> m.PolicyHistory:
        async with self._star.database.transaction(write=False) as tx:
            found = (await self._held(tx)).accepted()
        return m.PolicyHistory([m.view(a.policy, a.digest, a.signer) for a in reversed(found)])

    async def policy_object(self, hub: Any, call: Call) -> Raw:
        async with self._star.database.transaction(write=False) as tx:
            held = await self._held(tx)
        try:
            data = held.object(bytes.fromhex(call.path["digest"]))
        except ValueError:
            data = None
        if data is None:
            raise absent("no policy of this digest is known here")
        return Raw(data, OCTETS)

    # --- proposals -------------------------------------------------------------------------

    async def policy_proposals(self, hub: Any, call: Call) -> m.ProposalList:
        async with self._star.database.transaction(write=False) as tx:
            held = await self._held(tx)
            found = await desk.listed(tx)
        return m.ProposalList([_proposal(p, held) for p in found])

    async def policy_propose(self, hub: Any, call: Call) -> m.ProposalView:
        body: m.ProposalRequest = call.body
        async with self._star.database.transaction() as tx:
            held = await self._held(tx)
            try:
                policy = await desk.compose(tx, held, body.change, hub.clock())
            except UserError as error:
                raise Problem(422, error.code, error.cause, hint=error.hint) from None
            by, now = call.caller.subject, hub.clock()
            made = await desk.add(tx, policy, body.note, by, now)
        if made is None:
            raise conflict(f"{desk.OPEN_MAX} proposals are open: issue or withdraw some")
        hub.events.tell("proposal", id=made.id, by=by)
        return _proposal(made, held)

    async def policy_proposal(self, hub: Any, call: Call) -> m.ProposalView:
        async with self._star.database.transaction(write=False) as tx:
            held = await self._held(tx)
            return _proposal(await self._found(tx, call), held)

    async def policy_payload(self, hub: Any, call: Call) -> Raw:
        async with self._star.database.transaction(write=False) as tx:
            found = await self._found(tx, call)
        return Raw(proposals.pack_proposal(found.policy), OCTETS)

    async def policy_withdraw(self, hub: Any, call: Call) -> None:
        async with self._star.database.transaction() as tx:
            if not await desk.withdraw(tx, call.path["proposal"]):
                raise absent("there is no open proposal of this id")

    @staticmethod
    async def _found(tx: Any, call: Call) -> desk.Proposal:
        found = await desk.get(tx, call.path["proposal"])
        if found is None:
            raise absent("there is no proposal of this id")
        return found

    # --- issuing ---------------------------------------------------------------------------

    async def policy_issue(self, hub: Any, call: Call) -> m.IssueAnswer:
        query: m.IssueQuery = call.query
        async with self._star.database.transaction() as tx:
            await desk.alone(tx)  # else two instances take two policies of one number
            held = await self._held(tx)
            accepted = _verified(held, call.body)
            is_new = await desk.take(tx, accepted, call.caller.subject, hub.clock())
            if is_new and not held.knows(accepted.digest):
                held.add(accepted)
        if is_new:
            policy = accepted.policy
            hub.events.tell("policy", term=policy.term, version=policy.version)
        station = getattr(hub.leader, "station", None)
        if station is not None:  # else the instance that leads finds it in the database
            station.give(PolicyReceived(accepted.data))
        return await self._spread(hub, accepted, held, query)

    async def _spread(
        self, hub: Any, accepted: Accepted, held: Policies, query: m.IssueQuery
    ) -> m.IssueAnswer:
        """Wait, within bounds, until enough devices have it."""
        loop = asyncio.get_running_loop()
        end = loop.time() + query.wait_s
        while True:
            found = await self._count(hub, accepted, held)
            if query.k is not None:
                found = m.SpreadView(found.named, found.live, query.k)
            enough = found.named >= found.wanted
            if enough or loop.time() >= end:
                shown = m.view(accepted.policy, accepted.digest, accepted.signer)
                return m.IssueAnswer(shown, found, enough, _words(found))
            await asyncio.sleep(LOOK_S)

    async def _count(self, hub: Any, accepted: Accepted, held: Policies) -> m.SpreadView:
        station = getattr(hub.leader, "station", None)
        if station is not None:
            found = station.node.spread(accepted.digest)
            return m.SpreadView(found.named, found.live, found.wanted)
        async with self._star.database.transaction(write=False) as tx:
            return desk.spread(await desk.seen(tx), held, accepted.digest, hub.clock())

    async def _held(self, tx: Any) -> Policies:
        return await desk.policies(tx, self._star.root_key)


def _verified(held: Policies, data: bytes) -> Accepted:
    """A policy that follows the newest, or is it. Raises Problem."""
    if not data:
        raise malformed("no policy was sent")
    try:
        accepted = held.verify(data)
        missing = held.missing(accepted)
    except PeerError as error:
        raise Problem(422, "GF846", str(error)) from None
    newest = held.newest()
    if held.knows(accepted.digest) or newest is None:
        return accepted
    if accepted.rank <= newest.rank:
        what = f"policy {newest.policy.term}.{newest.policy.version} is newer: propose again"
        raise conflict(what)
    before = held.find(accepted.policy.prev)
    follows = before is None or accepted.policy.version == before.policy.version + 1
    if not follows or (accepted.policy.prev != newest.digest and not accepted.by_issuer):
        raise conflict("it does not follow the newest policy: propose again")
    if missing is not None:
        raise conflict("the policy before it is not known here")
    return accepted


def _words(found: m.SpreadView) -> str:
    text = f"{found.named} of {found.live} devices have it"
    if found.named >= found.wanted:
        return f"{text}; it goes on spreading by itself, with this hub or without"
    return f"{text}, {found.wanted} were waited for; it goes on spreading"


def _shown(accepted: Accepted | None) -> m.PolicyView | None:
    return None if accepted is None else m.view(accepted.policy, accepted.digest, accepted.signer)


def _proposal(found: desk.Proposal, held: Policies) -> m.ProposalView:
    before = held.find(found.policy.prev)
    return m.ProposalView(
        found.id,
        found.state,
        found.note,
        found.made_by,
        found.created,
        m.view(found.policy),
        proposals.differences(before.policy, found.policy) if before is not None else [],
        found.issued_as,
    )
