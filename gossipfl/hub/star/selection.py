"""Who takes part in a round of star mode.

How many, and how many of them are assumed to lie, comes from the exact bound that nodes use
(`aggregation.plan`). Whom, is drawn: reputation lowers a client's chance as it does among peers,
and so do slowness and many turns of late; nobody's chance is nil who is not in quarantine.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import median

from gossipfl.aggregation import fits, plan
from gossipfl.hub.star.values import Client
from gossipfl.messages import Policy
from gossipfl.pulls import weighted_sample
from gossipfl.reputation import Reputation

SELECTED_MAX = 1_024  # guess: at 40 kB an update, 80 MB while a round is merged
SLOWEST = 0.25  # guess: a slow client still has a quarter of the chance
FAIREST = 0.1  # guess: who had ten turns more than the least has a tenth of the chance


def chances(
    clients: Sequence[Client],
    reputation: Reputation,
    train_s: Mapping[bytes, float],
    now: float,
) -> list[float]:
    """One chance 0 to 1 per client. `train_s`: seconds that its last training took, if it said."""
    typical = median(train_s.values()) if train_s else 0.0
    least = min((client.updates for client in clients), default=0)
    found = []
    for client in clients:
        took = train_s.get(client.id, typical)
        speed = min(1.0, typical / took) if took > 0.0 else 1.0
        turns = 1.0 / (1 + client.updates - least)
        found.append(reputation.weight(client.id, now) * max(SLOWEST, speed) * max(FAIREST, turns))
    return found


def select(
    policy: Policy,
    clients: Sequence[Client],
    reputation: Reputation,
    train_s: Mapping[bytes, float],
    now: float,
    entropy: random.Random,
) -> tuple[list[bytes], int]:
    """Ids of who takes part, and f. All of `clients` are live; who is shut out has no chance."""
    chance = chances(clients, reputation, train_s, now)
    live = sum(value > 0.0 for value in chance)
    if not live:
        return [], 0
    attackers = min(policy.attackers, live)
    size, f = plan(live + 1, attackers, partial(fits, policy.rule), policy.sample, policy.f)
    ids = [client.id for client in clients]
    return sorted(weighted_sample(ids, chance, min(size, SELECTED_MAX), entropy)), f
