"""From files to documents of the library: a few parsed at once, each kept before it is handed on.

One thread adds the documents, in the order of their files, so a folder makes the same library however many processors
read it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial

from lcdoc.documents import Document, DocumentError, FileChoice, Limits, NotFoundError, ParserPool
from lcdoc.documents.loading import parse, read_raw
from lcdoc.documents.pool import Stop, usable_processors
from lcdoc.documents.pool_ahead import ahead
from lcdoc.memory import Library
from lcdoc.retrieval.chunker import Chunker
from lcdoc.workflows.events import DocumentFailed, Event, Progress

_Read = tuple[Document, bool] | DocumentError
"""A document and whether it was in the library, or why there is none."""


class DocumentReading:
    """Reads files into a library. `before_parsing` is called when one has to be parsed."""

    def __init__(
        self,
        library: Library,
        chunker: Chunker,
        *,
        password: str | None,
        limits: Limits,
        on_event: Callable[[Event], None],
        before_parsing: Callable[[], object],
    ) -> None:
        self._library = library
        self._chunker = chunker
        self._password = password
        self._limits = limits
        self._on_event = on_event
        self._before_parsing = before_parsing
        self._calling = threading.Lock()
        """Held while the caller's functions are called: from several threads, one at a time."""

    def each(self, files: Sequence[FileChoice]) -> Generator[Document]:
        """The documents in these files, each once, in order, read now or taken from the library.

        Of several files, one that cannot be read is left out with a DocumentFailed event, unless it was named and is
        not there; if none can be read the first one's DocumentError is raised in the end.
        """
        seen: set[str] = set()
        first_error: DocumentError | None = None
        with ExitStack() as stack:
            for file, read in self._read(files, stack):
                if not isinstance(read, DocumentError):
                    document = self._kept(*read)
                    if document.id not in seen:
                        seen.add(document.id)
                        yield document
                elif len(files) == 1 or (file.named and isinstance(read, NotFoundError)):
                    raise read
                else:
                    first_error = first_error or read
                    self._tell(DocumentFailed(file.path, str(read)))
        if first_error is not None and not seen:
            raise first_error

    def _read(self, files: Sequence[FileChoice], stack: ExitStack) -> Iterator[tuple[FileChoice, _Read]]:
        if len(files) == 1:
            return iter([(files[0], self._read_one(files[0], parse))])
        pool = stack.enter_context(ParserPool(min(len(files), usable_processors())))

        def read(file: FileChoice, stop: Stop) -> _Read:
            return self._read_one(file, partial(pool.parse, stop=stop))

        # One more than can be parsed, so that a process that is done finds the next file at hand.
        return stack.enter_context(closing(ahead(read, files, threads=pool.processes + 1, weigh=_characters)))

    def _read_one(self, file: FileChoice, parse: Callable[..., Document]) -> _Read:
        def progress(done: int, total: int) -> None:
            self._tell(Progress("reading", file.path, done, total))

        try:
            raw = read_raw(file.path, limits=self._limits)
            known = self._library.document_for(raw.digest, raw.reader, raw.reader_version, path=raw.name)
            if known is not None:
                return known, True
            with self._calling:
                self._before_parsing()
            return parse(raw, password=self._password, limits=self._limits, progress=progress), False
        except DocumentError as error:
            return error

    def _kept(self, document: Document, known: bool) -> Document:
        """The document, when it is in the library with chunks of this recipe."""
        source = document.source
        if not known:
            # Another of the files may have held the same.
            twin = self._library.document_for(source.digest, source.reader, source.reader_version, path=source.path)
            known, document = twin is not None, twin or document
        if known and self._library.recipe_of(document.id) == self._chunker.recipe:
            return document
        self._tell(Progress("indexing", source.path, 0, 1))
        self._library.add(document, self._chunker.chunks(document), recipe=self._chunker.recipe)
        self._tell(Progress("indexing", source.path, 1, 1))
        return document

    def _tell(self, event: Event) -> None:
        with self._calling:
            self._on_event(event)


def _characters(read: _Read) -> int:
    return 0 if isinstance(read, DocumentError) else len(read[0].text)
