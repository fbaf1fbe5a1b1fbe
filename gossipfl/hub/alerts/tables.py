"""The tables of alerts. Times are whole seconds since 1970."""

from __future__ import annotations

from gossipfl.hub.database.migrations import Migration

MIGRATIONS = (
    Migration(
        1,
        "alerts",
        """
        -- One row per incident. `fired` is NULL while it has not held for long enough, `gone` since
        -- when it no longer holds, `resolved` when that had lasted for long enough.
        CREATE TABLE alerts (
            id TEXT NOT NULL PRIMARY KEY, kind TEXT NOT NULL, subject TEXT NOT NULL,
            level TEXT NOT NULL, title TEXT NOT NULL, words TEXT NOT NULL, link TEXT NOT NULL,
            began BIGINT NOT NULL, fired BIGINT, gone BIGINT, resolved BIGINT,
            acknowledged BIGINT, acknowledged_by TEXT NOT NULL);
        CREATE UNIQUE INDEX alerts_open ON alerts (kind, subject) WHERE resolved IS NULL;
        CREATE INDEX alerts_ended ON alerts (resolved);
        -- What is to be sent, written with the change that it tells of. `state` is one of waiting,
        -- sent, given up.
        CREATE TABLE alert_messages (
            id {id}, alert TEXT NOT NULL, event TEXT NOT NULL, channel TEXT NOT NULL,
            body TEXT NOT NULL, made BIGINT NOT NULL, due BIGINT NOT NULL, tries BIGINT NOT NULL,
            problem TEXT NOT NULL, state TEXT NOT NULL, UNIQUE (alert, event, channel));
        CREATE INDEX alert_messages_waiting ON alert_messages (channel, id)
            WHERE state = 'waiting';
        -- What an instance that does not evaluate sees of itself.
        CREATE TABLE alert_reports (
            instance TEXT NOT NULL, kind TEXT NOT NULL, subject TEXT NOT NULL, level TEXT NOT NULL,
            title TEXT NOT NULL, words TEXT NOT NULL, time BIGINT NOT NULL,
            PRIMARY KEY (instance, kind, subject));
        """,
    ),
)
