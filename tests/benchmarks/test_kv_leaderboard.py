"""The arithmetic of the leaderboard of cache compression, and how it counts what failed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lcdoc.benchmarks.kv_leaderboard import Answer, Board, Setting, bootstrap, markdown, plot
from lcdoc.benchmarks.kv_quality import Run, board_of, measured, rival
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


def test_what_a_cell_did_not_answer_is_wrong(tmp_path: Path) -> None:
    asked = {
        "a": [Question("needle", "leek", "", " leek opal", ())],
        "b": [Question("count", "leek", "", " leek 2", ())],
    }
    full, ours = Run("lcdoc", "", "full"), Run("lcdoc", "", "snapkv")
    line = {"method": "", "when": "end", "protocol": "agnostic"}
    wrote = {
        full: [
            {**line, "share": 1.0, "id": one, "given": [said], "bytes": 100}
            for one, said in (("a", " leek opal"), ("b", " leek 3"))
        ],
        ours: [{**line, "share": 0.5, "id": "a", "given": [" leek opal<|end|>"], "bytes": 40}, {"died": "exit -9: it"}],
    }
    for run, lines in wrote.items():
        path = run.path(tmp_path) if run is full else run.path(tmp_path).with_suffix(".failed.jsonl")
        path.write_text("".join(json.dumps(one) + "\n" for one in lines) + '{"id": "cut o', encoding="utf-8")
    board = board_of(
        [full, ours, Run("lcdoc", "", "never run")], tmp_path, asked, settings=[HALF], protocols=["agnostic"]
    )
    accuracies = [board.accuracy("full", WHOLE), board.accuracy("snapkv", HALF)]
    assert [one.mean for one in accuracies if one] == [0.5, 0.5]
    assert board.held("snapkv", HALF) == 0.4
    assert board.failures("snapkv", HALF) == {"exit -9: it": 1}
    assert board.methods("agnostic", "end") == ["snapkv"]


def test_a_cell_that_dies_leaves_what_it_said_and_is_run_again(tmp_path: Path) -> None:
    run = Run("lcdoc", sys.executable, "snapkv")
    ended = measured(run, [str(tmp_path / "no model"), str(tmp_path / "no questions")], tmp_path, threads=1)
    assert ended.startswith("exit 1: FileNotFoundError")
    assert not run.path(tmp_path).exists()
    assert "no questions" in run.path(tmp_path).with_suffix(".failed.jsonl").read_text()


def test_published_methods_are_the_rivals_of_combinations() -> None:
    assert rival("kvpress snapkv:window=32+ada")
    assert rival("kvzip")
    assert not rival("kvzip+global+value-merge")
