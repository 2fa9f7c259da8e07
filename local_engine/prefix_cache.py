"""Beginnings of sequences that are kept, so that the next request which starts alike need not compute them.

A block is one page of tokens in every layer and head. Blocks form a tree: the key of a block is the hash of its tokens
and of its parent's key, so that equal keys mean equal tokens from the very start, under the same model and the same way
of caching (the salt). The cache holds a block's pages in the pool just as a sequence does; a request that finds its
beginning shares them. What has not been used for longest goes first, and children go before their parents.

The interface (match, insert, lock, unlock, evict, check integrity) follows the prefix caches of SGLang (Zheng et al.,
"SGLang: Efficient Execution of Structured Language Model Programs", section 3) and mini-sglang.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from lcdoc.local_engine.errors import EngineError
from lcdoc.local_engine.page_tables import PageTables
from lcdoc.local_engine.pages import Pages

_ROOT = -1


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """The beginning of a prompt that is known: `tokens` tokens in pages `blocks` [layers, kv_heads, n].

    It stays true only until the next eviction unless it is locked.
    """

    blocks: Pages
    tokens: int
    last: int = field(default=_ROOT, repr=False)  # the number of its last block
    key: bytes = field(default=b"", repr=False)
    time: int = field(default=0, repr=False)


class PrefixCache:
    """Keeps prefixes of sequences of `tables`. `salt` names what the pages depend on beside the tokens.

    `queries` counts matches asked for and `hits` those that found something; `queried_tokens` and `hit_tokens` count
    their tokens.
    """

    def __init__(self, tables: PageTables, salt: bytes = b"") -> None:
        self._tables = tables
        self._pool = tables.pool
        self._root_key = hashlib.blake2b(salt, digest_size=16).digest()
        self._numbers: dict[bytes, int] = {}
        self._keys: list[bytes] = []  # by number, as all that follows
        self._tokens: list[bytes] = []
        self._spare: list[int] = []
        self._pages = np.zeros((0, tables.layers, tables.kv_heads), np.int32)
        self._parents = np.zeros(0, np.int64)
        self._children = np.zeros(0, np.int64)
        self._locks = np.zeros(0, np.int64)
        self._touched = np.zeros(0, np.int64)
        self._born = np.zeros(0, np.int64)
        self._kept = np.zeros(0, np.bool_)
        self._clock = 0
        self.queries = 0
        self.hits = 0
        self.queried_tokens = 0
        self.hit_tokens = 0
        tables.register_holder(self.held)

    def __len__(self) -> int:
        """How many blocks are kept."""
        return len(self._numbers)

    @property
    def pages(self) -> int:
        """How many pages the kept blocks hold, shared with sequences or not."""
        return len(self) * self._tables.layers * self._tables.kv_heads

    def match(self, tokens: Sequence[int]) -> Match:
        """The longest known beginning of a prompt. At least its last token is left out, since it must be computed."""
        numbers = self._walk(tokens, (len(tokens) - 1) // self._pool.page_size)
        self._touch(numbers)
        found = len(numbers) * self._pool.page_size
        self.queries += 1
        self.hits += bool(numbers)
        self.queried_tokens += len(tokens)
        self.hit_tokens += found
        blocks = np.ascontiguousarray(self._pages[numbers].transpose(1, 2, 0))
        if not numbers:
            return Match(blocks, 0)
        return Match(blocks, found, numbers[-1], self._keys[numbers[-1]], self._clock)

    def insert(self, tokens: Sequence[int], slot: int) -> int:
        """Keeps the full blocks of a sequence that begins with `tokens`; returns how many were not known before.

        Nothing is kept of a sequence whose rows are no longer whole: its pages would not hold these tokens.
        """
        if not self._tables.whole[slot]:
            return 0
        full = min(len(tokens), int(self._tables.lengths[slot, 0, 0])) // self._pool.page_size
        numbers = self._walk(tokens, full)
        known = len(numbers)
        key = self._keys[numbers[-1]] if numbers else self._root_key
        for block in self._blocks(tokens, known, full):
            key = _digest(key, block)
            if key in self._numbers:  # other tokens with the same hash: they were first
                break
            number = self._new_number()
            self._numbers[key] = number
            self._keys[number], self._tokens[number] = key, block
            numbers.append(number)
        added = numbers[known:]
        self._kept[added] = True
        self._parents[added] = [_ROOT, *numbers][known : len(numbers)]
        self._children[numbers[max(0, known - 1) : -1]] += 1  # each has one child more
        pages = self._tables.table[slot, :, :, known : len(numbers)].transpose(2, 0, 1)
        self._pool.retain(pages.ravel())
        self._pages[added] = pages
        self._touch(numbers)
        self._born[added] = self._clock
        return len(added)

    def lock(self, match: Match) -> None:
        """Keeps a match from eviction until `unlock`. Raises EngineError when part of it was evicted already."""
        if match.tokens:
            self._check_known(match)
            self._locks[match.last] += 1

    def unlock(self, match: Match) -> None:
        """Takes back one `lock`. Raises EngineError when there is none."""
        if match.tokens:
            self._check_known(match)
            if not self._locks[match.last]:
                raise EngineError("a prefix is unlocked that is not locked: unlock once for each lock")
            self._locks[match.last] -= 1

    def evict(self, pages: int) -> int:
        """Forgets blocks until `pages` pages are free that were not, or no more can be; returns how many became free.

        The least recently used go first. Never a locked block, nor one with children; nor one of which running
        sequences hold every page, because that would free nothing.
        """
        freed = 0
        leaves = np.flatnonzero(self._kept & (self._children == 0) & (self._locks == 0))
        heap = list(zip(self._touched[leaves].tolist(), leaves.tolist(), strict=True))
        heapq.heapify(heap)
        while heap and freed < pages:
            _, number = heapq.heappop(heap)
            if not (self._pool.refs[self._pages[number]] == 1).any():
                continue
            freed += self._forget(number)
            parent = int(self._parents[number])
            if parent != _ROOT and not self._children[parent] and not self._locks[parent]:
                heapq.heappush(heap, (int(self._touched[parent]), parent))
        return freed

    def check_integrity(self) -> None:
        """Raises EngineError naming what is wrong with the tree. Whether pages are counted is the tables' check."""
        kept = np.flatnonzero(self._kept)
        if sorted(self._numbers.values()) != kept.tolist() or len(kept) + len(self._spare) != len(self._keys):
            raise EngineError("the blocks of the prefix cache and its index differ")
        children = np.zeros_like(self._children)
        for number in kept.tolist():
            parent = int(self._parents[number])
            if parent != _ROOT:
                if not self._kept[parent]:
                    raise EngineError(f"block {number} of the prefix cache has lost its parent {parent}")
                if self._touched[parent] < self._touched[number]:
                    raise EngineError(f"block {parent} of the prefix cache would be evicted before its child {number}")
                children[parent] += 1
            key = _digest(self._root_key if parent == _ROOT else self._keys[parent], self._tokens[number])
            if self._numbers.get(key) != number or self._keys[number] != key:
                raise EngineError(f"the key of block {number} of the prefix cache is not that of its tokens")
        if (children != self._children).any() or (self._locks < 0).any() or self._locks[~self._kept].any():
            raise EngineError("children or locks of the prefix cache are counted wrongly")
        if (self._pool.refs[self._pages[kept]] < 1).any():
            raise EngineError("the prefix cache keeps a page that is free")

    def held(self) -> Pages:
        """The pages of all kept blocks."""
        return self._pages[self._kept].ravel()

    def _blocks(self, tokens: Sequence[int], first: int, end: int) -> Iterator[bytes]:
        size = self._pool.page_size
        data = np.asarray(tokens[first * size : end * size], "<i8").tobytes()
        width = size * 8
        return (data[at : at + width] for at in range(0, len(data), width))

    def _walk(self, tokens: Sequence[int], limit: int) -> list[int]:
        """The numbers of the first blocks of `tokens`, at most `limit`, as far as they are known."""
        numbers: list[int] = []
        key = self._root_key
        for block in self._blocks(tokens, 0, limit):
            key = _digest(key, block)
            number = self._numbers.get(key)
            parent = numbers[-1] if numbers else _ROOT
            if number is None or self._tokens[number] != block or self._parents[number] != parent:
                break
            numbers.append(number)
        return numbers

    def _touch(self, numbers: list[int]) -> None:
        self._clock += 1
        self._touched[numbers] = self._clock

    def _check_known(self, match: Match) -> None:
        # One that was evicted and came back may have other pages. If the last block stayed, so did all before it.
        if self._numbers.get(match.key) != match.last or self._born[match.last] > match.time:
            raise EngineError("a matched prefix was evicted before it was locked: match again")

    def _new_number(self) -> int:
        if not self._spare:
            old = len(self._keys)
            more = max(64, old)
            self._spare.extend(range(old + more - 1, old - 1, -1))
            self._keys.extend([b""] * more)
            self._tokens.extend([b""] * more)
            self._pages = np.concatenate((self._pages, np.zeros((more, *self._pages.shape[1:]), np.int32)))
            self._kept = np.concatenate((self._kept, np.zeros(more, np.bool_)))
            self._parents, self._children, self._locks, self._touched, self._born = (
                np.concatenate((array, np.zeros(more, np.int64)))
                for array in (self._parents, self._children, self._locks, self._touched, self._born)
            )
        return self._spare.pop()

    def _forget(self, number: int) -> int:
        before = self._pool.free
        self._pool.release(self._pages[number].ravel())
        parent = self._parents[number]
        if parent != _ROOT:
            self._children[parent] -= 1
        del self._numbers[self._keys[number]]
        self._keys[number] = self._tokens[number] = b""
        self._kept[number] = False
        self._spare.append(number)
        return self._pool.free - before


def _digest(parent: bytes, block: bytes) -> bytes:
    return hashlib.blake2b(parent + block, digest_size=16).digest()
