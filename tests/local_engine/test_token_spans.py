"""Tokens as characters of their text, for any text and any way that its bytes are cut."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lcdoc.local_engine.token_spans import spans_in


@given(st.text(max_size=40), st.lists(st.integers(0, 160), max_size=12), st.binary(max_size=5), st.binary(max_size=5))
def test_tokens_cover_the_text_however_it_is_cut(text: str, cuts: list[int], before: bytes, behind: bytes) -> None:
    raw = text.encode(errors="surrogatepass")
    if (before + raw).find(raw) != len(before):
        before = b""
    borders = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
    own = [raw[first:end] for first, end in itertools.pairwise(borders)]
    spans = spans_in([before, *own, behind], text)
    assert spans is not None
    assert spans[0].tolist() == [0, 0]
    assert spans[-1].tolist() == [len(text), len(text)]
    for (first, end), token in zip(spans[1:-1].tolist(), own, strict=True):
        assert token in text[first:end].encode(errors="surrogatepass")
        assert len(text[first:end].encode(errors="surrogatepass")) < len(token) + 7
    assert (np.diff(spans, axis=0) >= 0).all()


def test_a_character_of_several_tokens_is_of_each() -> None:
    assert spans_in([b"a", b"\xe2", b"\x82\xac", b"b"], "a€b") is not None
    assert np.array_equal(spans_in([b"a", b"\xe2", b"\x82\xac", b"b"], "a€b"), [[0, 1], [1, 2], [1, 2], [2, 3]])


def test_what_was_rewritten_is_not_guessed() -> None:
    assert spans_in([b"hello"], "Hello") is None
