"""Results as tables, comparisons, files and pictures."""

import asyncio
import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lcdoc.evaluation.errors import EvaluationError
from lcdoc.evaluation.export import csv_of, markdown_of, written
from lcdoc.evaluation.needle_map import map_text, shares
from lcdoc.evaluation.report import Result, compared, comparison_table, overview, result_of, table, worst
from lcdoc.memory import Library

SETTINGS = {"set": "squad", "split": "v2.0", "part": "test", "way": "retrieve", "model": "offline"}


def keep(library: Library, scores: dict[str, float], **settings: Any) -> Result:
    """An evaluation with an item of each score, two of each document."""
    evaluation_id = library.evaluations.begin(SETTINGS | settings, len(scores))
    for number, (name, score) in enumerate(scores.items()):
        item = {
            "document": f"d{number // 2}",
            "drawn_as": f"d{number // 2}",
            "question": f"What is {name}?",
            "references": [f"{name} | it"],
            "found": score > 0,
            "answer": f"it is {name}" if score else "",
            "pages": [1, 2],
            "confidence": 5 * score,
            "figures": {
                "f1": score,
                "exact": float(score == 1),
                "contains": float(score > 0.5),
                "seconds": 2.0,
                "calls": 0.0,
            },
            "error": "" if score else "model m: no answer",
        }
        asyncio.run(library.evaluations.keep(evaluation_id, name, item))
    library.evaluations.finish(evaluation_id)
    return result_of(library, library.evaluations.find(evaluation_id))


NAMES = [f"q{number}" for number in range(20)]


def test_a_table_has_means_with_intervals_and_leaves_empty_rows_out(library: Library) -> None:
    result = keep(library, {name: (number % 4) / 4 for number, name in enumerate(NAMES)})
    lines = table([result]).splitlines()
    assert lines[0].split() == ["retrieve,", "offline"]
    (f1,) = (line for line in lines if line.startswith("F1 "))
    assert f1.split()[1] == "37.5"
    assert result.estimates["f1"].low < 0.375 < result.estimates["f1"].high
    assert any(line.startswith("AURC") for line in lines)
    assert not any(line.startswith(("calls", "refused")) for line in lines)
    assert "questions (failed)  20 (5)" in lines
    markdown = table([result, result], markdown=True).splitlines()
    assert markdown[0] == "|  | retrieve, offline | retrieve, offline |"
    assert markdown[1] == "|---|---|---|"
    assert all(line.count("|") == 4 for line in markdown)


def test_a_table_fits_the_terminal_and_is_whole_elsewhere(library: Library) -> None:
    result = keep(library, {name: (number % 4) / 4 for number, name in enumerate(NAMES)}, way="best_sentence")
    whole = table([result] * 3)
    assert max(map(len, whole.splitlines())) > 80
    narrow = table([result] * 3, width=80).splitlines()
    assert max(map(len, narrow)) <= 80
    assert [line.split() for line in narrow[:2]] == [["vectors", "+", "best"] * 3, ["sentence"] * 3]
    assert narrow[3].startswith("F1                  37.5 [22.5, 52.5]  37.5")
    # Where that does not fit, intervals lose their decimals; and where that does not, the third goes below the others.
    brief = table([result] * 3, width=66).splitlines()
    assert max(map(len, brief)) <= 66
    assert brief[3].startswith("F1                  37.5 [22, 52]")
    bands = table([result] * 3, width=50).split("\n\n")
    assert max(len(line) for band in bands for line in band.splitlines()) <= 50
    assert [band.splitlines()[-1].split()[1:] for band in bands] == [[result.evaluation.id] * count for count in (2, 1)]
    comparison = comparison_table(result, result, width=80)
    assert max(map(len, comparison.splitlines())) <= 80


def test_an_overview_has_a_row_for_each_of_several_sets(library: Library) -> None:
    results = [keep(library, {"a": 0.5, "b": 1.0}, set=name, part="all") for name in ("squad", "policyqa")]
    header, _, first, second = overview(results, markdown=True).splitlines()
    assert header == "| questions | asked | F1 | contains | AURC | seconds |"
    assert first.startswith("| squad v2.0 (2) | retrieve, offline | 75.0 [")
    assert second.startswith("| policyqa v2.0 (2) | ")


def test_two_are_compared_on_the_questions_they_share(library: Library) -> None:
    first = keep(library, dict.fromkeys(NAMES, 0.25))
    second = keep(library, dict.fromkeys(NAMES[4:], 0.75) | {"other": 0.0}, way="chain")
    difference = compared(first, second)["f1"]
    assert (difference.estimate.value, difference.estimate.questions) == (0.5, 16)
    assert difference.p < 0.01
    (line,) = (line for line in comparison_table(first, second).splitlines() if line.startswith("F1 "))
    assert "+50.0 [+50.0, +50.0]" in line
    stranger = keep(library, {"elsewhere": 1.0}, way="tree")
    with pytest.raises(EvaluationError, match="have no question in common"):
        compared(first, stranger)


def test_questions_of_ones_own_are_compared_where_their_lines_moved(library: Library) -> None:
    first = keep(library, dict.fromkeys(NAMES, 0.25))
    moved = keep(library, dict.fromkeys(NAMES, 0.75), way="chain")
    # The items of `keep` ask of their own names, in the order of the lines: the same under other ids.
    second = replace(moved, items={str(number): item for number, item in enumerate(moved.items.values(), 2)})
    assert compared(first, second)["f1"].estimate.questions == len(NAMES)
    twice = replace(moved, items={**second.items, "a": moved.items["q0"]})
    assert compared(first, twice)["f1"].estimate.questions == len(NAMES) - 1


def test_the_worst_answers_are_told_failures_first(library: Library) -> None:
    result = keep(library, {"a": 0.5, "b": 0.25, "c": 0.0, "d": 1.0})
    assert [item["question"] for item in worst(result, 2)] == ["What is c?", "What is b?"]


def test_csv_and_json_hold_every_answer(library: Library, tmp_path: Path) -> None:
    result = keep(library, {"a, b": 0.5, "c": 0.0})
    rows = list(csv.DictReader(io.StringIO(csv_of(result))))
    assert [(row["id"], row["f1"], row["pages"], row["error"]) for row in rows] == [
        ("a, b", "0.5", "1|2", ""),
        ("c", "0.0", "1|2", "model m: no answer"),
    ]
    written([result], tmp_path / "all.json")
    (value,) = json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))
    assert value["figures"]["f1"]["value"] == 0.25
    assert value["items"]["c"]["error"]
    written([result], tmp_path / "table.md")
    assert (tmp_path / "table.md").read_text(encoding="utf-8").startswith("|  | retrieve")
    with pytest.raises(EvaluationError, match="cannot be written"):
        written([result], tmp_path / "no" / "table.md")


def test_needles_become_a_map(library: Library) -> None:
    found = {"2000/0/0": 1.0, "2000/0/1": 0.0, "2000/50/0": 1.0, "8000/0/0": 0.0, "8000/50/0": 1.0}
    result = keep(library, found, set="needle_haystacks")
    assert shares(result) == {(2000, 0): 0.5, (2000, 50): 1.0, (8000, 0): 0.0, (8000, 50): 1.0}
    assert [line.split() for line in map_text(result).splitlines()] == [
        ["depth,", "tokens", "2,000", "8,000"],
        ["0", "%", "50%", "0%"],
        ["50", "%", "100%", "100%"],
    ]
    assert markdown_of([result]).splitlines()[-6:] == [
        "Facts found, retrieve, offline:",
        "",
        "| depth, tokens | 2,000 | 8,000 |",
        "|---|---|---|",
        "| 0 % | 50% | 0% |",
        "| 50 % | 100% | 100% |",
    ]
    assert shares(keep(library, found, way="chain")) == {}


def test_pictures_are_drawn_and_what_cannot_be_is_one_line(library: Library, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    scores = keep(library, {name: (number % 4) / 4 for number, name in enumerate(NAMES)})
    needle = keep(library, {"2000/0/0": 1.0, "2000/50/0": 0.5}, set="needle_haystacks")
    written([scores, scores], tmp_path / "scores.svg")
    picture = (tmp_path / "scores.svg").read_text(encoding="utf-8")
    assert picture.startswith("<?xml")
    written([needle], tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(EvaluationError, match="cannot be written"):
        written([scores], tmp_path / "scores.doc")


def test_pictures_without_matplotlib_say_how_to_get_it(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(EvaluationError, match=r"pip install 'lcdoc\[plot\]'"):
        written([keep(library, {"a": 1.0})], tmp_path / "scores.svg")
