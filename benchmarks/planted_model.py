"""A simulated model for planted documents: it answers from the facts in the text it is sent, and from nothing else.

    server.default = PlantedModel(recall=0.9, false_claims=0.05)

It plays every skill of lcdoc's prompts and keeps to what they say: at most six quotes; the claim covers the notes so
far and the passages; both sides of a contradiction; "not found" where evidence does not answer. Its faults can be set.
Questions of other forms are answered as `Truthful` answers them.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lcdoc.agents.prompts.fence import restored
from lcdoc.benchmarks.planted_documents import Asked, Fact, asked, facts_in, list_of_outages
from lcdoc.retrieval.sentences import sentence_spans
from lcdoc.tests.servers.chat_server import Behaviour, Recorded, Reply
from lcdoc.tests.servers.truthful import Block, Truthful

MOST_QUOTES = 6
_WRONG_VALUES = {
    "ledger": lambda rng: str(rng.randint(1000, 1999)),
    "outage": lambda rng: f"{rng.randint(1, 28)} May {rng.randint(1700, 1780)}",
    "keeper": lambda _: "Nobody Atall",
    "teacher": lambda _: "Nobody Atall",
    "birth": lambda _: "Nowhere",
    "bridge": lambda rng: str(rng.randint(1700, 1789)),
}
_SENTENCES = {
    "ledger": "The ledger of {subject} records {value} barrels.",
    "outage": "On {value} the lamp of {subject} went out.",
    "keeper": "The keeper of {subject} was {value}.",
    "teacher": "{subject} learnt the trade from {value}.",
    "birth": "{subject} was born in {value}.",
    "bridge": "The bridge of {subject} was finished in {value}.",
}


@dataclass
class PlantedModel(Truthful):
    """Truthful about planted facts, as far as its faults let it."""

    finds: float = 1.0
    """Share of the facts in a passage that a reading sees; which, depends on the fact and on what stands around it."""
    false_claims: float = 0.0
    """Share of readings that claim what is wrong: with a quote made up, with one that shows nothing of the kind, or
    misreading a right one."""
    believes: float = 0.0
    """Share of the conclusions without a quote that shows them that are believed by whoever merges or answers."""
    malformed: float = 0.0
    """Share of requests that get an answer broken off in the middle; whoever asks again for a whole one gets it."""
    _came: Counter[str] = field(default_factory=Counter)

    def __call__(self, recorded: Recorded) -> Behaviour:
        behaviour = super().__call__(recorded)
        sent = str(recorded.body["messages"])
        self._came[sent] += 1
        # A request made again is answered anew.
        chance = random.Random(f"{self.seed} {self._came[sent]} {sent}")
        again = any(message["role"] == "assistant" for message in recorded.body["messages"])
        if isinstance(behaviour, Reply) and not again and chance.random() < self.malformed:
            return replace(behaviour, text=behaviour.text[: len(behaviour.text) // 2])
        return behaviour

    # Reading

    def _read(self, blocks: list[Block], question: str, chance: random.Random) -> dict[str, Any]:
        wanted = asked(question)
        if wanted is None:
            return super()._read(blocks, question, chance)
        passages = [block for block in blocks if "notes so far" not in block.header]
        known = [fact for block in blocks if block not in passages for fact in facts_in(restored(block.text))]
        seen = [fact for block in passages for fact in self._seen(block)]
        steps = wanted.trace(list(dict.fromkeys([*known, *seen])))
        added = [fact for step in steps for fact in step if fact in seen and fact not in known]
        quotes = [fact.sentence for fact in added][:MOST_QUOTES]
        claim = _claim(wanted, steps)
        if chance.random() < self.false_claims:
            false = _false(wanted, steps, chance)
            shown = quotes or [chance.choice([false.sentence, _any_sentence(passages, chance)])]
            said = {"quotes": shown, "rationale": "It seems so.", "claim": _claim(wanted, [*steps[:-1], [false]])}
            return {"found": True, **said, "confidence": 4}
        if not added:
            return {"found": False, "quotes": [], "rationale": "", "claim": "", "confidence": 0}
        return {"found": True, "quotes": quotes, "rationale": "It says so.", "claim": claim, "confidence": 5}

    def _seen(self, block: Block) -> list[Fact]:
        text = restored(block.text)
        return [
            fact
            for fact in facts_in(text)
            if self.finds >= 1 or random.Random(f"{self.seed} {fact.sentence} {text}").random() < self.finds
        ]

    def _list(self, blocks: list[Block], question: str, chance: random.Random) -> dict[str, Any]:
        """What stands there by its value, each with its sentence; a single value is stated, not listed."""
        wanted = asked(question)
        facts = [] if wanted is None else wanted.trace([fact for block in blocks for fact in self._seen(block)])[-1]
        if wanted is not None and chance.random() < self.false_claims:
            false = _false(wanted, [], chance)
            shown = chance.choice([false.sentence, _any_sentence(blocks, chance)])
            facts = [*facts, Fact(false.form, false.subject, false.value, shown)]
        counted = wanted is not None and wanted.path[-1] == "outage"
        items = [{"name": fact.value, "detail": "", "quote": fact.sentence} for fact in facts] if counted else []
        stated = "" if counted or not facts else facts[0].sentence
        said = {"found": bool(facts), "stated": stated, "stated_quote": stated, "items": items}
        return {**said, "confidence": 5 if facts else 0}

    # Merging and answering

    def _merge(self, blocks: list[Block], question: str, chance: random.Random) -> dict[str, Any]:
        wanted = asked(question)
        if wanted is None:
            return super()._merge(blocks, question, chance)
        steps = wanted.trace(self._borne_out(blocks))
        needed = {fact for step in steps for fact in step}
        keep = [number for number, facts in _numbered(blocks).items() if needed & facts]
        return {"found": bool(needed), "keep": keep, "claim": _claim(wanted, steps), "confidence": 5 if needed else 0}

    def _answer(self, blocks: list[Block], question: str, chance: random.Random) -> dict[str, Any]:
        wanted = asked(question)
        if wanted is None:
            return super()._answer(blocks, question, chance)
        numbered = _numbered(blocks)
        claims = [
            {"text": text, "evidence": [number for number, shown in numbered.items() if shown & facts]}
            for text, facts in _statements(wanted, wanted.trace(self._borne_out(blocks)))
        ]
        return {"found": bool(claims), "claims": claims}

    def _direct(self, blocks: list[Block], question: str, chance: random.Random) -> dict[str, Any]:
        wanted = asked(question)
        if wanted is None:
            return super()._direct(blocks, question, chance)
        steps = wanted.trace([fact for block in blocks for fact in self._seen(block)])
        if chance.random() < self.false_claims:
            false = _false(wanted, steps, chance)
            shown = chance.choice([false.sentence, _any_sentence(blocks, chance)])
            return {"found": True, "claims": [{"quotes": [shown], "text": false.sentence, "confidence": 4}]}
        claims = [
            {
                "quotes": [fact.sentence for step in steps for fact in step if fact in facts][:MOST_QUOTES],
                "text": text,
                "confidence": 5,
            }
            for text, facts in _statements(wanted, steps)
        ]
        return {"found": bool(claims), "claims": claims}

    def _borne_out(self, blocks: Sequence[Block]) -> list[Fact]:
        """The facts in the quotes; lists of outages, since nobody quotes forty; and conclusions that are believed."""
        shown = [fact for facts in _numbered(blocks).values() for fact in facts]
        keys = {(fact.form, fact.subject) for fact in shown}
        concluded = [fact for block in blocks for fact in facts_in(restored(block.text)) if fact not in shown]
        believed = [
            fact
            for fact in concluded
            if fact.form == "outage"
            or ((fact.form, fact.subject) not in keys and random.Random(f"{self.seed} {fact}").random() < self.believes)
        ]
        return sorted(dict.fromkeys([*shown, *believed]), key=lambda fact: fact.sentence)

    # Judging

    def _judge(self, blocks: list[Block], question: str, chance: random.Random) -> dict[str, Any]:
        wanted = asked(question)
        if wanted is None:
            return super()._judge(blocks, question, chance)
        claims = {int(block.header["claim"]): block.text for block in blocks if "claim" in block.header}
        passages = [block for block in blocks if "claim" not in block.header]
        # Of a claim's block, the first line is the claim itself, which proves nothing.
        quotes = " ".join(text.partition("\n")[2] for text in claims.values())
        shown = [fact for block in passages for fact in self._seen(block)] + facts_in(restored(quotes))
        corrected = {(fact.form, fact.subject): fact for fact in shown if fact.corrected}
        supported, contradicted, replaced = [], [], []
        for number, text in claims.items():
            said = facts_in(restored(text.partition("\n")[0]))
            values = {(fact.form, fact.subject, fact.value) for fact in shown}
            right = {(fact.form, fact.subject): fact.value for fact in corrected.values()}
            if said and all((fact.form, fact.subject, fact.value) in values for fact in said):
                wrong = any(right.get((fact.form, fact.subject), fact.value) != fact.value for fact in said)
                (replaced if wrong else supported).append(number)
            elif any((fact.form, fact.subject) in {key[:2] for key in values} for fact in said):
                contradicted.append(number)
        best = max(supported, key=lambda number: ("as corrected" in claims[number], len(claims[number])), default=0)
        judged = {"supported": supported, "contradicted": [*contradicted, *replaced], "best": best}
        return {"reason": "The passages say so, or they do not.", **judged, "confidence": 5 if best else 1}

    # Summaries and choices

    def _summarize(self, blocks: list[Block], task: str, chance: random.Random) -> dict[str, Any]:
        """Facts first, as far as the words go, then how each passage begins."""
        words = _words_in(task)
        told = [fact.sentence for block in blocks for fact in self._seen(block)]
        told += [sentence for block in blocks for sentence in _sentences(block)[:1]]
        points = []
        for sentence in dict.fromkeys(told):
            words -= len(sentence.split())
            if words < 0 and points:
                break
            points.append({"text": " ".join(sentence.split()), "quote": sentence})
        return {"points": points}

    def _choose(self, blocks: list[Block], question: str, chance: random.Random) -> dict[str, Any]:
        wanted = asked(question)
        if wanted is None:
            return super()._choose(blocks, question, chance)
        options = {int(block.header["option"]): restored(block.text) for block in blocks if "option" in block.header}
        known = [fact for block in blocks if "option" not in block.header for fact in facts_in(restored(block.text))]
        done = {fact for step in wanted.trace(known) for fact in step}
        helpful = {
            number: len({fact for step in wanted.trace([*known, *facts_in(text)]) for fact in step} - done)
            for number, text in options.items()
        }
        best = max(helpful, key=lambda number: helpful[number])
        if not helpful[best]:
            # No summary says it: the one that names the place is as good as any.
            return super()._choose(blocks, question, chance)
        return {"reason": "It names what is asked for.", "option": best, "confidence": 4}


def _claim(wanted: Asked, steps: Sequence[Sequence[Fact]]) -> str:
    facts = [fact for step in steps for fact in step]
    if wanted.path[-1] == "outage" and facts:
        return list_of_outages(wanted.start, dict.fromkeys(fact.value for fact in facts))
    return " ".join(fact.sentence for fact in facts)


def _statements(wanted: Asked, steps: Sequence[Sequence[Fact]]) -> list[tuple[str, set[Fact]]]:
    """What answers, statement by statement, each with the facts it rests on; what corrects another comes first."""
    *way, last = steps
    passed = {fact for step in way for fact in step}
    if not last:
        return []
    if wanted.path[-1] == "outage":
        times = len({fact.value for fact in last})
        return [(f"The lamp of {wanted.start} went out {times} time{'s' * (times != 1)}.", set(last))]
    return [
        (fact.sentence if not way else f"{fact.subject}, it follows, was born in {fact.value}.", {fact, *passed})
        for fact in sorted(last, key=lambda fact: not fact.corrected)
    ]


def _false(wanted: Asked, steps: Sequence[Sequence[Fact]], chance: random.Random) -> Fact:
    """A wrong statement on the step of the path that is open, or on the last one."""
    subject, form = wanted.start, wanted.path[0]
    for step, following in zip(steps, wanted.path[1:], strict=False):
        if step:
            subject, form = step[0].value, following
    value = _WRONG_VALUES[form](chance)
    return Fact(form, subject, value, _SENTENCES[form].format(subject=subject, value=value))


def _numbered(blocks: Sequence[Block]) -> dict[int, set[Fact]]:
    """The facts in the quote of each numbered piece of evidence."""
    evidence = (block for block in blocks if "evidence" in block.header)
    return {int(block.header["evidence"]): {*facts_in(restored(block.text))} for block in evidence}


def _sentences(block: Block) -> list[str]:
    return [restored(span.of(block.text)) for span in sentence_spans(block.text)]


def _any_sentence(blocks: Sequence[Block], chance: random.Random) -> str:
    return chance.choice([sentence for block in blocks for sentence in _sentences(block)] or [""])


def _words_in(task: str) -> int:
    return next((int(word) for word in task.split() if word.isdigit()), 60)
