"""What a file is, told by its content."""

import gzip
import io
import random
import struct
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcdoc.documents.charset import decode
from lcdoc.documents.errors import (
    CorruptFileError,
    DocumentError,
    EmptyDocumentError,
    PasswordError,
    UnsupportedTypeError,
)
from lcdoc.documents.readers import reader_for
from lcdoc.documents.sniff import DOCX, EPUB, HTML, MARKDOWN, PDF, PLAIN, sniff

VERSE = "Однажды, в студёную зимнюю пору, я из лесу вышел; был сильный мороз.\n"
ENGLISH = "It was a dark and stormy night; the rain fell in torrents, except at occasional intervals.\n"


def zipped(members: dict[str, bytes | str]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def compound_file(*names: str) -> bytes:
    """A Microsoft compound file with these directory entries and nothing else."""
    header = bytearray(512)
    header[:8] = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
    struct.pack_into("<H", header, 30, 9)
    struct.pack_into("<I", header, 48, 1)
    struct.pack_into("<109I", header, 76, 0, *[0xFFFFFFFF] * 108)
    entries = b""
    for name in ("Root Entry", *names):
        encoded = name.encode("utf-16-le") + b"\0\0"
        entries += encoded.ljust(64, b"\0") + struct.pack("<H", len(encoded)) + bytes(62)
    sectors = -(-len(entries) // 512)
    chain = [0xFFFFFFFD, *range(2, sectors + 1), 0xFFFFFFFE]
    table = struct.pack(f"<{len(chain)}I", *chain).ljust(512, b"\xff")
    return bytes(header) + table + entries.ljust(sectors * 512, b"\0")


@pytest.mark.parametrize(
    ("data", "name", "expected"),
    [
        (b"%PDF-1.7\n...", "a.txt", PDF),
        (b"HTTP/1.1 200 OK\r\n\r\n%PDF-1.4\n1 0 obj <<>> endobj", "a", PDF),
        (b"A PDF begins with %PDF-1.7, says the standard. " * 3, "a.txt", PLAIN),
        (zipped({"mimetype": "application/epub+zip"}), "a.zip", EPUB),
        (zipped({"META-INF/container.xml": "<container/>"}), "a", EPUB),
        (zipped({"[Content_Types].xml": "", "word/document.xml": "<w:document/>"}), "a.zip", DOCX),
        (b"<!DOCTYPE html><p>Hello", "a.txt", HTML),
        ("\ufeff  <!-- saved --> <HTML><body>".encode("utf-16"), "a", HTML),
        ("<html><p>without a mark, in wide characters".encode("utf-16-le"), "a", HTML),
        (b'<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><p/></html>', "a.xml", HTML),
        (b"<p>One</p><p>Two</p>", "-", HTML),
        (b"<p>One</p><p>Two</p>", "a.txt", PLAIN),
        (b'<p align="center">logo</p>\n\n# Title\n', "README.md", MARKDOWN),
        (b"Plain words.", "a.md", MARKDOWN),
        (b"# Title\n\nSome text.\n\n## Part\n\n- item\n\n```\ncode\n```\n", "-", MARKDOWN),
        (b"#!/bin/sh\n# a comment\n## another\n```", "-", PLAIN),
        (b"# a comment\nimport os\n", "a.py", PLAIN),
        (b"Plain words.", "-", PLAIN),
        (b"  \n\n", "a.txt", PLAIN),
        (VERSE.encode("cp866") * 3, "a.txt", PLAIN),
        (ENGLISH.encode("cp500"), "a.dat", PLAIN),
        (ENGLISH.encode("utf-32-be"), "a", PLAIN),
        (ENGLISH.encode("utf-16-be"), "a", PLAIN),
    ],
)
def test_readable_content_is_recognised(data: bytes, name: str, expected: str) -> None:
    assert sniff(data, name) == expected
    assert reader_for(expected).version()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (compound_file("WordDocument", "1Table"), "Word 97-2003"),
        (compound_file("a", "b", "c", "d", "Workbook"), "Excel 97-2003"),
        (compound_file("whatever"), "compound file"),
        (compound_file()[:600], "compound file"),
        (b"{\\rtf1\\ansi Hello}", "RTF"),
        (b"%!PS-Adobe-3.0\n", "PostScript"),
        (b"x" * 60 + b"BOOKMOBI" + bytes(40), "Kindle"),
        (b'<?xml version="1.0"?>\n<FictionBook xmlns="x"><body/></FictionBook>', "FictionBook"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"\x89PNG\r\n\x1a\n" + bytes(20), "PNG"),
        (gzip.compress(b"text", mtime=0), "gzip"),
        (zipped({"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": ""}), ".odt"),
        (zipped({"xl/workbook.xml": ""}), "Excel"),
        (zipped({"ppt/presentation.xml": ""}), "PowerPoint"),
        (zipped({"001.jpg": b"", "002.jpg": b""}), "images"),
        (zipped({"readme.txt": "text"}), "zip archive"),
        (b"MIME-Version: 1.0\nContent-Type: multipart/related; boundary=x\n\n--x\n", "web archive"),
        (random.Random(1).randbytes(4000), "nor text"),
        (bytes(1000), "nor text"),
        (ENGLISH.encode() * 2000 + bytes(100_000), "nor text"),
    ],
)
def test_what_has_no_reader_is_named_with_a_remedy(data: bytes, says: str) -> None:
    with pytest.raises(UnsupportedTypeError) as caught:
        sniff(data, "given.bin")
    assert says in caught.value.problem
    assert caught.value.remedy
    assert str(caught.value).startswith("given.bin: is ")
    assert "\n" not in str(caught.value)


def test_an_encrypted_word_file_asks_for_the_password_to_be_removed() -> None:
    with pytest.raises(PasswordError, match="encrypted Office file; remove the password"):
        sniff(compound_file("EncryptionInfo", "EncryptedPackage"), "secret.docx")


def test_an_encrypted_open_document_is_told_apart() -> None:
    manifest = "<manifest:file-entry><manifest:encryption-data/></manifest:file-entry>"
    members = {"mimetype": "application/vnd.oasis.opendocument.text", "META-INF/manifest.xml": manifest}
    with pytest.raises(UnsupportedTypeError, match="encrypted OpenDocument"):
        sniff(zipped(members), "a.odt")


def test_a_file_of_no_bytes_is_empty() -> None:
    with pytest.raises(EmptyDocumentError, match=r"0 bytes"):
        sniff(b"", "a.pdf")


def test_a_zip_that_is_cut_off_goes_to_the_reader_it_was_meant_for() -> None:
    whole = zipped({"word/document.xml": "x" * 5000, "b": random.Random(0).randbytes(3000)})
    assert sniff(whole[:2000], "a") == DOCX
    book = zipped({"mimetype": "application/epub+zip", "b": random.Random(0).randbytes(3000)})
    assert sniff(book[:2000], "a") == EPUB
    with pytest.raises(CorruptFileError, match="cut off"):
        sniff(zipped({"b": random.Random(0).randbytes(3000)})[:2000], "a")


@given(st.binary(max_size=400), st.sampled_from(["a", "a.md", "a.html", "-", "a.docx"]))
def test_any_bytes_give_a_type_or_a_proper_error(data: bytes, name: str) -> None:
    try:
        media_type = sniff(data, name)
    except DocumentError as error:
        assert "\n" not in str(error)
    else:
        assert media_type in {PDF, EPUB, DOCX, HTML, MARKDOWN, PLAIN}


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (ENGLISH, "utf-16-le"),
        (ENGLISH, "utf-16"),
        (ENGLISH, "utf-32-le"),
        (ENGLISH, "utf-8-sig"),
        ("Les élèves n’ont pas reçu l’œuvre à temps ; ça coûte 20 €.\n", "cp1252"),
        (VERSE.replace("ё", "е"), "cp1251"),
        (VERSE.replace("ё", "е"), "koi8_r"),
        (VERSE.replace("ё", "е"), "cp866"),
        ("吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。\n", "shift_jis"),
        ("吾輩は猫である。名前はまだ無い。\n", "iso2022_jp"),
        ("吾輩は猫である。名前はまだ無い。\n", "utf-16-be"),
        ("天地玄黄,宇宙洪荒。日月盈昃,辰宿列张。\n", "gb18030"),
        ("나랏말이 중국과 달라 문자와 서로 통하지 아니하니\n", "euc_kr"),
        (ENGLISH, "cp500"),
    ],
)
def test_text_is_decoded_whatever_its_encoding(text: str, encoding: str) -> None:
    decoded = decode((text * 3).encode(encoding))
    assert decoded is not None
    assert decoded.text == text * 3
    assert decoded.lost == 0


def test_a_large_file_is_decoded_by_what_stands_at_its_end() -> None:
    data = ENGLISH.encode() * 20_000 + "Café, naïve, déjà vu.\n".encode("cp1252")
    decoded = decode(data)
    assert decoded is not None
    assert decoded.text.endswith("Café, naïve, déjà vu.\n")


def test_a_few_broken_characters_are_counted() -> None:
    decoded = decode("Überall größere Bäume für müde Männer. ".encode() * 20 + b"\xff\xfe and on")
    assert decoded is not None
    assert decoded.encoding == "utf-8"
    assert decoded.lost == 2
    assert decoded.warning == "decoded as utf-8; 2 characters could not be decoded"
