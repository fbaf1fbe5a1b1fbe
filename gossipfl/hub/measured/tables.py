"""The table of what was measured."""

from gossipfl.hub.database.migrations import Migration

MIGRATIONS = (
    Migration(
        1,
        "measured",
        """
        -- Quantiles over devices of the accuracy of their published models, one row a look.
        CREATE TABLE measured (
            time BIGINT PRIMARY KEY, models BIGINT NOT NULL, low DOUBLE PRECISION NOT NULL,
            middle DOUBLE PRECISION NOT NULL, high DOUBLE PRECISION NOT NULL,
            merged DOUBLE PRECISION, disagreement DOUBLE PRECISION);
        """,
    ),
)
"""`merged` is of the merge of them all, `low` and `high` are p10 and p90, `disagreement` has no
unit: see `measuring`."""
