"""The handbook as EPUB 3, with the NCX that older readers look for."""

from __future__ import annotations

import uuid
from html import escape
from itertools import count

from sample.archive import pack
from sample.book import DATE, EDITION, IMPRINT, PUBLISHER, SUBTITLE, TITLE, Book, Chapter
from sample.xhtml import STYLE, anchor, chapter_xhtml

_ID = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, 'lcdoc:examples/handbook')}"
_CONTAINER = """<?xml version="1.0" encoding="UTF-8"?>
<container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container">
<rootfiles><rootfile full-path="OEBPS/content.opf" media-type="application/oebps-package+xml"/></rootfiles>
</container>
"""


def make_epub(book: Book) -> bytes:
    """The EPUB: one file a chapter, in the order of the spine."""
    parts = [(f"{number:02}.xhtml", chapter) for number, chapter in enumerate(book.chapters, 1)]
    members = [
        ("mimetype", "application/epub+zip"),
        ("META-INF/container.xml", _CONTAINER),
        ("OEBPS/content.opf", _package(parts)),
        ("OEBPS/nav.xhtml", _nav(parts)),
        ("OEBPS/toc.ncx", _ncx(parts)),
        ("OEBPS/style.css", STYLE),
        ("OEBPS/title.xhtml", _page(TITLE, _title_page())),
        *((f"OEBPS/{name}", _page(c.title, chapter_xhtml(c, level=1, epub=True))) for name, c in parts),
    ]
    return pack(((name, text.encode()) for name, text in members), stored=frozenset({"mimetype"}))


def _page(title: str, body: str) -> str:
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE html>
<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops" lang="en-GB" xml:lang="en-GB">
<head>
<title>{escape(title, quote=False)}</title>
<link rel="stylesheet" type="text/css" href="style.css"/>
</head>
<body>
{body}</body>
</html>
"""


def _title_page() -> str:
    lines = "".join(f"<p>{line}</p>\n" for line in (SUBTITLE, PUBLISHER, EDITION, *IMPRINT))
    return f'<section epub:type="titlepage">\n<h1>{TITLE}</h1>\n{lines}</section>\n'


def _package(parts: list[tuple[str, Chapter]]) -> str:
    items = "\n".join(
        f'<item id="p{index}" href="{name}" media-type="application/xhtml+xml"/>'
        for index, (name, _) in enumerate(parts, 1)
    )
    spine = "\n".join(f'<itemref idref="p{index}"/>' for index in range(1, len(parts) + 1))
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<package xmlns="http://www.idpf.org/2007/opf" version="3.0" unique-identifier="id" xml:lang="en-GB">
<metadata xmlns:dc="http://purl.org/dc/elements/1.1/">
<dc:identifier id="id">{_ID}</dc:identifier>
<dc:title>{TITLE}</dc:title>
<dc:language>en-GB</dc:language>
<dc:creator>{PUBLISHER}</dc:creator>
<dc:date>{DATE}</dc:date>
<dc:description>{SUBTITLE}</dc:description>
<meta property="dcterms:modified">{DATE}T12:00:00Z</meta>
</metadata>
<manifest>
<item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>
<item id="ncx" href="toc.ncx" media-type="application/x-dtbncx+xml"/>
<item id="style" href="style.css" media-type="text/css"/>
<item id="title" href="title.xhtml" media-type="application/xhtml+xml"/>
{items}
</manifest>
<spine toc="ncx">
<itemref idref="title"/>
{spine}
</spine>
</package>
"""


def _nav(parts: list[tuple[str, Chapter]]) -> str:
    entries: list[str] = []
    for name, chapter in parts:
        inner = "".join(
            f'<li><a href="{name}#{anchor(chapter, section)}">{escape(section, quote=False)}</a></li>'
            for section in chapter.sections
        )
        inner = f"\n<ol>{inner}</ol>" if inner else ""
        entries.append(f'<li><a href="{name}">{escape(chapter.title, quote=False)}</a>{inner}</li>')
    listing = "\n".join(entries)
    return _page("Contents", f'<nav epub:type="toc" id="toc">\n<h1>Contents</h1>\n<ol>\n{listing}\n</ol>\n</nav>\n')


def _ncx(parts: list[tuple[str, Chapter]]) -> str:
    order = count(1)
    points: list[str] = []
    for name, chapter in parts:
        inner = [(chapter.title, name)]
        inner += [(section, f"{name}#{anchor(chapter, section)}") for section in chapter.sections]
        opened = [
            f'<navPoint id="n{number}" playOrder="{number}"><navLabel><text>{escape(title, quote=False)}</text>'
            f'</navLabel><content src="{target}"/>'
            for (title, target), number in zip(inner, order, strict=False)
        ]
        points.append(opened[0] + "".join(f"\n{point}</navPoint>" for point in opened[1:]) + "</navPoint>")
    listing = "\n".join(points)
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<ncx xmlns="http://www.daisy.org/z3986/2005/ncx/" version="2005-1" xml:lang="en-GB">
<head><meta name="dtb:uid" content="{_ID}"/></head>
<docTitle><text>{TITLE}</text></docTitle>
<navMap>
{listing}
</navMap>
</ncx>
"""
