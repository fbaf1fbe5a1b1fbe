"""What the next head of our own names."""

from __future__ import annotations

from gossipfl.core import Core
from gossipfl.keeper import Keeper
from gossipfl.messages import UpdateRef
from gossipfl.ownchain import Refs


def next_refs(core: Core, keeper: Keeper, update: UpdateRef | None) -> Refs:
    """As of now. Lists are stored with the head that names them."""
    newest, keep = core.policies.newest(), keeper.list
    return Refs(
        member=core.me.digest,
        lineage=core.job.lineage,
        update=update,
        receipts=core.own.receipts,
        ledger=core.budget.ref,
        policy=newest.digest if newest else None,
        revocations=keep("revocations", core.roster.listing()),
        evidence=keep("evidence", core.evidence_listing()),
        peers=keep("peers", core.addresses.listing()),
        pruned=keep("pruned", keeper.markers()),
        **core.witnessing.refs(keep),
        capability=core.settings.capability,
        group=core.sums.ref,
        declined=core.trial.told,
    )
