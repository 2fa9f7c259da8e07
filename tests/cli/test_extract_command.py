"""`lcdoc extract` from the outside: values with their quotes, JSON, exit codes, one-line errors."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Command = Callable[..., subprocess.CompletedProcess[str]]
LEASE = """\
# Lease

This lease is made on 3 March 2021 between Mara Lind (the landlord) and Jonas Aas (the tenant), who live there both.

Monthly rent: EUR 1.250,00

| Due date | Amount |
|---|---|
| 01.04.2021 | 1.250,00 |
| 01.05.2021 | 1.300,00 |
"""


@pytest.fixture
def lease(tmp_path: Path) -> Path:
    path = tmp_path / "lease.md"
    path.write_text(LEASE, encoding="utf-8")
    return path


@pytest.fixture
def schema(tmp_path: Path) -> Path:
    path = tmp_path / "lease.json"
    wanted = {
        "made": {"format": "date", "description": "when the lease is made"},
        "monthly_rent": {"type": "number"},
        "payments": [{"due_date": {"format": "date"}, "amount": {"type": "number"}}],
        "fax": {"type": "string", "title": "facsimile apparatus"},
    }
    path.write_text(json.dumps(wanted), encoding="utf-8")
    return path


def test_each_field_has_its_value_and_its_quote(lcdoc: Command, lease: Path, schema: Path) -> None:
    run = lcdoc("extract", lease, "--schema", schema)
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert "made          2021-03-03" in lines
    assert "monthly_rent  1250" in lines
    assert "                \u201cMonthly rent: EUR 1.250,00\u201d" in lines
    assert "payments      2 found" in lines
    assert "              - due_date 2021-05-01, amount 1300" in lines
    assert "fax           not found" in lines
    assert max(map(len, lines)) <= 80
    assert "3 of 4 fields found" in run.stderr
    assert "\x1b" not in run.stdout


def test_json_has_the_object_and_what_bears_it_out(lcdoc: Command, lease: Path, schema: Path) -> None:
    run = lcdoc("extract", lease, "--schema", schema, "--json", "--quiet")
    assert (run.returncode, run.stderr) == (0, "")
    answer = json.loads(run.stdout)
    assert answer["schema"] == "lcdoc.extract/1"
    assert answer["value"] == {
        "made": "2021-03-03",
        "monthly_rent": 1250,
        "payments": [{"due_date": "2021-04-01", "amount": 1250}, {"due_date": "2021-05-01", "amount": 1300}],
        "fax": None,
    }
    rent = next(field for field in answer["fields"] if field["path"] == ["monthly_rent"])
    (number,) = rent["claims"]
    assert answer["claims"][number]["citations"][0]["quote"] == "Monthly rent: EUR 1.250,00"


def test_nothing_found_is_exit_code_1(lcdoc: Command, lease: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text('{"reactor": {"type": "number", "title": "reactor coolant pressure"}}', encoding="utf-8")
    run = lcdoc("extract", lease, "--schema", other)
    assert run.returncode == 1
    assert run.stdout == "reactor  not found\n"


def test_an_estimate_sends_nothing(lcdoc: Command, lease: Path, schema: Path) -> None:
    run = lcdoc("extract", lease, "--schema", schema, "--estimate")
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("offline: 0 calls")


def test_bad_input_is_one_line_and_exit_code_2(lcdoc: Command, lease: Path, schema: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text('{"rent": {"type": "money"}}', encoding="utf-8")
    for arguments, message in (
        ([], "the file is missing"),
        ([lease], "the schema is missing; try: lcdoc extract FILE --schema FILE"),
        ([lease, "--schema", bad], 'bad.json: "rent" has the type "money"; there are string'),
        ([lease, "--schema", tmp_path / "none.json"], "none.json: No such file"),
        ([lease, "--schema", schema, "--refresh", "--no-cache"], "exclude each other"),
    ):
        run = lcdoc("extract", *arguments)
        assert run.returncode == 2
        assert message in run.stderr
        assert run.stderr.count("\n") == 1
        assert run.stdout == ""
