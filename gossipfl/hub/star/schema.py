"""The tables of star mode. Ids are hex, times seconds since the epoch."""

from __future__ import annotations

from gossipfl.hub.database.migrations import Migration

MIGRATIONS = (
    Migration(
        1,
        "star",
        """
CREATE TABLE star_clients (
    client TEXT NOT NULL PRIMARY KEY, key_id {blob} NOT NULL, name TEXT NOT NULL,
    capability TEXT NOT NULL, labels TEXT NOT NULL, registered BIGINT NOT NULL,
    proved BIGINT NOT NULL, seen BIGINT NOT NULL, seq BIGINT NOT NULL, updates BIGINT NOT NULL,
    spends TEXT NOT NULL, releases BIGINT NOT NULL, blocked TEXT NOT NULL);
CREATE TABLE star_codes (
    digest TEXT NOT NULL PRIMARY KEY, uses BIGINT NOT NULL, expires BIGINT NOT NULL,
    made_by TEXT NOT NULL);
CREATE TABLE star_policies (
    digest TEXT NOT NULL PRIMARY KEY, data {blob} NOT NULL, received BIGINT NOT NULL,
    given_by TEXT NOT NULL);
CREATE TABLE star_bundles (
    bundle TEXT NOT NULL PRIMARY KEY, digest TEXT NOT NULL, data {blob} NOT NULL,
    received BIGINT NOT NULL, given_by TEXT NOT NULL);
CREATE TABLE star_rounds (
    round BIGINT NOT NULL PRIMARY KEY, version BIGINT NOT NULL, policy TEXT NOT NULL,
    opened DOUBLE PRECISION NOT NULL, deadline DOUBLE PRECISION NOT NULL,
    needed BIGINT NOT NULL, faulty BIGINT NOT NULL, selected TEXT NOT NULL,
    closed BIGINT NOT NULL);
CREATE TABLE star_updates (
    client TEXT NOT NULL, round BIGINT NOT NULL, seq BIGINT NOT NULL, digest TEXT NOT NULL,
    envelope {blob} NOT NULL, body {blob}, bytes BIGINT NOT NULL, examples BIGINT NOT NULL,
    accepted DOUBLE PRECISION NOT NULL, PRIMARY KEY (client, round));
CREATE INDEX star_updates_round ON star_updates (round);
CREATE TABLE star_models (
    version BIGINT NOT NULL PRIMARY KEY, parent BIGINT NOT NULL, round BIGINT NOT NULL,
    run BIGINT NOT NULL, bundle TEXT NOT NULL, policy TEXT NOT NULL, origin TEXT NOT NULL,
    digest TEXT NOT NULL, bytes BIGINT NOT NULL, body {blob}, details TEXT NOT NULL,
    created DOUBLE PRECISION NOT NULL);
CREATE TABLE star_checkpoints (
    name TEXT NOT NULL PRIMARY KEY, version BIGINT NOT NULL, note TEXT NOT NULL,
    made_by TEXT NOT NULL, created BIGINT NOT NULL);
CREATE TABLE star_metrics (
    client TEXT NOT NULL, version BIGINT NOT NULL, accuracy DOUBLE PRECISION,
    loss DOUBLE PRECISION, examples BIGINT NOT NULL, details TEXT NOT NULL,
    received BIGINT NOT NULL, PRIMARY KEY (client, version));
CREATE INDEX star_metrics_version ON star_metrics (version);
CREATE TABLE star_faults (
    client TEXT NOT NULL, fault TEXT NOT NULL, times BIGINT NOT NULL,
    PRIMARY KEY (client, fault));
CREATE TABLE star_state (name TEXT NOT NULL PRIMARY KEY, data {blob} NOT NULL);
""",
    ),
    Migration(
        2,
        "star",
        """
ALTER TABLE star_codes ADD COLUMN labels TEXT NOT NULL DEFAULT '';
""",
    ),
)
