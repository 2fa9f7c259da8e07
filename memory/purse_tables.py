"""The tables of what jobs may still spend, in SQLite's words.

What has been released is not edited: a change is a step of its own in `lcdoc.memory.migrations`.
"""

from __future__ import annotations

PURSES: tuple[str, ...] = (
    # What each process has spent, and holds back for calls under way: it alone writes its rows. `document` is 0 for the
    # job as a whole; `owner` is empty in the row that adds up processes that are gone. `working`: it is at it.
    """
    CREATE TABLE purses (
        job TEXT NOT NULL,
        document INTEGER NOT NULL,
        owner TEXT NOT NULL,
        cost INTEGER NOT NULL DEFAULT 0,
        tokens INTEGER NOT NULL DEFAULT 0,
        calls INTEGER NOT NULL DEFAULT 0,
        held_cost INTEGER NOT NULL DEFAULT 0,
        held_tokens INTEGER NOT NULL DEFAULT 0,
        held_calls INTEGER NOT NULL DEFAULT 0,
        working INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (job, document, owner)
    ) WITHOUT ROWID""",
    # When each process last gave a sign of life.
    """
    CREATE TABLE purse_owners (
        job TEXT NOT NULL,
        owner TEXT NOT NULL,
        beat_at REAL NOT NULL,
        PRIMARY KEY (job, owner)
    ) WITHOUT ROWID""",
    # For how long somebody was at work, counted up to the moment `counted_to`.
    """
    CREATE TABLE work_clocks (
        job TEXT NOT NULL,
        document INTEGER NOT NULL,
        seconds REAL NOT NULL,
        counted_to REAL NOT NULL,
        PRIMARY KEY (job, document)
    ) WITHOUT ROWID""",
)
