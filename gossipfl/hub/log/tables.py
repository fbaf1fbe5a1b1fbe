"""The log's tables."""

from gossipfl.hub.database.migrations import Migration

MIGRATIONS = (
    Migration(
        1,
        "log",
        """
        -- One row per entry, in the order of staging. `position` is NULL until it is in the tree;
        -- `data` and `subject` are the side store, and NULL once erased.
        CREATE TABLE log_entries (
            id {id},
            dedupe {blob} NOT NULL UNIQUE,
            kind BIGINT NOT NULL,
            time BIGINT NOT NULL,
            subject {blob},
            data {blob},
            position BIGINT UNIQUE,
            entry {blob});
        CREATE INDEX log_staged ON log_entries (id) WHERE position IS NULL;
        CREATE INDEX log_subjects ON log_entries (subject, kind, position);
        CREATE TABLE log_salts (subject {blob} PRIMARY KEY, salt {blob} NOT NULL);
        -- The widest form of each tile: narrower ones are its beginning.
        CREATE TABLE log_tiles (
            level BIGINT NOT NULL, number BIGINT NOT NULL, data {blob} NOT NULL,
            PRIMARY KEY (level, number));
        CREATE TABLE log_checkpoints (
            number BIGINT PRIMARY KEY, size BIGINT NOT NULL, note {blob} NOT NULL);
        CREATE TABLE log_cosignatures (
            number BIGINT NOT NULL REFERENCES log_checkpoints (number),
            name TEXT NOT NULL, key_id {blob} NOT NULL, blob {blob} NOT NULL,
            PRIMARY KEY (number, name));
        """,
    ),
    Migration(
        2,
        "log",
        """
        -- Which object of the hub's node shows a checkpoint to devices.
        CREATE TABLE log_objects (number BIGINT PRIMARY KEY, digest {blob} NOT NULL UNIQUE);
        """,
    ),
)
