"""For how long somebody was at work, over any number of processes: time in which several were counts once, and time in
which nobody was does not.

Each process says when it begins and ends, and gives a sign of life in between. At each of these moments the time since
the last one is counted if somebody was at work. What a killed process did since its last sign is not counted, unless
others worked meanwhile; nor is the rest of a gap longer than any between two signs, such as a clock that was set makes.
"""

from __future__ import annotations

from typing import Final

from lcdoc.memory.store import Connection

LONGEST_GAP_S: Final = 60.0
"""Between two signs of life of a process that is at work, at most."""


def tick(connection: Connection, job: str, document: int, now: float, *, somebody: bool) -> float:
    """Count up to `now`: `somebody` was at work since the last time, or nobody was. All seconds counted so far.

    The caller has the job's claim.
    """
    row = connection.execute(
        "SELECT seconds, counted_to FROM work_clocks WHERE job = ? AND document = ?", (job, document)
    ).fetchone()
    seconds, counted_to = (0.0, now) if row is None else row
    if somebody:
        seconds += min(max(0.0, now - counted_to), LONGEST_GAP_S)
    connection.execute(
        "INSERT INTO work_clocks (job, document, seconds, counted_to) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (job, document) DO UPDATE SET seconds = excluded.seconds, counted_to = excluded.counted_to",
        (job, document, seconds, now),
    )
    return float(seconds)
