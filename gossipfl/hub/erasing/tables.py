"""Erasures that somebody has asked for and that are not through yet."""

from gossipfl.hub.database.migrations import Migration

MIGRATIONS = (
    Migration(
        1,
        "erasing",
        """
        -- `subject` and `asked_by` are NULL once all rows are deleted and only the store's files
        -- have to be written anew. The row goes last.
        CREATE TABLE erasures (mark {blob} PRIMARY KEY, subject {blob}, asked_by TEXT);
        """,
    ),
)
