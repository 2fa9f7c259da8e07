"""How much each compression method still knows of a text: lcdoc's beside kvpress's, on one model and one set of cases.

    python benchmarks/kv_quality.py OUT [--model MODEL] [--peer-python PYTHON] [--methods "snapkv kvzip+ada"] [--jobs 2]

MODEL is a folder of train_probe.py, which makes a model that solves the tasks with its full cache. PYTHON is an
interpreter that has `kvpress`; without it only lcdoc is measured. Every context holds facts of all tasks and is read by
two protocols: question-agnostic (compressed without knowing what will be asked, then all is asked of it) and
question-aware (compressed together with one question). Methods are measured in processes beside this one (kv_cell.py):
where one dies, it has failed at what it did not answer, and failures are wrong answers.

OUT then holds answers/ (a file for each method), leaderboard.md and plots as SVG. What is in answers/ is not measured
again: after an interruption, or with more methods, shares, times or contexts, the same command goes on. The peers'
methods are those with `kvpress` before their name.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from lcdoc.benchmarks.kv_cell import AGNOSTIC, AWARE, FULL, written
from lcdoc.benchmarks.kv_leaderboard import Answer, Board, Setting, markdown, plot
from lcdoc.benchmarks.probe_tasks import ASK, BEGIN, END, TASKS, Case, Question, Sentences, Tasks, natural_text
from lcdoc.benchmarks.train_probe import WORDS_PER_TOKEN, encoded

CELL = Path(__file__).with_name("kv_cell.py")
MODEL = Path(__file__).parent / "data" / "probe"
SHARES = "0.5,0.25,0.125,0.06,0.03"
FACTS = (*TASKS, "needle", "trace")
"""Of each context: one of each kind and two more."""
METHOD_SECONDS = 3_600
"""After which a method is taken to have died."""


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


SINGLES = _names(
    "window h2o tova snapkv:window=32 chunkkv:window=32 keyformer entropy knorm keydiff lagkv expected compactor "
    "criticalkv kvzip kvzip+ task windowkv sentence speckv"
)
"""Every scorer, with the same budget for each head."""
COMBINED = _names(
    "kvzip:leverage=2+global kvzip+:leverage=2+global kvzip:leverage=1+global kvzip+global kvzip++global "
    "compactor:weight=2 compactor:weight=2+ada compactor+global compactor+ada speckv+ada task+ada task+global "
    "kvzip+ada snapkv:window=32+ada snapkv:window=32+pyramid snapkv:window=32+d2o-layers kvzip+threshold "
    "kvzip+static expected+ada criticalkv+ada kvzip+global+match compactor+match compactor+cam "
    "compactor+value-merge compactor+kvmerger compactor+d2o keydiff+value-merge h2o+cam"
)
PEERS = _names(
    "kvzip+global kvzip++global compactor snapkv:window=32 snapkv:window=32+ada chunkkv:window=32 criticalkv+ada "
    "snapkv:window=32+pyramid expected expected+ada keydiff tova window knorm lagkv h2o knorm+value-merge random"
)


@dataclass(frozen=True, slots=True)
class Run:
    """A method of one engine."""

    engine: str
    method: str

    @property
    def name(self) -> str:
        """As it stands in tables."""
        return self.method if self.engine == "lcdoc" else f"{self.engine} {self.method}"

    def path(self, folder: Path) -> Path:
        return folder / f"{self.name.replace(' ', '_').replace(':', '-').replace(',', '-')}.jsonl"


def made_cases(
    sentences: Sentences, *, tokens: int, count: int, asked: Sequence[str] = TASKS
) -> Iterator[tuple[str, Case]]:
    """`count` contexts of about so many tokens, each with a name. Facts are of all tasks; only tasks in `asked` are
    asked about."""
    for index in range(count):
        # Each from a seed of its own, so that fewer contexts are the first of more.
        case = Tasks(f"quality {index}", sentences).case(round(tokens * WORDS_PER_TOKEN) - 50, FACTS)
        yield f"{index}", Case(case.context, tuple(one for one in case.questions if one.task in asked))


def line_of(name: str, case: Case, tokenizer: Tokenizer, *, aware: int = 2) -> dict[str, Any]:
    """What an engine is given of a case. `aware` of the questions are also asked by the question-aware protocol."""
    asks = [encoded(tokenizer, one.text) for one in case.questions]
    # Sentences begin with a space of their own, which no token reaches over.
    context, starts = encoded(tokenizer, BEGIN), []
    for sentence in case.context:
        starts.append(len(context))
        context += encoded(tokenizer, f" {sentence}")
    chosen = sorted(random.Random(name).sample(range(len(asks)), min(aware, len(asks))))
    kinds = dict.fromkeys(one.ask.removesuffix(one.key).rstrip() for one in case.questions)
    task = [token for kind in kinds for token in encoded(tokenizer, f"{ASK}{kind}")]
    return {"id": name, "context": context, "starts": starts, "asks": asks, "aware": chosen, "task": task}


@dataclass
class Worker:
    """A process that measures one engine's methods, one after the other; begun anew where it died."""

    command: Sequence[str]
    _process: subprocess.Popen[str] | None = field(default=None, init=False)

    def measure(self, run: Run, path: Path) -> str:
        """Have a method measured into `path`, and say how that ended. What it wrote before it died stays."""
        began = time.perf_counter()
        process = self._running()
        timer = threading.Timer(METHOD_SECONDS, process.kill)
        timer.start()
        try:
            _pipe(process.stdin).write(f"{run.method}\t{path}\n")
            _pipe(process.stdin).flush()
            ended = _pipe(process.stdout).readline().strip()
        except BrokenPipeError:
            ended = ""
        timer.cancel()
        took = time.perf_counter() - began
        if ended == "done":
            return f"done in {took:.0f} s"
        process.kill()
        said = _last(_pipe(process.stderr).read())
        died = f"not done in {METHOD_SECONDS} s" if took >= METHOD_SECONDS else f"exit {process.wait()}: {said}"
        self._process = None
        written(path)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"died": died}) + "\n")
        return died

    def end(self) -> None:
        """Let the process go."""
        if self._process is not None:
            self._process.communicate()
            self._process = None

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
            )
        return self._process


def _pipe(end: Any) -> Any:
    if end is None:
        raise RuntimeError("the process has no pipes")
    return end


def _last(said: str) -> str:
    lines = said.strip().splitlines()
    return lines[-1][:300] if lines else "it said nothing"


def measured(
    runs: Sequence[Run], commands: Mapping[str, Sequence[str]], answers: Path, *, jobs: int, seconds: float
) -> None:
    """Have the runs measured, by `jobs` processes of each engine. `commands` begin an engine's process.

    After `seconds` no run is begun any more; those left over are named.
    """
    left, until = list(runs), time.monotonic() + seconds
    lock = threading.Lock()

    def job() -> None:
        workers = {engine: Worker(command) for engine, command in commands.items()}
        while True:
            with lock:
                if not left or time.monotonic() > until:
                    break
                run = left.pop(0)
            print(f"{run.name}: {workers[run.engine].measure(run, run.path(answers))}", flush=True)
        for worker in workers.values():
            worker.end()

    with ThreadPoolExecutor(jobs) as pool:
        for done in [pool.submit(job) for _ in range(jobs)]:
            done.result()
    if left:
        print(f"not measured: {', '.join(run.name for run in left)}", flush=True)


Asked = Mapping[str, Mapping[str, Sequence[tuple[int, Question]]]]
"""For each protocol and context the questions that are put to it, with their numbers."""


def judged(
    run: Run, folder: Path, asked: Asked, settings: Sequence[Setting], full: Mapping[Any, int]
) -> Iterator[Answer]:
    """The answers of a run to all questions at all `settings`.

    What is missing is a failure where the run died, and else was not measured. `full` has, for each protocol and
    context, the bytes of the full cache.
    """
    lines = written(run.path(folder))
    died = next((line["died"] for line in reversed(lines) if "died" in line), None)
    found = {(Setting(one["protocol"], one["when"], one["share"]), one["id"]): one for one in lines if "id" in one}
    for setting in settings:
        for case, questions in asked[setting.protocol].items():
            line = found.get((setting, case), {"failure": died})
            failure = line.get("failure")
            if "id" not in line and failure is None:
                continue
            whole = full.get((setting.protocol, case))
            held = line["bytes"] / whole if whole and failure is None else None
            for place, (index, question) in enumerate(questions):
                right = failure is None and question.right(line["given"][place].removesuffix(END))
                yield Answer(run.name, setting, case, index, question.task, right, held, failure)


def board_of(
    runs: Sequence[Run],
    folder: Path,
    asked: Asked,
    *,
    settings: Sequence[Setting],
    protocols: Sequence[str],
    solved: bool = False,
) -> Board:
    """The leaderboard of all answers there are; with `solved`, to questions that lcdoc's full cache answers."""
    of_full: dict[str, dict[Any, int]] = {}
    for run in runs:
        if run.method == FULL:
            lines = written(run.path(folder))
            of_full[run.engine] = {(line["protocol"], line["id"]): line["bytes"] for line in lines if "bytes" in line}
    answers: list[Answer] = []
    for run in runs:
        wanted = [Setting(one, "end", 1.0) for one in protocols] if run.method == FULL else settings
        if run.engine != "lcdoc":
            wanted = [one for one in wanted if one.when == "end"]
        answers += judged(run, folder, asked, wanted, of_full.get(run.engine, {}))
    if solved:
        right = {(one.setting.protocol, one.case, one.question) for one in answers if one.method == FULL and one.right}
        answers = [one for one in answers if (one.setting.protocol, one.case, one.question) in right]
    return Board(answers)


def rival(name: str) -> bool:
    """Whether a method is a published one by itself: a peer's, or one scorer with the same budget for each head."""
    return name.startswith("kvpress ") or name in SINGLES


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--text", type=Path, help="a folder of .txt books")
    parser.add_argument("--peer-python", help="an interpreter with kvpress")
    parser.add_argument("--methods", help="of lcdoc, separated by spaces; else all that stand in this file")
    parser.add_argument("--peers", help="of kvpress, separated by spaces")
    parser.add_argument(
        "--tasks", default=",".join(TASKS), help="asked about: those the model solves with its full cache"
    )
    parser.add_argument("--tokens", type=int, default=1_000, help="of a context, about")
    parser.add_argument("--contexts", type=int, default=12)
    parser.add_argument("--aware", type=int, default=2, help="questions of a context that are asked question-aware")
    parser.add_argument("--shares", default=SHARES, help="of the cache that are kept")
    parser.add_argument("--whens", default="end,during")
    parser.add_argument("--during-shares", help="for `during`, where they are fewer")
    parser.add_argument("--protocols", default=f"{AGNOSTIC},{AWARE}")
    parser.add_argument("--minutes", type=float, default=math.inf, help="after which no method is begun any more")
    parser.add_argument("--solved", action="store_true", help="count only questions that the full cache answers")
    parser.add_argument("--jobs", type=int, default=1, help="processes of one thread each")
    return parser.parse_args()


def main() -> int:
    """Ask, judge, write."""
    arguments = _arguments()
    out: Path = arguments.out
    answers = out / "answers"
    answers.mkdir(parents=True, exist_ok=True)
    sentences = Sentences(natural_text(arguments.text), testing=True)
    tasks = arguments.tasks.split(",")
    if unknown := sorted(set(tasks) - set(TASKS)):
        raise SystemExit(f"--tasks: {', '.join(unknown)} is none of {', '.join(TASKS)}")
    cases = dict(made_cases(sentences, tokens=arguments.tokens, count=arguments.contexts, asked=tasks))
    tokenizer = Tokenizer.from_file(str(arguments.model / "tokenizer.json"))
    lines = [line_of(name, case, tokenizer, aware=arguments.aware) for name, case in cases.items()]
    file, text = answers / "questions.jsonl", "".join(json.dumps(line) + "\n" for line in lines)
    if file.exists() and not text.startswith(file.read_text(encoding="utf-8")):
        raise SystemExit(f"{file} has other questions: name another folder than {out}")
    file.write_text(text, encoding="utf-8")
    ours = arguments.methods.split() if arguments.methods else [*COMBINED, *SINGLES]
    runs = [Run("lcdoc", method) for method in (FULL, *ours)]
    if arguments.peer_python:
        theirs = arguments.peers.split() if arguments.peers else PEERS
        peers = [Run("kvpress", method) for method in (FULL, *theirs)]
        # By turns, so that a run that is cut short has the best known of both.
        runs = [one for pair in zip_longest(runs, peers) for one in pair if one is not None]
    protocols = arguments.protocols.split(",")
    shares = {"end": arguments.shares, "during": arguments.during_shares or arguments.shares}
    settings = [
        Setting(protocol, when, float(share))
        for protocol in protocols
        for when in arguments.whens.split(",")
        for share in shares[when].split(",")
    ]
    engines = {"lcdoc": sys.executable, "kvpress": arguments.peer_python}
    commands = {}
    for engine, python in engines.items():
        able = [one for one in settings if engine == "lcdoc" or one.when == "end"]
        options = ["--settings", ",".join(f"{one.protocol}:{one.when}:{one.share}" for one in able)]
        commands[engine] = [
            *(str(python), str(CELL), engine, str(arguments.model), str(file)),
            *(*options, "--heads", str(out / "heads.json")),
        ]
    measured(runs, commands, answers, jobs=arguments.jobs, seconds=60 * arguments.minutes)
    asked: Asked = {
        protocol: {
            line["id"]: [
                (index, one)
                for index, one in enumerate(cases[line["id"]].questions)
                if protocol == AGNOSTIC or index in line["aware"]
            ]
            for line in lines
        }
        for protocol in protocols
    }
    board = board_of(runs, answers, asked, settings=settings, protocols=protocols, solved=arguments.solved)
    made = f"{len(cases)} contexts of about {arguments.tokens} tokens; questions: " + ", ".join(
        f"{sum(map(len, of.values()))} {protocol}" for protocol, of in asked.items()
    )
    made += ", of which those count that the full cache answers" if arguments.solved else ""
    (out / "leaderboard.md").write_text(f"{made}.\n\n" + markdown(board, full=FULL, rival=rival), encoding="utf-8")
    for protocol, when in board.settings():
        image = plot(board, protocol, when, full=FULL)
        (out / f"{protocol}-{when}.svg").write_text(image, encoding="utf-8")
    print(out / "leaderboard.md")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
