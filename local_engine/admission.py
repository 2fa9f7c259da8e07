"""What callers ask, checked and made into requests that the scheduler takes."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from lcdoc.local_engine.assembly import Assembly
from lcdoc.local_engine.behind import check_behind, check_scheme
from lcdoc.local_engine.capture import Caption
from lcdoc.local_engine.compression.allowance import Allowance
from lcdoc.local_engine.compression.auto import Use, auto_recipe, longest_prompt
from lcdoc.local_engine.compression.known_heads import with_known_heads
from lcdoc.local_engine.compression.marks import Marks
from lcdoc.local_engine.compression.recipe import FULL, Recipe, as_recipe, is_auto
from lcdoc.local_engine.constraints import Grammar, Grammars
from lcdoc.local_engine.detokenizer import Detokenizer
from lcdoc.local_engine.errors import InvalidRequestError, RequestTooLargeError
from lcdoc.local_engine.requests import Deliver, Request
from lcdoc.local_engine.sampling import Sampling
from lcdoc.local_engine.snapshot import Snapshot
from lcdoc.local_engine.snapshot_fields import checked_meta, checked_spans
from lcdoc.local_engine.speculation import PromptLookup
from lcdoc.local_engine.stop_strings import StopStrings
from lcdoc.local_engine.token_spans import spans_in
from lcdoc.local_engine.windows import room_in_full, window_behind, window_cut, window_in_full

Prompt = str | Sequence[int] | Sequence[Mapping[str, Any]]
"""A text to be continued, token ids, or the messages of a chat."""

_MOST_DRAFTS: Final = 8


@dataclass(frozen=True, slots=True)
class Ask:
    """What a caller wants; see `Engine.generate`."""

    prompt: Prompt
    sampling: Sampling = field(default_factory=lambda: Sampling(max_tokens=1))
    schema: Mapping[str, Any] | None = None
    regex: str | None = None
    variables: Mapping[str, Any] | None = None
    kv: Recipe | str | None = None
    marks: Marks | None = None
    prefix: Snapshot | None = None
    evict_prefix: bool = False
    spans: NDArray[np.integer] | None = None
    """Of the prompt's tokens, for a snapshot of it"""
    meta: Mapping[str, Any] | None = None
    purpose: Literal["answer", "read ahead", "snapshot"] = "answer"


class Admission:
    """Of one engine. May be used from any thread."""

    def __init__(self, assembly: Assembly, *, speculate: bool) -> None:
        self.assembly = assembly
        self._speculate = speculate
        self._numbers = itertools.count()
        self._grammars: Grammars | None = None
        self._compiling = threading.Lock()

    @property
    def window(self) -> int:
        """Tokens of a prompt and its answer, where the request says nothing of its cache."""
        parts = self.assembly
        if parts.auto:
            tables, chunk = parts.scheduler.tables, parts.scheduler.step_tokens
            longest = longest_prompt(room_in_full(tables), chunk=chunk, page=tables.pool.page_size)
            return min(parts.config.context_window, longest)
        if parts.recipe is not None:
            return window_cut(parts.config, Allowance(parts.recipe, 1, parts.scheduler.step_tokens))
        return window_in_full(parts.config, parts.scheduler.tables)

    def encode(self, prompt: Prompt, **variables: Any) -> list[int]:
        """A prompt's token ids. Raises InvalidRequestError."""
        tokenizer = self.assembly.tokenizer
        if isinstance(prompt, str):
            return [*tokenizer.prefix_ids, *tokenizer.encode(prompt)]
        messages = [each for each in prompt if isinstance(each, Mapping)]
        if messages and len(messages) == len(prompt):
            return tokenizer.encode_chat(messages, **variables)
        ids = [each for each in prompt if not isinstance(each, Mapping)]
        if len(ids) < len(prompt) or not all(isinstance(token, Integral) for token in ids):
            raise InvalidRequestError("a prompt is a text, token ids, or messages, and nothing of two kinds")
        return [int(token) for token in ids]

    def grammar(
        self, schema: Mapping[str, Any] | None = None, regex: str | None = None, *, max_tokens: float = math.inf
    ) -> Grammar | None:
        """See `Engine.grammar`."""
        if schema is None and regex is None:
            return None
        if schema is not None and regex is not None:
            raise InvalidRequestError("an answer follows a schema or a regular expression, not both")
        with self._compiling:
            if self._grammars is None:
                self._grammars = Grammars(self.assembly.tokenizer)
        if schema is not None:
            grammar = self._grammars.compile_schema(schema)
        else:
            grammar = self._grammars.compile_regex(regex or "")
        if max_tokens < grammar.least_tokens < math.inf:
            raise InvalidRequestError(
                f"an answer that fits takes {grammar.least_tokens} tokens at least, and max_tokens is {max_tokens}: "
                "raise it, shorten the prompt, or simplify the schema"
            )
        return grammar

    def request(self, ask: Ask, deliver: Deliver) -> Request:
        """Raises EngineError: InvalidRequestError, RequestTooLargeError, SnapshotError."""
        parts, prefix = self.assembly, ask.prefix
        ids = self._ids(ask)
        recipe = self._recipe(ask, len(ids))
        allowance, marks = None, ask.marks
        if recipe is not None:
            allowance = Allowance(recipe, len(ids), parts.scheduler.step_tokens, parts.config.context_window)
            if prefix is not None:
                held = math.ceil(prefix.lengths.mean())
                allowance = replace(allowance, begun=prefix.read, held=held, keeps=not ask.evict_prefix)
            marks = self._marks(ask, recipe, ids).settled(recipe.protect, allowance.budget(0) - allowance.kept)
        window = self._window_of(allowance, prefix)
        answers = ask.purpose == "answer"
        if len(ids) + answers > window:
            of_cache = "" if window == parts.config.context_window else ", which is what the cache holds"
            raise RequestTooLargeError(
                f"the prompt has {len(ids):,} tokens and the window is {window:,}{of_cache}: shorten the prompt"
            )
        sampling = ask.sampling
        sampling = replace(sampling, max_tokens=min(sampling.max_tokens, max(1, window - len(ids)))).seeded()
        grammar = self.grammar(ask.schema, ask.regex, max_tokens=sampling.max_tokens)
        request = Request(
            next(self._numbers),
            tuple(ids),
            sampling,
            deliver,
            Detokenizer(parts.tokenizer),
            StopStrings(sampling.stop),
            end_tokens=parts.tokenizer.eos_ids,
            matcher=None if grammar is None else grammar.start(),
            lookup=PromptLookup(_MOST_DRAFTS) if self._speculate and answers else None,
            allowance=allowance,
            marks=marks,
            ahead=ask.purpose == "read ahead",
            captures=self._caption(ask, ids, recipe) if ask.purpose == "snapshot" else None,
            prefix=prefix,
        )
        parts.scheduler.room.check_fits(request)
        return request

    def spans(self, ids: Sequence[int], text: str) -> NDArray[np.int32] | None:
        """See `Engine.spans`."""
        tokenizer = self.assembly.tokenizer
        return spans_in((b"" if tokenizer.is_special(token) else tokenizer.token_bytes(token) for token in ids), text)

    def close(self) -> None:
        """End what compiles grammars."""
        if self._grammars is not None:
            self._grammars.close()

    def _recipe(self, ask: Ask, tokens: int) -> Recipe | None:
        """How the cache of a request of `tokens` tokens is compressed. Raises InvalidRequestError."""
        parts, prefix = self.assembly, ask.prefix
        if is_auto(ask.kv) or (parts.auto and ask.kv is None and prefix is None):
            recipe = None if prefix is not None else self._fitting(ask, tokens)
        elif ask.kv is None and prefix is None:
            recipe = parts.recipe
        else:
            recipe = as_recipe(ask.kv)
        if ask.evict_prefix and (prefix is None or recipe is None):
            raise InvalidRequestError("evict_prefix lets a recipe cut a snapshot: give prefix and kv with it")
        if recipe is None:
            return None
        if prefix is not None:
            check_behind(recipe, prefix, evicts=ask.evict_prefix)
        if ask.purpose == "snapshot":
            check_scheme(recipe)
        if ask.purpose == "read ahead":
            raise InvalidRequestError(f"nothing is read ahead with {recipe}: its requests share no beginnings")
        return with_known_heads(recipe, parts.folder)

    def _marks(self, ask: Ask, recipe: Recipe, ids: list[int]) -> Marks:
        """What is known of the prompt's tokens; where nobody says what the task is, it is how the prompt ends."""
        marks = ask.marks or Marks()
        marks.check(len(ids))
        self._check_known(marks.task, "the task")
        needs = recipe.scorer.needs
        if needs.probe != "task" or marks.task or ask.purpose != "answer":
            return marks
        return replace(marks, task=tuple(ids[-min(needs.window, max(1, len(ids) // 2)) :]))

    def _fitting(self, ask: Ask, tokens: int) -> Recipe | None:
        """What `auto` takes."""
        parts = self.assembly
        answer = 0
        if ask.purpose == "answer":
            answer = min(ask.sampling.max_tokens, max(1, parts.config.context_window - tokens))
        use: Use = "output" if answer > tokens else "question"
        if ask.purpose == "snapshot":
            use = "document"
        elif not isinstance(ask.prompt, str) and any(
            isinstance(each, Mapping) and each.get("role") == "assistant" for each in ask.prompt
        ):
            use = "chat"
        tables, chunk = parts.scheduler.tables, parts.scheduler.step_tokens
        room, page = room_in_full(tables), tables.pool.page_size
        return auto_recipe(use, tokens, room, answer=answer, chunk=chunk, page=page).recipe

    def _ids(self, ask: Ask) -> list[int]:
        """The token ids of prompt and prefix together, checked."""
        parts, prefix = self.assembly, ask.prefix
        if prefix is None:
            ids = self.encode(ask.prompt, **(ask.variables or {}))
        else:
            prefix.check(parts.identity, parts.scheduler.tables)
            ids = self._behind(prefix, ask.prompt, ask.variables or {})
        if len(ids) == (0 if prefix is None else prefix.read):
            raise InvalidRequestError("the prompt is empty: give at least one token")
        self._check_known(ids, "the prompt")
        return ids

    def _check_known(self, ids: Sequence[int], what: str) -> None:
        """Raises InvalidRequestError for a token that the model does not have."""
        vocabulary = self.assembly.config.vocab_size
        if ids and not 0 <= min(ids) <= max(ids) < vocabulary:
            raise InvalidRequestError(
                f"{what} has token {max(ids) if min(ids) >= 0 else min(ids)}, and the model knows 0 to "
                f"{vocabulary - 1}: check that tokenizer.json is its own"
            )

    def _caption(self, ask: Ask, ids: list[int], recipe: Recipe | None) -> Caption:
        """What the snapshot of a text says of itself, together with what it continues."""
        prefix, own = ask.prefix, FULL if recipe is None else str(recipe)
        known = 0 if prefix is None else prefix.read
        given: NDArray[np.integer] | None = ask.spans
        if given is None and isinstance(ask.prompt, str):
            given = self.spans(ids[known:], ask.prompt)
        spans = None
        if given is not None:
            try:
                spans = checked_spans(np.asarray(given), len(ids) - known)
            except ValueError as error:
                raise InvalidRequestError(f"{error}: give one for each token") from None
        if prefix is not None:
            if spans is not None:
                # The text goes on where the snapshot's ends.
                before = prefix.spans
                spans = None if before is None else np.concatenate((before, spans + before[-1, 1]))
            own = prefix.recipe if own in (FULL, prefix.recipe) else f"{prefix.recipe}, then {own}"
        return Caption(self.assembly.identity, own, spans, checked_meta(ask.meta))

    def _behind(self, prefix: Snapshot, prompt: Prompt, variables: Mapping[str, Any]) -> list[int]:
        """The token ids of a prompt that goes on behind a snapshot, the snapshot's among them."""
        read: list[int] = prefix.tokens.tolist()
        if isinstance(prompt, str):
            return read + self.assembly.tokenizer.encode(prompt)
        ids = self.encode(prompt, **variables)
        if not any(isinstance(each, Mapping) for each in prompt):
            return read + ids
        if ids[: len(read)] != read:
            raise InvalidRequestError("the chat does not begin with the snapshot's text: give what follows as a text")
        return ids

    def _window_of(self, allowance: Allowance | None, prefix: Snapshot | None) -> int:
        config, tables = self.assembly.config, self.assembly.scheduler.tables
        if allowance is not None:
            return window_cut(config, allowance) + (0 if prefix is None else prefix.shift)
        return self.window if prefix is None else window_behind(config, tables, prefix)
