"""Which workflow answers a question: by what it asks, how long the documents are, who reads, and what it may cost.

The rules follow the error of reading a long text in parts (arXiv 2506.16411, "noise" of tasks, models and aggregation):
facts that stand alone are read in parallel, facts that build on each other one after the other, wholes over a tree; and
a model that takes more text at once than it can follow loses more than it gains.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Final, Literal

from lcdoc.agents.models.budget import Budget
from lcdoc.agents.models.model import ModelSpec, TokenUsage
from lcdoc.agents.reader import Reader
from lcdoc.documents import Document
from lcdoc.memory import Library
from lcdoc.memory.runs import Run as RunRecord
from lcdoc.workflows.direct import fits
from lcdoc.workflows.events import Chosen, Event
from lcdoc.workflows.frame import GraphWorkflow
from lcdoc.workflows.question_kinds import QuestionKind, kind_of
from lcdoc.workflows.readers import Asked, Readers
from lcdoc.workflows.registry import AUTO, make
from lcdoc.workflows.run import Run
from lcdoc.workflows.scout import MOST_DOCUMENTS, candidates
from lcdoc.workflows.search import Search
from lcdoc.workflows.workflow import Plan

if TYPE_CHECKING:
    from lcdoc.workflows.rehearsal import Stage

Who = Literal["offline", "small", "large"]
Length = Literal["short", "fits", "long", "very long"]
Caps = Literal["enough", "too low"]
Documents = Literal["one", "several"]
Sections = Literal["yes", "no"]

SHORT_TOKENS: Mapping[Who, int] = {"small": 8_000, "large": 32_000}
"""What a model reads at once without losing much of it, and cheaply enough for any question."""
LONG_READINGS = 60
"""Readings one after the other that are worth waiting for: a few minutes."""
MOST_LISTED = 20
"""Documents that are all looked through for a list or a count: of fewer, it would be wrong."""
_TOKENS_OUT = 300
"""Of one reading, likely."""
_LEAST_SECTIONS = 3
"""For each document, on average, from which on its own structure is worth following."""
_NARROWED = frozenset({"chain", "map_reduce", "tree"})
"""What reads documents in full, so that of many only candidates are read."""


@dataclass(frozen=True)
class Case:
    """What a choice depends on. Each part is found out when a rule first asks for it."""

    question: str
    documents: Sequence[Document]
    reader: Reader
    model: ModelSpec | None = None
    """None: no language model."""
    budget: Budget = field(default_factory=Budget)

    @cached_property
    def asks(self) -> QuestionKind:
        return kind_of(self.question)

    @property
    def who(self) -> Who:
        return "offline" if self.model is None else self.model.profile

    @cached_property
    def tokens(self) -> int:
        """Of all documents together, as the reader counts."""
        return sum(self.reader.count(document.body) for document in self.documents)

    @cached_property
    def readings(self) -> int:
        """How many it takes to read everything. Raises ModelConfigError where the window is too small for any."""
        return max(1, -(-self.tokens // self.reader.room(self.question, carrying=True)))

    @cached_property
    def length(self) -> Length:
        # What is no reading or two long cannot fit, and need not be counted again.
        if self.readings <= 2 and fits(self.documents, self.question, self.reader):
            return "short" if self.tokens <= SHORT_TOKENS.get(self.who, 0) else "fits"
        return "long" if self.readings <= LONG_READINGS else "very long"

    @cached_property
    def caps(self) -> Caps:
        """Whether the caps admit reading everything; time is left out, since nobody knows what it takes."""
        caps = self.budget
        if caps.usd is None and caps.tokens is None and caps.calls is None:
            return "enough"
        usage = TokenUsage(self.tokens, 0, _TOKENS_OUT * self.readings)
        cost_usd = self.model.cost_usd(usage) if self.model else 0.0
        used = ((usage.tokens, caps.tokens), (self.readings, caps.calls), (cost_usd, caps.usd))
        too_low = any(cap is not None and need is not None and need > cap for need, cap in used)
        return "too low" if too_low else "enough"

    @property
    def many(self) -> Documents:
        return "several" if len(self.documents) > 1 else "one"

    @property
    def sections(self) -> Sections:
        """Whether the documents' own structure is worth following."""
        found = sum(len(document.sections) for document in self.documents)
        return "yes" if found >= _LEAST_SECTIONS * len(self.documents) else "no"


@dataclass(frozen=True, slots=True)
class Rule:
    """A workflow for the cases that have all of `when`, and why."""

    workflow: str
    reason: str
    when: Mapping[str, str | tuple[str, ...]]

    def fits(self, case: Case) -> bool:
        """Whether the rule holds for `case`; asks for nothing of it beyond the first condition that does not."""
        return all(
            getattr(case, name) in ((wanted,) if isinstance(wanted, str) else wanted)
            for name, wanted in self.when.items()
        )


RULES: Final = (
    Rule("summarize", "a summary needs every section", {"asks": "summary"}),
    Rule("map_reduce", "to list or count, every piece is looked through, and code adds up", {"asks": "list"}),
    Rule("retrieve", "without a language model the best sentences are quoted, wherever they stand", {"who": "offline"}),
    Rule("retrieve", "the caps do not admit reading everything", {"caps": "too low"}),
    Rule("direct", "short enough to be read at once", {"length": "short"}),
    Rule("retrieve", "the answer stands in one place", {"asks": "look-up"}),
    Rule("retrieve", "the best passages of each document are compared", {"asks": "comparison", "many": "several"}),
    Rule("direct", "the whole matters, and fits the model's window", {"who": "large", "length": "fits"}),
    Rule("tree", "the whole matters, and its sections show the way", {"asks": "theme", "sections": "yes"}),
    Rule("map_reduce", "the whole matters, and has no sections to go by", {"asks": "theme"}),
    Rule("retrieve", "a small model loses the thread over many readings", {"who": "small"}),
    Rule("map_reduce", "what is compared may stand anywhere", {"asks": "comparison"}),
    Rule("chain", "one fact may lead to the next", {"asks": "chain", "length": ("fits", "long")}),
    Rule("tree", "too long to be read in turn, and its sections show the way", {"asks": "chain", "sections": "yes"}),
    Rule("map_reduce", "too long to be read in turn, and without sections to go by", {"asks": "chain"}),
)
"""The first that fits decides; together they fit every case. docs/workflows.md shows them as a table."""


def choose(
    question: str,
    documents: Sequence[Document],
    reader: Reader,
    *,
    model: ModelSpec | None = None,
    budget: Budget | None = None,
) -> Chosen:
    """The workflow for a question over all of `documents`, and why.

    `model` is what is known of the model behind `reader`; None: there is none. Raises ModelConfigError where its window
    takes no text. May count the tokens of all documents, which takes about a second for ten books.
    """
    case = Case(question, documents, reader, model, budget or Budget())
    return _chosen(case)


def _chosen(case: Case) -> Chosen:
    rule = next(rule for rule in RULES if rule.fits(case))
    return Chosen(rule.workflow, f"{_described(case)}: {rule.reason}")


def _described(case: Case) -> str:
    asked = {"list": "a question for a list or a count", "chain": "a question of why or how"}.get(
        case.asks, f"a {case.asks}" if case.asks in ("look-up", "comparison", "summary") else f"a {case.asks} question"
    )
    if "tokens" not in case.__dict__:
        return asked
    readings = f" in {case.readings:,} readings" if case.length in ("long", "very long") else ""
    return f"{asked}, about {case.tokens:,} tokens{readings}"


@dataclass(frozen=True, slots=True)
class Selection:
    """A workflow, the documents it is to read, and what the user should know of those it is not."""

    chosen: Chosen
    documents: tuple[Document, ...]
    warning: str = ""

    def workflow(self, library: Library, search: Search, readers: Readers) -> GraphWorkflow:
        """The workflow, whose run's record begins with the choice, and whose answer has the warning."""
        return make(self.chosen.workflow, library, search, _Announcing(readers, library, self))


async def chosen(
    question: str,
    documents: Sequence[Document],
    reader: Reader,
    search: Search,
    *,
    model: ModelSpec | None = None,
    budget: Budget | None = None,
) -> Selection:
    """`choose`, and of many documents that would be read in full, the candidates.

    Raises what `choose` and `candidates` raise.
    """
    case = Case(question, documents, reader, model, budget or Budget())
    first = await asyncio.to_thread(_chosen, case)
    most = MOST_LISTED if case.asks == "list" else MOST_DOCUMENTS
    if first.workflow not in _NARROWED or len(documents) <= most:
        return Selection(first, tuple(documents))
    scouted = await candidates(question, documents, search, most=most)
    narrowed = Case(question, scouted.documents, reader, model, budget or Budget())
    second = await asyncio.to_thread(_chosen, narrowed)
    left_out = len(documents) - len(scouted.documents)
    return Selection(
        Chosen(second.workflow, f"{second.reason}; {scouted.reason}"),
        scouted.documents,
        f"{left_out} of {len(documents)} documents were left out: {scouted.reason}; name fewer to have each one read",
    )


class Auto:
    """A workflow that leaves the work to the one that fits. The run's record names that one."""

    name: ClassVar[str] = AUTO
    about: ClassVar[str] = "takes the workflow that fits the question, the documents and the model, and says why"

    def __init__(
        self, library: Library, search: Search, readers: Readers, reader: Reader, model: ModelSpec | None = None
    ) -> None:
        """`reader` is asked for sizes only; it and `model` are those of the runs that `readers` starts."""
        self._library = library
        self._search = search
        self._readers = readers
        self._reader = reader
        self._model = model

    async def plan(self, question: str, documents: Sequence[Document], stage: Stage | None) -> Plan:
        """What the workflow that fits will take."""
        selection = await self._selection(question, documents, None)
        workflow = selection.workflow(self._library, self._search, self._readers)
        return await workflow.plan(question, selection.documents, stage)

    async def stream(
        self,
        question: str,
        documents: Sequence[Document],
        *,
        budget: Budget | None = None,
        resumed: RunRecord | None = None,
    ) -> AsyncIterator[Event]:
        """The choice, then the events of the chosen workflow. A `resumed` run goes on with its own."""
        if resumed is None:
            selection = await self._selection(question, documents, budget)
            yield selection.chosen
            workflow = selection.workflow(self._library, self._search, self._readers)
            documents = selection.documents
        else:
            workflow = make(resumed.workflow, self._library, self._search, self._readers)
        async with aclosing(workflow.stream(question, documents, budget=budget, resumed=resumed)) as events:
            async for event in events:
                yield event

    async def _selection(self, question: str, documents: Sequence[Document], budget: Budget | None) -> Selection:
        return await chosen(question, documents, self._reader, self._search, model=self._model, budget=budget)


class _Announcing:
    """Readers whose runs know why their workflow was chosen."""

    def __init__(self, readers: Readers, library: Library, selection: Selection) -> None:
        self._readers = readers
        self._library = library
        self._selection = selection

    def start(self, asked: Asked) -> Run:
        run = self._readers.start(asked)
        if run.resumed is None:
            self._library.notebook.record(run.id, Chosen.__name__, asdict(self._selection.chosen))
        if self._selection.warning:
            run.warnings = (*run.warnings, self._selection.warning)
        return run
