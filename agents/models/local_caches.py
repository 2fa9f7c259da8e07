"""A document read once by a model that runs here is never read again.

Prompts about a piece of a document begin alike, instructions first, then the piece, and differ in the question behind
it. So what the model has read up to there, its cache of keys and values, whole or compressed, is kept in a file beside
the library, and the next question about that piece is answered behind it.

A cache is known by the tokens it was made of, the model and the recipe, so that an edited page, another prompt or
another model is another cache, and a piece that two documents share is one. A recipe that looks at the question at the
end of the prompt makes no such cache: it would know nothing of questions to come.
"""

from __future__ import annotations

import array
import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from lcdoc.agents.models.kept_settings import KeptCaches
from lcdoc.agents.models.local_marks import marks_of
from lcdoc.memory.caches import Caches, KeptCache, digest_of, is_sound
from lcdoc.memory.errors import LibraryError

if TYPE_CHECKING:
    from lcdoc.local_engine import Engine, Snapshot

_log = logging.getLogger(__name__)

FULL: Final = "full"
"""Names the whole cache, in place of a recipe."""
AUTO: Final = "auto"
"""In place of a recipe: what the engine takes for each request, by its length and the memory there is."""
INT8: Final = " as int8"
"""Behind a recipe: its cache is kept in a byte a number, which changes answers a little."""
_OPEN: Final = 8
"""Files that stay mapped: the pieces that several questions are at."""


@dataclass(frozen=True, slots=True)
class Read:
    """A piece that can be asked about."""

    snapshot: Snapshot
    kept: KeptCache | None
    """The file it comes from, or lies in now; None: it could not be kept."""
    fresh: bool
    """It was read now, in so many `seconds`."""
    seconds: float = 0.0


def serves_any_question(recipe: str) -> bool:
    """Whether a recipe, in its canonical spelling, keeps what later questions may need: it does not go by a question at
    the end of what was read."""
    from lcdoc.local_engine.compression.recipe import as_recipe
    from lcdoc.local_engine.compression.registry import entry_of

    parsed = as_recipe(recipe)
    return parsed is None or not entry_of(parsed.chosen_scorer.name).asks


class LocalCaches:
    """The kept caches of one model. Belongs to one event loop at a time."""

    def __init__(self, caches: Caches | None, settings: KeptCaches, *, model: str, name: str) -> None:
        """`model` tells it apart by its files and how they are loaded; `name` is what people call it. Without `caches`
        nothing is found and nothing kept."""
        self.settings = settings
        self._caches = caches
        self.model = model
        self._name = name
        self._open: OrderedDict[str, Snapshot] = OrderedDict()
        self._reading: dict[tuple[str, object], asyncio.Future[Snapshot | None]] = {}
        self._warned: set[str] = set()

    def spelled(self, recipe: str) -> str:
        """A recipe as caches are held by it here: `Request.kv`."""
        return recipe + (INT8 if self.settings.precision == "int8" else "")

    def held(self, piece: Sequence[int]) -> str | None:
        """How the best cache there is of a piece is held, for questions that name no recipe: whole ones before
        compressed ones, else the latest; None where there is none. Compressed ones that a question left serve only
        those that name the same recipe."""
        found = [one.recipe for one in self._found(piece) if one.prepared or one.recipe == FULL]
        return next((one for one in found if one == FULL), found[0] if found else None)

    def has_any(self) -> bool:
        """Whether anything is kept for this model."""
        try:
            return self._caches is not None and self._caches.has_model(self.model)
        except LibraryError as error:
            self._warn(f"{error}; reading without kept caches")
            return False

    def of(self, piece: Sequence[int], kv: str) -> KeptCache | None:
        """The file that is kept of a piece."""
        try:
            return None if self._caches is None else self._caches.get(self._key(self._text(piece), kv))
        except LibraryError as error:
            self._warn(f"{error}; reading without kept caches")
            return None

    async def read(
        self, engine: Engine, piece: Sequence[int], kv: str, document_ids: Sequence[str], *, keep: bool
    ) -> Read:
        """A piece's cache: out of its file, else read now and, with `keep`, kept. Raises EngineError.

        Readers of one piece at once are one reading. Files that are damaged or foreign are told of, and made again; one
        that cannot be written is told of, too, and the question is answered all the same.
        """
        text = self._text(piece)
        key = self._key(text, kv)
        flight = (key, asyncio.get_running_loop())
        while True:
            kept = self.of(piece, kv)
            if kept is not None and (snapshot := await asyncio.to_thread(self._loaded, engine, kept, piece)):
                _log.debug("%s: %d tokens from %s (%s)", self._name, len(piece), kept.file, kept.recipe)
                return Read(snapshot, kept, fresh=False)
            if (under_way := self._reading.get(flight)) is None:
                break
            # Shielded, since whoever waits here may be cancelled, and the reading is not theirs.
            if (shared := await asyncio.shield(under_way)) is not None:
                return Read(shared, self.of(piece, kv), fresh=False)
        self._reading[flight] = reading = asyncio.get_running_loop().create_future()
        made: Snapshot | None = None
        try:
            start = time.monotonic()
            marks = None if kv == FULL else await asyncio.to_thread(marks_of, engine.tokenizer, piece)
            made = await engine.prefill(list(piece), kv=kv.removesuffix(INT8), marks=marks)
            seconds = time.monotonic() - start
            if kv.endswith(INT8):
                made = replace(made, keys=made.keys.quantized(), values=made.values.quantized())
            unwritten = KeptCache(
                key=key,
                text=text,
                model=self.model,
                name=self._name,
                recipe=kv,
                file="",
                digest="",
                bytes=0,
                tokens=made.read,
                entries=made.kept,
                seconds=round(seconds, 3),
                made_at=time.time(),
                used_at=time.time(),
            )
            entered = None
            if keep and self._caches is not None:
                entered = await asyncio.to_thread(self._entered, self._caches, made, unwritten, document_ids)
            return Read(made, entered, fresh=True, seconds=seconds)
        finally:
            del self._reading[flight]
            reading.set_result(made)

    def prepare(self, read: Read) -> None:
        """Have what was kept serve whatever is asked, too."""
        if self._caches is None or read.kept is None:
            return
        try:
            self._caches.prepare([read.kept])
        except LibraryError as error:
            self._warn(f"{error}; only questions that name {read.kept.recipe} are answered from it")

    # Files

    def _loaded(self, engine: Engine, kept: KeptCache, piece: Sequence[int]) -> Snapshot | None:
        """What is in a file; None, after telling, where it is of no use: it is forgotten then."""
        from lcdoc.local_engine import Snapshot
        from lcdoc.local_engine.errors import SnapshotError

        if self._caches is None:
            return None
        self._caches.used(kept)
        if (known := self._open.get(kept.file)) is not None:
            self._open.move_to_end(kept.file)
            return known
        path = self._caches.path(kept)
        problem = ""
        try:
            if not is_sound(path, kept):
                problem = "it is damaged"
            else:
                snapshot = Snapshot.load(path)
                if snapshot.model.fingerprint != engine.identity.fingerprint:
                    problem = f"{snapshot.model} read it, and this is {engine.identity}"
                elif snapshot.tokens.tolist() != list(piece):
                    problem = "it holds another text"
        except FileNotFoundError:
            problem = "it is not there any more"
        except OSError as error:
            # Such as of too many open files: nothing is wrong with the file.
            self._warn(f"kept cache {path}: cannot be read ({error.strerror}); the piece is read again")
            return None
        except SnapshotError as error:
            problem = str(error)
        if problem:
            self._warn(f"kept cache {path}: {problem}; the piece is read again")
            self._forget(self._caches, kept)
            return None
        self._open[kept.file] = snapshot
        while len(self._open) > _OPEN:
            self._open.popitem(last=False)
        return snapshot

    def _entered(
        self, caches: Caches, snapshot: Snapshot, unwritten: KeptCache, document_ids: Sequence[str]
    ) -> KeptCache | None:
        """The file into which a piece was written; None, after telling why not, where it was not."""
        from lcdoc.local_engine.errors import SnapshotError

        limit = self.settings.limit
        if snapshot.nbytes > limit:
            if limit:
                self._warn(
                    f"a piece takes {snapshot.nbytes / 1e6:,.0f} MB, and all kept caches together may take "
                    f"{limit / 1e6:,.0f}: raise kept_caches.limit, or compress more"
                )
            return None
        try:
            path = caches.new_path(unwritten.key)
            snapshot.save(path)
            written = replace(unwritten, file=path.name, digest=digest_of(path), bytes=path.stat().st_size)
            entered = caches.enter(written, document_ids)
            caches.trim(limit, but=entered.key)
        except OSError as error:
            self._warn(f"{caches.folder}: cannot be written ({error.strerror}); what was read is not kept")
        except (SnapshotError, LibraryError) as error:
            self._warn(f"{error}; what was read is not kept")
        else:
            return entered
        return None

    def _forget(self, caches: Caches, kept: KeptCache) -> None:
        self._open.pop(kept.file, None)
        try:
            caches.drop([kept])
        except LibraryError as error:
            self._warn(str(error))

    def _found(self, piece: Sequence[int]) -> list[KeptCache]:
        try:
            return [] if self._caches is None else self._caches.of_text(self._text(piece))
        except LibraryError as error:
            self._warn(f"{error}; reading without kept caches")
            return []

    def _warn(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            _log.warning("%s", message)

    # Names

    def _text(self, piece: Sequence[int]) -> str:
        hashed = blake2b(self.model.encode() + b"\0", digest_size=16)
        hashed.update(array.array("i", piece).tobytes())
        return hashed.hexdigest()

    def _key(self, text: str, kv: str) -> str:
        return blake2b(f"{text} {kv}".encode(), digest_size=16).hexdigest()
