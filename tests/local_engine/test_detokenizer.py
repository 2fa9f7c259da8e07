"""Streams of tokens: what is given out, joined, is what the library makes of all of them."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders

from lcdoc.local_engine.detokenizer import Detokenizer
from lcdoc.local_engine.errors import UnsupportedModelError
from lcdoc.local_engine.tokenizer import Tokenizer
from lcdoc.tests.local_engine.tokenizers_made import byte_level, save_tokenizer, sentencepiece_style

KINDS = ["byte level", "fallback", "metaspace", "metaspace decoder", "strips two", "strips each"]


def made(kind):
    if kind == "byte level":
        # Added tokens are written as they are, be they of characters that stand for bytes or not.
        tokenizer = byte_level()
        tokenizer.add_tokens([AddedToken(text, special=False) for text in ("é", "日本", " a b ", "¡Ā")])
        return tokenizer
    if kind == "fallback":
        return sentencepiece_style()
    tokenizer = sentencepiece_style(metaspace=True)
    if kind == "metaspace decoder":
        tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    if kind == "strips two":
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 2, 0)]
        )
    if kind == "strips each":
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.Strip(" ", 1, 0), decoders.ByteFallback(), decoders.Fuse()]
        )
    return tokenizer


@pytest.fixture(scope="session", params=KINDS)
def tokenizer(request, tmp_path_factory, shape):
    return Tokenizer.load(save_tokenizer(tmp_path_factory.mktemp("tokenizer"), made(request.param)), shape)


def streamed(tokenizer, ids, **options):
    stream = Detokenizer(tokenizer, **options)
    return [*(stream.push(token) for token in ids), stream.flush()]


@given(data=st.data(), skip=st.booleans())
@settings(max_examples=150)
def test_any_ids_give_what_the_library_decodes(tokenizer, data, skip):
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size + 5), max_size=40))
    expected = tokenizer.decode(ids, skip_specials=skip)
    assert "".join(streamed(tokenizer, ids, skip_specials=skip)) == expected


@given(data=st.data())
@settings(max_examples=150)
def test_runs_of_bytes_give_what_the_library_decodes(tokenizer, data):
    """Halves of characters, of every length, between whole ones: where replacement is hardest to get right."""
    raw = data.draw(st.lists(st.sampled_from([*"aé日😀 ".encode(), 0xC0, 0xF8, 0xED, 0xA0]), max_size=20))
    single = {tokenizer.token_bytes(token): token for token in range(tokenizer.vocab_size)}
    ids = [single[bytes([byte])] for byte in raw if bytes([byte]) in single]
    assert "".join(streamed(tokenizer, ids)) == tokenizer.decode(ids)


@given(text=st.text(max_size=60))
def test_texts_come_back_without_half_characters(tokenizer, text):
    ids = tokenizer.encode(text)
    parts = streamed(tokenizer, ids)
    assert "".join(parts) == tokenizer.decode(ids)
    if "\ufffd" not in tokenizer.decode(ids):
        assert not any("\ufffd" in part for part in parts)


def test_a_character_comes_with_its_last_byte(tmp_path, shape):
    tokenizer = Tokenizer.load(save_tokenizer(tmp_path, byte_level()), shape)
    ids = [tokenizer.backend.token_to_id(character) for character in "ðŁĳĭ"]  # 👋 as GPT-2 writes its bytes
    assert streamed(tokenizer, ids) == ["", "", "", "👋", ""]
    assert streamed(tokenizer, ids[:3]) == ["", "", "", "\ufffd"]
    assert streamed(tokenizer, [*ids[:3], tokenizer.backend.token_to_id("a")]) == ["", "", "", "\ufffda", ""]


def test_text_is_given_out_as_soon_as_it_is_certain(tokenizer):
    """Joined at the end it would be right too; a stream has to move."""
    ids = tokenizer.encode("It is a truth universally acknowledged")
    stream, behind = Detokenizer(tokenizer), 0
    for i, token in enumerate(ids):
        behind += len(tokenizer.decode(ids[: i + 1])) - len(tokenizer.decode(ids[:i])) - len(stream.push(token))
        assert behind <= 3


def test_a_push_does_not_pay_for_the_text_before_it(tokenizer):
    ids = tokenizer.encode("It is a truth universally acknowledged ") * 20_000

    def seconds(stream):
        begun = time.perf_counter()
        for token in ids[:2000]:
            stream.push(token)
        return time.perf_counter() - begun

    fresh = min(seconds(Detokenizer(tokenizer)) for _ in range(3))
    late = Detokenizer(tokenizer)
    for token in ids:
        late.push(token)
    # More than fifty times as much stands before it; other processes may well make it some times slower.
    assert min(seconds(late) for _ in range(3)) < 20 * fresh


def test_streams_are_apart(tokenizer):
    ids = tokenizer.encode("naïve 日本 café")
    one, other = Detokenizer(tokenizer), Detokenizer(tokenizer)
    texts = [(one.push(token), other.push(token)) for token in ids]
    assert all(mine == yours for mine, yours in texts)


def test_token_bytes_join_to_the_text(tokenizer, request):
    # Not of é, which one of them has as an added token: it decodes to the byte that é stands for.
    text = "It is a naïve, übrigens: 日本語 😀\n\tdef x"
    ids = tokenizer.encode(text)
    assert b"".join(tokenizer.token_bytes(token) for token in ids).decode().strip() == text
    if "strips each" not in request.node.name:
        assert tokenizer.decode(ids) == text


def test_token_bytes_of_what_is_no_token(tokenizer):
    assert tokenizer.token_bytes(10_000) == b""


def test_every_byte_has_a_token(tokenizer):
    single = {tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size)}
    assert {bytes([byte]) for byte in range(256)} <= single


@pytest.mark.parametrize("decoder", [decoders.WordPiece(), decoders.CTC(), decoders.Strip(" ", 0, 1), None])
def test_other_decoders_are_refused(tmp_path, shape, decoder):
    tokenizer = byte_level()
    if decoder is None:
        fields = {**json.loads(tokenizer.to_str()), "decoder": None}
        tokenizer = type(tokenizer).from_str(json.dumps(fields))
    else:
        tokenizer.decoder = decoder
    with pytest.raises(UnsupportedModelError, match="decoder"):
        Tokenizer.load(save_tokenizer(tmp_path, tokenizer), shape)
