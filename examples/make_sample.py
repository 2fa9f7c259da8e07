"""Writes the sample handbook in every format that lcdoc reads, and the questions that go with it.

The text is in `sample/text/`, in a small markup that `sample/markup.py` documents. The same text and the same versions
of the libraries give the same bytes.
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIBRARIES = ("reportlab", "python-docx", "pypdfium2")
NEEDED = "make_sample.py needs {}; install the development dependencies: pip install -e '.[dev]'"


def main() -> int:
    """Parse the command line, make the files and say what was written."""
    parser = argparse.ArgumentParser(
        prog="make_sample.py",
        description=__doc__,
        epilog="Files: handbook.pdf, .epub, .docx, .html, .md, .txt, questions.json, versions.json.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=HERE, metavar="DIR", help="where to write (default: %(default)s)")
    arguments = parser.parse_args()
    try:
        files = make_files()
    except ModuleNotFoundError as error:
        print(NEEDED.format(error.name), file=sys.stderr)
        return 1
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (arguments.out / name).write_bytes(data)
        print(f"{arguments.out / name}  {len(data):,} bytes")
    return 0


def make_files() -> dict[str, bytes]:
    """Every file by its name."""
    from sample.epub import make_epub
    from sample.markdown import make_markdown
    from sample.markup import read_book
    from sample.pdf import make_pdf
    from sample.plaintext import make_text
    from sample.questions import make_questions
    from sample.web import make_html
    from sample.word import make_docx

    text = HERE / "sample" / "text"
    book = read_book(text)
    pdf = make_pdf(book)
    made_with = {name: version(name) for name in LIBRARIES} | {"zlib": zlib.ZLIB_RUNTIME_VERSION}
    return {
        "handbook.pdf": pdf,
        "handbook.epub": make_epub(book),
        "handbook.docx": make_docx(book),
        "handbook.html": make_html(book).encode(),
        "handbook.md": make_markdown(book).encode(),
        "handbook.txt": make_text(book).encode(),
        "questions.json": make_questions(book, pdf, text / "questions.toml").encode(),
        "versions.json": (json.dumps(made_with, indent=1) + "\n").encode(),
    }


if __name__ == "__main__":
    sys.exit(main())
