"""A fact planted in natural text, at several depths of several lengths: who finds it where?

"Lost in the Middle: How Language Models Use Long Contexts" (2023) moves the passage that answers; here a sentence that
no book has is moved through one text. Every place gets a fact of its own, so that no answer can be carried over.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import accumulate

from lcdoc.evaluation.cases import Case, Reading, document_of
from lcdoc.evaluation.errors import EvaluationError
from lcdoc.retrieval.sentences import sentence_spans
from lcdoc.retrieval.tokens import estimate_each

LENGTHS = (2_000, 8_000, 32_000)
"""Tokens, as lcdoc estimates them."""
DEPTHS = (0, 25, 50, 75, 100)
"""Percent of the text that stands before the fact."""
_PLACES = (
    "Avonmere", "Brackwell", "Caldersund", "Dunholt", "Eskerford", "Fennick", "Garrowby", "Hexdale", "Ivelstone",
    "Jarrowick", "Kelbrook", "Lorncastle", "Marrowgate", "Nethercombe", "Oxlade", "Pellworth", "Quenby", "Rushmoor",
    "Stavely", "Tornquist",
)  # fmt: skip


def needles(
    text: str, *, lengths: Sequence[int] = LENGTHS, depths: Sequence[int] = DEPTHS, each: int = 1, seed: int = 0
) -> Iterator[Reading]:
    """For each length and depth, `each` documents that begin as `text` does, with a fact planted between two sentences.

    The id of a case is `length/depth/number`. Raises EvaluationError where the text is too short.
    """
    text = text.strip()
    spans = sentence_spans(text)
    ends = list(accumulate(estimate_each([span.of(text) for span in spans])))
    total = ends[-1] if ends else 0
    for length in lengths:
        if length > total:
            problem = f"the text has about {total:,} tokens, fewer than the {length:,} asked for"
            raise EvaluationError(problem, "take a longer --text, or shorter --lengths")
        kept = sum(end <= length for end in ends)
        for depth in depths:
            before = sum(end * 100 <= depth * length for end in ends[:kept])
            for number in range(each):
                rng = random.Random(f"{seed} {length} {depth} {number}")
                place, code = rng.choice(_PLACES), rng.randrange(100_000, 1_000_000)
                fact = f"The vault of {place} station opens with the code {code}."
                cut = spans[before].start if before < len(spans) else len(text)
                end = spans[kept].start if kept < len(spans) else len(text)
                planted = f"{text[:cut]}{fact} {text[cut:end]}"
                identity = f"{length}/{depth}/{number}"
                case = Case(
                    identity, f"With which code does the vault of {place} station open?", (str(code),), quotes=(fact,)
                )
                yield Reading(identity, (case,), partial(document_of, f"text with a fact, {identity}", [planted]))
