"""What a round merges under group sums: one mean of each other group, that of this window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gossipfl.groups.across import agreed_mean
from gossipfl.rounds import Received


def means(
    groups: Sequence[tuple[bytes, ...]], inbox: Mapping[bytes, Received], window: int
) -> list[Received]:
    """For each group the mean that more of its members name than may lie, by the first of them.

    Older means are left out: with groups drawn anew in each window, one attacker could have spoilt
    one of them in each, more than the rule was told of.
    """
    found = []
    for members in groups:
        here = {d: inbox[d] for d in members if d in inbox and inbox[d].label == window}
        name = agreed_mean({device: entry.update for device, entry in here.items()}, members)
        if name is not None:
            found.append(next(entry for entry in here.values() if entry.update == name))
    return found
