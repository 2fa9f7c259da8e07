"""Pages for requests: how many one needs, which of them it shares, and who gives way when they are short.

What no request uses is kept while there is room: beginnings of prompts (`prefix_cache.py`), which are forgotten first,
and snapshots (`residents.py`).
"""

from __future__ import annotations

import numpy as np

from lcdoc.local_engine.errors import OutOfPagesError, RequestTooLargeError
from lcdoc.local_engine.page_growth import Integers, pages_of
from lcdoc.local_engine.page_tables import PageTables
from lcdoc.local_engine.prefix_cache import PrefixCache
from lcdoc.local_engine.requests import Request
from lcdoc.local_engine.residents import Residents
from lcdoc.local_engine.snapshot import Snapshot


class Room:
    """In one cache. The engine's own thread uses it."""

    def __init__(self, tables: PageTables, prefixes: PrefixCache | None) -> None:
        self.tables = tables
        self.prefixes = prefixes
        self.residents = Residents(tables)
        self.cached_pages = 0
        """Pages that are kept beside those of requests, or shared with them."""

    def check_fits(self, request: Request) -> None:
        """Raise RequestTooLargeError where a request could not run even alone."""
        pool, tokens, prefix = self.tables.pool, request.most, request.prefix
        uneven = self._uneven(request)
        needed = self.tables.pages_for(tokens + uneven)
        if prefix is not None:
            needed = self._pages_of(prefix.lengths + request.most_behind(request.longest) + uneven)
        if needed > pool.pages:
            raise RequestTooLargeError(
                f"{tokens:,} tokens need {needed * pool.page_bytes / 2**20:,.0f} MiB of cache of "
                f"{pool.pages * pool.page_bytes / 2**20:,.0f} MiB: shorten the prompt, or raise max_memory"
            )

    def start(self, request: Request, others: int) -> bool:
        """Give a request its pages, some of them shared; False where there are too few beside `others` that run.

        Raises what goes wrong when a snapshot is put into pages.
        """
        started = self._start(request, others) if request.prefix is None else self._start_behind(request, others)
        if started and request.cached is None:
            request.cached = request.computed
        self._count()
        return started

    def release(self, request: Request) -> None:
        """Take a request's pages from it."""
        if request.slot is None:
            return
        self.tables.free(request.slot)
        if self.prefixes is not None and request.locked is not None:
            self.prefixes.unlock(request.locked)
        request.slot = request.locked = request.held = None
        self._count()

    def remember(self, request: Request) -> None:
        """Keep what a request has computed, for others that begin alike."""
        if self.prefixes is not None and request.slot is not None and request.allowance is None:
            self.prefixes.insert(request.tokens[: request.computed], request.slot)
            self._count()

    def keep(self, snapshot: Snapshot, request: Request) -> None:
        """Keep what a request holds for questions behind the snapshot that was taken of it."""
        if request.slot is not None:
            self.residents.keep(snapshot, request.slot)
            self._count()

    def evict(self, pages: int, spare: Snapshot | None = None) -> bool:
        """Whether so many pages could be freed by forgetting what no request needs; `spare` stays."""
        if pages <= 0:
            return True
        freed = 0
        for _ in range(2):  # the two may hold the same pages, which come free when both have let them go
            if self.prefixes is not None:
                freed += self.prefixes.evict(pages - freed)
            if freed < pages:
                freed += self.residents.evict(pages - freed, spare)
        self._count()
        return freed >= pages

    def _start(self, request: Request, others: int) -> bool:
        match = None
        # Rows that are cut hold no prefix that another could share, nor do they go on from a shared one.
        if self.prefixes is not None and request.allowance is None:
            match = self.prefixes.match(request.tokens)
            self.prefixes.lock(match)
        shared = 0 if match is None else match.tokens
        first = self._first_room(request)
        needed = self.tables.pages_for(first) - self.tables.pages_for(shared)
        margin = self._margin(others)
        short = needed + margin - self.tables.pool.free
        if short > 0 and not self.evict(short) and (others or needed > self.tables.pool.free):
            if self.prefixes is not None and match is not None:
                self.prefixes.unlock(match)
            return False
        slot = self.tables.open()
        try:
            if match is not None and match.tokens:
                self.tables.adopt(slot, match.blocks, match.tokens)
            self.tables.reserve(slot, first - shared + self._growth(request, needed + margin))
        except Exception:
            self.tables.free(slot)
            if self.prefixes is not None and match is not None:
                self.prefixes.unlock(match)
            raise
        request.slot, request.locked, request.computed = slot, match, shared
        return True

    def _start_behind(self, request: Request, others: int) -> bool:
        """The same, for a request whose prompt begins with a snapshot."""
        prefix, tables = request.prefix, self.tables
        if prefix is None:
            return False
        rows = self.residents.find(prefix) if request.shares else None
        more = request.most_behind(len(request.tokens)) + self._uneven(request)
        size = tables.pool.page_size
        held, alone = self._pages_of(prefix.lengths), self._pages_of(prefix.lengths + more)
        needed = alone
        if request.shares:
            # Its own are those behind the full pages of the snapshot, which has its last ones besides.
            needed += (0 if rows is not None else held) - int((prefix.lengths // size).sum())
        margin = self._margin(others)
        short = needed + margin - tables.pool.free
        keeps = request.shares
        if short > 0 and not self.evict(short, spare=prefix if keeps else None):
            if others:
                return False
            # There is room for the question, if nobody else is to use the snapshot.
            keeps &= needed <= tables.pool.free
        slot = tables.open()
        try:
            if rows is not None:
                tables.join(slot, rows)
            else:
                prefix.fill(tables, slot)
            if keeps and rows is None:
                self.residents.keep(prefix, slot)
            elif request.shares and not keeps:
                self.residents.forget(prefix)
            tables.reserve(slot, more + (self._growth(request, needed + margin) if keeps else 0))
        except Exception:
            tables.free(slot)
            raise
        request.slot, request.computed = slot, prefix.read
        return True

    def lacking(self, request: Request) -> OutOfPagesError:
        """Why a request cannot be started."""
        return OutOfPagesError(self.tables.pages_for(self._first_room(request)), self.tables.pool.free)

    def make_room_to_cut(self, request: Request) -> None:
        """Before a snapshot that others hold too is cut: what is kept of it moves to pages of the request's own."""
        allowance, slot = request.allowance, request.slot
        if (
            allowance is None
            or slot is None
            or not allowance.held
            or allowance.keeps
            or (request.held is not None and request.held.cuts)
        ):
            return
        shared = int((self.tables.pool.refs[self.tables.contents(slot).held] > 1).sum())
        self.evict(min(shared, self.tables.pages_for(allowance.most(len(request.tokens)))) - self.tables.pool.free)

    def _margin(self, others: int) -> int:
        """Each running request may want a page in every row soon; a start that takes those would be undone at once."""
        return self.tables.layers * self.tables.kv_heads * others

    def _pages_of(self, lengths: Integers) -> int:
        """Pages of a sequence with rows of `lengths` [layers, kv_heads]."""
        return int(pages_of(lengths, self.tables.pool.page_size).sum())

    def _first_room(self, request: Request) -> int:
        """Entries of a row that pages are taken for when a request starts."""
        if request.allowance is None:
            return len(request.tokens)
        return request.allowance.most(len(request.tokens)) + self._uneven(request)

    def _uneven(self, request: Request) -> int:
        """Entries of a row to have room for besides, since pages are taken whole: where a cut leaves rows that differ,
        each may end in a page of its own, and a probe copies the page that it goes on in."""
        if request.allowance is None:
            return 0
        recipe = request.allowance.recipe
        differ, probed = recipe.chosen_budget.name != "uniform", recipe.scorer.needs.probe is not None
        return (differ + probed) * self.tables.pool.page_size

    def _growth(self, request: Request, needed: int) -> int:
        """Tokens of the answer to take pages for at once, so that a row stays in one run: all, if the pool is ample."""
        if request.allowance is not None:
            return 0
        more = request.longest - len(request.tokens)
        spare = self.tables.pool.free - needed
        return more if self.tables.pages_for(more + self.tables.pool.page_size) <= spare // 2 else 0

    def _count(self) -> None:
        of_prefixes = 0 if self.prefixes is None else self.prefixes.pages
        if not self.residents or not of_prefixes or self.prefixes is None:
            self.cached_pages = of_prefixes + self.residents.pages
            return
        kept = np.zeros(self.tables.pool.pages, np.bool_)
        kept[self.prefixes.held()] = kept[self.residents.held()] = True
        self.cached_pages = int(kept.sum())
