"""The handbook as one HTML page, with a navigation list and a footer that are not part of its text."""

from __future__ import annotations

from html import escape

from sample.book import EDITION, IMPRINT, PUBLISHER, SUBTITLE, TITLE, Book
from sample.xhtml import STYLE, anchor, chapter_xhtml


def make_html(book: Book) -> str:
    """The page, which needs no other file."""
    links = "\n".join(f'<li><a href="#{anchor(c)}">{escape(c.title, quote=False)}</a></li>' for c in book.chapters)
    imprint = "\n".join(f"<p>{line}</p>" for line in (SUBTITLE, PUBLISHER, *IMPRINT))
    body = "".join(chapter_xhtml(chapter, level=2, epub=False) for chapter in book.chapters)
    return f"""<!DOCTYPE html>
<html lang="en-GB">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="author" content="{PUBLISHER}">
<title>{TITLE}</title>
<style>
{STYLE}</style>
</head>
<body>
<nav>
<ul>
{links}
</ul>
</nav>
<main>
<h1>{TITLE}</h1>
{imprint}
{body}</main>
<footer>{EDITION}</footer>
</body>
</html>
"""
