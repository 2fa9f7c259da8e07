"""The package of an EPUB: where its text is, in which order, and whether it may be read at all.

EPUB 3.3 (W3C), "Open Container Format" and "Package document"; EPUB 2 (OPF 2.0.1) differs only in where the contents
list is.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import Any, Final

from lcdoc.documents.builder import DocumentBuilder, Job
from lcdoc.documents.errors import CorruptFileError, PasswordError
from lcdoc.documents.unzip import Archive, resolve
from lcdoc.documents.xml_parts import (
    MAX_PART_BYTES,
    attribute,
    children,
    descendants,
    local,
    parse_leniently,
    text_of,
)

_CONTAINER: Final = "META-INF/container.xml"
_TEXT_TYPES: Final = frozenset(
    {"application/xhtml+xml", "text/html", "text/x-oeb1-document", "application/x-dtbook+xml", "application/xml"}
)
_TEXT_SUFFIXES: Final = (".xhtml", ".html", ".htm", ".xml", ".xht")
# Fonts may be scrambled so that they cannot be lifted out of the book; the text is not.
_FONT_OBFUSCATION: Final = frozenset({"http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC"})


@dataclass(frozen=True, slots=True)
class Package:
    """An EPUB's own description of itself. All paths are members of its container."""

    title: str
    spine: tuple[str, ...]
    """Text files in reading order: the main line first, then what the spine marks as outside it (`linear="no"`)."""
    navigation: str | None
    """The EPUB 3 navigation document."""
    ncx: str | None
    """The EPUB 2 contents list."""


@dataclass(frozen=True, slots=True)
class _Item:
    path: str
    media_type: str
    properties: frozenset[str]
    fallback: str


def read_package(job: Job, archive: Archive, builder: DocumentBuilder) -> Package:
    """Raises CorruptFileError when there is no spine to follow, PasswordError when the text is encrypted."""
    path = _package_path(job, archive, builder)
    root, broken = parse_leniently(job, path, archive.read(path, at_most=MAX_PART_BYTES))
    if broken:
        builder.warn(f"the package file {path} is not well-formed XML; it was read as well as possible")
    items = _manifest(root, path)
    spine = _spine(root, items, archive, builder)
    if not spine:
        raise CorruptFileError(job.name, "its package lists no text to read", "export the book again")
    _refuse_encrypted(job, archive, spine)
    title = next((text_of(element) for element in descendants(root, "title") if text_of(element)), "")
    navigation = next((item.path for item in items.values() if "nav" in item.properties), None)
    toc = next((attribute(element, "toc") for element in descendants(root, "spine")), "")
    ncx = items[toc].path if toc in items else None
    if ncx is None:
        ncx = next((item.path for item in items.values() if item.media_type == "application/x-dtbncx+xml"), None)
    return Package(title, tuple(spine), navigation, ncx)


def _package_path(job: Job, archive: Archive, builder: DocumentBuilder) -> str:
    """The package document that the container names; failing that, the first one there is."""
    if archive.find(_CONTAINER):
        root, _ = parse_leniently(job, _CONTAINER, archive.read(_CONTAINER, at_most=MAX_PART_BYTES))
        for element in descendants(root, "rootfile"):
            target = resolve("", attribute(element, "full-path"))
            if target and archive.find(target[0]):
                return target[0]
    path = next((name for name in archive.names() if name.lower().endswith(".opf")), None)
    if path is None:
        raise CorruptFileError(job.name, "it is no complete EPUB: it has no package document", "download it again")
    builder.warn(f"the container does not name its package document; {path} was taken")
    return path


def _manifest(root: Any, base: str) -> dict[str, _Item]:
    items: dict[str, _Item] = {}
    for element in descendants(root, "item"):
        target = resolve(base, attribute(element, "href"))
        identifier = attribute(element, "id")
        if target is None or not identifier:
            continue
        items.setdefault(
            identifier,
            _Item(
                target[0],
                attribute(element, "media-type").lower().strip(),
                frozenset(attribute(element, "properties").split()),
                attribute(element, "fallback"),
            ),
        )
    return items


def _spine(root: Any, items: dict[str, _Item], archive: Archive, builder: DocumentBuilder) -> list[str]:
    """Paths of the spine's text files, each once. What is missing is warned of."""
    main: dict[str, None] = {}
    aside: dict[str, None] = {}
    missing: list[str] = []
    for spine in descendants(root, "spine"):
        for reference in children(spine, "itemref"):
            identifier = attribute(reference, "idref")
            item = _readable(items, identifier)
            if item is None:
                if identifier not in items:
                    missing.append(identifier)
            elif archive.find(item.path) is None:
                missing.append(item.path)
            else:
                (aside if attribute(reference, "linear") == "no" else main).setdefault(item.path)
    if missing:
        names = ", ".join(posixpath.basename(name) or "?" for name in missing[:3])
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        builder.warn(f"parts of the book are missing from the file: {names}{more}")
    return [*main, *(path for path in aside if path not in main)]


def _readable(items: dict[str, _Item], identifier: str) -> _Item | None:
    """The item, or the first of its fallbacks, that is text."""
    seen: set[str] = set()
    while identifier in items and identifier not in seen:
        seen.add(identifier)
        item = items[identifier]
        known = item.media_type in _TEXT_TYPES
        if known or (not item.media_type and item.path.lower().endswith(_TEXT_SUFFIXES)):
            return item
        identifier = item.fallback
    return None


def _refuse_encrypted(job: Job, archive: Archive, spine: list[str]) -> None:
    """Raise PasswordError when a text file of the spine is encrypted (Adobe, Readium LCP, Apple, Kobo)."""
    path = "META-INF/encryption.xml"
    if archive.find(path) is None:
        return
    root, _ = parse_leniently(job, path, archive.read(path, at_most=MAX_PART_BYTES))
    texts = {archive.find(name) for name in spine}
    for data in descendants(root, "EncryptedData"):
        methods = {attribute(element, "Algorithm") for element in data if local(element) == "EncryptionMethod"}
        if methods and methods <= _FONT_OBFUSCATION:
            continue
        for reference in descendants(data, "CipherReference"):
            target = resolve("", attribute(reference, "URI"))
            if target and archive.find(target[0]) in texts:
                raise PasswordError(
                    job.name, "is protected by DRM, so its text is encrypted", "use a copy without DRM, or a PDF of it"
                )
