"""How good an answer is, beside reference answers: exact match, token F1, ROUGE-L.

Exact match and F1 are those of the SQuAD scorers ("SQuAD: 100,000+ Questions for Machine Comprehension of Text", 2016;
"Know What You Don't Know", 2018), token for token: on published predictions they give the published figures. ROUGE-L is
the F-measure over the longest common subsequence ("ROUGE: A Package for Automatic Evaluation of Summaries", 2004), its
words split as the `rouge-score` package splits them, without stemming; letters beyond ASCII, which it drops, count too.

In all of them an empty `references` says that the question has no answer, and an empty `answer` that none was given.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_WORD = re.compile(r"[a-z0-9]+|[^\W_]+")


def normalised(text: str) -> str:
    """`text` as the SQuAD scorers compare it: lower case, without ASCII punctuation, articles and spare white space."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, references: Sequence[str]) -> float:
    """1 where the answer is one of the references once both are normalised, else 0."""
    return _best(answer, references, lambda one, other: float(normalised(one) == normalised(other)))


def token_f1(answer: str, references: Sequence[str]) -> float:
    """Harmonic mean of the precision and recall of words, for the reference that it is best for; 0 to 1."""
    return _best(answer, references, _token_f1)


def rouge_l(answer: str, references: Sequence[str]) -> float:
    """F-measure of the longest common subsequence of words, for the reference that it is best for; 0 to 1."""
    return _best(answer, references, _rouge_l)


def _best(answer: str, references: Sequence[str], measure: Callable[[str, str], float]) -> float:
    return max((measure(answer, reference) for reference in references), default=float(not normalised(answer)))


def _token_f1(answer: str, reference: str) -> float:
    given, wanted = normalised(answer).split(), normalised(reference).split()
    if not given or not wanted:
        return float(given == wanted)
    common = sum((Counter(given) & Counter(wanted)).values())
    if not common:
        return 0.0
    precision, recall = common / len(given), common / len(wanted)
    return 2 * precision * recall / (precision + recall)


def _rouge_l(answer: str, reference: str) -> float:
    given, wanted = _WORD.findall(answer.lower()), _WORD.findall(reference.lower())
    common = _common_subsequence(given, wanted)
    return 2 * common / (len(given) + len(wanted)) if common else 0.0


def _common_subsequence(one: Sequence[str], other: Sequence[str]) -> int:
    """Length of the longest sequence that is in both, in order, with gaps."""
    lengths = [0] * (len(other) + 1)
    for word in one:
        above_left = 0
        for place, candidate in enumerate(other, 1):
            above = lengths[place]
            lengths[place] = above_left + 1 if word == candidate else max(above, lengths[place - 1])
            above_left = above
    return lengths[-1]
