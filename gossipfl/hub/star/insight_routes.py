"""The routes by which people look at star mode: clients, versions, history, budgets, security."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from msgspec import structs

from gossipfl.aggregation import RULES, STEPS, least
from gossipfl.hub.rest.access import EVERYBODY, INSIGHT, Role, only
from gossipfl.hub.rest.problems import absent, forbidden
from gossipfl.hub.rest.routing import Call, Route
from gossipfl.hub.star import books, clients
from gossipfl.hub.star import messages as m
from gossipfl.hub.star import orders as o
from gossipfl.hub.star.budget import Account, Spec, spec_of, terms_of
from gossipfl.hub.star.client_routes import API, TAG
from gossipfl.hub.star.service import Star, phase
from gossipfl.hub.star.values import Client, Phase, Version
from gossipfl.privacy.ledger import Terms

WORDS = {
    "mean": "the plain mean: one liar moves it at will",
    "weighted_mean": "the mean by examples and data quality, within bounds; no defence",
    "median": "the median of each parameter",
    "trimmed_mean": "the mean of each parameter without the f largest and smallest values",
    "krum": "the one model nearest to its neighbours",
    "multi_krum": "the mean of the models nearest to their neighbours",
    "nna": "the mean of the models nearest to the own one",
    "geometric_median": "the point with the least sum of distances",
    "centered_clip": "the own model and clipped differences from it",
    "cs_plus": "clipped differences with an adaptive radius",
    "balance": "the mean of what lies near enough to the own model",
}


class InsightApi:
    """`refused`: requests by error code at this instance."""

    def __init__(self, star: Star, refused: Callable[[], Mapping[str, int]]) -> None:
        self._star = star
        self._refused = refused

    def routes(self) -> list[Route]:
        seers = only(Role.OPERATOR, Role.AUDITOR, Role.VIEWER, Role.HUB)
        own = only(*Role, own="client_id")
        table = [
            Route("GET", f"{API}/clients", self.clients, seers, None, m.ClientList,
                  "All clients; a viewer sees those with its labels."),
            Route("GET", f"{API}/clients/{{client_id}}", self.client, own, None, m.ClientView,
                  "One client."),
            Route("GET", f"{API}/models", self.models, EVERYBODY, None, m.VersionList,
                  "Versions of the global model, the newest first.", query=m.ListQuery),
            Route("GET", f"{API}/models/{{version}}", self.version, INSIGHT, None, m.VersionView,
                  "One version, and whose updates it was made of."),
            Route("GET", f"{API}/convergence/history", self.history, EVERYBODY, None, m.History,
                  "What each merge did, the newest first.", query=m.ListQuery),
            Route("GET", f"{API}/aggregation/strategies", self.strategies, EVERYBODY, None,
                  o.StrategyList, "The rules that a policy may name, and the one in force."),
            Route("GET", f"{API}/security/status", self.security, INSIGHT, None,
                  o.SecurityStatus, "Who is shut out and why, and what was refused."),
            Route("GET", f"{API}/privacy/budget", self.budget, only(*Role), None, o.BudgetView,
                  "What was spent and what is left; a device sees its own.", refusals=(404,)),
        ]  # fmt: skip
        return [replace(route, tag=TAG) for route in table]

    # --- clients ---------------------------------------------------------------------------

    async def clients(self, hub: Any, call: Call) -> m.ClientList:
        async with self._star.database.transaction(write=False) as tx:
            found = await clients.all_of(tx)
            told, terms, _ = await self._terms(tx)
        seen = [client for client in found if call.caller.may_see(client.labels)]
        return m.ClientList([self._view(client, told, terms) for client in seen])

    async def client(self, hub: Any, call: Call) -> m.ClientView:
        async with self._star.database.transaction(write=False) as tx:
            found = await clients.get(tx, _id(call.path["client_id"]))
            told, terms, _ = await self._terms(tx)
        if found is None or not call.caller.may_see(found.labels):
            raise absent("there is no such client")
        return self._view(found, told, terms)

    async def _terms(self, tx: Any) -> tuple[Phase, Terms | None, Spec | None]:
        job = await self._star.job(tx)
        told = await phase(tx)
        if job is None:
            return told, None, None
        privacy = job.accepted.policy.privacy
        return told, terms_of(privacy), spec_of(privacy)

    def _view(self, client: Client, told: Phase, terms: Terms | None) -> m.ClientView:
        away_s = self._star.clock() - client.seen
        state, why = "live", ""
        if client.blocked:
            state, why = "blocked", client.blocked
        elif client.id.hex() in told.shut_out:
            state, why = "quarantined", told.shut_out[client.id.hex()]
        elif away_s > self._star.settings.live_s:
            state, why = "away", f"not seen for {away_s:.0f} s"
        return m.ClientView(
            client_id=client.id.hex(),
            name=client.name,
            state=state,
            why=why,
            labels=dict(client.labels),
            capability=dict(client.capability),
            registered=client.registered,
            seen=client.seen,
            updates=client.updates,
            seq=client.seq,
            epsilon_spent=None if terms is None else _finite(client.account.spent(terms)),
        )

    # --- versions --------------------------------------------------------------------------

    async def models(self, hub: Any, call: Call) -> m.VersionList:
        async with self._star.database.transaction(write=False) as tx:
            found = await books.versions(tx, call.query.limit, call.query.before)
        plain = [replace(v, details=structs.replace(v.details, merged=[])) for v in found]
        return m.VersionList([m.view(v) for v in plain])

    async def version(self, hub: Any, call: Call) -> m.VersionView:
        text = call.path["version"]
        number = int(text) if text.isascii() and text.isdigit() and len(text) < 16 else -1
        async with self._star.database.transaction(write=False) as tx:
            found = await books.version(tx, number)
        if found is None:
            raise absent(f"there is no version {text}")
        return m.view(found)

    async def history(self, hub: Any, call: Call) -> m.History:
        async with self._star.database.transaction(write=False) as tx:
            found = await books.versions(tx, call.query.limit, call.query.before)
        return m.History([_entry(v) for v in found if v.origin == "merge"])

    async def strategies(self, hub: Any, call: Call) -> o.StrategyList:
        async with self._star.database.transaction(write=False) as tx:
            job = await self._star.job(tx)
        views = [
            o.StrategyView(
                name,
                WORDS[name],
                name == "weighted_mean",
                bool(getattr(RULES[name], "needs_own", False)),
                least(name, 1) + 1,
            )
            for name in RULES
        ]
        current = job.accepted.policy.rule if job is not None else ""
        return o.StrategyList(current, list(STEPS), views)

    # --- security and privacy --------------------------------------------------------------

    async def security(self, hub: Any, call: Call) -> o.SecurityStatus:
        async with self._star.database.transaction(write=False) as tx:
            job = await self._star.job(tx)
            told = await phase(tx)
            found = await clients.all_of(tx)
        policy = job.accepted.policy if job is not None else None
        return o.SecurityStatus(
            attackers_assumed=policy.attackers if policy is not None else 0,
            rule=policy.rule if policy is not None else "",
            quarantined=told.shut_out,
            blocked={client.id.hex(): client.blocked for client in found if client.blocked},
            refused=dict(self._refused()),
        )

    async def budget(self, hub: Any, call: Call) -> o.BudgetView:
        caller = call.caller
        if caller.labels:
            raise forbidden("a viewer who is limited to labels sees no budgets")
        async with self._star.database.transaction(write=False) as tx:
            job = await self._star.job(tx)
            together = Account.load((await books.state(tx, "budget") or b"[]").decode())
            if caller.role is Role.DEVICE:
                mine = await clients.get(tx, _id(caller.subject))
                found = [] if mine is None else [mine]
            else:
                found = await clients.all_of(tx)
        if job is None:
            raise absent("no policy has been given to this hub")
        privacy, most = job.accepted.policy.privacy, self._star.settings.global_epsilon
        terms = terms_of(privacy)
        spent = None if terms is None or most is None else _finite(together.spent(terms))
        return o.BudgetView(
            mode=privacy.mode,
            unit=privacy.unit,
            epsilon=privacy.epsilon,
            delta=privacy.delta,
            z=privacy.z,
            global_epsilon=most,
            global_spent=spent,
            clients=[_budget(client, terms, spec_of(privacy)) for client in found],
        )


def _entry(version: Version) -> m.HistoryEntry:
    found = version.details
    return m.HistoryEntry(
        version=version.number,
        round=version.round,
        rule=found.rule,
        f=found.f,
        merged=len(found.merged),
        distance=found.distance,
        relative=found.relative,
        slope=found.slope,
        step=found.step,
        accuracy=found.accuracy,
        loss=found.loss,
        stopped=found.stopped,
        created=version.created,
    )


def _budget(client: Client, terms: Terms | None, spec: Spec) -> o.Budget:
    name, releases = client.id.hex(), client.account.releases
    if terms is None:
        return o.Budget(name, releases, None, None, 0)
    spent = _finite(client.account.spent(terms))
    left = None if spent is None else max(0.0, terms.epsilon - spent)
    return o.Budget(name, releases, spent, left, client.account.affordable(spec, terms))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _id(text: str) -> bytes:
    """A client's id from its hex. Raises Problem 404."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise absent("there is no such client") from None
