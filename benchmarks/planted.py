"""Whether workflows find what was planted in long documents, what they take for it, and whether their plans say so.

    python benchmarks/planted.py [--pages 200] [--each 3] [--workflows retrieve,chain] [--faults none,some]

A simulated model (`planted_model.py`) with a short window answers from what it is sent, over real HTTP. With faults it
overlooks a tenth of the facts in each reading, and makes false claims in a twentieth. `direct` is given a window that
takes the whole document. Right means: the value is in a claim with a checked quote, and no wrong one is; a
contradiction is to be settled for the side that says it corrects the other; what is absent is to be "not found".
Calls, tokens and seconds are means for a question; the server answers after --latency seconds, eight at once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from types import TracebackType

from lcdoc.agents.models.call_store import StoreMode
from lcdoc.agents.models.config import Config, ModelEntry
from lcdoc.agents.models.model import ModelSpec, Server
from lcdoc.agents.notes import Claim
from lcdoc.benchmarks.planted_documents import KINDS, Planted, PlantedDocument, planted_document
from lcdoc.benchmarks.planted_model import PlantedModel
from lcdoc.documents import Document
from lcdoc.memory import Library
from lcdoc.retrieval.chunker import Chunker
from lcdoc.retrieval.embedders import Embedder, load_embedder
from lcdoc.retrieval.index import Index
from lcdoc.tests.servers.chat_server import ChatServer
from lcdoc.workflows.answer import Answer
from lcdoc.workflows.auto import Auto
from lcdoc.workflows.readers import ReadingDesk
from lcdoc.workflows.registry import AUTO, make
from lcdoc.workflows.rehearsal import Stage
from lcdoc.workflows.search import Search
from lcdoc.workflows.workflow import Plan, Workflow, run

MODEL = "planted"
WINDOW_TOKENS = 8_192
CONCURRENCY = 8
ANSWERING = ("direct", "retrieve", "chain", "map_reduce", "tree", "tree_walk", AUTO)
KEEPS_SUMMARIES = ("tree", "tree_walk")
"""They share a tree, which the first question pays for."""
FAULTS: dict[str, dict[str, float]] = {
    "none": {},
    "some": {"finds": 0.9, "false_claims": 0.05, "believes": 0.25, "malformed": 0.02},
}
WITHIN = 0.25
"""How far a plan may be off to count as right."""
_FALLEN = "Contradicted elsewhere in the text:"
"""How an answer shows the side of a contradiction that did not stand."""
_MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
_DATED = re.compile(rf"\d{{1,2}} (?:{_MONTHS}) \d{{4}}")


@dataclass(frozen=True)
class Asking:
    """A question put to a workflow, its answer, and what had been planned for it."""

    workflow: str
    planted: Planted
    answer: Answer
    plan: Plan | None = None

    @property
    def right(self) -> bool:
        return is_right(self.planted, self.answer)

    @property
    def both_sides(self) -> bool:
        """Whether it gives the right value beside the one it replaced."""
        values = {*self.planted.wrong, self.planted.expected}
        return self.planted.kind == "conflict" and values <= _words(standing(self.answer))

    @property
    def wrong(self) -> bool:
        """Whether something that is not right is stated with a checked quote."""
        return not self.right and not self.both_sides and any(claim.citations for claim in standing(self.answer))

    @property
    def unsupported(self) -> bool:
        """Whether all that is answered is marked as unsupported."""
        return self.answer.found and not any(claim.citations for claim in self.answer.claims)


class Study:
    """Documents in a library of their own, and the simulated model to ask about them."""

    def __init__(self, folder: Path, url: str, embedder: Embedder, *, window_tokens: int = WINDOW_TOKENS) -> None:
        self.library = Library.open(folder / "library.sqlite")
        self._embedder = embedder
        self._spec = ModelSpec(MODEL, window_tokens, Server(url, MODEL))
        entry = ModelEntry(url=url, model=MODEL, context_window=window_tokens, concurrency=CONCURRENCY)
        self._desk = ReadingDesk(self.library, MODEL, Config(models={MODEL: entry}))

    async def __aenter__(self) -> Study:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._desk.aclose()
        self.library.close()

    def add(self, document: Document) -> None:
        chunker = Chunker()
        self.library.add(document, chunker.chunks(document), recipe=chunker.recipe)

    async def workflow(self, name: str) -> Workflow:
        """Nothing is taken from the call store, where workflows would find each other's answers, but what plans learn
        from it; trees are kept."""
        store: StoreMode = "use" if name in KEEPS_SUMMARIES else "refresh"
        readers = await self._desk.readers(self._embedder, store=store, profile=None)
        search = Search(Index(self.library, self._embedder))
        if name != AUTO:
            return make(name, self.library, search, readers)
        return Auto(self.library, search, readers, (await self.stage()).reader, self._spec)

    async def stage(self) -> Stage:
        """Where plans are made."""
        stage = await self._desk.stage(self._embedder, profile=None)
        if stage is None:
            raise RuntimeError(f"the model {MODEL} was not resolved")
        return stage

    async def ask(self, name: str, planted: Planted, document: Document, *, planned: bool = False) -> Asking:
        workflow = await self.workflow(name)
        plan = await workflow.plan(planted.question, [document], await self.stage()) if planned else None
        return Asking(name, planted, await run(workflow, planted.question, [document]), plan)


def is_right(planted: Planted, answer: Answer) -> bool:
    """Whether the answer says what was planted, with a checked quote, and nothing that is wrong."""
    if planted.kind == "absent":
        return not answer.found
    stands = standing(answer)
    quoted = [claim for claim in stands if claim.citations]
    if planted.kind == "count":
        # Dates have numbers of their own.
        return any(planted.expected in re.findall(r"\d+", _DATED.sub("", claim.text)) for claim in quoted[:1])
    return planted.expected in _words(quoted) and not _words(stands) & set(planted.wrong)


def standing(answer: Answer) -> list[Claim]:
    """The claims that the answer stands by."""
    return [claim for claim in answer.claims if not claim.text.startswith(_FALLEN)]


def _words(claims: Sequence[Claim]) -> set[str]:
    return {word for claim in claims for word in re.findall(r"\w+", claim.text)}


def cited(planted: Planted, answer: Answer) -> float:
    """Share of the sentences that the answer rests on which it cites."""
    quotes = " ".join(" ".join(citation.quote.split()) for claim in answer.claims for citation in claim.citations)
    return mean(sentence in quotes for sentence in planted.evidence) if planted.evidence else 1.0


def accuracy_table(askings: Sequence[Asking]) -> str:
    """A row for each workflow: share right by kind of question, shares of all answers, and means for a question."""
    head = ["workflow", *KINDS, "both sides", "wrong", "unsupported", "cited", "calls", "tokens in", "tokens out", "s"]
    rows = [head, ["---"] * len(head)]
    for name in dict.fromkeys(asking.workflow for asking in askings):
        own = [asking for asking in askings if asking.workflow == name]
        usages = [asking.answer.usage for asking in own]
        by_kind = [[asking.right for asking in own if asking.planted.kind == kind] for kind in KINDS]
        right = [asking for asking in own if asking.right and asking.planted.evidence]
        rows.append(
            [
                name,
                *(f"{mean(shares):.2f}" if shares else "" for shares in by_kind),
                *(
                    f"{mean(getattr(asking, name) for asking in own):.2f}"
                    for name in ("both_sides", "wrong", "unsupported")
                ),
                f"{mean(cited(asking.planted, asking.answer) for asking in right):.2f}" if right else "",
                f"{mean(usage.calls for usage in usages):.1f}",
                f"{mean(usage.tokens_in for usage in usages):,.0f}",
                f"{mean(usage.tokens_out for usage in usages):,.0f}",
                f"{mean(usage.seconds for usage in usages):.2f}",
            ]
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def choices(askings: Sequence[Asking]) -> str:
    """What `auto` took for each kind of question; empty where it was not asked."""
    chosen: dict[str, Counter[str]] = {}
    for asking in askings:
        if asking.workflow == AUTO:
            chosen.setdefault(asking.planted.kind, Counter())[asking.answer.workflow] += 1
    taken = (
        f"{kind}: {', '.join(f'{name} {times}' for name, times in names.items())}" for kind, names in chosen.items()
    )
    return "; ".join(taken)


def ratios(askings: Sequence[Asking]) -> dict[str, list[float]]:
    """Planned over actual, for each figure of the runs that were planned and took any calls."""
    planned = [(asking.plan, asking.answer.usage) for asking in askings if asking.plan and asking.answer.usage.calls]
    return {
        "calls": [plan.calls / usage.calls for plan, usage in planned],
        "tokens in": [plan.tokens_in / usage.tokens_in for plan, usage in planned],
        "tokens out": [plan.tokens_out / max(1, usage.tokens_out) for plan, usage in planned],
    }


def plan_table(askings: Sequence[Asking]) -> str:
    """Planned over actual: the median, and the share of runs within a quarter, by workflow and for all."""
    heads = [f"{figure}, {what}" for figure in ratios(()) for what in ("median", "within 25 %")]
    lines = [f"| planned / actual | runs | {' | '.join(heads)} |", "|---" * (len(heads) + 2) + "|"]
    for name in [*dict.fromkeys(asking.workflow for asking in askings), "all"]:
        own = ratios([asking for asking in askings if name in (asking.workflow, "all")])
        cells = [
            f"{median(values):.2f} | {mean(1 - WITHIN <= value <= 1 + WITHIN for value in values):.2f}"
            for values in own.values()
            if values
        ]
        lines.append(f"| {name} | {len(own['calls'])} | {' | '.join(cells)} |")
    return "\n".join(lines)


async def study(
    planted: PlantedDocument, model: PlantedModel, workflows: Sequence[str], embedder: Embedder, *, planned: bool
) -> list[Asking]:
    """Every question put to every workflow."""
    found: list[Asking] = []
    longest = len(planted.document.text)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(ChatServer(keeps_requests=False))
        server.default = model
        for window_tokens, given in windows(workflows, longest).items():
            place = folder / str(window_tokens)
            place.mkdir()
            async with Study(place, server.url, embedder, window_tokens=window_tokens) as opened:
                opened.add(planted.document)
                for name in given:
                    for question in planted.questions:
                        found.append(await opened.ask(name, question, planted.document, planned=planned))
    return found


def windows(workflows: Sequence[str], characters: int) -> Mapping[int, list[str]]:
    """The workflows by the window they are given: one that takes the whole document for `direct`."""
    given: dict[int, list[str]] = {}
    for name in workflows:
        given.setdefault(max(WINDOW_TOKENS, characters // 2) if name == "direct" else WINDOW_TOKENS, []).append(name)
    return given


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=200)
    parser.add_argument("--each", type=int, default=3, help="questions of each kind")
    parser.add_argument("--workflows", default=",".join(ANSWERING))
    parser.add_argument("--faults", default="none,some")
    parser.add_argument("--latency", type=float, default=0.05, help="seconds before the server answers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write every question with its answer here")
    arguments = parser.parse_args()
    planted = planted_document(arguments.pages, each=arguments.each, seed=arguments.seed)
    workflows = arguments.workflows.split(",")
    embedder = load_embedder()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{arguments.pages} pages, {len(planted.document.text):,} characters, {len(planted.questions)} questions\n")
    everything: list[dict[str, object]] = []
    for faults in arguments.faults.split(","):
        model = PlantedModel(latency_s=arguments.latency, seed=arguments.seed, **FAULTS[faults])
        askings = asyncio.run(study(planted, model, workflows, embedder, planned=faults == "none"))
        print(f"faults: {FAULTS[faults] or 'none'}\n\n{accuracy_table(askings)}\n")
        if taken := choices(askings):
            print(f"auto: {taken}\n")
        if faults == "none":
            print(f"{plan_table(askings)}\n")
        everything += [
            {"faults": faults, "workflow": asking.workflow, "kind": asking.planted.kind, "right": asking.right,
             "expected": asking.planted.expected, "answer": asking.answer.to_json(),
             "planned_calls": asking.plan.calls if asking.plan else None} for asking in askings
        ]  # fmt: skip
    if arguments.json:
        arguments.json.write_text(json.dumps(everything, ensure_ascii=False, indent=1))


if __name__ == "__main__":
    main()
