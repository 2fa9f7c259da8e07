from __future__ import annotations

import inspect
import json
import random
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydantic
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from lcdoc.agents.prompts import schemas
from lcdoc.local_engine.constraints import Grammar, Grammars, Matcher
from lcdoc.local_engine.errors import EngineError, InvalidRequestError
from lcdoc.local_engine.sampling import Row, Sampling, sample

SHAPES = [
    shape
    for _, shape in inspect.getmembers(schemas, inspect.isclass)
    if issubclass(shape, pydantic.BaseModel) and shape is not pydantic.BaseModel
]
END = 0


@dataclass(frozen=True)
class Plain:
    backend: Tokenizer
    vocab_size: int
    eos_ids: frozenset[int]


@pytest.fixture(scope="module")
def tokenizer() -> Plain:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1500, special_tokens=["<|end|>", "<|user|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    texts = [json.dumps(shape.model_json_schema()) for shape in SHAPES]
    texts += [Path(__file__).read_text(encoding="utf-8"), '{"quotes": ["é ü"], "found": true, "keep": []}' * 9]
    backend.train_from_iterator(texts, trainer)
    # As a padded embedding: the model has more rows than the tokenizer has tokens.
    return Plain(backend, backend.get_vocab_size() + 37, frozenset({END}))


@pytest.fixture(scope="module")
def grammars(tokenizer: Plain) -> Grammars:
    return Grammars(tokenizer)


def write(
    tokenizer: Plain, grammar: Grammar, seed: int, max_tokens: int, *, greedy: bool = False, forcing: bool = True
) -> tuple[list[int], str]:
    """What a model of random weights writes, and its text."""
    noise = torch.Generator().manual_seed(seed)
    matcher = grammar.start()
    sampling = Sampling(temperature=0.0 if greedy else 1.0, seed=seed)
    written: list[int] = []
    while len(written) < max_tokens and not matcher.ended:
        coming = matcher.forced() if forcing else []
        if not coming:
            logits = torch.randn(1, tokenizer.vocab_size, generator=noise) * 3
            row = Row(sampling, written, len(written), matcher.mask())
            coming = [sample(logits, [row])[0].token]
        for token in coming:
            fitting = matcher.fit(token, max_tokens - len(written))
            matcher.advance(fitting)
            if fitting != END:
                written.append(fitting)
            if fitting != token or matcher.ended or len(written) == max_tokens:
                break
    assert matcher.accepts_end
    return written, tokenizer.backend.decode(written, skip_special_tokens=False)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("forcing", [True, False])
def test_random_weights_write_valid_instances(
    tokenizer: Plain, grammars: Grammars, shape: type[pydantic.BaseModel], forcing: bool
) -> None:
    grammar = grammars.compile_schema(shape.model_json_schema())
    least = int(grammar.least_tokens)
    assert least <= 30
    for seed, max_tokens in enumerate([least, least + 1, least + 5, 40, 150]):
        if max_tokens < least:
            continue
        written, text = write(tokenizer, grammar, seed, max_tokens, forcing=forcing)
        assert len(written) <= max_tokens
        shape.model_validate_json(text)
        json.loads(text)
        outside = re.sub(r'"(\\.|[^"\\])*"', "", text)
        assert re.search(r"\s\s|[\t\n\r]", outside) is None


def test_a_model_that_repeats_itself_is_ended_too(tokenizer: Plain, grammars: Grammars) -> None:
    grammar = grammars.compile_schema(schemas.Answering.model_json_schema())
    matcher = grammar.start()
    letter = tokenizer.backend.token_to_id("a")
    bracket = tokenizer.backend.token_to_id("{")
    for remaining in range(150, 0, -1):
        logits = torch.zeros(1, tokenizer.vocab_size)
        logits[0, letter], logits[0, bracket] = 50, 60
        token = sample(logits, [Row(Sampling(), [], 0, matcher.mask())])[0].token
        matcher.advance(matcher.fit(token, remaining))
        if matcher.ended:
            break
    assert matcher.ended


class Colour(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    name: Literal["red", "green", "deep sky blue"]
    code: str = pydantic.Field(pattern=r"^[A-F0-9]{6}$")
    share: float = pydantic.Field(ge=0, le=1)
    rank: int = pydantic.Field(ge=1, le=12)
    note: str | None = pydantic.Field(max_length=12, min_length=2)
    parts: list[Colour] = pydantic.Field(max_length=2)
    tags: dict[str, int] = pydantic.Field(default_factory=dict)


def test_bounds_of_a_schema_hold(tokenizer: Plain, grammars: Grammars) -> None:
    grammar = grammars.compile_schema(Colour.model_json_schema())
    for seed in range(5):
        _, text = write(tokenizer, grammar, seed, max(40 + 40 * seed, int(grammar.least_tokens)))
        Colour.model_validate_json(text)


def test_objects_are_closed_and_numbers_are_short(tokenizer: Plain, grammars: Grammars) -> None:
    grammar = grammars.compile_schema(schemas.Merging.model_json_schema())

    def fits(text: str) -> bool:
        ids = tokenizer.backend.encode(text).ids
        return grammar.start().valid(ids) == ids

    assert fits('{"found": true, "keep": [1, 2], "claim": "ü", "confidence": 4.5}')
    assert not fits('{"found": true, "more": 1}')
    assert not fits('{"found": true, "keep": [' + "1" * 17)
    assert not fits('{"found": true, "confidence": 0.' + "3" * 30)
    assert not fits('{"found":  true}')
    assert not fits(' {"found": true}')
    opened = {**schemas.Merging.model_json_schema(), "additionalProperties": True}
    ids = tokenizer.backend.encode('{"found": true, "more": 1}').ids
    assert grammars.compile_schema(opened).start().valid(ids) == ids


def test_composed_schemas_stay_open(tokenizer: Plain, grammars: Grammars) -> None:
    part = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    other = {"type": "object", "properties": {"b": {"type": "boolean"}}, "required": ["b"]}
    _, text = write(tokenizer, grammars.compile_schema({"allOf": [part, other]}), 3, 60)
    assert {"a", "b"} <= json.loads(text).keys()


@pytest.mark.parametrize("pattern", [r"(abc)+d", r"[0-9]{4}-[0-9]{2}", r"a+", r"(yes|no|perhaps)", r".{30,}x", r"\"*e"])
@pytest.mark.parametrize("max_tokens", [31, 60])  # not \d: llguidance knows digits of a later Unicode than Python does
def test_random_weights_match_patterns(tokenizer: Plain, grammars: Grammars, pattern: str, max_tokens: int) -> None:
    grammar = grammars.compile_regex(pattern)
    for seed in range(2):
        _, text = write(tokenizer, grammar, seed, max_tokens, greedy=seed % 2 == 0)
        assert re.fullmatch(pattern, text, re.DOTALL)


def test_least_tokens_say_what_cannot_be_finished(grammars: Grammars) -> None:
    assert grammars.compile_regex("a*").least_tokens == 0
    assert grammars.compile_regex("(yes|no)").least_tokens == 1
    assert 3 <= grammars.compile_schema(schemas.Reading.model_json_schema()).least_tokens < 12


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "number", "minimum": float("inf")},
        {"type": "banana"},
        {"$ref": "#/$defs/missing"},
        {"type": "string", "pattern": "(?=a)b"},
        {"not": {"type": "string"}},
        {"type": "integer", "minimum": 5, "maximum": 4},
        {"type": object()},
    ],
)
def test_refused_schemas_are_the_requests_fault(grammars: Grammars, schema: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError, match="the JSON schema can"):
        grammars.compile_schema(schema)


def test_refused_patterns_are_the_requests_fault(grammars: Grammars) -> None:
    for pattern in ("(a", r"(a)\1", "a(?!b)", "\ud800"):
        with pytest.raises(InvalidRequestError, match="regular expression") as caught:
            grammars.compile_regex(pattern)
        assert "\n" not in str(caught.value)


def test_grammars_are_compiled_once(grammars: Grammars) -> None:
    schema = schemas.Judging.model_json_schema()
    assert grammars.compile_schema(schema) is grammars.compile_schema(dict(schema))
    assert grammars.compile_schema(schema) is not grammars.compile_regex("a")


def state(matcher: Matcher) -> tuple[list[int], list[int], bool, bool]:
    return matcher.mask().tolist(), matcher.forced(), matcher.ended, matcher.accepts_end


def test_rollback_returns_to_every_earlier_place(tokenizer: Plain, grammars: Grammars) -> None:
    chance = random.Random(4)
    for pattern_or_shape in ("(ab|c)+d?", schemas.Merging):
        grammar = (
            grammars.compile_regex(pattern_or_shape)
            if isinstance(pattern_or_shape, str)
            else grammars.compile_schema(pattern_or_shape.model_json_schema())
        )
        written, _ = write(tokenizer, grammar, 5, 60)
        written = [*written, END]
        matcher = grammar.start()
        states = [state(matcher)]
        for token in written:
            matcher.advance(token)
            states.append(state(matcher))
        place = len(written)
        for _ in range(40):
            back = chance.randint(0, place)
            matcher.rollback(back)
            place -= back
            assert state(matcher) == states[place]
            forward = chance.randint(0, len(written) - place)
            for token in written[place : place + forward]:
                matcher.advance(token)
            place += forward
            assert state(matcher) == states[place]
        with pytest.raises(EngineError, match="cannot be taken back"):
            matcher.rollback(1000)


def test_copies_are_independent(tokenizer: Plain, grammars: Grammars) -> None:
    matcher = grammars.compile_regex("(ab|c)+d").start()
    token = {letter: tokenizer.backend.token_to_id(letter) for letter in "abcd"}
    matcher.advance(token["c"])
    before = state(matcher)
    twin = matcher.copy()
    twin.advance(token["a"])
    assert state(matcher) == before
    assert state(twin) != before
    matcher.advance(token["d"])
    assert matcher.ended
    assert not twin.ended
    twin.rollback(1)
    assert state(twin) == before


def test_masks_of_a_draft_are_those_of_its_steps(tokenizer: Plain, grammars: Grammars) -> None:
    grammar = grammars.compile_schema(schemas.Reading.model_json_schema())
    written, _ = write(tokenizer, grammar, 7, 50)
    together = grammar.start().masks(written)
    matcher = grammar.start()
    for token, mask in zip(written, together[:-1], strict=True):
        assert torch.equal(mask, matcher.mask())
        matcher.advance(token)
    assert torch.equal(together[-1], matcher.mask())
    wrong = [written[0], END, *written[1:4]]
    masks = grammar.start().masks(wrong)
    assert masks[:2].any(dim=1).all()
    assert not masks[2:].any()
    assert grammar.start().valid(wrong) == written[:1]
    assert grammar.start().valid([]) == []


def test_a_draft_leaves_the_matcher_where_it_was(tokenizer: Plain, grammars: Grammars) -> None:
    grammar = grammars.compile_schema(schemas.Reading.model_json_schema())
    written, _ = write(tokenizer, grammar, 7, 50)
    matcher = grammar.start()
    before = state(matcher)
    matcher.prepare(written)
    assert state(matcher) == before
    assert matcher.valid(written) == written
    assert state(matcher) == before


def test_forced_tokens_are_allowed_one_after_another(tokenizer: Plain, grammars: Grammars) -> None:
    matcher = grammars.compile_schema(schemas.Choosing.model_json_schema()).start()
    forced = matcher.forced()
    assert tokenizer.backend.decode(forced) == '{"option":'
    for token in forced:
        assert matcher.mask()[token // 32] >> (token % 32) & 1
        matcher.advance(token)
    matcher.advance(tokenizer.backend.token_to_id("Ġ"))
    matcher.advance(tokenizer.backend.token_to_id("7"))
    assert matcher.forced() == []


def test_what_does_not_fit_is_an_error_and_changes_nothing(tokenizer: Plain, grammars: Grammars) -> None:
    matcher = grammars.compile_regex("ab?").start()
    a, b, c = (tokenizer.backend.token_to_id(letter) for letter in "abc")
    with pytest.raises(EngineError, match=f"token {c} does not fit"):
        matcher.advance(c)
    with pytest.raises(EngineError, match="before the answer was whole"):
        matcher.advance(END)
    matcher.advance(a)
    assert matcher.accepts_end
    assert not matcher.ended
    matcher.advance(END)
    assert matcher.ended
    assert matcher.forced() == []
    assert matcher.mask()[0] == 1 << END
    with pytest.raises(EngineError, match="does not fit"):
        matcher.advance(b)
    matcher.rollback(1)
    matcher.advance(b)
    assert matcher.ended


def test_all_end_tokens_end(tokenizer: Plain) -> None:
    grammars = Grammars(Plain(tokenizer.backend, tokenizer.vocab_size, frozenset({0, 1})))
    matcher = grammars.compile_regex("a*").start()
    assert matcher.mask()[0] & 3 == 3
    matcher.advance(1)
    assert matcher.ended
    with pytest.raises(EngineError, match="names no end token"):
        Grammars(Plain(tokenizer.backend, tokenizer.vocab_size, frozenset()))


def test_special_tokens_never_stand_in_text(tokenizer: Plain, grammars: Grammars) -> None:
    matcher = grammars.compile_schema({"type": "string"}).start()
    matcher.advance(tokenizer.backend.token_to_id('"'))
    user = tokenizer.backend.token_to_id("<|user|>")
    allowed = np.unpackbits(matcher.mask().numpy().view(np.uint8), bitorder="little")
    assert not allowed[user]
    assert not allowed[END]
    assert not allowed[tokenizer.backend.get_vocab_size() :].any()


def test_many_matchers_of_one_grammar_in_many_threads(tokenizer: Plain, grammars: Grammars) -> None:
    grammar = grammars.compile_schema(schemas.Answering.model_json_schema())
    wanted = [write(tokenizer, grammar, seed, 60) for seed in range(8)]
    found: dict[int, object] = {}
    threads = [
        threading.Thread(target=lambda seed=seed: found.update({seed: write(tokenizer, grammar, seed, 60)}))
        for seed in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[seed] for seed in range(8)] == wanted
