"""Ask the small model through every workflow, in this process and over `lcdoc serve`, about facts it has never seen.

    python benchmarks/small_model_workflows.py FOLDER [--questions 8] [--sentences 32]

FOLDER is what train_small_model.py made. A document is filler with four facts, in the forms that the model learnt and
about names that it did not; `direct` reads one of eight sentences, since it must fit the window whole, and the others
one of --sentences. Each fact that is asked for stands in its document. "served" is known by its address, and that it is
small; "with tokenizer" by its tokenizer.json too, so that tokens are counted exactly, as in process, and pieces are cut
alike. All three have the same library, and so the same fences around data.

"sound": an answer of its workflow's kind, all read and no call failed. "quoted": it has a quote that stands in the
document. "right": such a quote has the fact that was asked for; a summary is asked for none. "not found": it says so,
or no quote of its was left. "misquoted": an answer or a reading gave a quote that the document does not have. The first
line's seconds have the loading of the model in them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from lcdoc.agents.models.config import Config, ModelEntry
from lcdoc.agents.models.errors import ModelError
from lcdoc.agents.models.local import engines
from lcdoc.benchmarks.planted_documents import planted_document
from lcdoc.benchmarks.small_model_examples import Examples
from lcdoc.retrieval.sentences import sentence_spans
from lcdoc.workflows.answer import Answer
from lcdoc.workflows.errors import WorkflowError
from lcdoc.workflows.registry import AUTO
from lcdoc.workflows.summary_answer import SummaryAnswer
from lcdoc.workflows.workspace import Workspace

WORKFLOWS = ("direct", "retrieve", "chain", "map_reduce", "tree", "tree_walk", "summarize", AUTO)
FACTS = 4
DIRECT_SENTENCES = 8
PARAGRAPH_SENTENCES = 6
SUMMARY = "Summarize in 60 words"
COLUMNS = ("sound", "quoted", "right", "not found", "misquoted")


@dataclass(frozen=True)
class Asked:
    """A question about the document at `path`, and the sentence that answers it; none for a summary."""

    path: Path
    question: str
    fact: str


@dataclass
class Tally:
    """Of the answers of one workflow: how many are what, and what they took together."""

    asked: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    seconds: float = 0.0
    errors: list[str] = field(default_factory=list)

    def add(self, answer: Answer, asked: Asked) -> None:
        """Count an answer."""
        quotes = [_one_line(citation.quote) for claim in answer.claims for citation in claim.citations]
        usage = answer.usage
        of_kind = isinstance(answer, SummaryAnswer) is (asked.question == SUMMARY)
        self.counts["sound"] += of_kind and not answer.partial and not usage.failed_calls
        self.counts["quoted"] += bool(quotes)
        self.counts["right"] += bool(asked.fact) and any(asked.fact in quote for quote in quotes)
        self.counts["not found"] += not answer.found
        self.counts["misquoted"] += bool(answer.quotes_dropped)
        self.calls += usage.calls
        self.seconds += usage.seconds


def _one_line(text: str) -> str:
    return " ".join(text.split())


def made(folder: Path, number: int, sentences: int) -> list[Asked]:
    """Write a document of so many sentences, the same for the same number; its questions."""
    examples = Examples(f"workflows {number}", testing=True)
    facts: dict[str, str] = {}
    while len(facts) < FACTS:
        text, asked = examples.drill(1)
        facts[text] = next(question for question, answer in asked if json.loads(answer) == [text])
    # Odd seeds are of documents whose sentences the model was not trained on.
    body = planted_document(20, each=0, seed=2 * number + 1).document.text
    filler = [one for span in sentence_spans(body) if (one := _one_line(span.of(body))).endswith(".")]
    lines = [*facts, *examples.rng.sample(filler, sentences - FACTS)]
    examples.rng.shuffle(lines)
    paragraphs = [lines[start : start + PARAGRAPH_SENTENCES] for start in range(0, sentences, PARAGRAPH_SENTENCES)]
    path = folder / f"county-{number}-{sentences}.txt"
    path.write_text("\n\n".join(" ".join(each) for each in paragraphs) + "\n", encoding="utf-8")
    return [Asked(path, re.sub(r"</?question>", "", question).strip(), fact) for fact, question in facts.items()]


def questions_for(workflow: str, folder: Path, questions: int, sentences: int) -> list[Asked]:
    """So many questions, each document's one after the other; for summaries as many documents as the others have."""
    length = DIRECT_SENTENCES if workflow == "direct" else sentences
    asked = [one for number in range(-(-questions // FACTS)) for one in made(folder, number, length)]
    if workflow == "summarize":
        return [Asked(path, SUMMARY, "") for path in dict.fromkeys(one.path for one in asked)]
    return asked[:questions]


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address of `lcdoc serve` with the model, a process of its own, until the block ends."""
    command = [sys.executable, "-m", "lcdoc", "serve", str(folder), "--port", "0", "--drain-seconds", "0"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    said = ""
    try:
        for line in process.stderr or ():
            said += line
            if found := re.search(r"at (http://\S+/v1);", line):
                yield found[1]
                return
        raise RuntimeError(f"the server ended at once: {said}")
    finally:
        process.terminate()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


def answered(model: str, config: Config, workflow: str, asked: Sequence[Asked], library: Path) -> Tally:
    """Ask everything of the model; answers that end in an error count as asked, and nothing more."""
    tally = Tally()
    with Workspace.open(library, background=False, model=model, config=config) as workspace:
        for one in asked:
            tally.asked += 1
            documents = workspace.read([one.path])
            # Not in the seconds, which only the first to use the library would pay.
            workspace.fill(documents[0])
            try:
                answer = workspace.ask(one.question, documents, workflow=workflow, store="off")
            except (ModelError, WorkflowError) as error:
                tally.errors.append(f"{type(error).__name__}: {error}")
            else:
                tally.add(answer, one)
    return tally


def row(workflow: str, way: str, tally: Tally) -> str:
    """A line of the table."""
    counts = ["-" if workflow == "summarize" and name == "right" else str(tally.counts[name]) for name in COLUMNS]
    cells = [workflow, way, str(tally.asked), *counts, str(tally.calls), f"{tally.seconds:.1f}"]
    return f"| {' | '.join(cells)} |"


def main() -> int:
    """Print the table, a line for each workflow and way."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--questions", type=int, default=8, help="of each workflow")
    parser.add_argument("--sentences", type=int, default=32, help="of the documents that `direct` does not read")
    arguments = parser.parse_args()
    model: Path = arguments.folder.resolve()
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}\n")
    header = ("workflow", "model", "questions", *COLUMNS, "calls", "seconds")
    print(f"| {' | '.join(header)} |\n|---|---|{'---:|' * (len(header) - 2)}")
    errors: list[str] = []
    with tempfile.TemporaryDirectory() as made_in, serving(model) as url:
        folder = Path(made_in)
        entries = {
            "in process": ModelEntry(model=f"local/{model}"),
            "served": ModelEntry(url=url, profile="small"),
            "with tokenizer": ModelEntry(url=url, profile="small", tokenizer=model / "tokenizer.json"),
        }
        for workflow in WORKFLOWS:
            asked = questions_for(workflow, folder, arguments.questions, arguments.sentences)
            for way in entries:
                tally = answered(way, Config(models=entries), workflow, asked, folder / f"{workflow}.sqlite")
                print(row(workflow, way, tally), flush=True)
                errors += [f"{workflow}, {way}: {error}" for error in tally.errors]
    engines.close()
    print("".join(f"\n- {error}" for error in errors))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
