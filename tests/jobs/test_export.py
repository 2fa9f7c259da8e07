"""Rows as files for other programs."""

import csv
import json
import sys

import pyarrow.parquet as pq
import pytest

from lcdoc.jobs.errors import JobError
from lcdoc.jobs.export import export, format_of
from lcdoc.jobs.results import Result
from lcdoc.tests.jobs.rows import JOB, row

VALUE = {"rent": 1200.5, "landlord": {"name": "=HYPERLINK(1)"}, "rooms": ["hall", "loft"]}


def written(path, results, form=None):
    count = export(results, path, format_of(path, form), JOB.tasks)
    assert count == len(results)
    return path


def table(path):
    text = path.read_bytes()
    assert text.startswith(b"\xef\xbb\xbf")
    return list(csv.DictReader(text.decode("utf-8-sig").splitlines(keepends=True)))


def test_lines_of_json_are_the_rows(tmp_path):
    rows = [row(1, 1), row(1, 2, value=VALUE), row(2, 1, error="cannot be read")]
    path = written(tmp_path / "out.jsonl", rows)
    assert [Result.of(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()] == rows


def test_a_table_has_flat_columns_and_those_of_what_is_extracted(tmp_path):
    first, second, third = table(
        written(tmp_path / "out.csv", [row(1, 1), row(1, 2, value=VALUE), row(2, 1, error="cannot be read")])
    )
    assert list(first)[:7] == ["job", "document", "path", "name", "document_id", "document_pages", "task"]
    assert (first["answer"], first["pages"], first["quotes"]) == ("On 4 March 1871.", "3", "4 March")
    assert (first["cost_usd"], first["found"], first["value.rent"]) == ("0.001", "True", "")
    assert second["value.rent"] == "1200.5"
    assert second["value.landlord.name"] == "'=HYPERLINK(1)"
    assert second["value.rooms"] == '["hall", "loft"]'
    assert (third["error"], third["found"], third["answer"]) == ("cannot be read", "False", "")
    assert (tmp_path / "out.csv").read_text(encoding="utf-8-sig").splitlines()[0].startswith("job,document,path")
    assert table(written(tmp_path / "none.csv", [])) == []
    assert (tmp_path / "none.csv").read_text(encoding="utf-8-sig").startswith("job,document,")


@pytest.mark.parametrize(
    ("answer", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("-2+3", "'-2+3"),
        ("\t=1+1", " '=1+1"),
        ("  =1+1", "  '=1+1"),
        ("\uff1d1+1", "'\uff1d1+1"),
        ("a;=1+1", "a;'=1+1"),
        ("a\n =1+1", "a\n '=1+1"),
        ("a\r=1+1", "a =1+1"),
        ("\x00\x1b=1", "  '=1"),
        ("-5.2 %", "-5.2 %"),
        ("1,200.50", "1,200.50"),
        ("2+2=4, a-b", "2+2=4, a-b"),
        ("x" * 40_000, "x" * 32_000 + "\u2026"),
        (";=" * 15_000, (";'=" * 15_000)[:32_000] + "\u2026"),
        ('"quoted", and more', '"quoted", and more'),
    ],
)
def test_no_cell_is_a_formula(tmp_path, answer, cell):
    (one,) = table(written(tmp_path / "out.csv", [row(answer=answer)]))
    assert one["answer"] == cell


def test_parquet_has_typed_columns(tmp_path):
    rows = [row(number, task, value=VALUE if task == 2 else None) for number in range(1, 1501) for task in (1, 2)]
    path = written(tmp_path / "out.parquet", [*rows, row(1501, 1, error="cannot be read")])
    read = pq.ParquetFile(path)
    assert read.num_row_groups == 2
    assert read.schema_arrow.metadata[b"schema"] == b"lcdoc.result/1"
    first, second, *_, last = read.read().to_pylist()
    assert first["claims"][0]["citations"][0]["pages"] == [3]
    assert first["claims"][0]["citations"][0]["span"] == {"start": 10, "end": 17}
    assert first["finished_at"] == rows[0].finished_at
    assert first["usage"]["cost_usd"] == 0.001
    assert (first["value"], json.loads(second["value"])) == (None, VALUE)
    assert (last["error"], last["claims"]) == ("cannot be read", [])
    assert written(tmp_path / "none.parquet", []).is_file()


def test_an_export_is_there_whole_or_not_at_all(tmp_path):
    path = written(tmp_path / "out.jsonl", [row()])
    before = path.read_bytes()

    def broken():
        yield row(2)
        raise JobError("the library is gone")

    with pytest.raises(JobError, match="the library is gone"):
        export(broken(), path, "jsonl", JOB.tasks)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["out.jsonl"]


def test_what_cannot_be_written_is_told(tmp_path, monkeypatch):
    with pytest.raises(JobError, match=r"has no suffix that names a format; give it \.jsonl, \.csv, \.parquet"):
        format_of(tmp_path / "out.xlsx")
    assert format_of(tmp_path / "out.xlsx", "csv") == "csv"
    with pytest.raises(JobError, match="no is not a folder"):
        export([], tmp_path / "no" / "out.csv", "csv", JOB.tasks)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(JobError, match=r"folder.csv cannot be written \(Is a directory\)"):
        export([], tmp_path / "folder.csv", "csv", JOB.tasks)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(JobError, match=r"Parquet takes pyarrow; pip install 'lcdoc\[parquet\]'"):
        export([row()], tmp_path / "out.parquet", "parquet", JOB.tasks)
    assert [one.name for one in tmp_path.iterdir()] == ["folder.csv"]
