"""Requests of a reader: filled prompts that fit the model's window, passages packed into as few as do."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from pydantic import BaseModel

from lcdoc.agents.models.errors import ContextOverflowError, ModelConfigError
from lcdoc.agents.models.model import ChatModel, OnText, Parsed, Piece, Profile, Request, count_prompt
from lcdoc.agents.packing import cut_passage, halves, packed
from lcdoc.agents.prompts.blocks import Blocks
from lcdoc.agents.prompts.fence import neutral
from lcdoc.agents.prompts.kept import Kept
from lcdoc.agents.prompts.templates import Skill, beginning, prompt
from lcdoc.agents.reader import Passage

Fields = Mapping[str, str]
"""What is filled into a prompt."""

LEAST_ROOM_TOKENS = 40
"""Less is not room for one sentence."""
_ANSWER_TOKENS: dict[Skill, int] = {
    "read": 1536,
    "merge": 1024,
    "answer": 2048,
    "summarize": 2048,
    "condense": 2048,
    "choose": 512,
    "judge": 768,
    "list": 3072,
    "direct": 3072,
    "extract": 3072,
    "rows": 4096,
}
"""Room for the longest answer; never more than `_ANSWER_SHARE` of the window."""
_ANSWER_SHARE = 0.25
_SCHEMA_SLACK_TOKENS = 64
"""Beside the schema itself, which servers put into the prompt in one way or another."""
_BLOCK_TOKENS = 4
"""Between two blocks."""
_MOST_CHARACTERS = 16_000_000
"""Of the blocks whose tokens are remembered."""
_QUESTION_SHARE = 1 / 32
_QUESTION_TOKENS = (16, 128)
"""A question is given a share of the window, within these bounds, and a longer one several such: so all but very long
questions leave the same room, and the same pieces of a document are read for them."""
_SHRINK = 0.75
"""How much smaller the window is taken to be than a request that did not fit, where the server does not say."""

_log = logging.getLogger(__name__)
Item = TypeVar("Item")
Result = TypeVar("Result")


class Asker:
    """Asks one model by the prompts of one profile, and knows how much fits: less, once the server said so."""

    def __init__(self, model: ChatModel, profile: Profile, blocks: Blocks) -> None:
        self.profile: Profile = profile
        self._model = model
        self._blocks = blocks
        self._window_tokens = model.spec.context_window
        self._schema_tokens: dict[type[BaseModel], int] = {}
        self._passage_sizes: Kept[str, int] = Kept(_MOST_CHARACTERS)

    @property
    def name(self) -> str:
        """The model's name, for messages."""
        return self._model.spec.name

    @property
    def served(self) -> str:
        """The model's name with that of the server and of the model there: what a name stands for may change."""
        server = self._model.spec.server
        if server is None:
            return f"{self.name} {self._model.spec.identity}".strip()
        return f"{self.name} ({server.base_url} {server.model})"

    @property
    def runs_here(self) -> bool:
        """Whether the model runs inside lcdoc."""
        return self._model.spec.server is None

    def count(self, text: str) -> int:
        """Tokens of document text as it will be sent."""
        return self._model.count_tokens(neutral(text))

    def passages(self, pack: Sequence[Passage]) -> str:
        """The blocks of some passages."""
        return "\n\n".join(map(self._blocks.passage, pack))

    def passages_tokens(self, pack: Sequence[Passage]) -> int:
        """Tokens of the blocks of some passages, about."""
        return sum(map(self._passage_tokens, pack))

    async def ask(
        self,
        skill: Skill,
        schema: type[Parsed],
        fields: Fields,
        *,
        on_text: OnText | None = None,
        piece: Sequence[Passage] = (),
    ) -> Parsed:
        """The model's answer. Raises ModelError.

        `piece`: see `request`. At a ContextOverflowError the window is remembered to be smaller, so that what is packed
        anew does fit.
        """
        request = replace(self.request(skill, schema, fields, piece=piece), on_text=on_text)
        try:
            completion = await self._model.complete(request)
        except ContextOverflowError as error:
            self._learn(error, self._size(request))
            raise
        return completion.parsed_as(schema)

    def room(self, skill: Skill, schema: type[BaseModel], fixed: Fields, *, any_question: bool = False) -> int:
        """Tokens left for text beside the `fixed` fields. Raises ModelConfigError where it is not even a sentence.

        The same beside `any_question` that is not very long, so that all of them read the same pieces of a document.
        """
        taken = self._size(self.request(skill, schema, {**fixed, "question": ""} if any_question else fixed))
        taken += self._question_tokens(fixed["question"]) if any_question else 0
        room = self._window_tokens - taken
        if room < LEAST_ROOM_TOKENS:
            raise ModelConfigError(
                self.name,
                f"a window of {self._window_tokens} tokens leaves no room for a sentence: the instructions to {skill}, "
                f"what goes with them and the answer take {taken}",
                "use a model with a longer window, or set context_window if this model's is longer",
            )
        return room

    def block_tokens(self) -> int:
        """What a block takes beside its text, about."""
        return self._model.count_tokens(self._blocks.numbered("option", [""])) + _BLOCK_TOKENS

    def packed(
        self, skill: Skill, schema: type[BaseModel], passages: Sequence[Passage], fixed: Fields
    ) -> list[list[Passage]]:
        """`passages` in as few packs as fit beside the `fixed` fields; a passage longer than that in pieces.

        A pack packed again stays one. Raises ModelConfigError as `room` does.
        """
        room = self.room(skill, schema, fixed)
        pieces: list[tuple[Passage, int]] = []
        for passage in passages:
            tokens = self._passage_tokens(passage)
            if tokens <= room:
                pieces.append((passage, tokens))
                continue
            # The name and headings of a passage are in each of its pieces.
            for_text = room - (tokens - self.count(passage.text)) - _BLOCK_TOKENS
            cut = cut_passage(passage, max(for_text, LEAST_ROOM_TOKENS // 2), self.count)
            pieces += [(piece, min(room, self._passage_tokens(piece))) for piece in cut]
        return packed([piece for piece, _ in pieces], [tokens for _, tokens in pieces], room)

    async def each_pack(
        self,
        skill: Skill,
        schema: type[BaseModel],
        passages: Sequence[Passage],
        fixed: Fields,
        ask: Callable[[Sequence[Passage]], Awaitable[Result]],
    ) -> list[Result]:
        """What `ask` makes of `passages`, in as few packs as fit, all at once; a pack that overflows is parted."""

        async def attempt(pack: Sequence[Passage]) -> list[Result]:
            try:
                return [await ask(pack)]
            except ContextOverflowError as error:
                parts: Sequence[Sequence[Passage]] = self.packed(skill, schema, pack, fixed)
                if len(parts) < 2:
                    parts = halves(pack) or ()
                if not parts:
                    raise
                _log.info("%s: %s; reading it in %d parts", self.name, error.problem, len(parts))
            return [result for results in await all_of([attempt(part) for part in parts]) for result in results]

        packs = self.packed(skill, schema, passages, fixed) if passages else []
        return [result for results in await all_of([attempt(pack) for pack in packs]) for result in results]

    def fitting(
        self,
        skill: Skill,
        schema: type[BaseModel],
        items: Sequence[Item],
        fixed: Fields,
        block: Callable[[Item], str],
        *,
        shared: Callable[[Item], Mapping[str, str]] = lambda _: {},
    ) -> list[list[Item]]:
        """`items` in as few runs as fit, each shown as `block` makes it; one too long by itself is a run.

        `shared` are blocks that an item needs beside its own, by name; a run has each of them once.
        """
        room = self.room(skill, schema, fixed)
        sizes: list[int] = []
        beside: list[dict[str, int]] = []
        counted: dict[str, int] = {}
        for item in items:
            sizes.append(min(room, self._model.count_tokens(block(item)) + _BLOCK_TOKENS))
            left = room - sizes[-1]
            beside.append({})
            for name, text in shared(item).items():
                if name not in counted:
                    counted[name] = self._model.count_tokens(text) + _BLOCK_TOKENS
                beside[-1][name] = min(left, counted[name])
                left -= beside[-1][name]
        return packed(items, sizes, room, beside)

    def request(
        self, skill: Skill, schema: type[BaseModel], fields: Fields, *, piece: Sequence[Passage] = ()
    ) -> Request:
        """What `ask` sends. `piece` are the passages in `fields` where they were cut whatever the question is, so that
        others will ask about the same: a model may keep what it read of them."""
        question = _question(fields)
        template = prompt(skill, self.profile)
        return Request(
            messages=template.messages(**{**fields, "question": question}),
            schema=schema,
            max_tokens=self._answer_tokens(skill),
            prompt=template.name,
            piece=Piece(beginning(fields["passages"]), tuple(dict.fromkeys(one.document.id for one in piece)))
            if piece and template.begins_with_passages
            else None,
        )

    def _question_tokens(self, question: str) -> int:
        """What is set aside for a question."""
        least, most = _QUESTION_TOKENS
        step = max(least, min(most, int(self._window_tokens * _QUESTION_SHARE)))
        tokens = self._model.count_tokens(_question({"question": question}))
        return step * max(1, -(-tokens // step))

    def _answer_tokens(self, skill: Skill) -> int:
        spec = self._model.spec
        return max(
            1, min(_ANSWER_TOKENS[skill], int(self._window_tokens * _ANSWER_SHARE), spec.max_output_tokens or 2**31)
        )

    def _size(self, request: Request) -> int:
        """Tokens of the prompt, of the schema and of the longest answer together."""
        prompt_tokens = count_prompt(self._model, request)
        return prompt_tokens + self._tokens_of_schema(request.schema) + _SCHEMA_SLACK_TOKENS + request.max_tokens

    def _tokens_of_schema(self, schema: type[BaseModel] | None) -> int:
        if schema is None:
            return 0
        if schema not in self._schema_tokens:
            self._schema_tokens[schema] = self._model.count_tokens(json.dumps(schema.model_json_schema()))
        return self._schema_tokens[schema]

    def _learn(self, error: ContextOverflowError, size: int) -> None:
        stated = error.context_window
        # Where the window stated is no news, the server counts more tokens than we do: only a smaller request helps.
        smaller = stated if stated and stated < self._window_tokens else int(size * _SHRINK)
        if smaller < self._window_tokens:
            _log.warning("%s: a window of %d tokens is assumed from here on: %s", self.name, smaller, error.problem)
            self._window_tokens = smaller

    def _passage_tokens(self, passage: Passage) -> int:
        block = self._blocks.passage(passage)
        tokens = self._passage_sizes.get(block, lambda: self._model.count_tokens(block), characters=len(block))
        return tokens + _BLOCK_TOKENS


def _question(fields: Fields) -> str:
    # What a user pastes may hold control tokens, too, and surrogates, which cannot be sent.
    return neutral(fields.get("question", "").encode("utf-8", "replace").decode().strip())


async def all_of(tasks: Sequence[Awaitable[Result]]) -> list[Result]:
    """All results in order. An error is raised when every task has ended: what the others pay for is kept."""
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]
