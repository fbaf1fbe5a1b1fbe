"""What the hub itself has to say in its log: JSON that names nobody but by pseudonym.

Whom an entry is about stands beside its payload and goes with an erasure. So a payload never names
that one: side by side, an id and a pseudonym would say in every export whose pseudonym it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from gossipfl.audit.entries import EntryKind
from gossipfl.hub import pseudonyms
from gossipfl.hub.database import Transaction
from gossipfl.hub.log.drafts import Draft, stage

VALUE_CHARS_MAX = 400  # a reason that a person typed

Said = Mapping[str, str | int | float | bool | None]


async def say(
    transaction: Transaction,
    kind: EntryKind,
    what: Said,
    now: int,
    *,
    about: bytes,
    by: bytes | None = None,
    key: str | None = None,
) -> None:
    """Stage one entry in this writing transaction.

    what: "action" and values that name nobody. about: 16 bytes, a device id or `account_subject`.
    by: who did it, if that is somebody else; it is named by pseudonym. key: as `Draft.key`: what
    strangers can cause is logged at most once under a key that bounds it.
    """
    told = {k: v[:VALUE_CHARS_MAX] if isinstance(v, str) else v for k, v in what.items()}
    if by is not None and by != about:
        told["by"] = (await pseudonyms.within(transaction, [by]))[by]
    data = json.dumps(told, sort_keys=True, separators=(",", ":")).encode()
    await stage(transaction, [Draft(kind, about, data, now, key)])
