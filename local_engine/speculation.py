"""Drafts without a draft model: an answer that copies its document is foretold by the document.

Prompt lookup (Saxena 2023; "Inference with Reference", Yang et al. 2023): the last n tokens are looked for earlier in
prompt and answer, and what followed them there is proposed. The target model then scores the whole draft in one pass.

Verification draws a token at every drafted position from the target's own distribution, with that position's own
random number, and keeps drafts while they are equal to the draws. What is kept is thus what would have been drawn one
by one: lossless for greedy and for sampled answers, not only in distribution but token by token.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

# The n-grams that are looked up, longest first.
_SIZES = (4, 2)
# How many of an n-gram's last places are compared, and how far back.
_PLACES = 16
_COMPARED = 32
# Tokens before an answer that are looked through: an index of a million would take more memory than the cache of keys.
_REACH = 1 << 16
# After drafts stopped paying, the first probe waits so many steps, each next one twice as long.
_FIRST_WAIT = 8
_LAST_WAIT = 128


class PromptLookup:
    """Drafts for one answer: an index of its n-grams, and a draft length that follows how well drafts do.

    `max_draft` is the most tokens of a draft. The length starts at a quarter of it, doubles when a draft was accepted
    whole, and falls to one more than was accepted otherwise. When two drafts in a row gave nothing, drafting pauses and
    probes again later with a short draft, so that an answer that copies nothing pays for a small share of its steps.

    The index is that of LZ77 compressors: for each n-gram its last place, for each place the one before it.
    """

    def __init__(self, max_draft: int = 16) -> None:
        self._most = max_draft
        self._tokens: list[int] = []
        # How many tokens stand before those.
        self._skipped = 0
        # Keys are hashes: places are compared token by token, so that a collision costs nothing but time.
        self._last: dict[int, dict[int, int]] = {size: {} for size in _SIZES}
        self._before: dict[int, array[int]] = {size: array("q") for size in _SIZES}
        self._length = max(1, max_draft // 4)
        self._useless = 0
        self._wait = _FIRST_WAIT
        self._pause = 0

    def propose(self, tokens: Sequence[int], limit: int | None = None) -> list[int]:
        """A continuation of `tokens` (prompt and answer so far) found in them; empty when none is worth trying.

        Calls take a growing sequence: only what is new is indexed, and a sequence that was cut back (the tokens before
        are the same) is followed too. `limit` is the most tokens this step has room for.
        """
        self._follow(tokens)
        if self._pause > 0:
            self._pause -= 1
            return []
        room = min(self._length, self._most if limit is None else limit)
        if room <= 0:
            return []
        place = next((place for place in map(self._match, _SIZES) if place), 0)
        return self._tokens[place : place + room] if place else []

    def settle(self, drafted: int, accepted: int) -> None:
        """Tell how many of the last proposal's `drafted` tokens were accepted."""
        if drafted == 0:
            return
        if accepted == 0:
            self._useless += 1
            self._length = max(1, self._length // 2)
            if self._useless >= 2:
                self._pause = self._wait
                self._wait = min(2 * self._wait, _LAST_WAIT)
                self._length = min(2, self._most)
            return
        self._useless = 0
        self._wait = _FIRST_WAIT
        if accepted == drafted:
            # Short drafts at the end of the history say nothing about longer ones.
            self._length = min(self._most, max(self._length, 2 * drafted))
        else:
            self._length = min(self._most, accepted + 1)

    def _follow(self, tokens: Sequence[int]) -> None:
        known = self._tokens
        while known and (
            self._skipped + len(known) > len(tokens) or known[-1] != tokens[self._skipped + len(known) - 1]
        ):
            self._forget_last()
        if not known:
            self._skipped = max(0, len(tokens) - _REACH)
        for token in tokens[self._skipped + len(known) :]:
            known.append(int(token))
            for size in _SIZES:
                key = hash(tuple(known[-size:]))
                self._before[size].append(self._last[size].get(key, 0))
                self._last[size][key] = len(known)

    def _forget_last(self) -> None:
        for size in _SIZES:
            self._last[size][hash(tuple(self._tokens[-size:]))] = self._before[size].pop()
        self._tokens.pop()

    def _match(self, size: int) -> int:
        """The place behind an earlier copy of the last `size` tokens, 0 if there is none.

        Of the last copies the one whose surroundings agree longest, of equal ones the latest.
        """
        before, length = self._before[size], len(self._tokens)
        best, longest = 0, size - 1
        place = before[-1] if length else 0
        for _ in range(_PLACES):
            if place == 0:
                break
            same = self._agreement(place, length)
            if same > longest:
                best, longest = place, same
            place = before[place - 1]
        return best

    def _agreement(self, place: int, length: int) -> int:
        """How many tokens before `place` equal the last ones."""
        same = 0
        while same < min(place, _COMPARED) and self._tokens[place - 1 - same] == self._tokens[length - 1 - same]:
            same += 1
        return same


def accept(draft: Sequence[int], sampled: Sequence[int]) -> int:
    """How many draft tokens are kept: the longest common beginning.

    `sampled` holds the target's draws at the positions of the draft, and may hold the one behind it. The answer grows
    by `sampled[: accepted + 1]`: the kept tokens and the target's own token at the first place where they differ.
    """
    pairs = enumerate(zip(draft, sampled, strict=False))
    return next((place for place, (one, other) in pairs if one != other), min(len(draft), len(sampled)))
