"""The scheduler over a cache whose contents are checked, with a model whose answers are known.

In place of keys and values the pages hold the tokens themselves, and the model reads its next token off them: a page of
another prompt, one that was overwritten, or a token that was left out would change the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lcdoc.local_engine.answering import absorb
from lcdoc.local_engine.batch import gather
from lcdoc.local_engine.errors import EngineError, OutOfPagesError, RequestTooLargeError
from lcdoc.local_engine.page_tables import PageTables
from lcdoc.local_engine.pages import PagePool
from lcdoc.local_engine.prefix_cache import PrefixCache
from lcdoc.local_engine.requests import Piece, Request
from lcdoc.local_engine.sampling import Sampled, Sampling
from lcdoc.local_engine.scheduler import Scheduler, Work
from lcdoc.local_engine.speculation import PromptLookup
from lcdoc.local_engine.stop_strings import StopStrings

LAYERS, HEADS, PAGE_SIZE = 2, 2, 4
END = 0


def following(tokens: Sequence[int]) -> int:
    """The model: repetitive enough that drafts often hold, and dependent on all that came before."""
    last, before = tokens[-1], tokens[-2] if len(tokens) > 1 else 3
    return (3 * last + before + (sum(tokens) % 7 == 0)) % 11


def answer_to(prompt: Sequence[int], max_tokens: int) -> list[int]:
    tokens = list(prompt)
    while len(tokens) - len(prompt) < max_tokens:
        tokens.append(following(tokens))
        if tokens[-1] == END:
            break
    return tokens[len(prompt) :]


class Silent:
    """A detokenizer without texts."""

    def push(self, token: int) -> str:
        return ""

    def flush(self) -> str:
        return ""


@dataclass
class Caller:
    """A request and what came back."""

    request: Request
    tokens: list[int] = field(default_factory=list)
    ended: int = 0
    dropped: bool = False


class Bench:
    """What the engine's loop does with a scheduler, in the open."""

    def __init__(self, *, blocks: int, sequences: int = 4, step_tokens: int = 64, prefix_cache: bool = True) -> None:
        pool = PagePool(blocks * LAYERS * HEADS, PAGE_SIZE, 1, torch.float32)
        self.tables = PageTables(pool, sequences, LAYERS, HEADS, 2)
        self.prefixes = PrefixCache(self.tables) if prefix_cache else None
        self.scheduler = Scheduler(self.tables, self.prefixes, sequences=sequences, step_tokens=step_tokens)
        self.callers: list[Caller] = []
        self.steps = 0

    def ask(self, prompt: Sequence[int], max_tokens: int, *, ahead: bool = False, drafts: int = 8) -> Caller:
        request = Request(
            len(self.callers),
            tuple(prompt),
            Sampling(max_tokens=1 if ahead else max_tokens),
            lambda _: None,
            Silent(),
            StopStrings(()),
            end_tokens=frozenset({END}),
            lookup=PromptLookup(drafts) if drafts and not ahead else None,
            ahead=ahead,
        )
        caller = Caller(request)
        self.scheduler.add(request)
        self.callers.append(caller)
        return caller

    def drop(self, caller: Caller) -> None:
        free = self.tables.pool.free
        held = caller.request.slot is not None
        self.scheduler.drop(caller.request)
        caller.dropped = True
        assert not held or self.prefixes is not None or self.tables.pool.free > free

    def step(self) -> list[Work]:
        works = self.scheduler.next_step()
        if not works:
            return works
        self.steps += 1
        batch = gather([work.piece for work in works], self.tables, torch.device("cpu"))
        where = batch.write.reshape(-1)
        pool = self.tables.pool
        assert len(where.unique()) == len(where)
        for store in (pool.keys, pool.values):
            store.view(-1)[batch.write] = batch.tokens[None, :, None].float()
        for work, after in zip(works, batch.past[:, 0, 0] + batch.counts, strict=True):
            self._advance(work, self._content(work.piece.slot, int(after)))
        self.tables.check_integrity()
        if self.prefixes is not None:
            self.prefixes.check_integrity()
        return works

    def run(self, most: int = 10_000) -> None:
        start = self.steps
        while not self.scheduler.idle:
            assert self.step(), "requests wait and nothing is done"
            assert self.steps - start <= most, "a request starves"

    def check_end(self) -> None:
        """Every request ended as it should, and all pages are free or kept for others."""
        for caller in self.callers:
            if caller.dropped:
                continue
            request = caller.request
            assert caller.ended == 1
            if not request.ahead:
                assert caller.tokens == answer_to(request.prompt, request.sampling.max_tokens)
        pool = self.tables.pool
        kept = self.prefixes.pages if self.prefixes is not None else 0
        assert pool.free == pool.pages - kept
        assert not self.scheduler.running
        assert not self.scheduler.waiting
        if self.prefixes is not None:
            # Nothing stays locked.
            assert self.prefixes.evict(pool.pages) == kept

    def _content(self, slot: int, length: int) -> list[int]:
        """The tokens that a sequence's rows hold, which must agree."""
        columns = -(-length // PAGE_SIZE)
        pages = torch.from_numpy(self.tables.table[slot, :, :, :columns].astype(np.int64))
        rows = self.tables.pool.keys[pages].reshape(LAYERS * HEADS, -1)[:, :length]
        assert (rows == rows[0]).all()
        assert torch.equal(self.tables.pool.values[pages].reshape(LAYERS * HEADS, -1)[:, :length], rows)
        return rows[0].int().tolist()

    def _advance(self, work: Work, content: list[int]) -> None:
        request, caller = work.request, self.callers[work.request.number]
        assert content == [*request.tokens[: len(content) - len(work.drafts)], *work.drafts]
        if not work.piece.logits:
            self.scheduler.computed(work, 0)
            if request.ahead and request.computed == len(request.prompt):
                self.scheduler.finish(request)
                caller.ended += 1
            return
        drawn = [Sampled(following(content[: len(content) - place])) for place in range(work.piece.logits - 1, -1, -1)]
        piece, accepted = absorb(work, drawn)
        self.scheduler.computed(work, accepted)
        self._take(caller, piece)
        if piece.finish is not None:
            self.scheduler.finish(request)

    def _take(self, caller: Caller, piece: Piece) -> None:
        assert not caller.ended
        assert not caller.dropped
        caller.tokens += [each.token for each in piece.tokens]
        caller.ended += piece.finish is not None


def document(seed: int, length: int) -> list[int]:
    return np.random.default_rng(seed).integers(1, 11, length).tolist()


# Any life


@st.composite
def arrivals(draw: st.DrawFn) -> list[tuple[int, list[int], int, bool, int | None, int]]:
    """(step of arrival, prompt, max_tokens, ahead, steps until it is cancelled, longest draft), by step.

    Prompts are beginnings of three documents with questions behind them, so that many share their beginnings.
    """
    made = []
    for _ in range(draw(st.integers(1, 14))):
        prompt = [
            *document(draw(st.integers(0, 2)), 90)[: draw(st.integers(0, 90))],
            *draw(st.lists(st.integers(1, 10), min_size=1, max_size=6)),
        ]
        made.append(
            (
                draw(st.integers(0, 40)),
                prompt,
                draw(st.integers(1, 40)),
                draw(st.integers(0, 4)) == 0,
                draw(st.none() | st.integers(0, 30)),
                draw(st.sampled_from([0, 3, 8])),
            )
        )
    return sorted(made, key=lambda each: each[0])


@example(  # the last request holds blocks twice that others computed meanwhile
    [
        (0, [9, 7, 3], 1, True, None, 0),
        (0, [1], 4, False, None, 8),
        (0, [1], 1, True, None, 0),
        (0, [1], 1, True, None, 0),
        (0, [1], 20, False, None, 8),
        (3, [9, 3, 2, 3, 5, 9, 5, 1, 4], 20, False, None, 8),
        (4, [9, 3, 2, 5], 1, True, None, 0),
        (10, [9, 7, 6, 3, 1], 1, False, None, 0),
        (10, [9, 7, 6, 3, 4, 1, 1, 1, 2, 9, 7, 10, 6, 7, 10, 1, 1, 1, 4, 1, 4], 37, False, None, 0),
    ],
    15,
    6,
    200,
    True,
)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    arrivals(),
    st.integers(6, 60),
    st.sampled_from([1, 2, 3, 6]),
    st.sampled_from([1, 16, 40, 64, 200]),
    st.booleans(),
)
def test_any_life_ends_well(
    life: list[tuple[int, list[int], int, bool, int | None, int]],
    blocks: int,
    sequences: int,
    step_tokens: int,
    prefix_cache: bool,
) -> None:
    bench = Bench(blocks=blocks, sequences=sequences, step_tokens=step_tokens, prefix_cache=prefix_cache)
    cancels: list[tuple[int, Caller]] = []
    clock, work = 0, 0
    life = list(life)  # an explicit example is used again
    while life or not bench.scheduler.idle:
        while life and life[0][0] <= clock:
            _, prompt, max_tokens, ahead, leaves, drafts = life.pop(0)
            # The engine cuts an answer to what the pool holds.
            room = blocks * PAGE_SIZE - len(prompt)
            if room < 1:
                with pytest.raises(RequestTooLargeError):
                    bench.ask(prompt, max(1, room + 1), ahead=False)
                continue
            work += len(prompt) + max_tokens
            caller = bench.ask(prompt, min(max_tokens, room), ahead=ahead, drafts=drafts)
            if leaves is not None:
                cancels.append((clock + leaves, caller))
        for moment, caller in cancels:
            if moment == clock and not caller.ended:
                bench.drop(caller)
        preemptions = bench.scheduler.preemptions
        if not bench.step() and not bench.scheduler.idle:
            # The only request that ran gave way to itself, and starts anew.
            assert bench.scheduler.preemptions > preemptions, "requests wait and nothing is done"
            assert bench.step(), "requests wait and nothing is done"
        clock += 1
        assert clock < 50 + 4 * work, "a request starves"
    bench.check_end()


# Single cases


def test_one_request() -> None:
    bench = Bench(blocks=20)
    prompt = document(0, 30)
    caller = bench.ask(prompt, 12)
    bench.run()
    assert caller.tokens == answer_to(prompt, 12)
    bench.check_end()


def test_a_pass_keeps_to_its_budget() -> None:
    bench = Bench(blocks=500, sequences=8, step_tokens=100)
    for seed in range(8):
        bench.ask(document(seed, 150), 20)
    while not bench.scheduler.idle:
        assert sum(len(work.piece.tokens) for work in bench.step()) <= 100
    bench.check_end()


def test_the_budget_is_used_up() -> None:
    """The shortest first, beside the oldest, which takes what they leave."""
    bench = Bench(blocks=500, sequences=8, step_tokens=100)
    callers = [bench.ask(document(seed, length), 1) for seed, length in enumerate([300, 200, 10, 20])]
    sizes = {work.request.number: len(work.piece.tokens) for work in bench.step()}
    assert sizes == {0: 70, 2: 10, 3: 20}
    assert [len(caller.tokens) for caller in callers] == [0, 0, 1, 1]
    sizes = {work.request.number: len(work.piece.tokens) for work in bench.step()}
    assert sizes == {0: 50, 1: 50}
    bench.run()
    bench.check_end()


def test_reading_goes_on_beside_many_answers() -> None:
    """Even where answers alone fill the budget."""
    bench = Bench(blocks=500, sequences=8, step_tokens=4)
    answering = [bench.ask(document(seed, 20), 500) for seed in range(6)]
    for caller in answering:
        caller.request.end_tokens = frozenset()
    while not all(caller.request.decoding for caller in answering):
        bench.step()
    before = bench.steps
    late = bench.ask(document(9, 90), 1)
    while not late.ended:
        bench.step()
    assert bench.steps - before <= 3
    for caller in answering:
        bench.drop(caller)
    bench.check_end()


def test_the_first_in_line_is_not_overtaken() -> None:
    """One that needs much room gets it, though smaller ones come all the time."""
    bench = Bench(blocks=20, sequences=8)
    small = [bench.ask(document(seed, 16), 8) for seed in range(3)]
    large = bench.ask(document(9, 60), 10)
    for seed in range(10, 30):
        bench.ask(document(seed, 16), 8)
    while not large.tokens:
        bench.step()
        assert sum(caller.ended for caller in bench.callers if caller not in small) == 0
    bench.run()
    bench.check_end()


def test_the_youngest_gives_way_and_keeps_its_answer() -> None:
    bench = Bench(blocks=12, sequences=2, prefix_cache=False)
    old, young = (bench.ask(document(seed, 8), 30, drafts=0) for seed in (1, 4))
    for caller in (old, young):
        caller.request.end_tokens = frozenset()
    later = bench.ask(document(7, 8), 2)
    while not bench.scheduler.preemptions:
        bench.step()
    assert bench.scheduler.running == [old.request]
    assert list(bench.scheduler.waiting) == [young.request, later.request]
    kept = list(young.tokens)
    assert kept
    bench.run()
    for caller in (old, young):
        assert len(caller.tokens) == 30
        assert caller.ended == 1
    assert young.tokens[: len(kept)] == kept


def test_what_a_preempted_request_computed_is_used_again() -> None:
    """As far as nobody took its pages, and without its counting as cached."""
    bench = Bench(blocks=30, sequences=4, step_tokens=32)
    ahead = bench.ask(document(1, 80), 1, ahead=True)
    bench.step()
    bench.step()
    asked = bench.ask(document(2, 44), 1)
    bench.step()
    assert bench.scheduler.preemptions == 1
    assert ahead.request in bench.scheduler.waiting
    bench.run()
    assert asked.ended
    assert ahead.request.usage.cached == 0
    read = sum(len(caller.request.prompt) for caller in bench.callers)
    assert bench.steps <= -(-read // 32) + 1
    bench.check_end()


def test_reading_ahead_waits_for_all_others() -> None:
    bench = Bench(blocks=200, sequences=4, step_tokens=32)
    ahead = [bench.ask(document(seed, 90), 1, ahead=True) for seed in range(4)]
    bench.step()
    assert len(bench.scheduler.running) == 3  # one place stays free
    asked = bench.ask(document(9, 64), 2)
    numbers = {work.request.number for work in bench.step()}
    assert numbers == {asked.request.number}
    bench.run()
    assert all(caller.ended for caller in ahead)
    bench.check_end()


def test_equal_prompts_at_once_end_up_sharing_pages() -> None:
    bench = Bench(blocks=60, sequences=4)
    prompt = document(0, 40)
    callers = [bench.ask([*prompt, number], 4) for number in range(1, 5)]
    bench.run()
    late = bench.ask([*prompt, 5], 4)
    bench.run()
    assert late.request.usage.cached == 40
    assert [caller.request.usage.cached for caller in callers] == [0, 0, 0, 0]
    bench.check_end()


def test_a_request_too_large_for_the_pool_is_refused_with_numbers() -> None:
    bench = Bench(blocks=10)
    with pytest.raises(RequestTooLargeError, match=r"41 tokens need \d+ MiB of cache of \d+ MiB"):
        bench.ask(document(0, 30), 11)
    assert bench.scheduler.idle


class _Left(list[Request]):
    """Whoever looks on from another thread and sees no request must see no pages of any."""

    def remove(self, request: Request) -> None:
        assert request.slot is None
        super().remove(request)


def test_pages_are_free_before_a_request_is_seen_to_leave() -> None:
    bench = Bench(blocks=10, sequences=2)
    bench.scheduler.running = running = _Left()
    dropped = bench.ask([3, 1, 4], 30)
    bench.ask([2, 7, 1], 12)
    bench.step()
    assert len(running) == 2
    bench.drop(dropped)
    bench.run()
    assert not running
    bench.check_end()


def test_a_request_that_nothing_makes_room_for_is_not_left_waiting() -> None:
    bench = Bench(blocks=10)
    lost = bench.tables.pool.take(5 * LAYERS * HEADS)
    request = bench.ask(document(0, 30), 4).request
    assert not bench.scheduler.next_step()
    assert bench.scheduler.idle
    [(unstarted, error)] = bench.scheduler.unstarted
    assert unstarted is request
    assert isinstance(error, OutOfPagesError)
    assert bench.scheduler.left == [request]
    bench.callers.clear()
    bench.tables.pool.release(lost)
    bench.ask(document(0, 30), 4)
    bench.run()
    bench.check_end()


def test_a_start_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(blocks=20, sequences=2)
    prompt = document(0, 30)
    bench.ask(prompt, 4)
    bench.run()

    def failing(*_: object) -> None:
        raise EngineError("no luck")

    for _ in range(4):
        with monkeypatch.context() as patch:
            patch.setattr(bench.tables, "reserve", failing)
            bench.ask([*prompt, 5], 4)
            assert not bench.scheduler.next_step()
        bench.scheduler.unstarted.clear()
        bench.callers.pop()
    bench.check_end()
    bench.ask([*prompt, 5], 4)
    bench.run()
    bench.check_end()
