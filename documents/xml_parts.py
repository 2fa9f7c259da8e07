"""The small XML files inside EPUB and DOCX containers: package lists, contents, styles.

defusedxml refuses entity declarations and fetches nothing. A file that is not well-formed may still be read leniently.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from lcdoc.documents.builder import Job
from lcdoc.documents.errors import CorruptFileError
from lcdoc.documents.limits import MIB

MAX_PART_BYTES: Final = 32 * MIB
"""A part that is read as a tree rather than as a stream may not be larger."""


def parse_part(job: Job, name: str, data: bytes) -> Any:
    """The root element. Raises CorruptFileError when the XML is not well-formed or declares entities."""
    from xml.etree.ElementTree import ParseError

    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    try:
        return fromstring(data)
    except DefusedXmlException as error:
        raise hostile(job, name) from error
    except (ParseError, ValueError, LookupError) as error:
        raise CorruptFileError(
            job.name, f"its part {name} is not well-formed XML ({error})", "export the file again"
        ) from error


def parse_leniently(job: Job, name: str, data: bytes) -> tuple[Any, bool]:
    """The root element, and whether errors had to be passed over. Raises CorruptFileError when nothing can be read."""
    try:
        return parse_part(job, name, data), False
    except CorruptFileError as error:
        from defusedxml import DefusedXmlException
        from lxml import etree

        if isinstance(error.__cause__, DefusedXmlException):
            raise
        parser = etree.XMLParser(recover=True, resolve_entities=False, no_network=True, load_dtd=False)
        root = etree.fromstring(data, parser) if data.strip() else None
        if root is None:
            raise
        return root, True


def hostile(job: Job, name: str) -> CorruptFileError:
    """For a part that declares entities, which no e-book or office program does."""
    return CorruptFileError(
        job.name, f"its part {name} declares XML entities, which can be an attack", "do not trust this file"
    )


def local(element: Any) -> str:
    """An element's name without its namespace; empty for comments and processing instructions."""
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def attribute(element: Any, name: str) -> str:
    """An attribute by its name without namespace; empty when it is not there."""
    value = element.get(name)
    if value is not None:
        return str(value)
    for key, other in element.items():
        if key.rpartition("}")[2] == name:
            return str(other)
    return ""


def children(element: Any, name: str) -> Iterator[Any]:
    """Direct children of that name, whatever their namespace."""
    return (child for child in element if local(child) == name)


def descendants(element: Any, name: str) -> Iterator[Any]:
    """All elements of that name below `element`, in document order."""
    return (child for child in element.iter() if local(child) == name)


def text_of(element: Any) -> str:
    """All text inside, white space collapsed."""
    return " ".join("".join(element.itertext()).split())
