"""What the small model learns from: lcdoc's own prompts about made-up facts, each with the answer that copies them.

A fact is a sentence of one of a few forms, in passages between sentences that say nothing. Prompts come from the code
that makes them for any model, in the `small` profile; answers are JSON of the skill's schema, whose quotes and claims
are the fact's sentence, character by character. Names are put together from syllables; a fifth of them is kept for
testing and never trained on.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from zlib import crc32

from lcdoc.agents.listing import LISTINGS
from lcdoc.agents.notes import Claim, Note, checked_note
from lcdoc.agents.prompts.blocks import Blocks
from lcdoc.agents.prompts.evidence import evidence_of
from lcdoc.agents.prompts.fence import Fence
from lcdoc.agents.prompts.schemas import (
    CHOICES,
    JUDGEMENTS,
    READINGS,
    Answering,
    Condensing,
    DirectAnswering,
    Merging,
    Summarizing,
)
from lcdoc.agents.prompts.templates import Skill, prompt
from lcdoc.agents.reader import Passage
from lcdoc.benchmarks.planted_documents import planted_document
from lcdoc.documents import Document, Page, Source, Span
from lcdoc.retrieval.sentences import sentence_spans

WEIGHTS: dict[Skill, float] = {
    "read": 0.36,
    "direct": 0.14,
    "answer": 0.16,
    "merge": 0.12,
    "list": 0.06,
    "summarize": 0.06,
    "choose": 0.05,
    "judge": 0.03,
    "condense": 0.02,
}
SCHEMAS = {
    "read": READINGS["small"],
    "direct": DirectAnswering,
    "answer": Answering,
    "merge": Merging,
    "list": LISTINGS["small"],
    "summarize": Summarizing,
    "choose": CHOICES["small"],
    "judge": JUDGEMENTS["small"],
    "condense": Condensing,
}
_ABSENT = 0.25
"""Share of the questions that the text does not answer."""
_CARRYING = 0.15
"""Share of the readings that have notes so far."""
_TESTED = 5
"""Of so many names one is kept for testing."""
_FILLER_DOCUMENTS = 12


def _words(text: str) -> list[str]:
    return text.split()


# Form: the sentence, the questions it answers, and what its subject and its value are.
_FORMS: tuple[tuple[str, tuple[str, ...], str, str], ...] = (
    ("The keeper of {s} was {v}.", ("Who was the keeper of {s}?", "Who kept the light of {s}?"), "place", "person"),
    (
        "The bridge of {s} was finished in {v}.",
        ("In which year was the bridge of {s} finished?", "When was the bridge of {s} finished?"),
        "place",
        "year",
    ),
    (
        "The ledger of {s} records {v} barrels.",
        ("What does the ledger of {s} record?", "How many barrels does the ledger of {s} record?"),
        "place and year",
        "number",
    ),
    ("The mill at {s} belonged to {v}.", ("To whom did the mill at {s} belong?",), "place", "person"),
    (
        "The tower of {s} is {v} metres high.",
        ("How high is the tower of {s}?", "How many metres high is the tower of {s}?"),
        "place",
        "number",
    ),
    ("{s} was founded in {v}.", ("When was {s} founded?", "In which year was {s} founded?"), "place", "year"),
    ("The inn of {s} was called the {v}.", ("What was the inn of {s} called?",), "place", "sign"),
    ("The fair of {s} was held in {v}.", ("When was the fair of {s} held?",), "place", "month"),
    ("On {v} the lamp of {s} went out.", ("When did the lamp of {s} go out?",), "place", "date"),
    (
        "{s} learnt the trade from {v}.",
        ("From whom did {s} learn the trade?", "Who was the teacher of {s}?"),
        "person",
        "person",
    ),
    ("{s} was born in {v}.", ("Where was {s} born?",), "person", "place"),
    ("{s} worked as a {v}.", ("What did {s} work as?", "What was the trade of {s}?"), "person", "trade"),
    ("{s} died in {v}.", ("When did {s} die?", "In which year did {s} die?"), "person", "year"),
    ("{s} was married to {v}.", ("To whom was {s} married?", "Whom did {s} marry?"), "person", "person"),
)
_COUNTED = _FORMS[8]
_MONTHS = _words("January February March April May June July August September October November December")
_TRADES = _words("cooper smith baker weaver pilot miller tanner clerk carter glazier mason teacher printer surveyor")
_COLOURS = _words("White Black Golden Red Blue Green Silver Old")
_BEASTS = _words("Swan Horse Lion Hart Anchor Bell Heron Fox Crown Plough")
_FIRST = _words(
    "Ada Amos Anna Berta Cecil Clara Conrad Dora Edgar Edith Elias Elsa Emil Esther Felix Flora Gerda Greta Hannah "
    "Harald Hilda Hugo Ida Ivo Jonas Josef Judith Karl Lena Leo Lydia Mara Martha Nora Oskar Paula Peter Ruben Ruth "
    "Selma Simon Sofia Thomas Ulla Viktor Wilma"
)
_ONSETS = _words("B Br C D Dr F G Gr H J K Kl L M N P Pr R S St T Th V W Tr")
_VOWELS = _words("a e i o u ea or al")
_CODAS = _words("m n l r s t ck nd rn ll x")
_ENDINGS = _words("bury by dale field ford gate ham holm hythe ley mere mouth ness ridge stead thorpe wick")


@dataclass(frozen=True, slots=True)
class Example:
    """What is sent, and what is to come back."""

    skill: Skill
    system: str
    user: str
    answer: str


@dataclass(frozen=True, slots=True)
class _Fact:
    form: int
    subject: str
    value: str

    @property
    def sentence(self) -> str:
        return _FORMS[self.form][0].format(s=self.subject, v=self.value)

    def question(self, rng: random.Random) -> str:
        return rng.choice(_FORMS[self.form][1]).format(s=self.subject)


class Examples:
    """Makes examples, the same ones from the same seed. `testing`: about the names that are kept for it."""

    def __init__(self, seed: int | str, *, testing: bool = False) -> None:
        self.rng = random.Random(f"small model {seed} {testing}")
        self._testing = testing
        self._most_others = 1
        self._filler, self._headings = _fillers(1 if testing else 0)

    def example(self, sentences: int, skill: Skill | None = None) -> Example:
        """One of `skill`, or of any by `WEIGHTS`, with about so many sentences of text."""
        rng = self.rng
        chosen = skill or rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        blocks = Blocks(Fence(rng.randbytes(16)))
        make: Callable[[Blocks, int], tuple[dict[str, str], dict[str, Any]]] = getattr(self, f"_{chosen}")
        self._most_others = max(1, sentences // 2)
        fields, answer = make(blocks, max(2, sentences))
        SCHEMAS[chosen].model_validate(answer)
        system, user = prompt(chosen, "small").messages(**fields)
        return Example(chosen, system.content, user.content, json.dumps(answer, ensure_ascii=False))

    def drill(self, facts: int) -> tuple[str, list[tuple[str, str]]]:
        """Facts in a row, then each asked for and repeated: a text, and pairs of what follows it, to be answered.

        They are of two forms, so that only the subject tells which is asked for; some are asked for and not there.
        """
        rng = self.rng
        forms = rng.sample(range(len(_FORMS)), 2)
        known = [self._fact(rng.choice(forms)) for _ in range(facts)]
        asked = [(fact, f'["{fact.sentence}"]') for fact in known]
        asked += [(self._fact(rng.choice(forms)), "[]") for _ in range(rng.choice([0, 0, 1, 2]))]
        rng.shuffle(asked)
        text = " ".join(fact.sentence for fact in known)
        return text, [(f"\n\n<question>\n{fact.question(rng)}\n</question>", answer) for fact, answer in asked]

    def questions(self, sentences: int, skill: Skill) -> list[Example]:
        """Many questions about one text, each of its facts asked for in every way, and some that are not there.

        For `read`, `direct`, `answer` and `merge`. All requests are alike up to the question.
        """
        rng = self.rng
        self._most_others = 4
        blocks = Blocks(Fence(rng.randbytes(16)))
        pool = [one for _ in range(4) for fact, others in [self._facts()] for one in (fact, *others)]
        shown = pool[: rng.randint(2, min(len(pool) - 1, 10))]
        absent = pool[len(shown) :][: 1 + len(shown) // 2]
        rng.shuffle(shown)
        if skill in ("read", "direct"):
            fields = {"passages": _shown(blocks, self._passages(shown, sentences)), "carried": self._carried(blocks)}
        else:
            shown = shown[:6]
            evidence = evidence_of([self._note([one], blocks=blocks) for one in shown])
            fields = {"evidence": blocks.evidence(evidence)}
        examples: list[Example] = []
        for fact in (*shown, *absent):
            number = shown.index(fact) + 1 if fact in shown else 0
            answer = json.dumps(_said(skill, fact, number), ensure_ascii=False)
            for question in _FORMS[fact.form][1]:
                messages = prompt(skill, "small").messages(**fields, question=question.format(s=fact.subject))
                examples.append(Example(skill, messages[0].content, messages[1].content, answer))
        return examples

    # Skills

    def _read(self, blocks: Blocks, sentences: int) -> tuple[dict[str, str], dict[str, Any]]:
        fact, others = self._facts()
        answered = self.rng.random() >= _ABSENT
        passages = self._passages([fact, *others] if answered else others, sentences)
        fields = {"passages": _shown(blocks, passages), "carried": self._carried(blocks)}
        return {**fields, "question": fact.question(self.rng)}, _said("read", fact, answered)

    def _direct(self, blocks: Blocks, sentences: int) -> tuple[dict[str, str], dict[str, Any]]:
        fact, others = self._facts()
        answered = self.rng.random() >= _ABSENT
        passages = self._passages([fact, *others] if answered else others, sentences)
        fields = {"passages": _shown(blocks, passages), "question": fact.question(self.rng)}
        return fields, _said("direct", fact, answered)

    def _answer(self, blocks: Blocks, _: int) -> tuple[dict[str, str], dict[str, Any]]:
        fields, fact, number = self._evidence(blocks)
        return fields, _said("answer", fact, number)

    def _merge(self, blocks: Blocks, _: int) -> tuple[dict[str, str], dict[str, Any]]:
        fields, fact, number = self._evidence(blocks)
        return fields, _said("merge", fact, number)

    def _list(self, blocks: Blocks, sentences: int) -> tuple[dict[str, str], dict[str, Any]]:
        rng = self.rng
        nothing = {"found": False, "stated": "", "stated_quote": "", "items": [], "confidence": 0}
        if rng.random() < 0.4:
            fact, others = self._facts(rng.choice([2, 4]))
            fields = {
                "passages": _shown(blocks, self._passages([fact, *others], sentences)),
                "question": _FORMS[fact.form][1][-1].format(s=fact.subject),
            }
            stated = {"stated": fact.sentence, "stated_quote": fact.sentence}
            return fields, {**nothing, **stated, "found": True, "confidence": 5}
        place, form = self._name("place"), _FORMS.index(_COUNTED)
        listed = [_Fact(form, place, self._name("date")) for _ in range(rng.choice([0, 1, 1, 2, 3]))]
        _, others = self._facts(form)
        passages = self._passages([*listed, *others], sentences)
        shown = " ".join(passage.text for passage in passages)
        listed.sort(key=lambda fact: shown.index(fact.sentence))
        fields = {
            "passages": _shown(blocks, passages),
            "question": f"How many times did the lamp of {place} go out?",
        }
        if not listed:
            return fields, nothing
        items = [{"name": fact.value, "quote": fact.sentence} for fact in listed]
        return fields, {**nothing, "found": True, "items": items, "confidence": 5}

    def _summarize(self, blocks: Blocks, sentences: int) -> tuple[dict[str, str], dict[str, Any]]:
        """The first sentence of each passage."""
        passages = self._passages(self._facts()[1], sentences)
        firsts = [next(span.of(passage.text) for span in sentence_spans(passage.text)) for passage in passages]
        fields = {"passages": _shown(blocks, passages), "words": str(self.rng.choice([60, 80, 100, 150, 200]))}
        return fields, {"points": [{"text": " ".join(first.split()), "quote": first} for first in firsts]}

    def _condense(self, blocks: Blocks, _: int) -> tuple[dict[str, str], dict[str, Any]]:
        """The first half of the points."""
        facts = [self._fact(self.rng.randrange(len(_FORMS))) for _ in range(self.rng.randint(2, 6))]
        kept = facts[: (len(facts) + 1) // 2]
        fields = {"points": blocks.numbered("point", [fact.sentence for fact in facts]), "words": "60"}
        return fields, {"points": [{"text": fact.sentence, "evidence": [n]} for n, fact in enumerate(kept, 1)]}

    def _choose(self, blocks: Blocks, _: int) -> tuple[dict[str, str], dict[str, Any]]:
        fact, others = self._facts()
        options = [fact, *others][: self.rng.randint(2, 5)]
        self.rng.shuffle(options)
        texts = [" ".join([*self.rng.choices(self._filler, k=self.rng.randint(0, 1)), one.sentence]) for one in options]
        trail = [self.rng.choice(self._filler)] if self.rng.random() < 0.3 else []
        fields = {
            "options": blocks.numbered("option", texts),
            "trail": blocks.read_before(trail),
            "question": fact.question(self.rng),
        }
        return fields, {"option": options.index(fact) + 1, "confidence": 4}

    def _judge(self, blocks: Blocks, sentences: int) -> tuple[dict[str, str], dict[str, Any]]:
        """Two claims of different values: the text has the one, and contradicts the other."""
        fact, others = self._facts()
        wrong = _Fact(fact.form, fact.subject, self._name(_FORMS[fact.form][3]))
        passages = self._passages([fact, *others], sentences)
        claims = [fact, wrong][: self.rng.randint(1, 2)]
        self.rng.shuffle(claims)
        made = [Claim(text=one.sentence, citations=self._note([one]).citations, confidence=5) for one in claims]
        fields = {
            "passages": _shown(blocks, passages),
            "claims": blocks.claims(made),
            "question": fact.question(self.rng),
        }
        right = claims.index(fact) + 1
        contradicted = [number for number in range(1, len(claims) + 1) if number != right]
        return fields, {"supported": [right], "contradicted": contradicted, "best": right, "confidence": 4}

    # Facts and texts

    def _facts(self, form: int | None = None) -> tuple[_Fact, list[_Fact]]:
        """A fact and others that are like it: of its form, of its subject, or of neither."""
        rng = self.rng
        fact = self._fact(rng.randrange(len(_FORMS)) if form is None else form)
        others = [self._fact(fact.form) for _ in range(rng.randint(0, 2))]
        alike = [one for one in range(len(_FORMS)) if _FORMS[one][2] == _FORMS[fact.form][2] and one != fact.form]
        for one in rng.sample(alike, rng.randint(0, min(2, len(alike)))):
            others.append(_Fact(one, fact.subject, self._name(_FORMS[one][3])))
        if _FORMS[fact.form][2] == "place and year" and rng.random() < 0.5:
            place, _, year = fact.subject.partition(" for ")
            others.append(_Fact(fact.form, f"{place} for {int(year) + 1}", self._name("number")))
        others += [self._fact(rng.randrange(len(_FORMS))) for _ in range(rng.randint(1, 3))]
        rng.shuffle(others)
        return fact, others[: self._most_others]

    def _fact(self, form: int) -> _Fact:
        _, _, subject, value = _FORMS[form]
        return _Fact(form, self._name(subject), self._name(value))

    def _name(self, kind: str) -> str:
        rng = self.rng
        simple: dict[str, Callable[[], str]] = {
            "year": lambda: str(rng.randint(1790, 1899)),
            "number": lambda: str(rng.randint(11, 999)),
            "month": lambda: rng.choice(_MONTHS),
            "date": lambda: f"{rng.randint(1, 28)} {rng.choice(_MONTHS)} {rng.randint(1790, 1899)}",
            "trade": lambda: rng.choice(_TRADES),
            "sign": lambda: f"{rng.choice(_COLOURS)} {rng.choice(_BEASTS)}",
            "place and year": lambda: f"{self._name('place')} for {self._name('year')}",
        }
        if kind in simple:
            return simple[kind]()
        while True:
            name = rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS)
            if kind == "place" or rng.random() < 0.3:
                name += rng.choice(_ENDINGS)
            if (crc32(name.encode()) % _TESTED == 0) is self._testing:
                return name if kind == "place" else f"{rng.choice(_FIRST)} {name}"

    def _passages(self, facts: Sequence[_Fact], sentences: int) -> list[Passage]:
        """One to four passages of a document, the facts anywhere among sentences without any."""
        rng = self.rng
        lines = [fact.sentence for fact in facts]
        lines += rng.choices(self._filler, k=max(0, sentences - len(lines)))
        rng.shuffle(lines)
        count = rng.randint(1, max(1, min(4, len(lines) // 3)))
        ends = [*sorted(rng.sample(range(1, len(lines)), count - 1)), len(lines)]
        texts = [_paragraphs(lines[start:end], rng) for start, end in zip([0, *ends], ends, strict=False)]
        document, spans = self._document(texts)
        headings = [(rng.choice(self._headings),) if rng.random() < 0.5 else () for _ in texts]
        return [Passage(document, span, heading) for span, heading in zip(spans, headings, strict=True)]

    def _document(self, texts: Sequence[str]) -> tuple[Document, list[Span]]:
        text, spans = "", []
        for one in texts:
            spans.append(Span(len(text), len(text) + len(one)))
            text += f"{one}\n\n"
        name = f"{self.rng.choice(['planted', 'chronicle', 'letters', 'county', 'report'])}-{self.rng.randint(0, 99)}"
        source = Source(f"{name}.txt", "text/plain", len(text), name, "small", "1", "0" * 32)
        return Document.create(text, (Page(1, "1", 0, len(text)),), (), source), spans

    def _note(self, facts: Sequence[_Fact], *, blocks: Blocks | None = None) -> Note:
        """What a reading of these facts would have noted."""
        lines = [fact.sentence for fact in facts]
        document, (span,) = self._document([" ".join([*lines, self.rng.choice(self._filler)])])
        if blocks is not None:
            blocks.introduce(document)
        return checked_note([(document, span)], found=True, quotes=lines, claim=" ".join(lines), confidence=5)

    def _carried(self, blocks: Blocks) -> str:
        """Notes so far about something else, or mostly none."""
        if self.rng.random() >= _CARRYING:
            return ""
        known, more = self._facts()
        return blocks.carried(self._note([known, *more[:1]][: self.rng.randint(1, 2)]))

    def _evidence(self, blocks: Blocks) -> tuple[dict[str, str], _Fact, int]:
        """Numbered evidence, the fact that a question is about, and its number; 0 where it is not there."""
        fact, others = self._facts()
        noted = [fact, *others][: self.rng.randint(1, 5)]
        if self.rng.random() < _ABSENT:
            noted = noted[1:] or others[:1]
        self.rng.shuffle(noted)
        evidence = evidence_of([self._note([one], blocks=blocks) for one in noted])
        fields = {"evidence": blocks.evidence(evidence), "question": fact.question(self.rng)}
        return fields, fact, noted.index(fact) + 1 if fact in noted else 0


def _said(skill: Skill, fact: _Fact, number: int) -> dict[str, Any]:
    """The answer by `fact`, which is evidence `number`; 0 where it is not there."""
    said, found = fact.sentence, bool(number)
    sure = 5 if found else 0
    match skill:
        case "read":
            return {"found": found, "quotes": [said] * found, "claim": said * found, "confidence": sure}
        case "direct":
            return {"found": found, "claims": [{"quotes": [said], "text": said, "confidence": sure}] * found}
        case "answer":
            return {"found": found, "claims": [{"text": said, "evidence": [number]}] * found}
        case _:
            return {"found": found, "keep": [number] * found, "claim": said * found, "confidence": sure}


def _shown(blocks: Blocks, passages: Sequence[Passage]) -> str:
    return "\n\n".join(map(blocks.passage, passages))


def _paragraphs(sentences: Sequence[str], rng: random.Random) -> str:
    text = sentences[0]
    for sentence in sentences[1:]:
        text += ("\n\n" if rng.random() < 0.1 else " ") + sentence
    return text


@cache
def _fillers(first_seed: int) -> tuple[list[str], list[str]]:
    """Sentences that say nothing, and headings, of planted documents in which nothing is planted."""
    sentences: list[str] = []
    headings: set[str] = set()
    for seed in range(first_seed, 2 * _FILLER_DOCUMENTS, 2):
        document = planted_document(6, each=0, seed=seed).document
        headings |= {section.title for section in document.sections}
        found = (" ".join(span.of(document.text).split()) for span in sentence_spans(document.text))
        sentences += [sentence for sentence in found if sentence.endswith(".") and not sentence[0].isdigit()]
    return sentences, sorted(headings)
