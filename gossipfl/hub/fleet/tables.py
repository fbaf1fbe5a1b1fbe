"""The tables of the hub's own node, and of what the recorder has followed."""

from gossipfl.hub.database.migrations import Migration

MIGRATIONS = (
    Migration(
        1,
        "fleet",
        """
        -- The state of the hub's own node: `gossipfl.durable` says what it is.
        CREATE TABLE node_own (
            id BIGINT PRIMARY KEY CHECK (id = 1), seq BIGINT NOT NULL, head {blob}, receipt {blob});
        INSERT INTO node_own (id, seq) VALUES (1, 0);
        CREATE TABLE node_objects (digest {blob} PRIMARY KEY, data {blob} NOT NULL);
        CREATE TABLE node_documents (name TEXT PRIMARY KEY, data {blob} NOT NULL);
        CREATE TABLE node_links (
            chain TEXT NOT NULL, number BIGINT NOT NULL, digest {blob} NOT NULL,
            PRIMARY KEY (chain, number));
        -- How far each device's receipts are in the log.
        CREATE TABLE fleet_chains (
            device {blob} PRIMARY KEY, number BIGINT NOT NULL, digest {blob} NOT NULL);
        -- What the node last saw of each device, for every instance of the hub to read.
        CREATE TABLE fleet_devices (
            device {blob} PRIMARY KEY, role TEXT NOT NULL, state TEXT NOT NULL, why TEXT NOT NULL,
            seq BIGINT NOT NULL, round BIGINT, receipts BIGINT NOT NULL, seen BIGINT NOT NULL,
            reputation DOUBLE PRECISION, head {blob}, address TEXT NOT NULL);
        """,
    ),
    Migration(
        2,
        "fleet",
        """
        -- What is written to see whether there is space again.
        CREATE TABLE hub_space (id BIGINT PRIMARY KEY, data {blob} NOT NULL);
        """,
    ),
)
