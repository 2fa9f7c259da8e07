"""The arithmetic of the leaderboard of cache compression, and how it counts what failed."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lcdoc.benchmarks.kv_cell import measure, written
from lcdoc.benchmarks.kv_leaderboard import Answer, Board, Setting, bootstrap, markdown, plot
from lcdoc.benchmarks.kv_quality import Run, Worker, board_of, rival
from lcdoc.benchmarks.probe_tasks import Question

HALF, TENTH = Setting("agnostic", "end", 0.5), Setting("agnostic", "end", 0.1)
WHOLE = Setting("agnostic", "end", 1.0)


def given(method: str, setting: Setting, right: str, *, held: float | None = None) -> list[Answer]:
    """Answers about contexts of two questions each: `right` has a 1 for each that is right."""
    return [
        Answer(method, setting, f"case {index // 2}", index % 2, ("needle", "count")[index % 2], one == "1", held)
        for index, one in enumerate(right)
    ]


def test_a_mean_has_an_interval_that_widens_where_questions_share_a_context() -> None:
    alone = bootstrap([(f"case {index}", float(index % 2)) for index in range(40)])
    paired = bootstrap([(f"case {index // 10}", float((index // 10) % 2)) for index in range(40)])
    assert alone.mean == paired.mean == 0.5
    assert alone.count == 40
    assert 0.3 < alone.low < 0.45
    assert 0.55 < alone.high < 0.7
    assert paired.high - paired.low > 1.5 * (alone.high - alone.low)
    sure = bootstrap([("a", 1.0), ("b", 1.0)])
    assert (sure.low, sure.mean, sure.high) == (1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="no answers"):
        bootstrap([])


def test_methods_are_ranked_by_their_mean_over_all_shares() -> None:
    board = Board(
        [
            *given("steady", HALF, "1110"),
            *given("steady", TENTH, "1100"),
            *given("steep", HALF, "1111"),
            *given("steep", TENTH, "0000"),
            *given("half measured", HALF, "1111"),
        ]
    )
    assert board.methods("agnostic", "end") == ["steady", "half measured", "steep"]
    assert board.shares("agnostic", "end") == [0.5, 0.1]
    accuracy = board.accuracy("steady", HALF)
    assert accuracy is not None
    assert accuracy.mean == 0.75
    by_task = [board.accuracy("steady", TENTH, task) for task in ("needle", "count")]
    assert [one.mean for one in by_task if one] == [0.5, 0.5]
    assert board.accuracy("half measured", TENTH) is None


def test_differences_are_of_the_same_questions() -> None:
    board = Board([*given("one", HALF, "110110"), *given("other", HALF, "1001"), *given("full", WHOLE, "111111")])
    difference = board.difference("one", HALF, "other", HALF)
    assert difference is not None
    assert difference.count == 4
    assert difference.mean == pytest.approx((0 + 1 + 0 + 0) / 4)
    to_full = board.difference("one", HALF, "full", WHOLE)
    assert to_full is not None
    assert to_full.mean == pytest.approx(-2 / 6)
    assert to_full.low <= to_full.mean <= to_full.high
    assert board.difference("one", HALF, "nobody", HALF) is None


def test_tables_name_bytes_failures_and_the_best_rival() -> None:
    failed = [Answer("kvzip", HALF, "case 0", index, "needle", False, None, "OutOfMemory: 3 GB") for index in (0, 1)]
    board = Board(
        [
            *given("snapkv+ada", HALF, "1111", held=0.512),
            *given("kvpress snapkv", HALF, "1100", held=0.5),
            *failed,
            *given("full", WHOLE, "1111", held=1.0),
        ]
    )
    text = markdown(board, full="full", rival=lambda name: name.startswith("kvpress "))
    assert "| *full* | *100.0 ±0.0* | *100.0 ±0.0* |" in text
    assert "| `snapkv+ada` | 100.0 ±0.0 (51) | 100.0 |" in text
    assert "against `kvpress snapkv`" in text
    assert "| `snapkv+ada` | 50% | +0.0 [+0.0, +0.0] | +50.0 [" in text
    assert "- `kvzip` at 50%: 2 questions failed: OutOfMemory: 3 GB" in text
    assert "| `kvzip` | 0.0 ±0.0 | 0.0 |" in text


def test_the_plot_is_an_image_of_every_method() -> None:
    board = Board(
        [
            *given("a<b", HALF, "1111"),
            *given("a<b", TENTH, "1100"),
            *given("other", HALF, "1000"),
            *given("full", WHOLE, "1111"),
        ]
    )
    image = ElementTree.fromstring(plot(board, "agnostic", "end", full="full"))
    texts = [one.text for one in image.iter("{http://www.w3.org/2000/svg}text")]
    assert {"a<b", "other", "full", "50%", "10%"} <= set(texts)
    first = next(image.iter("{http://www.w3.org/2000/svg}polyline")).attrib["points"].split()
    (left, low), (right, high) = (tuple(map(float, point.split(","))) for point in reversed(first))
    assert left < right
    assert low > high


ASKED = {
    "agnostic": {
        "a": [(0, Question("needle", "leek", "", " leek opal", ()))],
        "b": [(0, Question("count", "leek", "", " leek 2", ()))],
    }
}
LINE = {"method": "", "when": "end", "protocol": "agnostic"}


def test_what_a_method_that_died_did_not_answer_is_wrong(tmp_path: Path) -> None:
    full, ours = Run("lcdoc", "full"), Run("lcdoc", "snapkv")
    wrote = {
        full: [
            {**LINE, "share": 1.0, "id": one, "given": [said], "bytes": 100}
            for one, said in (("a", " leek opal"), ("b", " leek 3"))
        ],
        ours: [{**LINE, "share": 0.5, "id": "a", "given": [" leek opal<|end|>"], "bytes": 40}, {"died": "exit -9: it"}],
    }
    for run, lines in wrote.items():
        text = "".join(json.dumps(one) + "\n" for one in lines)
        run.path(tmp_path).write_text(text + '{"id": "cut o', encoding="utf-8")
    board = board_of([full, ours, Run("lcdoc", "never run")], tmp_path, ASKED, settings=[HALF], protocols=["agnostic"])
    accuracies = [board.accuracy("full", WHOLE), board.accuracy("snapkv", HALF)]
    assert [one.mean for one in accuracies if one] == [0.5, 0.5]
    assert board.held("snapkv", HALF) == 0.4
    assert board.failures("snapkv", HALF) == {"exit -9: it": 1}
    assert board.methods("agnostic", "end") == ["snapkv"]
    solved = board_of([full, ours], tmp_path, ASKED, settings=[HALF], protocols=["agnostic"], solved=True)
    accuracies = [solved.accuracy("full", WHOLE), solved.accuracy("snapkv", HALF)]
    assert [one.mean for one in accuracies if one] == [1.0, 1.0]


def test_what_was_not_measured_is_no_failure(tmp_path: Path) -> None:
    ours = Run("lcdoc", "snapkv")
    line = {**LINE, "share": 0.5, "id": "a", "given": [" leek opal"], "bytes": 40}
    ours.path(tmp_path).write_text(json.dumps(line) + "\n", encoding="utf-8")
    board = board_of([ours], tmp_path, ASKED, settings=[HALF, TENTH], protocols=["agnostic"])
    assert board.accuracy("snapkv", TENTH) is None
    half = board.accuracy("snapkv", HALF)
    assert half is not None
    assert (half.mean, half.count) == (1.0, 1)


class Echo:
    """Answers with the number of answers it gave before."""

    version = "echo"

    def __init__(self) -> None:
        self.given = 0

    def agnostic(
        self, context: list[int], asks: Sequence[list[int]], method: str, share: float, when: str
    ) -> tuple[list[str], int]:
        self.given += 1
        return [f"{self.given}"] * len(asks), len(context)

    def aware(self, context: list[int], ask: list[int], method: str, share: float, when: str) -> tuple[str, int]:
        raise MemoryError("no room")


def test_an_interrupted_method_goes_on_where_it_was(tmp_path: Path) -> None:
    cases = [{"id": name, "context": [1, 2], "asks": [[3], [4]], "aware": [1]} for name in "ab"]
    settings, path = [("agnostic", "end", 0.5), ("aware", "end", 0.5)], tmp_path / "echo.jsonl"
    measure(Echo(), cases, settings, "echo", path)
    lines = written(path)
    assert [one.get("given", one.get("failure")) for one in lines] == [
        ["1"] * 2,
        ["2"] * 2,
        *["MemoryError: no room"] * 2,
    ]
    # The second context's line was lost half way.
    texts = path.read_text().splitlines(keepends=True)
    path.write_text(texts[0] + texts[1][:9])
    measure(Echo(), cases, settings, "echo", path)
    assert [one.get("given") for one in written(path)] == [["1"] * 2, ["1"] * 2, None, None]
    assert len({one["id"] + one["protocol"] for one in written(path)}) == 4


def test_a_process_that_dies_is_written_down_and_begun_anew(tmp_path: Path) -> None:
    dies = (
        "import sys\nfor line in sys.stdin:\n    if line.startswith('bad'):\n        sys.exit('it broke')\n"
        "    print('done', flush=True)"
    )
    worker = Worker([sys.executable, "-c", dies])
    path = tmp_path / "bad.jsonl"
    path.write_text('{"id": "whole"}\n{"id": "ha', encoding="utf-8")
    assert worker.measure(Run("lcdoc", "good"), tmp_path / "good.jsonl").startswith("done")
    assert worker.measure(Run("lcdoc", "bad"), path) == "exit 1: it broke"
    assert written(path) == [{"id": "whole"}, {"died": "exit 1: it broke"}]
    assert worker.measure(Run("lcdoc", "good"), tmp_path / "good.jsonl").startswith("done")
    worker.end()


def test_published_methods_are_the_rivals_of_combinations() -> None:
    assert rival("kvpress snapkv:window=32+ada")
    assert rival("kvzip")
    assert not rival("kvzip+global+value-merge")
