"""A short way to finish a constrained text, for answers that are about to run out of tokens.

llguidance knows what may come next, not how far the end is. So the end is looked for: greedily, always with the token
that closes most (which finishes JSON within a token or two of the shortest way); where that goes in circles, with a
look at every short token that could end the text; at last breadth first, over places that allow different tokens.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

import numpy as np
from llguidance import LLMatcher, LLTokenizer

_Ids = np.ndarray[tuple[int], np.dtype[np.int64]]

_MOST_STEPS = 256
_MOST_PLACES = 256
_WIDTH = 24
_RANKS = (
    rb"[\]}]+",
    rb' ?(""|\[\]|\{\})[\]}]*',
    rb" ?(0|null|true|false)[\]}]*",
    rb'"[\]}]*',
    rb' ?["\[{]',
    rb"[,:] ?",
)
_ENDS_STRING = re.compile(rb'"[\]}]*')
_LONGEST = 8
_FEW = 64


@dataclass(frozen=True, slots=True)
class Closers:
    """A vocabulary's tokens that lead to an end, best first; `letters` are allowed together only within free text."""

    structure: _Ids
    in_string: _Ids
    octets: _Ids
    letters: _Ids
    lengths: _Ids  # of every token, in bytes

    @classmethod
    def of(cls, tokenizer: LLTokenizer) -> Closers:
        texts = [tokenizer.decode_bytes([token]) for token in range(tokenizer.vocab_size)]
        ranks = [re.compile(rank) for rank in _RANKS]
        structure, in_string, octets, letters = [], [], [], []
        for token, text in enumerate(texts):
            if not 0 < len(text) <= _LONGEST or tokenizer.is_special_token(token):
                continue
            rank = next((number for number, each in enumerate(ranks) if each.fullmatch(text)), None)
            if rank is not None:
                structure.append((rank, -len(text), token))
            if _ENDS_STRING.fullmatch(text):
                in_string.append((-len(text), token))
            if len(text) == 1:
                octets.append(token)
            if text in {b"q", b"z"}:
                letters.append(token)
        return cls(
            np.array([token for *_, token in sorted(structure)], np.int64),
            np.array([token for _, token in sorted(in_string)], np.int64),
            np.array(octets, np.int64),
            np.array(letters, np.int64),
            np.array([len(text) for text in texts], np.int64),
        )


def completes(matcher: LLMatcher, path: list[int]) -> bool:
    """Whether `path` leads from there to a whole text. The matcher is left where it is."""
    probe = matcher.deep_copy()
    return probe.try_consume_tokens(path) == len(path) and probe.is_accepting()


def completion(matcher: LLMatcher, closers: Closers) -> list[int] | None:
    """Tokens after which the text is whole: empty if it is, None if no way was found."""
    for find in (_greedily, _looking_ahead, _breadth_first):
        path = find(matcher.deep_copy(), closers)
        if path is not None:
            return path
    return None


def _greedily(matcher: LLMatcher, closers: Closers, *, looks: bool = False) -> list[int] | None:
    path: list[int] = []
    while len(path) < _MOST_STEPS and not matcher.is_error():
        if matcher.is_accepting():
            return path
        steps = matcher.compute_ff_tokens()
        if not steps:
            steps = (looks and _last(matcher, closers)) or _best(matcher, closers)[:1]
        if not steps or matcher.try_consume_tokens(steps) != len(steps):
            return None
        path += steps
    return None


def _looking_ahead(matcher: LLMatcher, closers: Closers) -> list[int] | None:
    return _greedily(matcher, closers, looks=True)


def _last(matcher: LLMatcher, closers: Closers) -> list[int]:
    """One of the short tokens that makes the text whole."""
    return next(
        ([token] for token in map(int, [*closers.octets, *closers.structure]) if completes(matcher, [token])), []
    )


def _breadth_first(matcher: LLMatcher, closers: Closers) -> list[int] | None:
    waiting = deque([(matcher, list[int]())])
    seen: set[bytes] = set()
    while waiting and len(seen) < _MOST_PLACES:
        place, path = waiting.popleft()
        mask = place.compute_bitmask()
        if mask in seen:
            continue
        seen.add(mask)
        for token in _best(place, closers)[:_WIDTH]:
            after = place.deep_copy()
            if after.try_consume_tokens([token]) != 1:
                continue
            if after.is_accepting():
                return [*path, token]
            waiting.append((after, [*path, token]))
    return None


def _best(matcher: LLMatcher, closers: Closers) -> list[int]:
    """Allowed tokens, those that close most first."""
    allowed = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")
    free_text = len(closers.letters) > 0 and bool(allowed[closers.letters].all())
    closing = closers.in_string if free_text else closers.structure
    found = closing[allowed[closing] > 0]
    if not len(found) and np.count_nonzero(allowed) <= _FEW:
        # One of a few words: the longest token says most of it.
        few = np.flatnonzero(allowed)
        found = few[np.argsort(-closers.lengths[few], kind="stable")]
    elif not len(found):
        found = closers.octets[allowed[closers.octets] > 0]
    return list(map(int, found))
