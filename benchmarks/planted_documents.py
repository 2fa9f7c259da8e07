"""Long documents of plausible filler with facts planted in them, and questions whose answers are known.

A fact is one sentence of a known form that ties a subject to a value. Every question follows a path of forms from a
subject: one step for a needle, a count or a contradiction, two to four for a chain, whose later steps share no word
with the question. Facts of the same forms about other subjects are planted beside them. Everything follows from a seed.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from lcdoc.documents import Document, Page, Source
from lcdoc.documents.document import Section

Kind = Literal["needle", "count", "chain", "backward chain", "conflict", "absent"]
KINDS: tuple[Kind, ...] = ("needle", "count", "chain", "backward chain", "conflict", "absent")
PAGE_CHARACTERS = 2_000
CORRECTED = ", as corrected in the county survey"

_PLACE = r"[A-Z][a-z]+"
_PERSON = r"[A-Z][a-z]+ [A-Z][a-z]+"
_DATE = r"\d{1,2} [A-Z][a-z]+ \d{4}"
_FORMS = {
    "ledger": rf"The ledger of (?P<ledger_s>{_PLACE} for \d{{4}}) records (?P<ledger_v>\d+) barrels\.",
    "outage": rf"On (?P<outage_v>{_DATE}) the lamp of (?P<outage_s>{_PLACE}) went out\.",
    "keeper": rf"The keeper of (?P<keeper_s>{_PLACE}) was (?P<keeper_v>{_PERSON})\.",
    "teacher": rf"(?P<teacher_s>{_PERSON}) learnt the trade from (?P<teacher_v>{_PERSON})\.",
    "birth": rf"(?P<birth_s>{_PERSON}) was born in (?P<birth_v>{_PLACE})\.",
    "bridge": rf"The bridge of (?P<bridge_s>{_PLACE}) was finished in (?P<bridge_v>\d{{4}})(?:{CORRECTED})?\.",
}
_FACT = re.compile("|".join(f"(?P<{form}>{pattern})" for form, pattern in _FORMS.items()))
_LISTED = re.compile(rf"The lamp of ({_PLACE}) went out (\d+) times?: ((?:{_DATE}(?:; )?)+)")
_QUESTIONS = (
    (re.compile(rf"What does the ledger of ({_PLACE} for \d{{4}}) record\?"), ("ledger",)),
    (re.compile(rf"How many times did the lamp of ({_PLACE}) go out\?"), ("outage",)),
    (re.compile(rf"In which year was the bridge of ({_PLACE}) finished\?"), ("bridge",)),
)
_CHAIN = re.compile(rf"Where was (?P<teachers>(?:the teacher of )*)the keeper of (?P<start>{_PLACE}) born\?")


@dataclass(frozen=True, slots=True)
class Fact:
    """What a sentence of a known form says."""

    form: str
    subject: str
    value: str
    sentence: str

    @property
    def corrected(self) -> bool:
        """Whether it says that it replaces another."""
        return CORRECTED in self.sentence


@dataclass(frozen=True, slots=True)
class Asked:
    """A question as a path of forms from a subject."""

    path: tuple[str, ...]
    start: str

    def trace(self, facts: Sequence[Fact]) -> list[list[Fact]]:
        """For each step of the path, the facts that lead on from the step before; empty from where they end."""
        steps: list[list[Fact]] = []
        reached = {self.start}
        for form in self.path:
            steps.append([fact for fact in facts if fact.form == form and fact.subject in reached])
            reached = {fact.value for fact in steps[-1]}
        return steps


@dataclass(frozen=True, slots=True)
class Planted:
    """A question with what a right answer says, what it must not say, and the sentences it rests on, in its order."""

    kind: Kind
    question: str
    expected: str
    wrong: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlantedDocument:
    """A document and its questions."""

    document: Document
    questions: tuple[Planted, ...]


def asked(question: str) -> Asked | None:
    """The path of `question`; None for a question of none of the known forms."""
    for pattern, path in _QUESTIONS:
        if match := pattern.search(question):
            return Asked(path, match[1])
    if match := _CHAIN.search(question):
        teachers = match["teachers"].count("teacher")
        return Asked(("keeper", *("teacher",) * teachers, "birth"), match["start"])
    return None


def facts_in(text: str) -> list[Fact]:
    """The facts that stand in `text`, in order; each date of a list of outages is one of its own."""
    text = " ".join(text.split())
    return list(dict.fromkeys([*_said(text), *_listed(text)]))


def _said(text: str) -> Iterator[Fact]:
    for match in _FACT.finditer(text):
        form = str(match.lastgroup).partition("_")[0]
        yield Fact(form, match[f"{form}_s"], match[f"{form}_v"], match[form])


def _listed(text: str) -> Iterator[Fact]:
    for match in _LISTED.finditer(text):
        yield from (outage(match[1], date) for date in re.findall(_DATE, match[3]))


def list_of_outages(place: str, dates: Iterable[str]) -> str:
    """A statement of how often a lamp went out, with all dates; `facts_in` reads it."""
    dates = list(dates)
    return f"The lamp of {place} went out {len(dates)} time{'s' * (len(dates) != 1)}: {'; '.join(dates)}."


def ledger(place: str, year: int, barrels: int) -> Fact:
    subject = f"{place} for {year}"
    return Fact("ledger", subject, str(barrels), f"The ledger of {subject} records {barrels} barrels.")


def outage(place: str, date: str) -> Fact:
    return Fact("outage", place, date, f"On {date} the lamp of {place} went out.")


def keeper(place: str, person: str) -> Fact:
    return Fact("keeper", place, person, f"The keeper of {place} was {person}.")


def teacher(person: str, other: str) -> Fact:
    return Fact("teacher", person, other, f"{person} learnt the trade from {other}.")


def birth(person: str, place: str) -> Fact:
    return Fact("birth", person, place, f"{person} was born in {place}.")


def bridge(place: str, year: int, *, corrected: bool = False) -> Fact:
    said = f"The bridge of {place} was finished in {year}{CORRECTED if corrected else ''}."
    return Fact("bridge", place, str(year), said)


# --- filler ----------------------------------------------------------------------------------------------------------


def _either(text: str) -> list[str]:
    """What stands between the bars, each on one line."""
    return [" ".join(part.split()) for part in text.split("|")]


_FIRST = _either("""Ada|Amos|Anna|Barnaby|Berta|Cecil|Clara|Conrad|Dora|Edgar|Edith|Elias|Elsa|Emil|Esther|Felix|Flora|
Gerda|Gideon|Greta|Hannah|Harald|Hilda|Hugo|Ida|Ivo|Jonas|Josef|Judith|Karl|Lena|Leo|Lydia|Mara|Martha|Matthias|Nora|
Oskar|Paula|Peter|Rahel|Ruben|Ruth|Selma|Simon|Sofia|Thomas|Ulla|Viktor|Wilma""")
_LAST = _either("""Ahlberg|Amsel|Barrow|Birch|Brandt|Carver|Clough|Dahl|Drake|Eckert|Falk|Farrow|Finch|Frost|Garth|Gray|
Hale|Hartog|Heron|Holt|Jarrow|Keel|Kern|Kessel|Lark|Lind|Lorne|Marsh|Moor|Nagel|Oakes|Olsen|Pike|Quist|Rauch|Reed|Rook|
Sander|Stark|Stone|Thorn|Tolle|Tranter|Vane|Voss|Wade|Wick|Winter|Wolff|Yarrow""")
_ONSETS = _either(
    "Alder|Bram|Cald|Dorn|Elm|Fen|Garn|Hal|Iver|Kel|Lang|Mal|Nor|Oxen|Pell|Quar|Ros|Sten|Thur|Ulm|Var|Wex"
)
_ENDINGS = _either("bury|by|dale|field|ford|gate|ham|holm|hythe|keld|ley|mere|mouth|ness|ridge|stead|thorpe|wick")
_MONTHS = _either("January|February|March|April|May|June|July|August|September|October|November|December")
_WHO = _either("""the harbour master|the widow at the toll house|an old pilot|the miller's son|two clerks of the board|
the new curate|a buyer from the north|the rope makers|the surveyor|three of the fishermen|the schoolmistress|the
carrier""")
_DID = _either("""complained about the price of tar|walked the whole shore before noon|counted the sheep twice|asked for
a second opinion|said little and wrote everything down|went home by the upper road|lent a horse to the brickworks|would
not sign until the rain had stopped|took the matter to the council|bought timber for the winter|found the gate open and
the yard empty|spoke at length about the drains""")
_WHEN = _either("""In the wet spring of that year|A week after the fair|Before the harvest was in|On most market days|
Towards evening|When the ice went|During the long quarrel over the common|At low water|Not long after the flood|In the
third winter|While the church was being roofed|As soon as the road was dry""")
_WHERE = _either("""on the road to {place}|near the old quay of {place}|in the parish of {place}|beyond the marshes of
{place}|at the inn of {place}|between {place} and {other}|in the register of {place}|by the ferry at {place}""")
_REMARKS = _either("""Nobody thought much of it at the time.|The accounts for these years are incomplete.|Opinions
differed, and still do.|What became of the papers is another story.|Such things were common then.|The weather had the
last word, as it usually had.|It cost more than anyone would admit.|A copy was sent to the county and came back with
remarks.|The older maps show it on the wrong side of the river.|Prices rose again before the leaves fell.|There was talk
of a railway, and later of a second one.|No one who saw it forgot the smell.""")
_TITLES = _either("""The Shore|Rents and Tithes|The Upper Parishes|Roads|Of Fish and Salt|The Bad Winters|Schools|The
Board and its Quarrels|Timber|Letters Received|The Marsh Enclosed|Wages|Pilots and Wreckers|The Mills|Inventories|What
Remains""")


class _Filler:
    """Sentences without facts, and names that are given out once."""

    def __init__(self, seed: str) -> None:
        self.rng = random.Random(seed)
        places = [onset + ending for onset in _ONSETS for ending in _ENDINGS]
        people = [f"{first} {last}" for first in _FIRST for last in _LAST]
        self.places: Iterator[str] = iter(self.rng.sample(places, len(places)))
        self.people: Iterator[str] = iter(self.rng.sample(people, len(people)))
        self._mentioned = self.rng.sample(places, 60)

    def sentence(self) -> str:
        rng = self.rng
        if rng.random() < 0.25:
            return rng.choice(_REMARKS)
        place, other = rng.sample(self._mentioned, 2)
        where = rng.choice(_WHERE).format(place=place, other=other)
        return f"{rng.choice(_WHEN)} {rng.choice(_WHO)} {rng.choice(_DID)} {where}."

    def date(self) -> str:
        return f"{self.rng.randint(1, 28)} {self.rng.choice(_MONTHS)} {self.rng.randint(1790, 1890)}"


# --- planting --------------------------------------------------------------------------------------------------------


class _Garden:
    """What is planted where: sentences by page, and the questions about them."""

    def __init__(self, filler: _Filler, pages: int) -> None:
        self.filler, self.pages, self.rng = filler, pages, filler.rng
        self.sentences: dict[int, list[str]] = {}
        self.questions: list[Planted] = []

    def plant(self, fact: Fact, page: int) -> None:
        self.sentences.setdefault(page, []).append(fact.sentence)

    def anywhere(self, *facts: Fact) -> None:
        for fact in facts:
            self.plant(fact, self.rng.randrange(self.pages))

    def apart(self, count: int) -> list[int]:
        """Pages in order, one from each of `count` equal stretches of the document."""
        return [int((index + self.rng.random()) * self.pages / count) for index in range(count)]

    def needle(self) -> None:
        place, other = next(self.filler.places), next(self.filler.places)
        year = self.rng.randint(1800, 1880)
        values = self.rng.sample(range(100, 999), 3)
        fact = ledger(place, year, values[0])
        self.anywhere(fact, ledger(place, year + 1, values[1]), ledger(other, year, values[2]))
        wrong = tuple(map(str, values[1:]))
        self._ask("needle", f"What does the ledger of {place} for {year} record?", fact.value, wrong, [fact])

    def count(self, times: int) -> None:
        place, other = next(self.filler.places), next(self.filler.places)
        dates = list(dict.fromkeys(self.filler.date() for _ in range(2 * times)))[: times + times // 2]
        facts = [outage(place, date) for date in dates[:times]]
        for fact, page in zip(facts, self.apart(times), strict=True):
            self.plant(fact, page)
        self.anywhere(*(outage(other, date) for date in dates[times:]))
        self._ask("count", f"How many times did the lamp of {place} go out?", str(times), (), facts)

    def chain(self, hops: int, *, backward: bool = False) -> None:
        place, town = next(self.filler.places), next(self.filler.places)
        people = [next(self.filler.people) for _ in range(hops - 1)]
        facts = [keeper(place, people[0])]
        facts += [teacher(one, other) for one, other in pairwise(people)]
        facts.append(birth(people[-1], town))
        pages = self.apart(hops)
        for fact, page in zip(facts, reversed(pages) if backward else pages, strict=True):
            self.plant(fact, page)
        strangers = [next(self.filler.people) for _ in range(3)]
        elsewhere = [next(self.filler.places) for _ in range(2)]
        self.anywhere(
            keeper(elsewhere[0], strangers[0]),
            teacher(strangers[0], strangers[1]),
            *(birth(person, elsewhere[1]) for person in [*people[:-1], *strangers]),
        )
        teachers = "the teacher of " * (hops - 2)
        kind: Kind = "backward chain" if backward else "chain"
        self._ask(kind, f"Where was {teachers}the keeper of {place} born?", town, (elsewhere[1],), facts)

    def conflict(self, *, corrected_first: bool) -> None:
        place = next(self.filler.places)
        wrong, right = sorted(self.rng.sample(range(1800, 1890), 2), reverse=corrected_first)
        facts = [bridge(place, right, corrected=True), bridge(place, wrong)]
        first, _, last = self.apart(3)
        for fact, page in zip(facts if corrected_first else reversed(facts), (first, last), strict=True):
            self.plant(fact, page)
        question = f"In which year was the bridge of {place} finished?"
        self._ask("conflict", question, str(right), (str(wrong),), facts[:1])

    def absent(self) -> None:
        """About a ledger that is not there, with one of the same place and another year."""
        place, year = next(self.filler.places), self.rng.randint(1800, 1880)
        self.anywhere(ledger(place, year + 3, self.rng.randint(100, 999)))
        self._ask("absent", f"What does the ledger of {place} for {year} record?", "", (), [])

    def _ask(self, kind: Kind, question: str, expected: str, wrong: tuple[str, ...], facts: list[Fact]) -> None:
        self.questions.append(Planted(kind, question, expected, wrong, tuple(fact.sentence for fact in facts)))


def planted_document(pages: int, *, each: int = 3, seed: int = 0, most_counted: int = 40) -> PlantedDocument:
    """A document of `pages` pages with `each` questions of every kind; counts run from 7 to `most_counted`."""
    filler = _Filler(f"planted {seed} {pages}")
    garden = _Garden(filler, pages)
    for number in range(each):
        garden.needle()
        garden.count(7 + round((most_counted - 7) * number / max(1, each - 1)))
        garden.chain(2 + number % 3)
        garden.chain(2 + number % 3, backward=True)
        garden.conflict(corrected_first=bool(number % 2))
        garden.absent()
    return PlantedDocument(_written(garden, f"planted-{seed}-{pages}"), tuple(garden.questions))


def _written(garden: _Garden, name: str) -> Document:
    text, pages = "", []
    sections: list[tuple[str, int]] = []
    every = max(1, garden.pages // 12)
    parts: list[str] = []
    length = 0
    for number in range(garden.pages):
        start = length
        if number % every == 0:
            title = f"{len(sections) + 1} {_TITLES[len(sections) % len(_TITLES)]}"
            sections.append((title, length))
            parts.append(f"{title}\n\n")
            length += len(parts[-1])
        parts.append(_page(garden, number))
        length += len(parts[-1])
        pages.append(Page(number + 1, str(number + 1), start, length))
    text = "".join(parts)
    ends = [start for _, start in sections[1:]] + [length]
    outline = tuple(Section(title, 1, start, end) for (title, start), end in zip(sections, ends, strict=True))
    source = Source(f"{name}.txt", "text/plain", len(text), name, "planted", "1", "0" * 32)
    return Document.create(text, tuple(pages), outline, source)


def _page(garden: _Garden, number: int) -> str:
    sentences: list[str] = []
    while sum(map(len, sentences)) < PAGE_CHARACTERS:
        sentences.append(garden.filler.sentence())
    for fact in garden.sentences.get(number, ()):
        sentences.insert(garden.rng.randrange(1, len(sentences)), fact)
    size = -(-len(sentences) // 4)
    return "".join(" ".join(sentences[start : start + size]) + "\n\n" for start in range(0, len(sentences), size))
