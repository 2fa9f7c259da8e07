"""A simple honest model: it reads the fenced data of lcdoc's own prompts and answers from the words that stand there.

    server.default = Truthful()

It understands a request by its system message, whatever way the answer's shape is asked for. Sentences that share most
content words with the question are its quotes; it never makes one up unless told to.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from lcdoc.agents.models.model import Profile
from lcdoc.agents.prompts.fence import restored
from lcdoc.agents.prompts.templates import SKILLS, Skill, prompt
from lcdoc.agents.stems import stems_of
from lcdoc.retrieval.sentences import sentence_spans
from lcdoc.tests.servers.chat_server import Behaviour, Recorded, Reply, Status

_OPENING = re.compile(r"<data-([0-9a-f]{16})>")
_QUOTE = re.compile(r'^quote: "(.*)"$', re.MULTILINE)
_FORM_LINE = re.compile(r"^(\d+)\. (.+?) \(([^()]*)\)(?:: (.*))?$", re.MULTILINE)
_VALUES = {
    "number": r"\d[\d.,]*\d|\d",
    "whole number": r"\d[\d.,]*\d|\d",
    "date": r"\d{1,2} [A-Z][a-z]+ \d{4}",
    "text": r"[A-Z][\w-]+(?: [A-Z][\w-]+)*(?=\W*$)|(?<=[a-z] )[A-Z][\w-]+(?: [A-Z][\w-]+)*",
    "yes or no": r"\byes\b|\bno\b",
}
MADE_UP = "The harbour cat was appointed admiral for life."


@dataclass(frozen=True)
class Block:
    """A block of data as a request has it: its code, its header lines and its text."""

    code: str
    header: dict[str, str]
    text: str


def blocks_of(message: str) -> tuple[list[Block], str]:
    """The blocks of a user message, by the rule that the prompts state, and what stands outside of them.

    Raises ValueError for a block that is not closed.
    """
    blocks: list[Block] = []
    outside: list[str] = []
    lines: Iterator[str] = iter(message.split("\n"))
    for line in lines:
        opening = _OPENING.fullmatch(line)
        if opening is None:
            outside.append(line)
            continue
        content: list[str] = []
        for inner in lines:
            if inner == f"</data-{opening[1]}>":
                break
            content.append(inner)
        else:
            raise ValueError(f"the block {opening[1]} is not closed")
        head, _, text = "\n".join(content).partition("\n\n") if content[0] else ("", "", "\n".join(content[1:]))
        pairs = (entry.partition(": ") for entry in head.split("\n") if entry)
        blocks.append(Block(opening[1], {name: value for name, _, value in pairs}, text))
    return blocks, "\n".join(outside)


@dataclass
class Truthful:
    """Chooses the answer to each chat request; give it to `ChatServer.default`."""

    recall: float = 0.34
    """Share of the question's content words that a sentence must have to answer it."""
    false_quotes: float = 0.0
    """Share of readings that bring a quote which stands nowhere."""
    latency_s: float = 0.0
    fenced_json: bool = False
    """Whether it wraps its JSON in a Markdown fence and a sentence, as chatty models do."""
    seed: int = 0
    read: list[str] = field(default_factory=list)
    """The skills it was asked for, in order."""

    def __call__(self, recorded: Recorded) -> Behaviour:
        system, user = (message["content"] for message in recorded.body["messages"][:2])
        known = skill_of(system)
        if known is None:
            return Status(400, body={"error": {"message": "this is none of lcdoc's prompts"}})
        skill, _ = known
        self.read.append(skill)
        blocks, outside = blocks_of(user)
        asked = re.search(r"<question>\n(.*?)\n</question>", outside, re.DOTALL)
        answer = getattr(self, f"_{skill}")
        given = answer(blocks, asked[1] if asked else outside, random.Random(f"{self.seed} {user}"))
        text = json.dumps(given, ensure_ascii=False)
        if self.fenced_json:
            text = f"Here is what I found:\n```json\n{text}\n```\nLet me know if you need more."
        return Reply(text, first_s=self.latency_s)

    def _read(self, blocks: list[Block], question: str, chance: random.Random) -> dict[str, Any]:
        sentences = [
            sentence for block in blocks if "notes so far" not in block.header for sentence in _sentences(block.text)
        ]
        quotes = self._best(sentences, question, 3)
        if not quotes:
            return {"found": False, "quotes": [], "rationale": "", "claim": "", "confidence": 0}
        made_up = [MADE_UP] if chance.random() < self.false_quotes else []
        said = {"quotes": made_up + quotes, "rationale": "It is said there.", "claim": " ".join(quotes[0].split())}
        return {"found": True, **said, "confidence": 4}

    def _merge(self, blocks: list[Block], question: str, _: random.Random) -> dict[str, Any]:
        evidence = _evidence(blocks)
        kept = [number for number, quote in evidence.items() if self._share(quote, question) >= self.recall]
        kept.sort(key=lambda number: -self._share(evidence[number], question))
        claim = evidence[kept[0]] if kept else ""
        return {"found": bool(kept), "keep": kept, "claim": claim, "confidence": 4 if kept else 0}

    def _answer(self, blocks: list[Block], question: str, _: random.Random) -> dict[str, Any]:
        evidence = _evidence(blocks)
        best = self._best(list(evidence.values()), question, 1)
        numbers = {quote: number for number, quote in evidence.items()}
        return {"found": bool(best), "claims": [{"text": quote, "evidence": [numbers[quote]]} for quote in best]}

    def _direct(self, blocks: list[Block], question: str, chance: random.Random) -> dict[str, Any]:
        best = self._best([sentence for block in blocks for sentence in _sentences(block.text)], question, 1)
        made_up = [MADE_UP] if chance.random() < self.false_quotes else []
        claims = [{"quotes": [*made_up, one], "text": " ".join(one.split()), "confidence": 4} for one in best]
        return {"found": bool(best), "claims": claims}

    def _list(self, blocks: list[Block], question: str, _: random.Random) -> dict[str, Any]:
        best = self._best([sentence for block in blocks for sentence in _sentences(block.text)], question, 20)
        number = [one for one in best if re.search(r"\d", one)] if re.match(r"how many\b", question, re.I) else []
        stated = number[0] if number else ""
        items = [] if stated else [{"name": " ".join(one.split())[:40], "quote": one} for one in best]
        said = {"stated": " ".join(stated.split()), "stated_quote": stated, "items": items}
        return {"found": bool(best), **said, "confidence": 4 if best else 0}

    def _extract(self, blocks: list[Block], form: str, chance: random.Random) -> dict[str, Any]:
        """Each field from the sentence that has most of its words: what follows its name there, or the whole."""
        sentences = [sentence for block in blocks for sentence in _sentences(block.text)]
        entries = []
        for number, name, marks, about in _FORM_LINE.findall(form):
            best = self._best(sentences, f"{name} {about}", 20 if marks.endswith("all") else 1)
            made_up = chance.random() < self.false_quotes
            for one in best or [""]:
                quotes = [MADE_UP] if made_up else [one]
                value = value_in(one, name, marks)
                entry = {"field": int(number), "found": bool(value), "value": value, "confidence": 4}
                entries.append({**entry, "quotes": quotes, "quote": quotes[0]})
        return {"fields": entries}

    def _rows(self, blocks: list[Block], table: str, _: random.Random) -> dict[str, Any]:
        """A row for each sentence with most of the words that say what the rows are."""
        about, _, columns = table.partition("\nColumns:")
        sentences = [sentence for block in blocks for sentence in _sentences(block.text)]
        rows = []
        for one in self._best(sentences, about.removeprefix("Rows: "), 20):
            named = [
                (int(number), value_in(one, name, marks)) for number, name, marks, _ in _FORM_LINE.findall(columns)
            ]
            cells = [{"column": number, "value": value} for number, value in named if value]
            rows.append({"cells": cells, "quotes": [one]})
        return {"found": bool(rows), "rows": rows, "confidence": 4}

    def _summarize(self, blocks: list[Block], _task: str, _: random.Random) -> dict[str, Any]:
        first = [next(iter(_sentences(block.text)), "") for block in blocks]
        return {"points": [{"text": " ".join(one.split()), "quote": one} for one in first if one]}

    def _condense(self, blocks: list[Block], task: str, _: random.Random) -> dict[str, Any]:
        words = int((re.findall(r"at most (\d+) words", task) or ["60"])[0])
        points: list[dict[str, Any]] = []
        for block in blocks:
            words -= len(block.text.split())
            if words < 0 and points:
                break
            points.append({"text": block.text, "evidence": [int(block.header["point"])]})
        return {"points": points}

    def _choose(self, blocks: list[Block], question: str, _: random.Random) -> dict[str, Any]:
        options = {int(block.header["option"]): block.text for block in blocks if "option" in block.header}
        best = max(options, key=lambda number: self._share(options[number], question))
        share = self._share(options[best], question)
        reason = "It shares most words with the question."
        return {"reason": reason, "option": best if share else 0, "confidence": round(5 * share, 1)}

    def _judge(self, blocks: list[Block], question: str, _: random.Random) -> dict[str, Any]:
        text = "\n".join(block.text for block in blocks if "claim" not in block.header)
        supported, scores = [], {}
        for block in blocks:
            if "claim" in block.header:
                claim = block.text.partition("\n")[0]
                words = set(stems_of(claim))
                shown = set(stems_of(" ".join([text, *_QUOTE.findall(block.text)])))
                number = int(block.header["claim"])
                scores[number] = len(words & shown) / max(1, len(words)) + self._share(claim, question) / 10
                supported += [number] if words <= shown else []
        best = max(supported, key=scores.__getitem__, default=0)
        wrong = [number for number in scores if number not in supported] if supported else []
        judged = {"supported": supported, "contradicted": wrong, "best": best, "confidence": 4 if best else 1}
        return {"reason": "The words stand there, or they do not.", **judged}

    def _best(self, sentences: list[str], question: str, count: int) -> list[str]:
        shares = {sentence: self._share(sentence, question) for sentence in sentences}
        good = [sentence for sentence, share in shares.items() if share >= self.recall]
        return sorted(good, key=lambda sentence: -shares[sentence])[:count]

    def _share(self, text: str, question: str) -> float:
        wanted = set(stems_of(question))
        return len(wanted & set(stems_of(text))) / max(1, len(wanted))


def value_in(sentence: str, name: str, marks: str) -> str:
    """The words of a sentence that are of a field's kind, those right after the field's name if there are any."""
    kind = marks.removesuffix("; all")
    if kind.startswith("one of "):
        return next((one for one in re.findall(r'"(.*?)"', kind) if one.lower() in sentence.lower()), "")
    after = sentence.lower().find(name.lower()) + 1
    form = re.compile(_VALUES.get(kind, _VALUES["text"]))
    match = form.search(sentence, after) or form.search(sentence)
    return match[0] if match else ""


def skill_of(system: str) -> tuple[Skill, Profile] | None:
    """Which prompt a system message is of, whatever was added to its end."""
    profiles: tuple[Profile, ...] = ("small", "large")
    known: Iterator[tuple[Skill, Profile]] = ((skill, profile) for skill in SKILLS for profile in profiles)
    return next((one for one in known if system.startswith(prompt(*one).system)), None)


def answering(**by_skill: Any) -> Callable[[Recorded], Behaviour]:
    """A model that gives the same answer to every request of a skill, whatever it reads: for tests of what is checked.

    `answering(read={...}, answer="not JSON")`: JSON values, or text as it is.
    """

    def choose(recorded: Recorded) -> Behaviour:
        known = skill_of(recorded.body["messages"][0]["content"])
        given = by_skill[known[0]] if known else {}
        return Reply(given if isinstance(given, str) else json.dumps(given, ensure_ascii=False))

    return choose


def _sentences(text: str) -> list[str]:
    return [restored(span.of(text)) for span in sentence_spans(text)]


def _evidence(blocks: list[Block]) -> dict[int, str]:
    quoted = ((block.header.get("evidence"), _QUOTE.search(block.text)) for block in blocks)
    return {int(number): restored(quote[1]) for number, quote in quoted if number and quote}
