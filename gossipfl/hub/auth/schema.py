"""The tables of this area."""

from __future__ import annotations

from gossipfl.hub.database.migrations import Migration

MIGRATIONS = (
    Migration(
        1,
        "auth",
        """
CREATE TABLE auth_users (
    name TEXT NOT NULL PRIMARY KEY, role TEXT NOT NULL, labels TEXT NOT NULL,
    password TEXT NOT NULL, disabled BIGINT NOT NULL, created BIGINT NOT NULL);
CREATE TABLE auth_sessions (
    family TEXT NOT NULL PRIMARY KEY, subject TEXT NOT NULL, role TEXT NOT NULL,
    labels TEXT NOT NULL, secret TEXT NOT NULL, started BIGINT NOT NULL,
    expires BIGINT NOT NULL, ended TEXT NOT NULL);
CREATE INDEX auth_sessions_subject ON auth_sessions (subject);
CREATE TABLE auth_revocations (
    kind TEXT NOT NULL, value TEXT NOT NULL, at BIGINT NOT NULL, expires BIGINT NOT NULL,
    PRIMARY KEY (kind, value));
CREATE TABLE auth_links (
    digest TEXT NOT NULL PRIMARY KEY, subject TEXT NOT NULL, expires BIGINT NOT NULL);
""",
    ),
    Migration(
        2,
        "auth",
        """
DELETE FROM auth_sessions WHERE ended <> '';
ALTER TABLE auth_sessions ADD COLUMN last_secret TEXT NOT NULL DEFAULT '';
ALTER TABLE auth_sessions ADD COLUMN rotated BIGINT NOT NULL DEFAULT 0;
CREATE INDEX auth_sessions_expires ON auth_sessions (expires);
""",
    ),
)
