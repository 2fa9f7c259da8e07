"""What a compressed cache is to know of a prompt: where instructions, question, headings and sentences are.

The prompts of this package put all text of documents into fenced blocks, whose codes no document can know
(`prompts/fence.py`). What stands outside is ours: the question and the instructions, without which the best cache of a
document answers nothing. So the places are found in the tokens' own bytes, for any template and tokenizer, and the
same for a piece that is read before its question is known.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Final

from lcdoc.retrieval.sentences import sentence_spans

if TYPE_CHECKING:
    from lcdoc.local_engine.compression.marks import Marks
    from lcdoc.local_engine.tokenizer import Tokenizer

_BLOCK: Final = re.compile(r"<data-(?P<code>[0-9a-f]{16})>\n(?P<text>.*?)\n</data-(?P=code)>", re.DOTALL)
_HEADER: Final = re.compile(r"(?:[^\n]+\n)+(?=\n)")
"""The lines that name a block's document and section, up to the first that is empty."""
_HEADING_CHARACTERS: Final = 100


def marks_of(tokenizer: Tokenizer, ids: Sequence[int]) -> Marks:
    """The marks of a prompt's tokens.

    Protected are, first what matters most, the text behind the last block of data, where the question stands, what
    stands before the first, and what stands between two. A prompt without such blocks has nothing protected.
    """
    from lcdoc.local_engine.compression.marks import Marks

    prompt = _Prompt.of(tokenizer, ids)
    blocks = list(_BLOCK.finditer(prompt.text))
    edges = [0, *(edge for block in blocks for edge in block.span()), len(prompt.text)]
    sentences = [span for start, end in pairwise(edges) for span in sentence_spans(prompt.text, start, end)]
    headings = [heading for block in blocks for heading in _headings(prompt.text, *block.span("text"))]
    question, *others = [
        prompt.tokens(start, end) if prompt.text[start:end].strip() else (0, 0)
        for start, end in reversed([*zip(edges[::2], edges[1::2], strict=True)])
    ]
    return Marks(
        protected=tuple(part for part in (question, *reversed(others)) if blocks and part[0] < part[1]),
        headings=tuple(prompt.tokens(*heading) for heading in headings),
        sentence_starts=tuple(dict.fromkeys(prompt.tokens(span.start, span.end)[0] for span in sentences)),
        task=tuple(ids[slice(*question)]) if blocks else (),
    )


@dataclass(frozen=True, slots=True)
class _Prompt:
    """A prompt's text, and which bytes of it its tokens and characters begin at."""

    text: str
    """With a character of its own for each byte that is no UTF-8."""
    of_tokens: list[int]
    of_characters: list[int]
    """And where the last ends."""

    @classmethod
    def of(cls, tokenizer: Tokenizer, ids: Sequence[int]) -> _Prompt:
        pieces = [b"" if tokenizer.is_special(token) else tokenizer.token_bytes(token) for token in ids]
        text = b"".join(pieces).decode("utf-8", "surrogateescape")
        return cls(
            text,
            list(accumulate(map(len, pieces[:-1]), initial=0)),
            list(accumulate(map(_utf8_bytes, text), initial=0)),
        )

    def tokens(self, start: int, end: int) -> tuple[int, int]:
        """(first, end) of the tokens that the characters from `start` to `end` are of; control tokens at an end of the
        prompt belong to what is beside them."""
        first = bisect_right(self.of_tokens, self.of_characters[start]) - 1 if start else 0
        last = bisect_left(self.of_tokens, self.of_characters[end]) if end < len(self.text) else len(self.of_tokens)
        return first, max(first, last)


def _utf8_bytes(character: str) -> int:
    code = ord(character)
    if code < 0x80 or 0xDC80 <= code <= 0xDCFF:
        return 1
    return 2 if code < 0x800 else 3 if code < 0x10000 else 4


def _headings(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The headings of a block: its header, and short sentences that are paragraphs of their own and end like a name."""
    header = _HEADER.match(text, start, end)
    if header is not None:
        yield header.span()
        start = header.end()
    sentences = sentence_spans(text, start, end)
    reached = start
    for sentence, following in pairwise(sentences):
        begins = reached == start or text.count("\n", reached, sentence.start) > 1
        ends = text.count("\n", sentence.end, following.start) > 1
        if begins and ends and len(sentence) <= _HEADING_CHARACTERS and text[sentence.end - 1].isalnum():
            yield sentence.start, sentence.end
        reached = sentence.end
