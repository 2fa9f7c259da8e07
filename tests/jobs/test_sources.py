"""Folders, globs and lists of documents."""

import os
from pathlib import Path

import pytest

from lcdoc.documents import NotFoundError
from lcdoc.jobs.errors import JobError
from lcdoc.jobs.sources import Sources, located, skipped_text, told_apart


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder as users have them, which is the working folder."""
    root = tmp_path / "root"
    for name in (
        "contracts/b.pdf", "contracts/a.txt", "contracts/sheet.xlsx", "contracts/.hidden.pdf", "contracts/README",
        "contracts/2024/z.MD", "contracts/2024/deep/er/one.pdf", "contracts/.git/x.pdf", "contracts/photo.xlsx",
        "other/a.pdf", "other/odd [1].pdf", "other/scan.dat",
    ):  # fmt: skip
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("text", encoding="utf-8")
    monkeypatch.chdir(root)
    return root


def found(*given, stdin=None):
    return [os.path.relpath(path) for path in Sources(given, stdin=stdin)]


def test_a_folder_is_walked_in_order_without_what_is_hidden_or_no_document(folder):
    sources = Sources(["contracts"])
    paths = list(sources)
    assert paths == [
        str(folder / "contracts" / name) for name in ("a.txt", "b.pdf", "2024/z.MD", "2024/deep/er/one.pdf")
    ]
    assert skipped_text(sources.skipped) == "2 .xlsx, 1 other files"
    assert list(sources) == paths
    assert sources.skipped[".xlsx"] == 2


def test_a_name_that_cannot_be_looked_up_is_no_bug(folder):
    long = "x" * 300
    with pytest.raises(NotFoundError, match="no such file"):
        Sources([long]).check()
    assert found("-", stdin=f"{long}\nother/a.pdf\n".encode()) == [long, "other/a.pdf"]


def test_links_are_followed_to_files_and_to_no_folder(folder):
    contracts = folder / "contracts"
    (contracts / "loop").symlink_to(contracts, target_is_directory=True)
    (contracts / "loop.pdf").symlink_to(folder, target_is_directory=True)
    (contracts / "gone.pdf").symlink_to(folder / "nowhere.pdf")
    (contracts / "linked.pdf").symlink_to(folder / "other" / "a.pdf")
    os.mkfifo(contracts / "pipe.txt")
    sources = Sources(["contracts"])
    assert [os.path.relpath(path, contracts) for path in sources] == [
        "a.txt", "b.pdf", "linked.pdf", "2024/z.MD", "2024/deep/er/one.pdf"
    ]  # fmt: skip
    assert sources.skipped["links to folders"] == 1
    assert sources.skipped["broken links and special files"] == 2
    assert found("contracts/**/*.pdf") == ["contracts/b.pdf", "contracts/linked.pdf", "contracts/2024/deep/er/one.pdf"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("contracts/*.pdf", ["contracts/b.pdf"]),
        ("*/a.*", ["contracts/a.txt", "other/a.pdf"]),
        ("**/*.pdf", ["contracts/b.pdf", "contracts/2024/deep/er/one.pdf", "other/a.pdf", "other/odd [1].pdf"]),
        ("contracts/202*/**", ["contracts/2024/z.MD", "contracts/2024/deep/er/one.pdf"]),
        ("contracts/**/e[r]/**/one.pdf", ["contracts/2024/deep/er/one.pdf"]),
        ("contracts/202?/*", ["contracts/2024/z.MD"]),
        ("other/odd [1].pdf", ["other/odd [1].pdf"]),
    ],
)  # fmt: skip
def test_globs_that_no_shell_has_expanded(folder, pattern, expected):
    assert found(pattern) == expected


def test_a_file_that_is_named_is_a_document_whatever_it_is(folder):
    assert found("other/scan.dat", "contracts/.hidden.pdf") == ["other/scan.dat", "contracts/.hidden.pdf"]


def test_lists_name_files_and_folders_relative_to_where_they_lie(folder, monkeypatch):
    (folder / "other" / "list.txt").write_bytes(
        b"\xef\xbb\xbfa.pdf\r\n\r\nscan.dat\n../contracts/2024\ngone.pdf\n# 1.pdf\n"
    )
    assert found("@other/list.txt") == [
        "other/a.pdf", "other/scan.dat", "contracts/2024/z.MD", "contracts/2024/deep/er/one.pdf", "other/gone.pdf",
        "other/# 1.pdf",
    ]  # fmt: skip
    (folder / "list0").write_bytes(b"other/a.pdf\0other/two\nlines.pdf\0")
    assert found("@list0") == ["other/a.pdf", "other/two\nlines.pdf"]
    assert found("-", stdin=b"other/a.pdf\ncontracts/b.pdf") == ["other/a.pdf", "contracts/b.pdf"]
    marked = told_apart(["-", "other"], b"other/a.pdf")
    assert marked[1] == "other"
    assert marked[0] != told_apart(["-"], b"contracts/b.pdf")[0]
    assert found(marked[0], stdin=b"other/a.pdf") == ["other/a.pdf"]
    with pytest.raises(JobError, match="the list of documents was on standard input; pipe it in again"):
        list(Sources(marked))


def test_sources_are_made_absolute_once(folder, tmp_path):
    assert located(["a.pdf", "@list", "-", "/x/*.pdf", "../y"], tmp_path) == (
        f"{tmp_path}/a.pdf", f"@{tmp_path}/list", "-", "/x/*.pdf", f"{tmp_path.parent}/y"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ("contract", NotFoundError, "contract: no such file or folder; did you mean {root}/contracts?"),
        ("other/*.docx", NotFoundError, "no document matches"),
        ("nowhere/*.pdf", NotFoundError, "nowhere: no such folder"),
        ("contracts/.git/../2024/none", NotFoundError, "no such file or folder"),
        ("@no.txt", JobError, "the list {root}/no.txt cannot be read (No such file or directory)"),
        ("@empty.txt", JobError, "no file of the list {root}/empty.txt is there"),
        ("@gone.txt", JobError, "no file of the list {root}/gone.txt is there"),
        ("empty", NotFoundError, "empty: no documents in this folder; it may hold PDF"),
    ],
)
def test_what_is_not_there_is_told_before_a_job_is_begun(folder, given, error, said):
    (folder / "empty.txt").write_bytes(b"\n")
    (folder / "gone.txt").write_bytes(b"gone.pdf\n")
    (folder / "empty").mkdir()
    with pytest.raises(error) as raised:
        Sources(["contracts", given]).check()
    assert said.format(root=folder) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_names_that_are_no_text_are_told(folder):
    odd = os.fsencode(folder / "other") + b"/caf\xe9.pdf"
    Path(os.fsdecode(odd)).touch()
    sources = Sources(["other"])
    assert [Path(path).name for path in sources] == ["a.pdf", "odd [1].pdf"]
    assert sources.skipped["names that are not UTF-8"] == 1
    with pytest.raises(JobError, match="is not UTF-8; rename the file"):
        list(Sources([os.fsdecode(odd)]))


def test_a_deep_and_wide_folder_is_found_lazily(tmp_path):
    deep = tmp_path
    for level in range(60):
        deep = deep / f"level-{level:02}"
        deep.mkdir()
        (deep / "one.txt").write_bytes(b"")
    wide = deep / "wide"
    wide.mkdir()
    for number in range(3000):
        (wide / f"{number:04}.txt").write_bytes(b"")
    walk = iter(Sources([str(tmp_path)]))
    assert next(walk).endswith("level-00/one.txt")
    assert sum(1 for _ in walk) == 59 + 3000
