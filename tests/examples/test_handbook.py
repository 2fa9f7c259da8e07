"""The sample handbook: the script reproduces what is committed, and what is committed is what it claims to be."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import unicodedata
import zipfile
import zlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pypdfium2
import pytest
from defusedxml import ElementTree

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SCRIPT = EXAMPLES / "make_sample.py"
FORMATS = ("pdf", "epub", "docx", "html", "md", "txt")
QUESTIONS = json.loads((EXAMPLES / "questions.json").read_text("utf-8"))["questions"]
ANSWERABLE = [question for question in QUESTIONS if question["answer"] is not None]
WORD = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"


def squeeze(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).replace("\u2019", "'").replace("\u2018", "'")
    text = text.replace("\u201c", '"').replace("\u201d", '"')
    return re.sub(r"[\s\-\xad\ufffe\x02]+", "", text).lower()


@pytest.fixture(scope="module")
def pdf() -> Any:
    document = pypdfium2.PdfDocument(EXAMPLES / "handbook.pdf")
    yield document
    document.close()


@pytest.fixture(scope="module")
def page_texts(pdf: Any) -> list[str]:
    return [page.get_textpage().get_text_range() for page in pdf]


@pytest.fixture(scope="module")
def outline(pdf: Any) -> list[tuple[int, str, int]]:
    """(level, title, page index) of every entry."""
    return [(entry.level, entry.get_title(), entry.get_dest().get_index()) for entry in pdf.get_toc()]


@pytest.fixture(scope="module")
def regenerated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("reportlab", reason="reportlab is not installed (extra: dev)")
    out = tmp_path_factory.mktemp("handbook")
    run(["--out", str(out)])
    return out


def run(arguments: list[str]) -> str:
    done = subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def versions_differ() -> str:
    """The first library whose version is not the one that made the committed files, or nothing."""
    for name, recorded in json.loads((EXAMPLES / "versions.json").read_text("utf-8")).items():
        try:
            here = zlib.ZLIB_RUNTIME_VERSION if name == "zlib" else version(name)
        except PackageNotFoundError:
            here = "not installed"
        if here != recorded:
            return f"made with {name} {recorded}, here is {here}"
    return ""


@pytest.mark.parametrize("name", ["handbook.html", "handbook.md", "handbook.txt"])
def test_text_formats_are_reproduced_everywhere(regenerated: Path, name: str) -> None:
    # A checkout may have turned the line ends of text files.
    assert (EXAMPLES / name).read_bytes().replace(b"\r\n", b"\n") == (regenerated / name).read_bytes()


@pytest.mark.parametrize("name", ["handbook.epub", "handbook.docx"])
def test_zip_formats_are_reproduced_member_by_member(regenerated: Path, name: str) -> None:
    if name.endswith("docx") and (reason := versions_differ()) and "python-docx" in reason:
        pytest.skip(reason)
    with zipfile.ZipFile(EXAMPLES / name) as committed, zipfile.ZipFile(regenerated / name) as made:
        assert committed.namelist() == made.namelist()
        for member in made.namelist():
            assert committed.read(member) == made.read(member), member


@pytest.mark.parametrize("name", ["handbook.pdf", "handbook.epub", "handbook.docx", "questions.json"])
def test_the_same_libraries_give_the_committed_bytes(regenerated: Path, name: str) -> None:
    if reason := versions_differ():
        pytest.skip(reason)
    committed = (EXAMPLES / name).read_bytes()
    if name.endswith("json"):
        committed = committed.replace(b"\r\n", b"\n")
    assert committed == (regenerated / name).read_bytes()


def test_two_runs_give_the_same_bytes(regenerated: Path, tmp_path: Path) -> None:
    run(["--out", str(tmp_path)])
    for made in regenerated.iterdir():
        assert (tmp_path / made.name).read_bytes() == made.read_bytes(), made.name


def test_help_names_the_option_and_the_files() -> None:
    shown = run(["--help"])
    assert "--out DIR" in shown
    assert "questions.json" in shown


@pytest.mark.parametrize("suffix", FORMATS)
def test_files_are_small(suffix: str) -> None:
    assert (EXAMPLES / f"handbook.{suffix}").stat().st_size < (250_000 if suffix == "pdf" else 400_000)


def test_pdf_has_forty_pages_and_a_title(pdf: Any, page_texts: list[str]) -> None:
    assert len(pdf) >= 40
    assert all(text.strip() for text in page_texts)
    assert pdf.get_metadata_value("Title") == "Handbook of the Quill Lights and Ferries"


def test_pdf_labels_are_roman_then_arabic(pdf: Any) -> None:
    labels = [pdf.get_page_label(index) for index in range(len(pdf))]
    front = labels.index("1")
    assert labels[:front] == ["i", "ii", "iii", "iv", "v", "vi", "vii", "viii"]
    assert labels[front:] == [str(number) for number in range(1, len(pdf) - front + 1)]


def test_the_label_is_printed_at_the_foot_of_its_page(pdf: Any) -> None:
    for index in range(2, len(pdf)):
        foot = pdf[index].get_textpage().get_text_bounded(bottom=25, top=50)
        assert foot.replace("Seventh edition, 2019", "").strip() == pdf.get_page_label(index)


def test_pdf_outline_has_two_levels_and_leads_to_the_headings(
    outline: list[tuple[int, str, int]], page_texts: list[str]
) -> None:
    assert {level for level, _, _ in outline} == {0, 1}
    assert [title for level, title, _ in outline if level == 0][:4] == [
        "Contents",
        "How to Use This Handbook",
        "Foreword",
        "Record of Amendments",
    ]
    for _, title, page in outline:
        assert squeeze(title) in squeeze(page_texts[page]), title


def test_pdf_has_headers_hyphens_and_two_columns(
    pdf: Any, outline: list[tuple[int, str, int]], page_texts: list[str]
) -> None:
    headed = [text for text in page_texts if "Handbook of the Quill Lights and Ferries" in text]
    assert len(headed) > 15
    assert sum(text.count("\ufffe") + text.count("-\r\n") for text in page_texts) > 60
    gazetteer = next(page for _, title, page in outline if title.startswith("7.2"))
    page = pdf[gazetteer].get_textpage()
    lefts = [page.get_rect(index)[0] for index in range(page.count_rects())]
    middle = pdf[gazetteer].get_width() / 2
    assert sum(left < middle - 100 for left in lefts) > 10
    assert sum(middle < left < middle + 30 for left in lefts) > 10


def test_all_formats_contain_all_section_titles(outline: list[tuple[int, str, int]], page_texts: list[str]) -> None:
    titles = [title for _, title, _ in outline if title != "Contents"]
    assert len(titles) > 70
    for suffix, text in {**other_formats(), "pdf": "".join(page_texts)}.items():
        squeezed = squeeze(text)
        missing = [title for title in titles if squeeze(title) not in squeezed]
        assert not missing, f"{suffix} lacks {missing}"


@pytest.mark.parametrize("question", ANSWERABLE, ids=lambda question: f"{question['id']}-{question['kind']}")
def test_answer_stands_on_the_named_page(question: dict[str, Any], pdf: Any, page_texts: list[str]) -> None:
    assert question["answer"] in question["evidence"]
    assert pdf.get_page_label(question["page"] - 1) == question["label"]
    pages = [entry["page"] for entry in question["evidence_pages"]]
    evidence, answer = squeeze(question["evidence"]), squeeze(question["answer"])
    if question["kind"] != "page-break":
        assert pages == [question["page"]]
        assert evidence in squeeze(page_texts[pages[0] - 1])
        assert sum(evidence in squeeze(text) for text in page_texts) == 1
        return
    assert question["page"] in pages
    assert pages == [pages[0], pages[0] + 1]
    first, second = (squeeze(page_texts[page - 1]) for page in pages)
    split = next(at for at in range(1, len(evidence)) if evidence[:at] in first and evidence[at:] in second)
    begins = evidence.index(answer)
    assert question["page"] == pages[0 if begins < split else 1]


@pytest.mark.parametrize("suffix", [suffix for suffix in FORMATS if suffix != "pdf"])
def test_every_answer_stands_in_every_format(suffix: str) -> None:
    text = squeeze(re.sub(r"<[^>]*>|\*|\|", "", other_formats()[suffix]))
    for question in ANSWERABLE:
        assert squeeze(question["evidence"]) in text, question["question"]


def test_the_questions_cover_what_makes_documents_hard() -> None:
    kinds = {question["kind"] for question in QUESTIONS}
    assert kinds == {
        "prose", "contradiction", "table", "footnote", "page-break", "two-column", "hyphenated", "unanswerable",
    }  # fmt: skip
    assert len(ANSWERABLE) == 25
    unanswerable = [question for question in QUESTIONS if question["answer"] is None]
    assert len(unanswerable) == 6
    assert all(question["page"] is None and not question["evidence_pages"] for question in unanswerable)


def test_a_hyphenated_answer_is_really_broken(page_texts: list[str]) -> None:
    for question in ANSWERABLE:
        if question["kind"] == "hyphenated":
            assert question["answer"] not in page_texts[question["page"] - 1].replace("\r\n", " ")


def test_epub_is_a_sound_container(outline: list[tuple[int, str, int]]) -> None:
    with zipfile.ZipFile(EXAMPLES / "handbook.epub") as archive:
        first = archive.infolist()[0]
        assert (first.filename, first.compress_type) == ("mimetype", zipfile.ZIP_STORED)
        assert archive.read("mimetype") == b"application/epub+zip"
        for name in archive.namelist():
            if name.endswith((".xhtml", ".opf", ".ncx", ".xml")):
                ElementTree.fromstring(archive.read(name))
        package = archive.read("OEBPS/content.opf").decode()
        for target in re.findall(r'href="([^"]+)"', package):
            assert f"OEBPS/{target}" in archive.namelist()
        for listing in ("OEBPS/nav.xhtml", "OEBPS/toc.ncx"):
            for _, title, _ in outline[1:]:
                assert f">{title}<" in archive.read(listing).decode()


def test_docx_footnotes_are_real_and_all_called() -> None:
    with zipfile.ZipFile(EXAMPLES / "handbook.docx") as archive:
        notes = ElementTree.fromstring(archive.read("word/footnotes.xml"))
        body = ElementTree.fromstring(archive.read("word/document.xml"))
        assert b"footnotes+xml" in archive.read("[Content_Types].xml")
    texts = {
        note.get(f"{WORD}id"): "".join(note.itertext())
        for note in notes
        if note.get(f"{WORD}type") is None
    }  # fmt: skip
    calls = [call.get(f"{WORD}id") for call in body.iter(f"{WORD}footnoteReference")]
    assert calls == list(texts)
    assert len(calls) == 4
    assert any("214 crowns" in text for text in texts.values())


def test_docx_opens_with_headings_and_tables(outline: list[tuple[int, str, int]]) -> None:
    import docx

    document = docx.Document(str(EXAMPLES / "handbook.docx"))
    titles = [p.text for p in document.paragraphs if p.style and p.style.name in {"Heading 1", "Heading 2"}]
    assert titles == [title for _, title, _ in outline[1:]]
    assert len(document.tables) == (EXAMPLES / "handbook.html").read_text("utf-8").count("<table>")


def other_formats() -> dict[str, str]:
    """Every format but PDF, as text with its markup."""
    found = {suffix: (EXAMPLES / f"handbook.{suffix}").read_text("utf-8") for suffix in ("html", "md", "txt")}
    for suffix, members in {"epub": r"OEBPS/\d+\.xhtml", "docx": r"word/(document|footnotes)\.xml"}.items():
        with zipfile.ZipFile(EXAMPLES / f"handbook.{suffix}") as archive:
            names = [name for name in archive.namelist() if re.fullmatch(members, name)]
            found[suffix] = "\n".join(archive.read(name).decode() for name in names)
    return {suffix: text.replace("&amp;", "&") for suffix, text in found.items()}
