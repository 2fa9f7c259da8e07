"""How much each compression method still knows of a text: lcdoc's beside kvpress's, on one model and one set of cases.

    python benchmarks/kv_quality.py MODEL OUT [--text BOOKS] [--peer-python PYTHON] [--methods snapkv,kvzip+ada]

MODEL is the folder of train_probe.py, which makes a model that solves the tasks with its full cache. PYTHON is an
interpreter that has `kvpress`; without it only lcdoc is measured. Every context holds facts of all tasks and is read by
two protocols: question-agnostic (compressed without knowing what will be asked, then all is asked of it) and
question-aware (compressed together with one question). Each method runs in a process of its own (kv_cell.py): one that
dies has failed at what it did not answer, and failures are wrong answers.

OUT then holds answers/ (a file for each method, which is not measured again if it is complete), leaderboard.md and
plots as SVG. The peers' methods are those with `kvpress` before their name.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from lcdoc.benchmarks.kv_cell import AGNOSTIC, AWARE, FULL
from lcdoc.benchmarks.kv_leaderboard import Answer, Board, Setting, markdown, plot
from lcdoc.benchmarks.probe_tasks import BEGIN, END, TASKS, Case, Question, Sentences, Tasks, natural_text
from lcdoc.benchmarks.train_probe import encoded

CELL = Path(__file__).with_name("kv_cell.py")
SHARES = "0.5,0.25,0.125,0.06,0.03"
WORDS_PER_TOKEN = 0.52
FACTS = (*TASKS, "needle", "trace")
"""Of each context: one of each kind and two more."""
CELL_SECONDS = 3_600


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


SINGLES = _names(
    "window h2o tova snapkv:window=32 chunkkv:window=32 keyformer entropy knorm keydiff lagkv expected compactor "
    "criticalkv kvzip kvzip+ task windowkv sentence speckv"
)
"""Every scorer, with the same budget for each head."""
COMBINED = _names(
    "snapkv:window=32+ada snapkv:window=32+pyramid snapkv:window=32+d2o-layers snapkv:window=32+global expected+ada "
    "criticalkv+ada compactor+ada keydiff+value-merge knorm+value-merge kvzip+ada kvzip+global kvzip++global "
    "snapkv:window=32+ada+value-merge kvzip+global+value-merge h2o+kvmerger h2o+d2o h2o+cam kvzip+match"
)
PEERS = _names(
    "random window h2o tova snapkv:window=32 snapkv:window=32+ada snapkv:window=32+pyramid chunkkv:window=32 knorm "
    "keydiff lagkv expected expected+ada criticalkv+ada compactor kvzip+global kvzip++global knorm+value-merge"
)


@dataclass(frozen=True, slots=True)
class Run:
    """A method of one engine."""

    engine: str
    python: str
    method: str

    @property
    def name(self) -> str:
        """As it stands in tables."""
        return self.method if self.engine == "lcdoc" else f"{self.engine} {self.method}"

    def path(self, folder: Path) -> Path:
        return folder / f"{self.name.replace(' ', '_').replace(':', '-').replace(',', '-')}.jsonl"


def made_cases(
    sentences: Sentences, *, tokens: int, count: int, seeds: int, asked: Sequence[str] = TASKS
) -> Iterator[tuple[str, Case]]:
    """Contexts of about so many tokens, each with a name: `count` for each seed. Facts are of all tasks; only tasks in
    `asked` are asked about."""
    for seed in range(seeds):
        tasks = Tasks(f"quality {seed}", sentences)
        for index in range(count):
            case = tasks.case(round(tokens * WORDS_PER_TOKEN) - 50, FACTS)
            yield f"{seed}-{index}", Case(case.context, tuple(one for one in case.questions if one.task in asked))


def line_of(name: str, case: Case, tokenizer: Tokenizer) -> dict[str, Any]:
    """What an engine is given of a case."""
    asks = [encoded(tokenizer, one.text) for one in case.questions]
    # Sentences begin with a space of their own, which no token reaches over.
    context, starts = encoded(tokenizer, BEGIN), []
    for sentence in case.context:
        starts.append(len(context))
        context += encoded(tokenizer, f" {sentence}")
    return {"id": name, "context": context, "starts": starts, "asks": asks}


def measured(run: Run, arguments: Sequence[str], out: Path, *, threads: int) -> str:
    """Run a cell into its file, and say how it ended. What it wrote before it died stays."""
    path = run.path(out)
    command = [run.python, str(CELL), run.engine, *arguments[:2], run.method, *arguments[2:]]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    part = path.with_suffix(".part")
    try:
        with part.open("w", encoding="utf-8") as file:
            done = subprocess.run(
                command,
                stdout=file,
                stderr=subprocess.PIPE,
                text=True,
                timeout=CELL_SECONDS,
                env=environment,
                check=False,
            )
        ended = "" if done.returncode == 0 else f"exit {done.returncode}: {_last(done.stderr)}"
    except subprocess.TimeoutExpired:
        ended = f"not done in {CELL_SECONDS} s"
    if ended:
        with part.open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps({"died": ended}) + "\n")
        # Kept to be read, under a name that is measured again.
        part.replace(path.with_suffix(".failed.jsonl"))
        return ended
    part.replace(path)
    path.with_suffix(".failed.jsonl").unlink(missing_ok=True)
    return "done"


def _last(said: str) -> str:
    lines = said.strip().splitlines()
    return lines[-1][:300] if lines else "it said nothing"


def read_lines(run: Run, folder: Path) -> tuple[list[dict[str, Any]], str | None]:
    """What a cell wrote, and how it died if it did. No lines where it never ran."""
    path = run.path(folder)
    path = path if path.exists() else path.with_suffix(".failed.jsonl")
    lines, died = [], None
    if path.exists():
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue  # cut off in the middle, when the process died
            died = line.get("died", died)
            if "id" in line:
                lines.append(line)
    return lines, died


def judged(
    run: Run, folder: Path, questions: dict[str, Sequence[Question]], settings: Sequence[Setting], full: dict[Any, int]
) -> Iterator[Answer]:
    """The answers of a run to all questions at all `settings`; what is missing is a failure.

    `full` has, for each protocol and context, the bytes of the full cache.
    """
    lines, died = read_lines(run, folder)
    if not lines and died is None:
        return
    found = {(Setting(line["protocol"], line["when"], line["share"]), line["id"]): line for line in lines}
    for setting in settings:
        for case, asked in questions.items():
            line = found.get((setting, case), {"failure": died or "it gave no answer"})
            failure = line.get("failure")
            whole = full.get((setting.protocol, case))
            held = line["bytes"] / whole if whole and failure is None else None
            for index, question in enumerate(asked):
                right = failure is None and question.right(line["given"][index].removesuffix(END))
                yield Answer(run.name, setting, case, index, question.task, right, held, failure)


def board_of(
    runs: Sequence[Run],
    folder: Path,
    questions: dict[str, Sequence[Question]],
    *,
    settings: Sequence[Setting],
    protocols: Sequence[str],
) -> Board:
    """The leaderboard of all answers there are."""
    of_full: dict[str, dict[Any, int]] = {}
    for run in runs:
        if run.method == FULL:
            lines, _ = read_lines(run, folder)
            of_full[run.engine] = {(line["protocol"], line["id"]): line["bytes"] for line in lines if "bytes" in line}
    answers: list[Answer] = []
    for run in runs:
        wanted = [Setting(one, "end", 1.0) for one in protocols] if run.method == FULL else settings
        if run.engine != "lcdoc":
            wanted = [one for one in wanted if one.when == "end"]
        answers += judged(run, folder, questions, wanted, of_full.get(run.engine, {}))
    return Board(answers)


def rival(name: str) -> bool:
    """Whether a method is a published one by itself: a peer's, or one scorer with the same budget for each head."""
    return name.startswith("kvpress ") or name in SINGLES


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--text", type=Path, help="a folder of .txt books")
    parser.add_argument("--peer-python", help="an interpreter with kvpress")
    parser.add_argument("--methods", help="of lcdoc, separated by spaces; else all that stand in this file")
    parser.add_argument("--peers", help="of kvpress, separated by spaces")
    parser.add_argument(
        "--tasks", default=",".join(TASKS), help="asked about: those the model solves with its full cache"
    )
    parser.add_argument("--tokens", type=int, default=1_000, help="of a context, about")
    parser.add_argument("--contexts", type=int, default=15, help="for each seed")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--shares", default=SHARES, help="of the cache that are kept")
    parser.add_argument("--whens", default="end,during")
    parser.add_argument("--protocols", default=f"{AGNOSTIC},{AWARE}")
    parser.add_argument("--at-once", type=int, default=1, help="processes of one thread each")
    return parser.parse_args()


def main() -> int:
    """Ask, judge, write."""
    arguments = _arguments()
    out: Path = arguments.out
    answers = out / "answers"
    answers.mkdir(parents=True, exist_ok=True)
    sentences = Sentences(natural_text(arguments.text), testing=True)
    sizes = {"tokens": arguments.tokens, "count": arguments.contexts, "seeds": arguments.seeds}
    tasks = arguments.tasks.split(",")
    if unknown := sorted(set(tasks) - set(TASKS)):
        raise SystemExit(f"--tasks: {', '.join(unknown)} is none of {', '.join(TASKS)}")
    cases = dict(made_cases(sentences, **sizes, asked=tasks))
    tokenizer = Tokenizer.from_file(str(arguments.model / "tokenizer.json"))
    asked = answers / "questions.jsonl"
    text = "".join(json.dumps(line_of(name, case, tokenizer)) + "\n" for name, case in cases.items())
    if asked.exists() and asked.read_text(encoding="utf-8") != text:
        raise SystemExit(f"{asked} has other questions: name another folder than {out}")
    asked.write_text(text, encoding="utf-8")
    ours = arguments.methods.split() if arguments.methods else [*SINGLES, *COMBINED]
    runs = [Run("lcdoc", sys.executable, method) for method in (FULL, *ours)]
    if arguments.peer_python:
        theirs = arguments.peers.split() if arguments.peers else PEERS
        runs += [Run("kvpress", arguments.peer_python, method) for method in (FULL, *theirs)]
    whens, protocols = arguments.whens.split(","), arguments.protocols.split(",")
    with ThreadPoolExecutor(arguments.at_once) as pool:

        def one(run: Run) -> None:
            if run.path(answers).exists():
                return
            options = ["--shares", arguments.shares, "--protocols", arguments.protocols]
            options += ["--whens", arguments.whens if run.engine == "lcdoc" else "end"]
            ended = measured(run, [str(arguments.model), str(asked), *options], answers, threads=1)
            print(f"{run.name}: {ended}", flush=True)

        list(pool.map(one, runs))
    settings = [
        Setting(protocol, when, float(share))
        for protocol in protocols
        for when in whens
        for share in arguments.shares.split(",")
    ]
    questions = {name: case.questions for name, case in cases.items()}
    board = board_of(runs, answers, questions, settings=settings, protocols=protocols)
    made = (
        f"{len(cases)} contexts of about {arguments.tokens} tokens ({arguments.seeds} seeds), "
        f"{sum(len(one) for one in questions.values())} questions.\n\n"
    )
    (out / "leaderboard.md").write_text(made + markdown(board, full=FULL, rival=rival), encoding="utf-8")
    for protocol, when in board.settings():
        image = plot(board, protocol, when, full=FULL)
        (out / f"{protocol}-{when}.svg").write_text(image, encoding="utf-8")
    print(out / "leaderboard.md")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
