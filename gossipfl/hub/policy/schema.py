"""The tables of proposals and of what was issued here. Ids and digests are hex."""

from __future__ import annotations

from gossipfl.hub.database.migrations import Migration

MIGRATIONS = (
    Migration(
        1,
        "policy",
        """
CREATE TABLE policy_proposals (
    id TEXT NOT NULL PRIMARY KEY, payload {blob} NOT NULL, note TEXT NOT NULL,
    made_by TEXT NOT NULL, created BIGINT NOT NULL, state TEXT NOT NULL, policy TEXT NOT NULL);
CREATE TABLE policy_issued (
    digest TEXT NOT NULL PRIMARY KEY, data {blob} NOT NULL, term BIGINT NOT NULL,
    version BIGINT NOT NULL, given_by TEXT NOT NULL, received BIGINT NOT NULL);
""",
    ),
)
