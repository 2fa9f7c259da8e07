"""Which tokens of which requests the next forward pass computes.

Continuous batching: requests join and leave between passes. Each pass has a budget of tokens; every request that is
decoding gets its one token (and drafts) first, and the rest goes to pieces of prompts ("DeepSpeed-FastGen", Dynamic
SplitFuse), so that a long prompt never holds up the answers that are being written. Of several prompts the oldest gets
at least half, and the shortest the rest: a short question does not wait for a book, nor a book for short questions.

A request is admitted when its prompt fits the free pages, cached prefixes that nobody uses counted as free. Should
decoding run out of pages, the youngest request gives up its own and is read again later, as far as its pages are then
no longer in the prefix cache; its answer so far is kept, and since draws depend on nothing but seed and place, it goes
on as if nothing had happened. What is only read ahead gives way to every request that is waited for.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lcdoc.local_engine.batch import Piece
from lcdoc.local_engine.page_tables import PageTables
from lcdoc.local_engine.prefix_cache import PrefixCache
from lcdoc.local_engine.requests import Request, Usage
from lcdoc.local_engine.room import Room

logger = logging.getLogger(__name__)

_SMALLEST_PIECE = 32
"""Tokens of a prompt that are worth a place in a pass, unless it ends there."""
_DRAFTS_A_STEP = 16
"""Drafted tokens in one pass, of all requests: beyond, they cost what they save."""


@dataclass(frozen=True, slots=True)
class Work:
    """A piece of a request in the next pass; for a request that decodes, the tokens after its first are drafts."""

    request: Request
    piece: Piece
    drafts: tuple[int, ...] = ()
    copied: bool = False
    """Whether the drafts are a copy of earlier text; else a constraint leaves no choice about them."""


class Scheduler:
    """Waiting and running requests over one cache. Not thread-safe: the engine's own thread uses it."""

    def __init__(
        self,
        tables: PageTables,
        prefixes: PrefixCache | None,
        *,
        sequences: int,
        step_tokens: int,
    ) -> None:
        self.tables = tables
        self.room = Room(tables, prefixes)
        self.sequences = sequences
        self.step_tokens = step_tokens
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        """In the order of their admission."""
        self.unstarted: list[tuple[Request, Exception]] = []
        """Requests that could not be started, and why, for whoever tells their callers."""
        self.preemptions = 0

    @property
    def idle(self) -> bool:
        return not self.waiting and not self.running

    def add(self, request: Request) -> None:
        """Queue a request behind those that came before it. Raises RequestTooLargeError."""
        self.room.check_fits(request)
        self.waiting.append(request)

    def drop(self, request: Request) -> None:
        """Forget a request that was cancelled or has failed; its pages are free at once."""
        if request in self.running:
            if request.ahead and request.cancelled:
                # Taken back, as a rule because the request it was read for has come: that one reads on from here.
                self.room.remember(request)
            self._leave(request)
        elif request in self.waiting:
            self.waiting.remove(request)

    def finish(self, request: Request) -> None:
        """Take a finished request out; what it computed stays in the prefix cache while there is room."""
        self.room.remember(request)
        self._leave(request)

    def _leave(self, request: Request) -> None:
        """Its pages are free before it is no longer counted: whoever sees no request sees no pages of any."""
        self.room.release(request)
        self.running.remove(request)

    @property
    def left(self) -> list[Request]:
        """All whose callers have not been told the end."""
        return [*self.running, *self.waiting, *(request for request, _ in self.unstarted)]

    def close(self) -> None:
        """Forget all requests and give the cache's memory back. Nothing can run afterwards."""
        self.running.clear()
        self.waiting.clear()
        self.unstarted.clear()
        pool = self.tables.pool
        pool.keys, pool.values, pool.bias = pool.keys.new_empty(0), pool.values.new_empty(0), None

    def computed(self, work: Work, accepted: int) -> None:
        """Note that a pass is done; of its drafts, the first `accepted` held and the others leave the cache."""
        request = work.request
        rejected = len(work.drafts) - accepted
        if rejected and request.slot is not None:
            self.tables.truncate(request.slot, rejected)
        before = request.computed
        request.computed += len(work.piece.tokens) - rejected
        if before < len(request.prompt) <= request.computed:
            # At once, not at its end: other requests about the same document wait for it now.
            self.room.remember(request)

    def usage(self, request: Request) -> Usage:
        """The request's figures, with what it holds of the cache now."""
        if request.slot is None:
            return request.usage
        lengths = self.tables.lengths[request.slot]
        return replace(
            request.usage,
            kept=round(float(lengths.mean())),
            cache_bytes=int(self.tables.counts[request.slot].sum()) * self.tables.pool.page_bytes,
            cuts=0 if request.held is None else request.held.cuts,
        )

    def next_step(self) -> list[Work]:
        """What to compute next; empty when there is nothing to do.

        It is empty once, too, when the last request that runs gives way to itself: known blocks of its prompt that it
        holds a second time, because others computed them meanwhile, may be what it lacks; it then starts on those.
        """
        self._admit()
        decoding = [request for request in self.running if request.decoding]
        works = list(self._decodes(decoding))
        works = self._with_room(works)
        left = self.step_tokens - sum(len(work.piece.tokens) for work in works)
        reading = [request for request in self.running if not request.decoding]
        works += self._pieces([request for request in reading if not request.ahead] or reading, left)
        return works

    def _decodes(self, decoding: Sequence[Request]) -> Iterator[Work]:
        drafts_left = min(_DRAFTS_A_STEP, self.step_tokens - len(decoding))
        for request in decoding:
            work = self._decode(request)
            room = min(request.sampling.max_tokens - request.output - 1, drafts_left)
            if room > 0 and request.drafts:
                try:
                    work = self._drafted(request, room)
                except Exception:
                    # Without drafts nothing is missing. A constraint that is broken says so when its mask is computed.
                    logger.debug("no drafts could be made", exc_info=True)
                drafts_left -= len(work.drafts)
            yield work

    def _decode(self, request: Request, drafts: Sequence[int] = (), *, copied: bool = False) -> Work:
        tokens = (request.tokens[-1], *drafts)
        piece = Piece(_slot(request), tokens, request.place, len(request.prompt), logits=len(tokens))
        return Work(request, piece, tuple(drafts), copied)

    def _drafted(self, request: Request, room: int) -> Work:
        """The next token with what may well follow: what a constraint leaves no choice about, or a copy of the text."""
        if request.matcher is not None and (forced := request.matcher.forced()):
            return self._decode(request, forced[:room])
        if request.lookup is None:
            return self._decode(request)
        drafts = request.lookup.propose(request.tokens, room)
        return self._decode(request, drafts if request.matcher is None else request.matcher.valid(drafts), copied=True)

    def _with_room(self, works: list[Work]) -> list[Work]:
        """The works of decoding requests that there are pages for; the youngest requests give way where it is short."""
        while works:
            slots = np.array([work.piece.slot for work in works])
            counts = np.array([len(work.piece.tokens) for work in works])
            short = self.tables.pages_needed(slots, counts) - self.tables.pool.free
            if short <= 0 or self.room.evict(short):
                return works
            if any(work.drafts for work in works):
                works = [self._decode(work.request) for work in works]
                continue
            youngest = next((request for request in reversed(self.running) if request.ahead), self.running[-1])
            self.give_way(youngest)
            works = [work for work in works if work.request is not youngest]
        return works

    def give_way(self, request: Request) -> None:
        """Take a request's pages from it; it is read again when there is room."""
        self.preemptions += 1
        # Until somebody takes the pages, what they hold need not be computed again.
        self.room.remember(request)
        self._leave(request)
        request.computed = 0
        self.waiting.appendleft(request)

    def _pieces(self, reading: Sequence[Request], budget: int) -> Iterator[Work]:
        """Pieces of prompts, whose pages were taken at admission. However little is left, some are read on."""
        if not reading:
            return
        oldest, *others = reading
        others.sort(key=_unread)
        budget = max(budget, _SMALLEST_PIECE if not others else 2 * _SMALLEST_PIECE)
        share = min(self._readable(oldest), budget - budget // 2)
        sizes: list[int] = []
        for request in others:
            readable = self._readable(request)
            size = min(readable, budget - share - sum(sizes))
            if size < min(readable, _SMALLEST_PIECE):
                break
            sizes.append(size)
        share = min(self._readable(oldest), budget - sum(sizes))
        for request, size in zip((oldest, *others), (share, *sizes), strict=False):
            last = size == _unread(request) and request.answers
            tokens = request.tokens[request.computed : request.computed + size]
            yield Work(
                request, Piece(_slot(request), tokens, request.place, len(request.prompt), logits=1 if last else 0)
            )

    def _readable(self, request: Request) -> int:
        """Tokens that a piece may have, which is where the next cut may come."""
        if request.allowance is None:
            return _unread(request)
        lengths = self.tables.lengths[_slot(request)]
        held = -(-int(lengths.sum()) // lengths.size)
        return request.allowance.readable(request.computed, len(request.tokens), held)

    def _admit(self) -> None:
        while self.waiting and len(self.running) < self.sequences:
            request = self._next_waiting()
            if request is None:
                return
            try:
                started = self.room.start(request, len(self.running))
            except Exception as error:
                logger.debug("a request could not be started", exc_info=True)
                self.waiting.remove(request)
                self.unstarted.append((request, error))
                continue
            if started:
                self.waiting.remove(request)
                self.running.append(request)
                continue
            if not self.running:
                # Nobody will ever give pages back, so that it would wait forever.
                self.waiting.remove(request)
                self.unstarted.append((request, self.room.lacking(request)))
                continue
            ahead = [] if request.ahead else [other for other in self.running if other.ahead]
            if not ahead:
                return
            self.give_way(ahead[-1])

    def _next_waiting(self) -> Request | None:
        """The first in line; what is only read ahead lets the others pass, and leaves one place free."""
        asked = next((request for request in self.waiting if not request.ahead), None)
        if asked is not None:
            return asked
        return self.waiting[0] if len(self.running) < max(1, self.sequences - 1) else None

    def make_room(self, pages: int) -> bool:
        """Whether so many pages more are free, what no request needs forgotten for them."""
        return self.room.evict(pages)


def _unread(request: Request) -> int:
    return len(request.tokens) - request.computed


def _slot(request: Request) -> int:
    if request.slot is None:
        raise RuntimeError(f"request {request.number} runs without a place in the cache")
    return request.slot
