"""Questions made from text by rule, which the span reader reads before those that people asked.

A sentence loses a name, a number, a date or a few words, and becomes a question; its passage holds what it lost, or no
longer does. Three kinds: the passage has the sentence; it lacks the sentence and has the answer elsewhere; it lacks
both, or the question asks of somebody else. None of them is a good question, but they teach to look for what is not in
the question, near what is, and of the right kind.

Source: "Unsupervised Question Answering by Cloze Translation" (the passage's own sentence, as a noisy cloze); "Few-Shot
Question Answering by Pretraining Span Selection" (what recurs in a passage); "Know What You Don't Know: Unanswerable
Questions for SQuAD" (another name in a question's place).
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lcdoc.agents.stems import STOP_WORDS
from lcdoc.benchmarks.reader_cases import DATA
from lcdoc.benchmarks.span_batches import Example, Texts, token_span
from lcdoc.benchmarks.span_examples import TRAINED, readings
from lcdoc.documents.text import normalise
from lcdoc.retrieval.sentences import sentence_spans

EACH = 4
"""Questions made from a passage."""
BOOK_PASSAGES = 300
"""Of each book, at most."""
_PASSAGE_WORDS = 140
_LEAST_CHARACTERS = 250

_NAME = re.compile(r"[A-Z][\w’'-]*\w(?:\s(?:(?:of|the|de|von|van|and|for)\s)?[A-Z][\w’'-]*\w)*")
_DATE = re.compile(
    r"(?:\d{1,2}(?:st|nd|rd|th)?\s)?(?:January|February|March|April|May|June|July|August|September|October|November|"
    r"December)(?:\s\d{1,2}(?:st|nd|rd|th)?\b)?(?:,?\s\d{4}\b)?|\b1[0-9]{3}s?\b|\b20[0-2][0-9]\b"
)
_NUMBER = re.compile(
    r"[$£€]?\b\d[\d,.]*\d\b%?|\b\d\b|\b(?:two|three|four|five|six|seven|eight|nine|ten|twelve|hundred)\b"
)
_WORD = re.compile(r"[\w’'-]+")
_CLAUSE = re.compile(r"\b(?:because|in order to|so that|by|to|due to|as a result of)\s(?:[\w’'-]+\s){2,8}[\w’'-]+")
_ASKED: dict[str, tuple[str, ...]] = {
    "date": ("when", "when", "what year", "in what year", "what date"),
    "number": ("how many", "how much", "what number of", "how many"),
    "name": ("who", "what", "which", "where", "who", "what"),
    "words": ("what", "what", "what", "which", "what kind of", "what type of"),
    "clause": ("why", "how", "why", "for what reason"),
}
_SHARES = {"date": 0.11, "number": 0.13, "name": 0.31, "words": 0.36, "clause": 0.09}


@dataclass(frozen=True, slots=True)
class Cloze:
    """A question, a passage, and where in it the answer stands: nowhere, where the passage does not answer."""

    question: str
    passage: str
    places: tuple[tuple[int, int], ...]


def passages(seed: int) -> list[str]:
    """Passages of the documents that are trained on, and of books, each once, in an order of their own."""
    found: dict[str, None] = {}
    for reading in readings(TRAINED):
        if reading.part == "train":
            found.update(dict.fromkeys(text for text in reading.passages if len(text) >= _LEAST_CHARACTERS))
    rng = random.Random(f"passages {seed}")
    for path in sorted((DATA / "books/txt").glob("*.txt")):
        own = book_passages(path)
        found.update(dict.fromkeys(rng.sample(own, min(BOOK_PASSAGES, len(own)))))
    ordered = list(found)
    rng.shuffle(ordered)
    return ordered


def book_passages(path: Path) -> list[str]:
    """Some hundred words each, whole paragraphs; without what Project Gutenberg writes before and after."""
    text = normalise(path.read_text(encoding="utf-8", errors="replace"))
    text = re.split(r"\*\*\* ?START OF [^\n]*\n", text)[-1]
    text = re.split(r"\*\*\* ?END OF ", text)[0]
    made, current = [], ""
    for paragraph in re.split(r"\n\s*\n", text):
        current = f"{current} {' '.join(paragraph.split())}".strip()
        if len(current.split()) >= _PASSAGE_WORDS:
            made.append(" ".join(current.split()[: 2 * _PASSAGE_WORDS]))
            current = ""
    return made


def clozes_of(passage: str, others: Sequence[str], rng: random.Random) -> Iterator[Cloze]:
    """Up to `EACH` questions about a passage; `others` are names and numbers that stand elsewhere."""
    sentences = [span for span in sentence_spans(passage, 0, len(passage)) if 40 < span.end - span.start < 500]
    for span in rng.sample(sentences, min(EACH, len(sentences))):
        sentence = span.of(passage)
        places = answers_in(sentence)
        kinds = [kind for kind in _SHARES if places[kind]]
        if not kinds:
            continue
        kind = rng.choices(kinds, [_SHARES[kind] for kind in kinds])[0]
        start, end = rng.choice(places[kind])
        answer = sentence[start:end]
        question = question_of(sentence, start, end, kind, rng)
        if len(question.split()) < 6:
            continue
        rest = f"{passage[: span.start].rstrip()} {passage[span.end :].lstrip()}".strip()
        elsewhere = whole_words(answer, rest)
        draw = rng.random()
        if elsewhere and draw < 0.7:
            yield Cloze(question, rest, elsewhere)
        elif draw > 0.93 and not elsewhere and len(rest) > 150:
            yield Cloze(question, rest, ())
        elif draw > 0.83 and (other := _of_another(question, passage, others, rng)):
            yield Cloze(other, passage, ())
        else:
            yield Cloze(question, passage, ((span.start + start, span.start + end),))


def answers_in(sentence: str) -> dict[str, list[tuple[int, int]]]:
    """Spans of a sentence that could be asked for, by kind."""
    dates = [match.span() for match in _DATE.finditer(sentence)]
    numbers = [match.span() for match in _NUMBER.finditer(sentence) if not _meets(match.span(), dates)]
    names = [
        match.span()
        for match in _NAME.finditer(sentence)
        if not _meets(match.span(), dates)
        and match.group().lower() not in STOP_WORDS
        and (match.start() > 0 or " " in match.group())
    ]
    runs: list[list[re.Match[str]]] = [[]]
    for word in _WORD.finditer(sentence):
        meets = runs[-1] and sentence[runs[-1][-1].end() : word.start()] != " "
        if word.group().lower() in STOP_WORDS or meets or len(runs[-1]) == 4:
            runs.append([])
        if word.group().lower() not in STOP_WORDS:
            runs[-1].append(word)
    words = [
        (run[0].start(), run[-1].end())
        for run in runs
        if run and len(run[-1].group()) > 3 and not run[-1].group().endswith("ly")
    ]
    clauses = [match.span() for match in _CLAUSE.finditer(sentence)]
    return {"date": dates, "number": numbers, "name": names, "words": words, "clause": clauses}


def question_of(sentence: str, start: int, end: int, kind: str, rng: random.Random) -> str:
    """The sentence, or what stands around the answer, with a question's words in the answer's place or in front."""
    before, after = sentence[:start].split(), sentence[end:].strip(" .!?").split()
    near = rng.randint(5, 14)
    cut_before, cut_after = before[-near:], after[: rng.randint(4, near)]
    # A clause ends where a comma does, more often than not.
    for index in range(len(cut_before) - 2, 0, -1):
        if cut_before[index - 1][-1] in ",;:" and rng.random() < 0.6:
            cut_before = cut_before[index:]
            break
    for index, word in enumerate(cut_after[:-1]):
        if word[-1] in ",;:" and index > 2 and rng.random() < 0.6:
            cut_after = cut_after[: index + 1]
            break
    lost = rng.choice((0.0, 0.1, 0.2))
    cut_before, cut_after = ([word for word in part if rng.random() >= lost] for part in (cut_before, cut_after))
    asked = rng.choice(_ASKED[kind])
    form = rng.random()
    if form < 0.4:
        words = [*cut_before, asked, *cut_after]
    elif form < 0.7:
        words = [asked, *cut_after, *cut_before]
    else:
        words = [asked, *cut_before, *cut_after]
    return re.sub(r"[,;:“”\"()]", "", " ".join(words)) + "?"


def _of_another(question: str, passage: str, others: Sequence[str], rng: random.Random) -> str | None:
    """The question with a name, a date or a number of its own exchanged for one that the passage does not have."""
    own = [match for pattern in (_NAME, _DATE, _NUMBER) for match in pattern.finditer(question)]
    if not own:
        return None
    match = rng.choice(own)
    alike = [other for other in rng.sample(others, min(40, len(others))) if other[0].isdigit() == match[0][0].isdigit()]
    other = next((other for other in alike if other not in passage), None)
    return None if other is None else question[: match.start()] + other + question[match.end() :]


def whole_words(answer: str, text: str) -> tuple[tuple[int, int], ...]:
    return tuple(match.span() for match in re.finditer(rf"(?<!\w){re.escape(answer)}(?!\w)", text))


def _meets(span: tuple[int, int], others: Sequence[tuple[int, int]]) -> bool:
    return any(span[0] < end and start < span[1] for start, end in others)


def examples_of_clozes(texts: Texts, seed: int) -> Iterator[Example]:
    """The clozes of all passages, as the network reads them. Passages of more than one window are cut to the first."""
    rng = random.Random(f"clozes {seed}")
    chosen = passages(seed)
    others = list(
        {match.group() for text in chosen[:3_000] for one in (_NAME, _NUMBER) for match in one.finditer(text)}
    )
    others.sort()
    for passage in chosen:
        for cloze in clozes_of(passage, others, rng):
            windows = texts.windows_of(cloze.passage)
            if not windows:
                continue
            found = Counter(
                place for span in cloze.places if (place := token_span(texts.windows[windows[0]][0], *span)) is not None
            )
            if found or not cloze.places:
                places = tuple((first, last, count / found.total()) for (first, last), count in found.items())
                yield Example(texts.question(cloze.question), windows[0], places, (), "cloze")
