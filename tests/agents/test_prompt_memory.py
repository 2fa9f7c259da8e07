"""Blocks that were made once are not made again: bounded, and never another passage's."""

from __future__ import annotations

from lcdoc.agents.models.model import ModelSpec, Server
from lcdoc.agents.models.openai_client import OpenAIModel
from lcdoc.agents.prompts.asker import Asker
from lcdoc.agents.prompts.blocks import Blocks
from lcdoc.agents.prompts.fence import Fence
from lcdoc.agents.prompts.kept import Kept
from lcdoc.agents.prompts.schemas import Reading
from lcdoc.agents.reader import Passage
from lcdoc.documents import Document, Page, Source, Span

TEXT = "The king died in May. The queen reigned for ten years."
FIXED = {"passages": "", "carried": "", "question": "Who?"}


class CountingFence(Fence):
    """Counts what it wraps."""

    wrapped = 0

    def wrap(self, *args: object, **named: object) -> str:
        self.wrapped += 1
        return super().wrap(*args, **named)  # type: ignore[arg-type]


class CountingModel(OpenAIModel):
    """Remembers the texts whose tokens it counted."""

    def __init__(self) -> None:
        super().__init__(ModelSpec("test", 8_192, Server("http://127.0.0.1:9/v1", "test")), None)
        self.counted: list[str] = []

    def count_tokens(self, text: str) -> int:
        self.counted.append(text)
        return super().count_tokens(text)


def document_of(text: str, title: str = "") -> Document:
    source = Source("story.txt", "text/plain", 0, title, "text", "1", "0" * 32)
    return Document.create(text, (Page(1, "1", 0, len(text)),), (), source)


def test_a_passage_is_fenced_and_counted_once_for_packing_and_sending() -> None:
    model, fence = CountingModel(), CountingFence(bytes(range(32)))
    asker = Asker(model, "small", Blocks(fence))
    passages = [Passage(document_of(TEXT), Span(0, 21)), Passage(document_of(TEXT), Span(22, 54), ("Part one",))]
    for _ in range(3):
        (pack,) = asker.packed("read", Reading, passages, FIXED)
        shown = asker.passages(pack)
        asker.passages_tokens(pack)
    assert fence.wrapped == 2
    assert len([text for text in model.counted if "The king died" in text or "The queen reigned" in text]) == 2
    assert shown.count("<data-") == 2


def test_what_is_kept_is_that_passages_own() -> None:
    blocks = Blocks(Fence(bytes(range(32))))
    document = document_of(TEXT)
    passages = [
        Passage(document, Span(0, 21)),
        Passage(document, Span(0, 20)),
        Passage(document, Span(0, 21), ("Part one",)),
        Passage(document_of(TEXT, "Another name"), Span(0, 21)),
        Passage(document_of(TEXT.upper()), Span(0, 21)),
    ]
    shown = [blocks.passage(passage) for passage in passages]
    assert len(set(shown)) == len(passages)
    fresh = [Blocks(Fence(bytes(range(32)))).passage(passage) for passage in passages]
    assert [blocks.passage(passage) for passage in passages] == shown == fresh


def test_what_was_not_asked_for_longest_is_forgotten_first() -> None:
    made: list[str] = []
    kept: Kept[str, str] = Kept(most_characters=10)

    def get(key: str) -> str:
        return kept.get(key, lambda: made.append(key) or key.upper(), characters=len(key))  # type: ignore[func-returns-value]

    assert [get(key) for key in ("aaaa", "bbbb", "aaaa", "cccc", "aaaa", "bbbb")] == [
        *("AAAA", "BBBB", "AAAA", "CCCC", "AAAA", "BBBB")
    ]
    assert made == ["aaaa", "bbbb", "cccc", "bbbb"]
    # What is larger than all that may be kept drives nothing out.
    made.clear()
    assert [get(key) for key in ("d" * 11, "d" * 11, "bbbb", "aaaa")] == ["D" * 11, "D" * 11, "BBBB", "AAAA"]
    assert made == ["d" * 11, "d" * 11]
