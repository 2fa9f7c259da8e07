"""Text to token ids and back, through `tokenizer.json`.

Documents are untrusted: a text that says `<|im_end|>` is encoded as those nine characters, never as the token that ends
a turn. Only a chat template may write control tokens. They are the tokenizer's special tokens and those others that the
template writes out, such as `<think>`. Text that holds none, and that is nearly all, is encoded in one go by the
tokenizer as it is. Text that does is encoded by a copy of it in which the control tokens have names that nobody can
know, and which the template's own tokens are replaced by.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self

from tokenizers import AddedToken
from tokenizers import Tokenizer as _Tokenizer

from lcdoc.local_engine.chat_template import PLAIN_TEMPLATE, ChatTemplate, Rendered
from lcdoc.local_engine.config import ModelConfig
from lcdoc.local_engine.decoding import Decoder
from lcdoc.local_engine.errors import InvalidRequestError, ModelFilesError
from lcdoc.local_engine.generation_config import stop_ids
from lcdoc.local_engine.json_files import read_json

_SPECIAL_NAMES: Final = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class Tokenizer:
    """A checkpoint's tokenizer and its chat template. Safe to use from several threads."""

    def __init__(self, path: Path, tokenizer: _Tokenizer, settings: Mapping[str, Any], config: ModelConfig) -> None:
        self._path, self._tokenizer, self._model_ids = path, tokenizer, config.vocab_size
        self._added: dict[int, AddedToken] = tokenizer.get_added_tokens_decoder()
        self.special_tokens = _special_tokens(path.parent, settings)
        """The texts of the tokens that templates know by name: `bos_token`, `eos_token` and so on."""
        self.vocab_size = max(config.vocab_size, tokenizer.get_vocab_size(with_added_tokens=True))
        """As many as the model scores, or more: how long a mask over tokens must be."""
        self.bos_id = self._id_of("bos_token", config.bos_id)
        ends = {*config.eos_ids, *stop_ids(path.parent), self._id_of("eos_token", None)}
        self.eos_ids: frozenset[int] = frozenset(token for token in ends if token is not None)
        """Every token that ends an answer."""
        self.decoder = Decoder(path, tokenizer)
        self._templates = _read_templates(path.parent, settings)
        written = "".join(template.source for template in self._templates.values())
        self._controls = {
            token.content: token.special
            for token in self._added.values()
            if token.special or (token.content in written and not token.content.isspace())
        }
        """The tokens that no document may write, and whether they are special to the tokenizer."""
        self._control = _pattern(token for token in self._added.values() if token.content in self._controls)
        normalized = [token for token in self._added.values() if token.normalized and token.content in self._controls]
        self._normalizer = tokenizer.normalizer if normalized else None
        self._outside = self._ids_outside()
        self._names = {control: f"\U0010fffd{secrets.token_hex(16)}\U0010fffd" for control in self._controls}

    @classmethod
    def load(cls, folder: Path, config: ModelConfig) -> Self:
        """The tokenizer in a checkpoint's folder. Raises ModelFilesError, and UnsupportedModelError for decoders."""
        path = folder / "tokenizer.json"
        if not path.exists():
            raise _no_tokenizer(folder)
        try:
            tokenizer = _Tokenizer.from_file(str(path))
        except Exception as error:  # noqa: BLE001  (the library raises no narrower class)
            raise ModelFilesError(f"{path}: cannot be read as a tokenizer ({error}): download it again") from None
        # A file may keep how it was used in training: cut to a length, or filled up to one.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        settings = folder / "tokenizer_config.json"
        return cls(path, tokenizer, read_json(settings) if settings.exists() else {}, config)

    @property
    def has_chat_template(self) -> bool:
        """Whether the model brought one; `encode_chat` uses `chat_template.PLAIN_TEMPLATE` for others."""
        return bool(self._templates)

    @property
    def backend(self) -> _Tokenizer:
        """The library's tokenizer, for what needs its vocabulary. Not to be changed."""
        return self._tokenizer

    def encode(self, text: str, *, specials: bool = False) -> list[int]:
        """The ids of a text, without any put before or behind it.

        A text that looks like a control token stays text, unless `specials` says that all of it is trusted.
        """
        if specials or not self._may_hold_control(text):
            return self._checked(self._encode(self._tokenizer, text))
        return self._checked(self._encode(self._guarded, text))

    def encode_chat(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True, **variables: Any
    ) -> list[int]:
        """The ids of a prompt that the chat template makes of messages, each with a `role` and a `content`.

        Control tokens come from the template alone, whatever the messages hold. `variables` are what the template may
        know besides, such as `tools` or `enable_thinking`. Raises InvalidRequestError for messages that it refuses.
        """
        rendered = self._rendered(messages, {"add_generation_prompt": add_generation_prompt, **variables})
        return self._encode_marked(rendered.text, rendered.marked)

    def encode_chat_parts(
        self, messages: Sequence[Mapping[str, Any]], border: str, *, now: datetime | None = None, **variables: Any
    ) -> tuple[list[int], list[int]]:
        """The ids of such a prompt up to the end of `border`, a text that one of the messages holds, and those behind.

        No token reaches over the border, so the first part is the same whatever follows. It is empty where the prompt
        does not hold the text, or a control token of the template's stands across its end. A template that tells the
        time tells it as of `now`, by the clock for None. Raises as `encode_chat`.
        """
        rendered = self._rendered(messages, {"add_generation_prompt": True, **variables}, now)
        end = rendered.text.find(border) + len(border)
        whole = end >= len(border) > 0 and not any(
            match.start() < end < match.end() for match in self._control.finditer(rendered.marked)
        )
        if not whole:
            return [], self._encode_marked(rendered.text, rendered.marked)
        return (
            self._encode_marked(rendered.text[:end], rendered.marked[:end]),
            self._encode_marked(rendered.text[end:], rendered.marked[end:]),
        )

    def _rendered(
        self, messages: Sequence[Mapping[str, Any]], variables: Mapping[str, Any], now: datetime | None = None
    ) -> Rendered:
        _check_messages(messages)
        template = self._template(bool(variables.get("tools")))
        variables = {"tools": None, "documents": None, **variables}
        return template.render_marked(messages, self.special_tokens, variables, self._controls, now=now)

    def _encode_marked(self, text: str, marked: str) -> list[int]:
        """The ids of a rendered text, in which the control tokens that `marked` shows too are the template's."""
        own = [match.span() for match in self._control.finditer(marked)]
        normal = self._normalizer is None or not self._may_hold_control(text)
        if normal and own == [match.span() for match in self._control.finditer(text)]:
            return self._checked(self._encode(self._tokenizer, text))
        pieces, reached = [], 0
        for start, end in own:
            pieces += [text[reached:start], self._names[text[start:end]]]
            reached = end
        return self._checked(self._encode(self._guarded, "".join([*pieces, text[reached:]])))

    def decode(self, ids: Iterable[int], *, skip_specials: bool = True) -> str:
        """The text of ids. Bytes that are no UTF-8 show as U+FFFD; ids that stand for no token, as nothing."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=skip_specials)

    def token_bytes(self, token: int) -> bytes:
        """The bytes that one token adds to a text; none for ids that stand for no token."""
        return self.decoder.bytes_of(token)

    def is_special(self, token: int) -> bool:
        """Whether `decode` leaves a token out of a text."""
        added = self._added.get(token)
        return added is not None and added.special

    def _id_of(self, name: str, default: int | None) -> int | None:
        text = self.special_tokens.get(name)
        token: int | None = None if text is None else self._tokenizer.token_to_id(text)
        return default if token is None else token

    @cached_property
    def prefix_ids(self) -> tuple[int, ...]:
        """What the tokenizer puts before a text that is no chat: the beginning-of-text token, or nothing."""
        with_specials, without = (self._tokenizer.encode("a", add_special_tokens=each).ids for each in (True, False))
        return tuple(with_specials[: with_specials.index(without[0])]) if without else ()

    def _may_hold_control(self, text: str) -> bool:
        if self._control.search(text):
            return True
        return self._normalizer is not None and bool(self._control.search(self._normalizer.normalize_str(text)))

    def _encode(self, tokenizer: _Tokenizer, text: str) -> list[int]:
        try:
            # Several times as fast as `encode`, which keeps the place of every token.
            ids: list[int] = tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids
        except TypeError:
            raise InvalidRequestError("the text holds half a character (a lone surrogate): remove it") from None
        return ids

    def _checked(self, ids: list[int]) -> list[int]:
        """Ids that the model has a row for in its embedding."""
        if self._outside and (found := self._outside.intersection(ids)):
            token = min(found)
            raise ModelFilesError(
                f"{self._path}: {self._tokenizer.id_to_token(token)!r} is token {token}, and the model has "
                f"{self._model_ids}: check that tokenizer.json and config.json belong together"
            )
        return ids

    def _ids_outside(self) -> frozenset[int]:
        """Ids that the tokenizer may give and the model does not know."""
        known = self._tokenizer.get_vocab_size(with_added_tokens=True)
        if known <= self._model_ids and max(self._added, default=0) < self._model_ids:
            return frozenset()
        return frozenset(token for token in self._tokenizer.get_vocab().values() if token >= self._model_ids)

    def _template(self, tools: bool) -> ChatTemplate:
        if not self._templates:
            return _PLAIN
        for name in ("tool_use", "default") if tools else ("default",):
            if name in self._templates:
                return self._templates[name]
        raise ModelFilesError(
            f"{self._path.parent}: its chat templates ({', '.join(self._templates)}) have no default: name one so"
        )

    @cached_property
    def _guarded(self) -> _Tokenizer:
        """The same tokenizer, in which control tokens are called by their secret names, and their texts are text."""
        fields = json.loads(self._tokenizer.to_str())
        model = fields["model"]
        for token in fields["added_tokens"]:
            token["content"] = self._names.get(token["content"], token["content"])
        if isinstance(model["vocab"], dict):
            model["vocab"] = {self._names.get(token, token): number for token, number in model["vocab"].items()}
        else:
            model["vocab"] = [[self._names.get(token, token), *rest] for token, *rest in model["vocab"]]
        if model.get("unk_token") in self._names:
            model["unk_token"] = self._names[model["unk_token"]]
        if "merges" in model:
            # Merges that lead to a control token would make it of plain text.
            model["merges"] = [merge for merge in model["merges"] if not self._makes_control(merge)]
        fields["post_processor"] = None
        guarded = _Tokenizer.from_str(json.dumps(fields))
        if any(guarded.token_to_id(name) != self._tokenizer.token_to_id(text) for text, name in self._names.items()):
            raise ModelFilesError(f"{self._path}: its special tokens cannot be told from text: download it again")
        return guarded

    def _makes_control(self, merge: str | Sequence[str]) -> bool:
        parts = merge.split(" ") if isinstance(merge, str) else merge
        return "".join(parts) in self._names or any(part in self._names for part in parts)


def _check_messages(messages: Sequence[Mapping[str, Any]]) -> None:
    """Templates pass over what is missing in a message, or print it as `None`."""
    if not messages:
        raise InvalidRequestError("a chat without messages: give one at least")
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise InvalidRequestError(f"message {i} has no role: give each a role and a content")
        content = message.get("content")
        # An assistant's turn may be calls of tools alone.
        if not isinstance(content, str | list | tuple) and not (content is None and message["role"] == "assistant"):
            raise InvalidRequestError(
                f"message {i} ({message['role']}) has no content: give a text, or a list of parts"
            )


def _special_tokens(folder: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    older = folder / "special_tokens_map.json"
    named = {**(read_json(older) if older.exists() else {}), **settings}
    tokens = {}
    for name in _SPECIAL_NAMES:
        token = named.get(name)
        text = token.get("content") if isinstance(token, dict) else token
        if isinstance(text, str):
            tokens[name] = text
    return tokens


def _pattern(tokens: Iterable[AddedToken]) -> re.Pattern[str]:
    """Matches tokens where the tokenizer would, the longest first."""
    longest_first = sorted(tokens, key=lambda token: len(token.content), reverse=True)
    texts = (
        rf"(?<!\w){re.escape(token.content)}(?!\w)" if token.single_word else re.escape(token.content)
        for token in longest_first
    )
    return re.compile("|".join(texts) or "(?!)")


def _read_templates(folder: Path, settings: Mapping[str, Any]) -> dict[str, ChatTemplate]:
    """The chat templates of a folder by name: in files of their own, or in the tokenizer's settings."""
    single = folder / "chat_template.jinja"
    paths = {path.stem: path for path in sorted(folder.glob("additional_chat_templates/*.jinja"))}
    if single.exists():
        paths = {"default": single, **paths}
    if paths:
        return {name: ChatTemplate(_read_text(path), str(path)) for name, path in paths.items()}
    stated, name = settings.get("chat_template"), str(folder / "tokenizer_config.json")
    if isinstance(stated, str):
        return {"default": ChatTemplate(stated, name)}
    if not isinstance(stated, list):
        return {}
    try:
        return {each["name"]: ChatTemplate(each["template"], name) for each in stated}
    except (TypeError, KeyError):
        raise ModelFilesError(f"{name}: chat_template is a list without names and templates: correct it") from None


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelFilesError(f"{path}: cannot be read ({error}): download it again") from None


def _no_tokenizer(folder: Path) -> ModelFilesError:
    if not folder.is_dir():
        return ModelFilesError(f"{folder}: no such folder")
    present = {path.name for path in folder.iterdir()}
    if older := sorted(
        present & {"tokenizer.model", "vocab.json", "tekken.json", "spiece.model", "sentencepiece.bpe.model"}
    ):
        return ModelFilesError(
            f"{folder}: has {older[0]} and no tokenizer.json: take a copy that has it, or make it with transformers: "
            "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        )
    return ModelFilesError(f"{folder}: has no tokenizer.json: download the rest of the model")


_PLAIN: Final = ChatTemplate(PLAIN_TEMPLATE, "the template for models without one")
