"""How much a node holds of everything that peers can fill, beside its bound."""

from __future__ import annotations

from gossipfl.core import Core
from gossipfl.groups.plan import GROUP_MAX
from gossipfl.groups.views import HELD_MAX
from gossipfl.policies import HISTORY_MAX
from gossipfl.rounds import INBOX_MAX
from gossipfl.sums.exchange import WISHED_MAX


def held(core: Core) -> dict[str, tuple[int, int]]:
    """(held, bound) by name. Nothing may be above its bound at any time."""
    limits, pulls, shelf = core.limits, core.pulls, core.shelf
    addresses = max((len(peer.addresses) for peer in core.book.peers.values()), default=0)
    return {
        "head requests out": (pulls.heads_out, limits.heads_out),
        "transfers out": (pulls.objects_out, limits.pulls_out),
        "transfers waiting": (pulls.queued, limits.pulls_queued),
        "masked vectors": (len(core.sums.exchange.vectors), GROUP_MAX * HELD_MAX),
        "objects of a sum": (core.sums.exchange.fetching, GROUP_MAX * WISHED_MAX),
        "updates in the inbox": (len(core.rounds.inbox), INBOX_MAX),
        "candidate addresses": (len(core.book.candidates), limits.candidates),
        "addresses of one peer": (addresses, limits.addresses_per_device),
        "chains": (core.chains.devices, limits.devices),
        "heads of one chain": (core.chains.longest, limits.chain),
        "bytes to serve": (shelf.held_bytes, limits.cache_bytes),
        "heads to serve": (shelf.heads, limits.devices),
        "members": (core.roster.size, limits.devices),
        "refused objects": (core.parcels.refused, limits.devices),
        "policies": (core.policies.size, HISTORY_MAX),
        "address records": (len(core.records), limits.devices),
    }
