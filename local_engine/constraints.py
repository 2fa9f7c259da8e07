"""Output that follows a JSON schema or a regular expression: llguidance says which tokens may come next.

JSON is written on one line with ", " and ": " between its parts and no other white space, so that a model can neither
fill its answer with spaces nor has to choose among layouts; the separators are forced tokens and cost no forward pass.
Schemas are narrowed first (see schema_bounds). Text before or after the instance is not possible.
"""

from __future__ import annotations

import json
import math
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import llguidance
import numpy as np
import torch
from tokenizers import Tokenizer as Backend
from torch import Tensor

from lcdoc.local_engine.completion import Closers, completes, completion
from lcdoc.local_engine.errors import EngineError, InvalidRequestError
from lcdoc.local_engine.schema_bounds import bounded

_KEPT_GRAMMARS = 64
# Above so many tokens left no answer is looked at for whether it can still be finished, unless it needs long for that.
_HORIZON = 192


class GrammarTokenizer(Protocol):
    """What is needed of a tokenizer; `vocab_size` is the width of the model's logits."""

    @property
    def backend(self) -> Backend: ...

    @property
    def vocab_size(self) -> int: ...

    @property
    def eos_ids(self) -> Iterable[int]: ...


class Grammars:
    """Compiled grammars of one tokenizer, the last ones kept. Any thread may compile."""

    def __init__(self, tokenizer: GrammarTokenizer) -> None:
        description = json.loads(tokenizer.backend.to_str())
        # Both would cut or lengthen what llguidance encodes.
        description |= {"truncation": None, "padding": None}
        self.eos_ids = frozenset(tokenizer.eos_ids)
        if not self.eos_ids:
            raise EngineError("the tokenizer names no end token, without which no grammar can end: set eos_token_id")
        self._tokens = llguidance.LLTokenizer(
            json.dumps(description), n_vocab=tokenizer.vocab_size, eos_token=sorted(self.eos_ids)
        )
        self._closers = Closers.of(self._tokens)
        self._kept: OrderedDict[str, Grammar] = OrderedDict()
        self._lock = threading.Lock()
        # One thread: a mask takes a fraction of a millisecond, and the forward pass wants the other cores.
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="grammar-masks")

    def compile_schema(self, schema: Mapping[str, Any]) -> Grammar:
        """The grammar of a JSON schema's instances. Raises InvalidRequestError for a schema llguidance refuses."""
        try:
            source = llguidance.LLMatcher.grammar_from_json_schema(
                bounded(schema),
                overrides={"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "},
            )
        except (ValueError, TypeError, OverflowError) as error:
            raise InvalidRequestError(f"the JSON schema cannot be read: {_line(error)}") from error
        return self._compiled(source, "the JSON schema")

    def compile_regex(self, pattern: str) -> Grammar:
        """The grammar of texts that match all of `pattern` (Rust's syntax: no look-around, no back-references).

        Raises InvalidRequestError.
        """
        try:
            source = llguidance.LLMatcher.grammar_from_regex(pattern)
        except ValueError as error:
            raise InvalidRequestError(f"the regular expression cannot be read: {_line(error)}") from error
        return self._compiled(source, f"the regular expression {pattern!r}")

    def close(self) -> None:
        self._worker.shutdown()

    def _compiled(self, source: str, what: str) -> Grammar:
        with self._lock:
            if source in self._kept:
                self._kept.move_to_end(source)
                return self._kept[source]
        matcher = llguidance.LLMatcher(self._tokens, source, log_level=0)
        if matcher.is_error():
            raise InvalidRequestError(f"{what} cannot be a grammar: {_line(matcher.get_error())}")
        grammar = Grammar(matcher, self._closers, self.eos_ids, self._tokens.vocab_size, self._worker)
        with self._lock:
            self._kept[source] = grammar
            if len(self._kept) > _KEPT_GRAMMARS:
                self._kept.popitem(last=False)
        return grammar


class Grammar:
    """A compiled grammar. `least_tokens` is about how many tokens its shortest text takes."""

    def __init__(
        self,
        matcher: llguidance.LLMatcher,
        closers: Closers,
        eos_ids: frozenset[int],
        vocab_size: int,
        worker: ThreadPoolExecutor,
    ) -> None:
        self.closers = closers
        self.eos_ids = eos_ids
        self.vocab_size = vocab_size
        self.worker = worker
        self._matcher = matcher
        shortest = completion(matcher, closers)
        self.least_tokens = math.inf if shortest is None else len(shortest)

    def start(self) -> Matcher:
        """A matcher before the first token."""
        return Matcher(self, self._matcher.deep_copy())


class Matcher:
    """Where in its grammar an answer stands. To be used by one thread at a time."""

    def __init__(self, grammar: Grammar, matcher: llguidance.LLMatcher) -> None:
        self._grammar = grammar
        self._matcher = matcher
        self._eos_taken = 0
        self._path: list[int] | None = None  # a way to finish from here, as far as one is known
        self._lost = False
        self._ahead: tuple[list[int], Future[Tensor]] | None = None

    def copy(self) -> Matcher:
        """An independent matcher at the same place."""
        self._settle()
        twin = Matcher(self._grammar, self._matcher.deep_copy())
        twin._eos_taken = self._eos_taken
        twin._path, twin._lost = self._path, self._lost
        return twin

    @property
    def accepts_end(self) -> bool:
        """Whether the text so far is a whole instance."""
        self._settle()
        return self._eos_taken > 0 or self._matcher.is_accepting()

    @property
    def ended(self) -> bool:
        """Whether the answer is whole and nothing can follow, so that no end token has to be waited for."""
        self._settle()
        return self._eos_taken > 0 or self._matcher.is_stopped()

    def mask(self) -> Tensor:
        """What may come next: int32 words [ceil(V / 32)] on the CPU, token t at bit t % 32 of word t // 32."""
        return self.masks(())[0]

    def masks(self, draft: Sequence[int]) -> Tensor:
        """Masks before the first and after each token of `draft`: int32 [1 + len(draft), ceil(V / 32)].

        Those behind a draft token that does not fit are empty. What `prepare` has computed is waited for and taken.
        """
        if self._ahead is not None and self._ahead[0] == list(draft):
            return self._ahead[1].result()
        self._settle()
        return self._computed(list(draft))

    def prepare(self, draft: Sequence[int] = ()) -> None:
        """Compute `masks(draft)` in the background, without the GIL: call it before the forward pass."""
        self._settle()
        self._ahead = (list(draft), self._grammar.worker.submit(self._computed, list(draft)))

    def valid(self, draft: Sequence[int]) -> list[int]:
        """The longest beginning of `draft` that fits, without end tokens."""
        self._settle()
        stops = [place for place, token in enumerate(draft) if token in self._grammar.eos_ids]
        given = list(draft[: stops[0]] if stops else draft)
        if self._eos_taken or not given:
            return []
        return given[: self._matcher.validate_tokens(given)]

    def forced(self) -> list[int]:
        """Tokens that must follow: no model has to be asked for them. Often none."""
        self._settle()
        return [] if self._eos_taken else self._matcher.compute_ff_tokens()

    def advance(self, token: int) -> None:
        """Go on with `token`. Raises EngineError, and stays where it is, if that does not fit."""
        self._settle()
        self._ahead = None
        if token in self._grammar.eos_ids:
            if not self._matcher.is_accepting():
                raise EngineError(f"end token {token} came before the answer was whole: draw with the matcher's mask")
            # Kept out of llguidance, which counts it on some paths and not on others.
            self._eos_taken += 1
            return
        if self._eos_taken or self._matcher.try_consume_tokens([token]) != 1:
            self._check()
            raise EngineError(f"token {token} does not fit the grammar here: draw with the matcher's mask")
        self._path = self._path[1:] if self._path and self._path[0] == token else None

    def rollback(self, count: int) -> None:
        """Take the last `count` tokens back."""
        self._settle()
        self._ahead = self._path = None
        ends = min(count, self._eos_taken)
        if count > ends and not self._matcher.rollback(count - ends):
            raise EngineError(f"{count} tokens cannot be taken back: there are not so many")
        self._eos_taken -= ends

    def fit(self, token: int, remaining: int) -> int:
        """`token`, or the one to take instead so that the answer is whole within `remaining` tokens, this one included.

        To be asked for every token, drawn or forced, before `advance`. The choice depends on the text so far alone, so
        it is the same with and without speculation. There is no promise for a grammar whose `least_tokens` is more
        than the request's tokens, nor where no way to finish is found (`completion` tells how it looks).
        """
        self._settle()
        if token in self._grammar.eos_ids or remaining > max(_HORIZON, 4 * self._grammar.least_tokens):
            return token
        after = self._matcher.deep_copy()
        if after.try_consume_tokens([token]) != 1:
            return token  # `advance` names the error
        path = self._path
        if path is None and not self._lost:
            path = self._path = completion(self._matcher, self._grammar.closers)
            # Looking in vain is slow: not again at every token.
            self._lost = path is None
        if path is None:
            return token
        if path and path[0] == token:
            return token
        # Inside a string the same ending goes on to be right, and looking is much cheaper than searching.
        new = path if completes(after, path) else completion(after, self._grammar.closers)
        if new is None or len(new) > remaining - 1:
            return path[0] if path else min(self._grammar.eos_ids)
        return token

    def _computed(self, draft: list[int]) -> Tensor:
        words = np.zeros((1 + len(draft), -(-self._grammar.vocab_size // 32)), np.int32)
        if self._eos_taken:
            words[0] = self._ends(words.shape[1])
            return torch.from_numpy(words)
        matcher = self._matcher.deep_copy() if draft else self._matcher
        for place, line in enumerate(words):
            if place and (
                draft[place - 1] in self._grammar.eos_ids or matcher.try_consume_tokens([draft[place - 1]]) != 1
            ):
                break
            matcher.unsafe_compute_mask_ptr(line.ctypes.data, line.nbytes)
        self._check(matcher)
        return torch.from_numpy(words)

    def _ends(self, width: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
        bits = np.zeros(width * 32, np.uint8)
        bits[sorted(self._grammar.eos_ids)] = 1
        return np.packbits(bits, bitorder="little").view(np.int32)

    def _settle(self) -> None:
        """llguidance's matchers must not be touched while their mask is computed."""
        if self._ahead is not None:
            self._ahead[1].result()

    def _check(self, matcher: llguidance.LLMatcher | None = None) -> None:
        checked = matcher or self._matcher
        if checked.is_error():
            raise EngineError(f"the grammar cannot go on: {_line(checked.get_error())}; simplify the schema")


def _line(error: object) -> str:
    """An error as one short line."""
    text = " ".join(str(error).split("<state>")[0].split())
    return text if len(text) <= 300 else text[:299] + "…"
