"""Which questions of a set are asked: some of each of many documents, the same every time."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import replace

from lcdoc.evaluation.cases import Reading

OF_EACH = 4
"""Questions of a document before the next document is taken: few enough that intervals are not all about one text, many
enough that a long document is not read for one question."""


def sampled(readings: Sequence[Reading], limit: int | None, *, seed: int = 0) -> list[Reading]:
    """`limit` questions: OF_EACH of each document, in an order drawn by `seed`, then OF_EACH more; None: all."""
    if limit is None:
        return list(readings)
    rng = random.Random(f"questions {seed}")
    drawn = [replace(reading, cases=tuple(rng.sample(reading.cases, len(reading.cases)))) for reading in readings]
    rng.shuffle(drawn)
    taken = [0] * len(drawn)
    left = limit
    while left and any(count < len(one.cases) for count, one in zip(taken, drawn, strict=True)):
        for place, reading in enumerate(drawn):
            more = min(OF_EACH, left, len(reading.cases) - taken[place])
            taken[place] += more
            left -= more
    return [replace(one, cases=one.cases[:count]) for one, count in zip(drawn, taken, strict=True) if count]


def digest_of(readings: Iterable[Reading]) -> str:
    """Names the questions, their answers and the evidence, so that an evaluation is gone on with only while they stay
    as they are."""
    asked = [
        [reading.name, case.id, case.question, case.references, case.pages, case.quotes]
        for reading in readings
        for case in reading.cases
    ]
    return hashlib.blake2b(json.dumps(asked).encode(), digest_size=8).hexdigest()
