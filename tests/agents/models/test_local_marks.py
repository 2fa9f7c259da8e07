"""Where the question, instructions, headings and sentences of a prompt are among its tokens."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from lcdoc.agents.models.local_marks import marks_of
from lcdoc.agents.prompts.fence import Fence
from lcdoc.agents.prompts.templates import prompt
from lcdoc.local_engine.config import read_config
from lcdoc.local_engine.tokenizer import Tokenizer
from lcdoc.tests.local_engine.checkpoints import save_checkpoint
from lcdoc.tests.local_engine.tokenizers_made import CHATML, byte_level, save_tokenizer, sentencepiece_style

FENCE = Fence(b"a secret of the library")
LAMP = """\
# The Lamp

It was lit in 1871. The naïve keeper said “日本語 😀!” twice.

The keepers

The first was a <question>rope maker</question>. She kept it.
It came to an end

Not a heading:

The last line"""
QUESTION = "Who kept the lamp?"


@pytest.fixture(scope="module", params=["bytes", "pieces", "metaspace"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder: Path = save_checkpoint(tmp_path_factory.mktemp(request.param), "llama")
    made = byte_level() if request.param == "bytes" else sentencepiece_style(metaspace=request.param == "metaspace")
    save_tokenizer(folder, made, CHATML, eos_token="<|im_end|>" if request.param == "bytes" else "</s>")
    return Tokenizer.load(folder, read_config(folder))


def chat(tokenizer: Tokenizer, *texts: str, carried: str = "") -> list[int]:
    blocks = "\n\n".join(FENCE.wrap(text, {"document": f"{len(text)}.md", "section": "The pier"}) for text in texts)
    messages = prompt("read", "small").messages(passages=blocks, carried=carried, question=QUESTION)
    return tokenizer.encode_chat([{"role": each.role, "content": each.content} for each in messages])


def said(tokenizer: Tokenizer, ids: Sequence[int]) -> Callable[[tuple[int, int]], str]:
    return lambda part: b"".join(map(tokenizer.token_bytes, ids[slice(*part)])).decode("utf-8", "replace")


def test_what_is_not_a_document_s_is_protected_the_question_first(tokenizer: Tokenizer) -> None:
    ids = chat(tokenizer, LAMP, "Another text.")
    marks = marks_of(tokenizer, ids)
    texts = [*map(said(tokenizer, ids), marks.protected)]
    assert f"<question>\n{QUESTION}\n</question>" in texts[0]
    assert "copy out what answers a question" in texts[1]
    assert len(texts) == 2
    assert marks.protected[0][1] == len(ids)
    assert marks.protected[1][0] == 0
    assert not any("1871" in text or "rope maker" in text or "Another" in text for text in texts)
    assert tuple(marks.task) == tuple(ids[slice(*marks.protected[0])])
    marks.check(len(ids))


def test_headings_are_the_names_of_a_block_and_lines_that_look_so(tokenizer: Tokenizer) -> None:
    ids = chat(tokenizer, LAMP)
    texts = [text.strip() for text in map(said(tokenizer, ids), marks_of(tokenizer, ids).headings)]
    assert texts == [f"document: {len(LAMP)}.md\nsection: The pier", "# The Lamp", "The keepers"]


def test_sentences_begin_where_they_do(tokenizer: Tokenizer) -> None:
    ids = chat(tokenizer, LAMP)
    starts = marks_of(tokenizer, ids).sentence_starts
    assert starts is not None
    assert list(starts) == sorted(set(starts))
    decoded = said(tokenizer, ids)
    texts = [decoded((start, start + 40)).lstrip() for start in starts]
    for begin in ("It was lit", "The naïve", "The keepers", "She kept", "Who kept"):
        assert sum(text.startswith(begin) for text in texts) == 1, begin
    assert not any(text.startswith(("kept the lamp", "language", "rope maker")) for text in texts)


def test_a_piece_without_its_question_is_marked_alike(tokenizer: Tokenizer) -> None:
    ids = chat(tokenizer, LAMP)
    whole = marks_of(tokenizer, ids)
    end = whole.protected[0][0] + 1  # the fence's last token, or the first behind it
    piece = marks_of(tokenizer, ids[:end])
    assert [*piece.protected] == [whole.protected[1]]
    assert piece.headings == whole.headings
    assert piece.sentence_starts == tuple(each for each in whole.sentence_starts or () if each < end)
    assert piece.task == ()


def test_a_prompt_without_documents_has_sentences_only(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode_chat([{"role": "user", "content": "One is here. <data-0011223344556677> Two is there."}])
    marks = marks_of(tokenizer, ids)
    assert (marks.protected, marks.headings, marks.task) == ((), (), ())
    assert len(marks.sentence_starts or ()) >= 2
    assert marks_of(tokenizer, []).sentence_starts == ()
