"""The engine's thread: takes requests in, runs one forward pass after another, gives pieces out."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from lcdoc.local_engine.answering import absorb, draw, prepare
from lcdoc.local_engine.batch import Observer, gather
from lcdoc.local_engine.batch import Piece as BatchPiece
from lcdoc.local_engine.behind import entries_behind, entries_unseen
from lcdoc.local_engine.capture import take
from lcdoc.local_engine.compression.compressor import Compressor
from lcdoc.local_engine.decoder import Decoder
from lcdoc.local_engine.errors import EngineClosedError, EngineError, OutOfPagesError
from lcdoc.local_engine.graphed_decoding import GraphedDecoder
from lcdoc.local_engine.records import Stats
from lcdoc.local_engine.requests import Piece, Request
from lcdoc.local_engine.sampling import Sampled
from lcdoc.local_engine.scheduler import Scheduler, Work

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Totals:
    """What the engine has done since it was loaded."""

    steps: int = 0
    requests: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0


class Loop:
    """Runs `scheduler`'s steps on `decoder` in a thread of its own. All methods may be called from any thread."""

    def __init__(
        self, decoder: Decoder | GraphedDecoder, scheduler: Scheduler, device: torch.device, compressor: Compressor
    ) -> None:
        self._scheduler = scheduler
        self._compressor = compressor
        self._device = device
        self._inbox: deque[Request] = deque()
        self._cancelled: deque[Request] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self.totals = Totals()
        # The thread alone holds the weights, so that their memory is free when it ends.
        self._thread = threading.Thread(target=self._run, args=(decoder,), name="lcdoc-engine", daemon=True)
        self._thread.start()

    def submit(self, request: Request) -> None:
        """Queue a request. Raises EngineClosedError."""
        with self._wake:
            if self._closing:
                raise EngineClosedError("the engine is closed: load it again")
            self._inbox.append(request)
            self._wake.notify()

    def cancel(self, request: Request) -> None:
        """End a request after the pass under way; nothing more is delivered for it."""
        with self._wake:
            request.cancelled = True
            self._cancelled.append(request)
            self._wake.notify()

    def close(self) -> None:
        """Stop after the pass under way. What still ran or waited gets EngineClosedError."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    @property
    def closed(self) -> bool:
        return self._closing

    @property
    def running(self) -> int:
        return len(self._scheduler.running)

    @property
    def waiting(self) -> int:
        return len(self._scheduler.waiting) + len(self._inbox)

    def stats(self) -> Stats:
        """Read without stopping the thread, so that figures may be of neighbouring moments."""
        pool, totals = self._scheduler.tables.pool, self.totals
        return Stats(
            running=self.running,
            waiting=self.waiting,
            pages_used=pool.pages - pool.free,
            pages_cached=self._scheduler.room.cached_pages,
            pages=pool.pages,
            steps=totals.steps,
            requests=totals.requests,
            failed=totals.failed,
            preemptions=self._scheduler.preemptions,
            prompt_tokens=totals.prompt_tokens,
            cached_tokens=totals.cached_tokens,
            output_tokens=totals.output_tokens,
            drafted_tokens=totals.drafted_tokens,
            accepted_tokens=totals.accepted_tokens,
            cuts=self._compressor.cuts,
            dropped_entries=self._compressor.dropped,
            cache_bytes=(pool.pages - pool.free) * pool.page_bytes,
        )

    def _run(self, decoder: Decoder | GraphedDecoder) -> None:
        ended: EngineError = EngineClosedError(
            "the engine was closed before the answer was complete: load it and ask again"
        )
        try:
            while self._take_in():
                self._pass(decoder)
        except Exception as error:
            # Nobody may be left waiting for a thread that is gone.
            logger.exception("the engine's thread failed")
            ended = _as_engine_error(error)
        with self._wake:
            self._closing = True
        for request in (*self._scheduler.left, *self._inbox):
            self.totals.failed += 1
            try:
                self._scheduler.drop(request)
            except Exception:
                # What broke may be the cache itself, which goes as a whole; the others are to be told all the same.
                logger.debug("a request could not be taken out of the cache", exc_info=True)
            _deliver(request.deliver, ended)
        self._inbox.clear()
        self._scheduler.close()

    def _pass(self, decoder: Decoder | GraphedDecoder) -> None:
        works = self._scheduler.next_step()
        for request, error in self._scheduler.unstarted:
            self._fail(request, _as_engine_error(error))
        self._scheduler.unstarted.clear()
        if not works:
            return
        try:
            self._step(decoder, works)
        except Exception as error:
            logger.debug("a forward pass failed", exc_info=True)
            for work in works:
                # Of this pass some may have got their last token already.
                if work.request in self._scheduler.running:
                    self._fail(work.request, _as_engine_error(error))

    def _take_in(self) -> bool:
        """New requests and cancellations; waits while there is nothing to do. False when the engine closes."""
        with self._wake:
            while not self._closing and not self._inbox and not self._cancelled and self._scheduler.idle:
                self._wake.wait()
            arrived, self._inbox = self._inbox, deque()
            cancelled, self._cancelled = self._cancelled, deque()
            if self._closing:
                self._inbox = arrived
                return False
        for request in arrived:
            if request.cancelled:
                continue
            self.totals.requests += 1
            try:
                self._scheduler.add(request)
            except Exception as error:
                logger.debug("a request could not be queued", exc_info=True)
                self._fail(request, _as_engine_error(error))
        for request in cancelled:
            self._scheduler.drop(request)
        return True

    def _step(self, decoder: Decoder | GraphedDecoder, works: list[Work]) -> None:
        self.totals.steps += 1
        prepare(works)
        observer = self._observer(decoder, works)
        batch = gather([_placed(work) for work in works], self._scheduler.tables, self._device, observer)
        if not any(work.piece.logits for work in works):
            decoder.hidden(batch)
            drawn = {}
        else:
            logits = decoder.forward(batch)
            drawn = {id(work): tokens for work, tokens in draw(works, logits)}
        for work in works:
            tokens = drawn.get(id(work))
            if isinstance(tokens, Exception):
                self._fail(work.request, _as_engine_error(tokens))
            elif tokens is None:
                self._scheduler.computed(work, 0)
                if work.request.ahead and work.request.computed == len(work.request.prompt):
                    self._end(work.request, Piece("", finish="length", usage=work.request.usage))
            else:
                self._answer(work, tokens)
            self._settle(decoder, work.request)
            self._capture(work.request)

    def _observer(self, decoder: Decoder | GraphedDecoder, works: list[Work]) -> Observer | None:
        for work in works:
            request = work.request
            if request.allowance is not None and request.held is None:
                begun = None if request.prefix is None else entries_behind(request.prefix, self._scheduler.tables)
                request.held = self._compressor.begin(
                    _plain(decoder), work.piece.slot, request.allowance, request.marks, begun
                )
        return self._compressor.observer([work.request.held for work in works])

    def _settle(self, decoder: Decoder | GraphedDecoder, request: Request) -> None:
        if request.held is None or request.slot is None:
            return
        try:
            self._scheduler.room.make_room_to_cut(request)
            with torch.inference_mode():
                self._compressor.settle(_plain(decoder), request.held, request.tokens, request.computed)
        except OutOfPagesError as error:
            if request.prefix is None or len(self._scheduler.running) == 1:
                self._fail(request, error)
                return
            # Others hold the pages it would leave; it is read again when there is room for both.
            self._scheduler.give_way(request)
        except Exception as error:
            logger.debug("a sequence could not be cut", exc_info=True)
            self._fail(request, _as_engine_error(error))

    def _capture(self, request: Request) -> None:
        """Give out what a text left in the cache, once all of it is read."""
        if request.captures is None or request.slot is None or request.computed < len(request.prompt):
            return
        tables, entries = self._scheduler.tables, None if request.held is None else request.held.entries
        try:
            if entries is None and request.prefix is not None:
                entries = entries_unseen(request.prefix, tables, request.computed)
            with torch.no_grad():
                snapshot = take(tables, request.slot, request.prompt, request.captures, entries)
            self._scheduler.room.keep(snapshot, request)
        except Exception as error:
            logger.debug("a snapshot could not be taken", exc_info=True)
            self._fail(request, _as_engine_error(error))
            return
        self._end(request, Piece("", finish="length", usage=request.usage, snapshot=snapshot))

    def _answer(self, work: Work, tokens: list[Sampled]) -> None:
        try:
            piece, accepted = absorb(work, tokens)
        except Exception as error:
            logger.debug("a token could not be taken over", exc_info=True)
            self._fail(work.request, _as_engine_error(error))
            return
        self._scheduler.computed(work, accepted)
        if piece.finish is None:
            if not _deliver(work.request.deliver, piece):
                self._scheduler.drop(work.request)
        else:
            self._end(work.request, piece)

    def _end(self, request: Request, last: Piece) -> None:
        totals, usage = self.totals, self._scheduler.usage(request)
        self._scheduler.finish(request)
        totals.prompt_tokens += usage.prompt
        totals.cached_tokens += usage.cached
        totals.output_tokens += usage.output
        totals.drafted_tokens += usage.drafted
        totals.accepted_tokens += usage.accepted
        _deliver(request.deliver, replace(last, usage=usage))

    def _fail(self, request: Request, error: EngineError) -> None:
        self.totals.failed += 1
        self._scheduler.drop(request)
        _deliver(request.deliver, error)


def _deliver(deliver: Callable[[Piece | Exception], None], what: Piece | Exception) -> bool:
    """Whether somebody took it."""
    try:
        deliver(what)
    except Exception:
        # Whoever asked is gone: its event loop has ended. That must not end the others' answers.
        logger.debug("a piece could not be delivered", exc_info=True)
        return False
    return True


def _placed(work: Work) -> BatchPiece:
    held = work.request.held
    return work.piece if held is None else held.placed(work.piece)


def _plain(decoder: Decoder | GraphedDecoder) -> Decoder:
    return decoder.decoder if isinstance(decoder, GraphedDecoder) else decoder


def _as_engine_error(error: Exception) -> EngineError:
    if isinstance(error, EngineError):
        return error
    if isinstance(error, torch.OutOfMemoryError):
        return EngineError("the GPU's memory ran out: load with a smaller max_memory, or with quantize")
    return EngineError(f"the engine failed ({type(error).__name__}: {error})")
