"""Real broken files, where the data folder is at hand: each ends in a document or in one clear line."""

import os
from pathlib import Path

import pytest

import lcdoc
from lcdoc.documents import DocumentError, Limits, load

DATA = Path(os.environ.get("LCDOC_DATA", Path(lcdoc.__file__).resolve().parents[1] / "shared" / "data"))
# One of each kind of trouble; benchmarks/robustness.py goes through all of them.
NAMES = [
    "nasty_pdfs/pdfjs__poppler-742-0-fuzzed.pdf",
    "nasty_pdfs/pdfjs__operator_list_cycle.pdf",
    "nasty_pdfs/qpdf__pages-loop.pdf",
    "nasty_pdfs/qpdf__deep-pages.pdf",
    "nasty_pdfs/pdfjs__print_protection.pdf",
    "nasty_pdfs/sample-files__habibi-rotated.pdf",
    "nasty_pdfs/pdfjs__TAMReview.pdf",
    "nasty_pdfs/qpdf__issue-141a.pdf",
    "nasty_other/tika__testWORD_truncated.docx",
    "nasty_other/docling__Strict.docx",
    "nasty_other/tika__english.cp500.txt",
    "nasty_other/PyMuPDF__test_open2.mobi",
]


@pytest.mark.skipif(not (DATA / "nasty_pdfs").is_dir(), reason="the data folder is not here")
@pytest.mark.parametrize("name", NAMES)
def test_a_nasty_file_is_read_or_refused_in_one_line(name):
    try:
        document = load(DATA / name, limits=Limits(max_seconds=20))
    except DocumentError as error:
        assert str(error).startswith(str(DATA / name))
        assert "\n" not in str(error)
        assert error.remedy
    else:
        assert document.text.strip()
