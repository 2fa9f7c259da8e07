"""How file types without a reader are recognised, and what to turn them into."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_OFFICE: Final = "save it as .docx or PDF"
_PDF: Final = "save it as PDF"
_EBOOK: Final = "convert it to EPUB, for example with Calibre"
_IMAGE: Final = "run text recognition (OCR) on it and save the result as PDF"
_UNPACK: Final = "unpack it and name the files inside"
_TEXT_FROM_SOUND: Final = "transcribe it to text first"


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of file that cannot be read: `an` article and name, and what the user can do."""

    name: str
    remedy: str


# (offset, bytes there, kind); the first that fits wins.
_MAGIC: Final[tuple[tuple[int, bytes, Kind], ...]] = (
    (0, b"{\\rtf", Kind("an RTF file (.rtf)", _OFFICE)),
    (0, b"%!PS", Kind("a PostScript file", "convert it to PDF, for example with ps2pdf")),
    (0, b"\x04%!PS", Kind("a PostScript file", "convert it to PDF, for example with ps2pdf")),
    (0, b"\xc5\xd0\xd3\xc6", Kind("a PostScript file", "convert it to PDF, for example with ps2pdf")),
    (0, b"%FDF-", Kind("form data of a PDF (.fdf)", "name the PDF itself")),
    (60, b"BOOKMOBI", Kind("a Kindle book (.mobi, .azw)", _EBOOK)),
    (60, b"TEXtREAd", Kind("a Palm e-book (.pdb)", _EBOOK)),
    (0, b"TPZ", Kind("a Kindle book (.azw)", _EBOOK)),
    (0, b"\xeaDRMION\xee", Kind("a Kindle book (.kfx)", _EBOOK)),
    (0, b"ITOLITLS", Kind("a Microsoft Reader e-book (.lit)", _EBOOK)),
    (0, b"ITSF", Kind("a Windows help file (.chm)", _EBOOK)),
    (0, b"AT&TFORM", Kind("a DjVu file", "convert it to PDF, for example with ddjvu")),
    (0, b"\xf7\x02", Kind("a TeX .dvi file", "convert it to PDF, for example with dvipdf")),
    (0, b"\xffWPC", Kind("a WordPerfect file", _OFFICE)),
    (0, b"\xdb\xa5-\x00", Kind("a Word 2 file (.doc)", _OFFICE)),
    (0, b"1\xbe\x00\x00", Kind("a Write or Word for DOS file", _OFFICE)),
    (0, b"\x89PNG\r\n", Kind("a PNG image", _IMAGE)),
    (0, b"\xff\xd8\xff", Kind("a JPEG image", _IMAGE)),
    (0, b"GIF8", Kind("a GIF image", _IMAGE)),
    (0, b"II*\x00", Kind("a TIFF image", _IMAGE)),
    (0, b"MM\x00*", Kind("a TIFF image", _IMAGE)),
    (0, b"8BPS", Kind("a Photoshop image", _IMAGE)),
    (0, b"\x00\x00\x01\x00", Kind("an icon", _IMAGE)),
    (8, b"WEBP", Kind("a WebP image", _IMAGE)),
    (4, b"ftyphei", Kind("a HEIC image", _IMAGE)),
    (4, b"ftypavif", Kind("an AVIF image", _IMAGE)),
    (4, b"ftyp", Kind("a video or sound file", _TEXT_FROM_SOUND)),
    (8, b"WAVE", Kind("a sound file", _TEXT_FROM_SOUND)),
    (0, b"ID3", Kind("a sound file", _TEXT_FROM_SOUND)),
    (0, b"fLaC", Kind("a sound file", _TEXT_FROM_SOUND)),
    (0, b"OggS", Kind("a sound or video file", _TEXT_FROM_SOUND)),
    (0, b"\x1aE\xdf\xa3", Kind("a video file", _TEXT_FROM_SOUND)),
    (0, b"\x1f\x8b", Kind("a gzip archive", _UNPACK)),
    (0, b"BZh", Kind("a bzip2 archive", _UNPACK)),
    (0, b"\xfd7zXZ", Kind("an xz archive", _UNPACK)),
    (0, b"\x28\xb5\x2f\xfd", Kind("a Zstandard archive", _UNPACK)),
    (0, b"7z\xbc\xaf\x27\x1c", Kind("a 7-Zip archive", _UNPACK)),
    (0, b"Rar!\x1a", Kind("a RAR archive", _UNPACK)),
    (257, b"ustar", Kind("a tar archive", _UNPACK)),
    (0, b"SQLite format 3\x00", Kind("an SQLite database", "export what you need as text")),
    (0, b"\x7fELF", Kind("a program", "name a document")),
    (0, b"\xca\xfe\xba\xbe", Kind("a program", "name a document")),
    (0, b"\xcf\xfa\xed\xfe", Kind("a program", "name a document")),
    (0, b"wOF", Kind("a font", "name a document")),
    (0, b"OTTO", Kind("a font", "name a document")),
)

_OPEN_DOCUMENT: Final = {
    "text": Kind("an OpenDocument text (.odt)", _OFFICE),
    "spreadsheet": Kind("an OpenDocument spreadsheet (.ods)", _PDF),
    "presentation": Kind("an OpenDocument presentation (.odp)", _PDF),
    "graphics": Kind("an OpenDocument drawing (.odg)", _PDF),
}
_ENCRYPTED_OPEN_DOCUMENT: Final = Kind(
    "an encrypted OpenDocument file", "open it with its password, and save it as .docx or PDF without one"
)
# A member, or the beginning of one, that gives a container's type away.
_ZIP_MEMBERS: Final[tuple[tuple[str, Kind], ...]] = (
    ("xl/", Kind("an Excel workbook (.xlsx)", _PDF)),
    ("ppt/", Kind("a PowerPoint presentation (.pptx)", _PDF)),
    ("visio/", Kind("a Visio drawing (.vsdx)", _PDF)),
    ("Index/Document.iwa", Kind("an Apple iWork document", "export it as .docx, EPUB or PDF")),
    ("Index.zip", Kind("an Apple iWork document", "export it as .docx, EPUB or PDF")),
    ("index.apxl", Kind("an Apple iWork document", "export it as .docx, EPUB or PDF")),
    ("FixedDocSeq.fdseq", Kind("an XPS document", _PDF)),
    ("FixedDocumentSequence.fdseq", Kind("an XPS document", _PDF)),
    ("AndroidManifest.xml", Kind("an Android app", "name a document")),
    ("META-INF/MANIFEST.MF", Kind("a Java archive", "name a document")),
)

OLE2: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
ENCRYPTED_OFFICE: Final = Kind(
    "an encrypted Office file", "remove the password in Word (File, Info, Protect Document) or save it as PDF"
)
_OLE2_ENTRIES: Final[tuple[tuple[str, Kind], ...]] = (
    ("EncryptedPackage", ENCRYPTED_OFFICE),
    ("WordDocument", Kind("a Word 97-2003 file (.doc)", _OFFICE)),
    ("PowerPoint Document", Kind("a PowerPoint 97-2003 file (.ppt)", _PDF)),
    ("Workbook", Kind("an Excel 97-2003 file (.xls)", _PDF)),
    ("Book", Kind("an Excel 5 file (.xls)", _PDF)),
    ("VisioDocument", Kind("a Visio file (.vsd)", _PDF)),
    ("__nameid_version1.0", Kind("an Outlook message (.msg)", "save it as text, HTML or PDF")),
    ("Contents", Kind("a Microsoft Publisher or Works file", _PDF)),
)
_OTHER_OLE2: Final = Kind("a Microsoft compound file (an installer, or a type lcdoc does not know)", _PDF)
_OLE2_ENTRY_BYTES: Final = 128


def by_magic(data: bytes) -> Kind | None:
    """The type that the first bytes show, of those that no reader takes."""
    return next((kind for offset, magic, kind in _MAGIC if data.startswith(magic, offset)), None)


def in_zip(names: Iterable[str], mimetype: str, manifest: bytes) -> Kind:
    """What a zip container holds, by its members, its `mimetype` and its OpenDocument manifest."""
    if "opendocument" in mimetype:
        if b"encryption-data" in manifest:
            return _ENCRYPTED_OPEN_DOCUMENT
        family = next((family for family in _OPEN_DOCUMENT if f"opendocument.{family}" in mimetype), "text")
        return _OPEN_DOCUMENT[family]
    names = list(names)
    for beginning, kind in _ZIP_MEMBERS:
        if any(name.startswith(beginning) for name in names):
            return kind
    images = sum(name.lower().endswith((".jpg", ".jpeg", ".png", ".webp", ".gif")) for name in names)
    if names and images * 10 >= len(names) * 9:
        return Kind("an archive of images (a comic book?)", _IMAGE)
    if any(name.lower().endswith(".fb2") for name in names):
        return Kind("a FictionBook e-book (.fb2.zip)", _EBOOK)
    return Kind("a zip archive", _UNPACK)


def in_ole2(data: bytes) -> Kind:
    """What a Microsoft compound file holds, by the entries of its directory ([MS-CFB], section 2.6)."""
    names = _ole2_names(data)
    return next((kind for name, kind in _OLE2_ENTRIES if name in names), _OTHER_OLE2)


def _ole2_names(data: bytes) -> set[str]:
    """Names of all streams and storages. Directory sectors are looked for by their chain; a broken one just ends."""
    if len(data) < 512:
        return set()
    (shift,) = struct.unpack_from("<H", data, 30)
    (sector,) = struct.unpack_from("<I", data, 48)
    size = 1 << shift if shift in (9, 12) else 512
    table = struct.unpack_from("<109I", data, 76)
    names: set[str] = set()
    seen: set[int] = set()
    while sector not in seen and (sector + 1) * size < len(data):
        seen.add(sector)
        block = data[(sector + 1) * size : (sector + 2) * size]
        for at in range(0, len(block) - _OLE2_ENTRY_BYTES + 1, _OLE2_ENTRY_BYTES):
            (length,) = struct.unpack_from("<H", block, at + 64)
            if 2 < length <= 64:
                names.add(block[at : at + length - 2].decode("utf-16-le", "replace"))
        index, place = divmod(sector, size // 4)
        # Files above 7 MB list further table sectors elsewhere; their directory is read as far as it goes.
        if index >= len(table) or (table[index] + 1) * size + place * 4 + 4 > len(data):
            break
        (sector,) = struct.unpack_from("<I", data, (table[index] + 1) * size + place * 4)
    return names
