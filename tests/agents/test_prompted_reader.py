"""The reader that asks a model, against a server that plays an honest one, and others that do not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import pytest

import lcdoc
from lcdoc.agents.models.errors import ContextOverflowError, InvalidOutputError, ModelConfigError
from lcdoc.agents.models.memos import ForgetfulMemos
from lcdoc.agents.models.model import ModelSpec, Profile, Server
from lcdoc.agents.models.openai_client import OpenAIModel
from lcdoc.agents.models.structured import StructuredModel
from lcdoc.agents.notes import UNQUOTED_ANSWER, Claim, Note, checked_note
from lcdoc.agents.offline_reader import OfflineReader
from lcdoc.agents.prompted_reader import UNQUOTED_CONFIDENCE, PromptedReader
from lcdoc.agents.reader import Passage, Reader
from lcdoc.documents import Document, Page, Source, Span, load
from lcdoc.retrieval.chunker import Chunker
from lcdoc.retrieval.embedders import load_embedder
from lcdoc.retrieval.sentences import sentence_spans
from lcdoc.tests.servers.chat_server import Behaviour, ChatServer, Cut, Recorded, Reply, Status
from lcdoc.tests.servers.truthful import MADE_UP, Truthful, answering, blocks_of, skill_of

SECRET = bytes(range(32))
HANDBOOK = Path(lcdoc.__file__).parent / "examples" / "handbook.md"
SOURCE = Source("story.txt", "text/plain", 0, "The Story", "text", "1", "0" * 32)
PASSENGERS = "How many passengers may the Bittern carry?"
Result = TypeVar("Result")


@cache
def handbook() -> Document:
    return load(HANDBOOK)


def document_of(*pages: str) -> Document:
    text, starts = "", []
    for page in pages:
        starts.append((len(text), len(text) + len(page)))
        text += page
    return Document.create(
        text, tuple(Page(number, str(number), *span) for number, span in enumerate(starts, 1)), (), SOURCE
    )


def passage_of(text: str) -> Passage:
    return Passage(document_of(text), Span(0, len(text)))


STORY = "The king died in May. The queen reigned for ten years. Her brother kept the lamp of Otter Rock until 1912."


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer() as server:
        server.default = Truthful()
        yield server


def with_reader(
    server: ChatServer,
    use: Callable[[PromptedReader], Awaitable[Result]],
    *,
    window: int = 32_768,
    profile: Profile = "large",
) -> Result:
    """What `use` makes of a reader whose model is the server's."""
    spec = ModelSpec("test", window, Server(server.url, "test"), profile=profile)

    async def main() -> Result:
        model = OpenAIModel(spec, None)
        try:
            return await use(PromptedReader(StructuredModel(model, ForgetfulMemos()), secret=SECRET))
        finally:
            await model.aclose()

    return asyncio.run(main())


def sent(server: ChatServer, place: int = -1) -> str:
    """The user message of a request."""
    return str(server.requests[place].body["messages"][1]["content"])


def read(server: ChatServer, text: str, reading: dict[str, Any], **options: Any) -> Note:
    """The note of a model that answers `reading`, whatever it is shown."""
    server.default = answering(read=reading)
    return with_reader(server, lambda reader: reader.read(passage_of(text), "Who died?"), **options)


# An honest model and a real document


@pytest.mark.parametrize("profile", ["small", "large"])
@pytest.mark.parametrize("refused", [set(), {"json_schema"}, {"json_schema", "json_object"}])
def test_questions_about_the_sample_are_answered_with_citations(
    server: ChatServer, profile: Profile, refused: set[str]
) -> None:
    server.refuses_modes = refused
    document = handbook()
    chunks = [chunk for chunk in Chunker().chunks(document) if "Bittern" in chunk.span.of(document.body)]

    async def ask(reader: PromptedReader) -> Any:
        note = await reader.read_many([Passage.of_chunk(document, chunk) for chunk in chunks[:12]], PASSENGERS)
        return note, await reader.answer(PASSENGERS, [note])

    note, draft = with_reader(server, ask, profile=profile)
    assert note.found
    assert note.dropped == 0
    assert draft.found
    assert draft.claims[0].support == "quoted"
    citation = draft.claims[0].citations[0]
    assert "passengers" in citation.quote
    assert "Bittern" in citation.quote
    assert citation.document_id == document.id
    assert draft.confidence == draft.claims[0].confidence == 4
    # And what is not in the passages is not found.
    note, draft = with_reader(server, lambda reader: ask_other(reader, document), profile=profile)
    assert not note.found
    assert not draft.found


async def ask_other(reader: PromptedReader, document: Document) -> Any:
    question = "Which wine does Queen Margaret drink with roasted swan?"
    note = await reader.read(Passage(document, Span(0, 3_000)), question)
    return note, await reader.answer(question, [note])


@pytest.mark.parametrize("wrapped", [True, False])
def test_json_in_a_fence_is_understood(server: ChatServer, wrapped: bool) -> None:
    server.default = Truthful(fenced_json=wrapped)
    note = with_reader(server, lambda reader: reader.read(passage_of(STORY), "When did the king die?"))
    assert [quote.text for quote in note.quotes] == ["The king died in May."]


def test_quotes_that_stand_nowhere_are_dropped_and_counted(server: ChatServer) -> None:
    server.default = Truthful(false_quotes=1.0)
    note = with_reader(server, lambda reader: reader.read(passage_of(STORY), "When did the king die?"))
    assert [quote.text for quote in note.quotes] == ["The king died in May."]
    assert note.dropped == 1
    assert MADE_UP not in str(note)


# What a request looks like


def test_a_request_is_instructions_then_passages_then_the_question(server: ChatServer) -> None:
    passages = [
        Passage(document_of(STORY), Span(0, 21), ("Part\none", "Deaths")),
        Passage(document_of(STORY), Span(22, 54)),
    ]
    carried = checked_note(
        [(document_of(STORY), Span(55, 90))], found=True, quotes=["the lamp of Otter Rock"], claim="C"
    )

    async def ask(reader: PromptedReader) -> None:
        for question, note in (("Who died?", None), ("Who  reigned?\n", carried)):
            await reader.read_many(passages, question, note)

    with_reader(server, ask)
    (system, _), (other_system, _) = (request.body["messages"] for request in server.requests)
    assert system == other_system
    assert skill_of(system["content"]) == ("read", "large")
    first, second = sent(server, 0), sent(server, 1)
    blocks, outside = blocks_of(first)
    assert [(block.header, block.text) for block in blocks] == [
        ({"document": "The Story", "section": "Part one > Deaths"}, "The king died in May."),
        ({"document": "The Story"}, "The queen reigned for ten years."),
    ]
    assert outside.split() == ["<question>", "Who", "died?", "</question>"]
    # The passages are a prefix that all questions share.
    prefix = first[: first.index("<question>")]
    assert second.startswith(prefix)
    (_, _, notes), outside = blocks_of(second)
    assert notes.text == 'C\nquote: "the lamp of Otter Rock"'
    assert outside.strip() == "<question>\nWho  reigned?\n</question>"
    assert server.requests[0].body["temperature"] == 0


def test_profiles_ask_for_different_fields(server: ChatServer) -> None:
    def ask(reader: PromptedReader) -> Awaitable[Note]:
        return reader.read(passage_of(STORY), "Who died?")

    with_reader(server, ask, profile="small")
    with_reader(server, ask, profile="large")
    fields = [list(r.body["response_format"]["json_schema"]["schema"]["properties"]) for r in server.requests]
    assert fields == [
        ["found", "quotes", "claim", "confidence"],
        ["found", "quotes", "rationale", "claim", "confidence"],
    ]


# Packing and windows


def long_story(sentences: int) -> str:
    return " ".join(f"On day {day} the boat left Brackwater at {day % 24} hours." for day in range(1, sentences + 1))


def shown_sentences(server: ChatServer) -> list[str]:
    texts = (
        block.text for request in server.requests for block in blocks_of(request.body["messages"][1]["content"])[0]
    )
    return [f"{part}." for text in texts for part in text.removesuffix(".").split(". ")]


def tokens_sent(server: ChatServer) -> list[int]:
    return [sum(len(m["content"]) for m in request.body["messages"]) // 5 for request in server.requests]


def test_passages_are_packed_into_few_calls_and_long_ones_cut(server: ChatServer) -> None:
    passage = passage_of(long_story(400))

    async def ask(reader: PromptedReader) -> tuple[Note, int]:
        parts = reader.parts([passage], "When did the boat leave on day 77?")
        note = await reader.read_many([passage], "When did the boat leave on day 77?")
        for part in parts:
            assert reader.parts(part, "When did the boat leave on day 77?") == [part]
        return note, len(parts)

    note, parts = with_reader(server, ask, window=4_096)
    assert 1 < len(server.requests) == parts < 20
    assert sorted(shown_sentences(server)) == sorted(f"{part}." for part in passage.text.removesuffix(".").split(". "))
    assert all(
        tokens + request.body["max_tokens"] < 4_096
        for tokens, request in zip(tokens_sent(server), server.requests, strict=True)
    )
    assert "On day 77 the boat left Brackwater at 5 hours." in [quote.text for quote in note.quotes]
    assert len(note.quotes) <= 16


def overflowing(limit: int, body: Callable[[int], str]) -> Callable[[Recorded], Behaviour]:
    """A truthful model that refuses prompts of more than `limit` characters."""
    honest = Truthful()

    def choose(recorded: Recorded) -> Behaviour:
        size = sum(len(message["content"]) for message in recorded.body["messages"])
        if size <= limit:
            return honest(recorded)
        error = {"message": body(size), "type": "invalid_request_error", "code": "context_length_exceeded"}
        return Status(400, body={"error": error})

    return choose


@pytest.mark.parametrize("stated", ["This model's maximum context length is 3600 tokens.", "The prompt is too long."])
def test_a_window_that_is_smaller_than_thought_is_learnt(server: ChatServer, stated: str) -> None:
    server.default = overflowing(9_000, lambda size: f"{stated} You sent {size} characters.")
    passage = passage_of(long_story(300))

    async def ask(reader: PromptedReader) -> tuple[Note, int]:
        await reader.read(passage, "When did the boat leave on day 77?")
        first = len(server.requests)
        note = await reader.read(passage, "When did the boat leave on day 78?")
        return note, first

    note, first = with_reader(server, ask)
    assert "On day 78 the boat left Brackwater at 6 hours." in [quote.text for quote in note.quotes]
    # The second question is asked in pieces that fit from the start.
    assert all(sum(len(m["content"]) for m in request.body["messages"]) <= 9_000 for request in server.requests[first:])


def test_what_cannot_be_made_smaller_is_an_error(server: ChatServer) -> None:
    server.default = overflowing(10, lambda size: "The prompt is too long.")
    with pytest.raises((ContextOverflowError, ModelConfigError)):
        with_reader(server, lambda reader: reader.read(passage_of("Word."), "Who?"))
    assert len(server.requests) < 20


@pytest.mark.parametrize("window", [256, 1_000])
def test_a_window_without_room_for_a_sentence_is_explained(server: ChatServer, window: int) -> None:
    with pytest.raises(ModelConfigError, match=rf"test: a window of {window} tokens leaves no room for a sentence"):
        with_reader(server, lambda reader: reader.read(passage_of(STORY), "Who?"), window=window)
    assert server.requests == []


def test_a_call_that_fails_does_not_stop_the_others(server: ChatServer) -> None:
    honest = Truthful(latency_s=0.1)

    def choose(recorded: Recorded) -> Behaviour:
        fails = "On day 1 " in recorded.body["messages"][1]["content"]
        return Reply("this is no JSON") if fails else honest(recorded)

    server.default = choose
    with pytest.raises(InvalidOutputError):
        with_reader(server, lambda reader: reader.read(passage_of(long_story(300)), "On which day?"), window=4_096)
    assert len(server.requests) > 2
    assert all(request.finished and not request.aborted for request in server.requests)


# Notes


def test_a_claim_without_a_quote_that_stands_is_unsupported(server: ChatServer) -> None:
    reading = {"found": True, "quotes": ["He died in June."], "rationale": "", "claim": "He died.", "confidence": 5}
    note = read(server, STORY, reading)
    assert (note.found, note.quotes, note.claim, note.dropped) == (True, (), "He died.", 1)
    assert note.confidence == UNQUOTED_CONFIDENCE


@pytest.mark.parametrize(
    "reading",
    [
        {"found": False, "quotes": ["The king died in May."], "claim": "The king.", "confidence": 5},
        {
            "found": True,
            "quotes": ["The king died in May."],
            "claim": "Not mentioned in the passages.",
            "confidence": 5,
        },
        {"found": True, "quotes": ["It is not here."], "claim": "", "confidence": 5},
        {"found": True, "quotes": [], "claim": " ", "confidence": 5},
    ],
)
def test_found_decides_and_a_refusal_is_not_found(server: ChatServer, reading: dict[str, Any]) -> None:
    note = read(server, STORY, reading, profile="small")
    assert (note.found, note.quotes, note.claim, note.confidence) == (False, (), "", 0)


def test_with_nothing_to_add_the_carried_note_comes_back(server: ChatServer) -> None:
    carried = checked_note([(document_of(STORY), Span(0, 21))], found=True, quotes=["The king died"], claim="He died.")
    server.default = answering(read={"found": False, "quotes": [], "claim": "Not mentioned.", "confidence": 0})
    note = with_reader(server, lambda reader: reader.read(passage_of("Nothing."), "Who died?", carried))
    assert note == carried.model_copy(update={"unchanged": True})
    assert with_reader(server, lambda reader: reader.read_many([], "Who?", carried)) == note
    assert with_reader(server, lambda reader: reader.read_many([], "Who?")) == Note(found=False)
    assert len(server.requests) == 1


def test_what_is_added_joins_the_carried_note(server: ChatServer) -> None:
    document = document_of(STORY)
    carried = checked_note(
        [(document, Span(0, 21))], found=True, quotes=["The king died in May."], claim="He died.", confidence=3
    ).model_copy(update={"unchanged": True, "dropped": 2})
    reading = {"found": True, "quotes": ["The king died in May.", "for ten years"], "claim": "Both.", "confidence": 4}
    server.default = answering(read=reading)
    note = with_reader(server, lambda reader: reader.read(Passage(document, Span(22, 54)), "Who?", carried))
    assert [quote.citation.quote for quote in note.quotes] == ["The king died in May.", "for ten years"]
    assert (note.claim, note.unchanged, note.confidence, note.dropped) == ("Both.", False, 4, 2)


def test_a_carried_note_that_is_too_long_loses_its_weakest_quotes_in_the_prompt(server: ChatServer) -> None:
    document = document_of(long_story(200))
    quotes = document.text.removesuffix(".").split(". ")
    carried = checked_note([(document, Span(0, 10))], found=True, quotes=quotes, claim="Every day.")
    server.default = answering(read={"found": False})
    note = with_reader(
        server, lambda reader: reader.read(passage_of("Nothing."), "Who?", carried), window=4_096, profile="small"
    )
    assert len(note.quotes) == len(carried.quotes) == 200
    *_, shown = blocks_of(sent(server))[0]
    assert shown.text.startswith('Every day.\nquote: "On day 1 ')
    assert 2 < len(shown.text.split("\n")) < 60


# Merging and answering


def three_notes() -> list[Note]:
    document = document_of(STORY)
    notes = [("The king died in May.", "He died in May.", 4), ("The queen reigned for ten years.", "She reigned.", 3)]
    return [
        checked_note([(document, Span(0, 9))], found=True, quotes=[quote], claim=claim, confidence=confidence)
        for quote, claim, confidence in notes
    ] + [Note(found=False, dropped=1), Note(found=True, claim="Perhaps he fell.", confidence=1)]


def test_merging_keeps_the_numbered_evidence(server: ChatServer) -> None:
    server.default = answering(merge={"found": True, "keep": [2, 2, 7, 0], "claim": "Both.", "confidence": 3})
    note = with_reader(server, lambda reader: reader.merge(three_notes(), "Who?"))
    assert [quote.citation.quote for quote in note.quotes] == ["The queen reigned for ten years."]
    assert (note.claim, note.confidence, note.dropped) == ("Both.", 3, 1)
    blocks, _ = blocks_of(sent(server))
    assert [block.header for block in blocks] == [
        {"evidence": "1", "page": "1", "confidence": "4 of 5"},
        {"concluded from evidence": "1"},
        {"evidence": "2", "page": "1", "confidence": "3 of 5"},
        {"concluded from evidence": "2"},
        {"remark": "has no quote of its own"},
    ]
    assert [block.text for block in blocks if "evidence" not in block.header] == [
        "He died in May.",
        "She reigned.",
        "Perhaps he fell.",
    ]


def test_merging_never_loses_evidence_by_a_slip(server: ChatServer) -> None:
    server.default = answering(merge={"found": True, "keep": [9], "claim": "Both.", "confidence": 3})
    note = with_reader(server, lambda reader: reader.merge(three_notes(), "Who?"))
    assert len(note.quotes) == 2
    server.default = answering(merge={"found": False, "keep": [], "claim": "", "confidence": 0})
    assert with_reader(server, lambda reader: reader.merge(three_notes(), "Who?")) == Note(found=False, dropped=1)


def test_one_note_needs_no_merging(server: ChatServer) -> None:
    first, _, nothing, _ = three_notes()
    note = with_reader(server, lambda reader: reader.merge([nothing, first], "Who?"))
    assert (note.found, note.claim, note.citations, note.dropped) == (True, first.claim, first.citations, 1)
    assert not with_reader(server, lambda reader: reader.merge([nothing], "Who?")).found
    assert server.requests == []


def many_notes(count: int) -> list[Note]:
    document = document_of(long_story(count))
    sentences = [f"{part}." for part in document.text.removesuffix(".").split(". ")]
    return [
        checked_note([(document, Span(0, 9))], found=True, quotes=[sentence], claim=f"{sentence} Yes.", confidence=3)
        for sentence in sentences
    ]


def test_more_evidence_than_the_window_takes_is_merged_first(server: ChatServer) -> None:
    question = "When did the boat leave on day 77?"
    server.default = (honest := Truthful(recall=0.75))
    draft = with_reader(server, lambda reader: reader.answer(question, many_notes(120)), window=4_096)
    assert draft.claims[0].text == "On day 77 the boat left Brackwater at 5 hours."
    assert honest.read[-1] == "answer"
    assert honest.read.count("merge") > 2
    assert all(
        tokens + request.body["max_tokens"] < 4_096
        for tokens, request in zip(tokens_sent(server), server.requests, strict=True)
    )


def many_quotes(count: int, claim: str, confidence: float = 3) -> Note:
    """One note of many quotes, as a chain carries it to its end."""
    document = document_of(long_story(count))
    quotes = [f"{part}." for part in document.text.removesuffix(".").split(". ")]
    return checked_note([(document, Span(0, 9))], found=True, quotes=quotes, claim=claim, confidence=confidence)


def test_what_was_concluded_from_many_quotes_is_shown_once_and_whole(server: ChatServer) -> None:
    claim = " ".join(f"On day {day} it left, which nobody had foreseen at all." for day in range(100, 130))
    server.default = answering(answer={"found": True, "claims": [{"text": "It left.", "evidence": [16]}]})
    draft = with_reader(server, lambda reader: reader.answer("When?", [many_quotes(16, claim)]), window=8_192)
    blocks, outside = blocks_of(sent(server))
    assert [block.header.get("evidence") for block in blocks] == [*map(str, range(1, 17)), None]
    assert blocks[-1].header == {"concluded from evidence": ", ".join(map(str, range(1, 17)))}
    assert blocks[-1].text == claim
    assert sent(server).count("nobody had foreseen") == 30
    assert draft.claims[0].citations[0].quote.startswith("On day 16 ")
    assert "nobody" not in outside
    # Evidence that is added behind leaves what stands before as it is.
    with_reader(server, lambda reader: reader.answer("When?", [many_quotes(16, claim), three_notes()[0]]), window=8_192)
    assert sent(server).startswith(sent(server, 0).partition("\n\n<question>")[0])


def test_two_conclusions_from_one_quote_are_both_shown(server: ChatServer) -> None:
    first = three_notes()[0]
    other = first.model_copy(update={"claim": "He died in spring."})
    server.default = answering(answer={"found": False})
    with_reader(server, lambda reader: reader.answer("When?", [first, other]))
    assert [block.text for block in blocks_of(sent(server))[0][1:]] == ["He died in May.", "He died in spring."]


def test_what_only_repeats_its_quote_is_not_shown_again(server: ChatServer) -> None:
    note = three_notes()[0].model_copy(update={"claim": "The king died in May."})
    server.default = answering(answer={"found": False})
    with_reader(server, lambda reader: reader.answer("When?", [note]))
    assert len(blocks_of(sent(server))[0]) == 1


def test_a_claim_longer_than_the_window_does_not_crowd_out_the_quotes(server: ChatServer) -> None:
    server.default = answering(answer={"found": True, "claims": [{"text": "It left.", "evidence": [8]}]})
    note = many_quotes(8, "The boat left, they say. " * 2_000)
    draft = with_reader(server, lambda reader: reader.answer("When?", [note]), window=4_096)
    assert draft.claims[0].support == "quoted"
    (request,) = server.requests
    *quotes, conclusion = blocks_of(sent(server))[0]
    assert len(quotes) == 8
    assert conclusion.text.endswith("…")
    assert tokens_sent(server)[0] + request.body["max_tokens"] < 4_096


def keeping_all(honest: Truthful) -> Callable[[Recorded], Behaviour]:
    """Merges keep all of the evidence."""

    def choose(recorded: Recorded) -> Behaviour:
        known = skill_of(recorded.body["messages"][0]["content"])
        if not known or known[0] != "merge":
            return honest(recorded)
        merging = {"found": True, "keep": list(range(1, 100)), "claim": "It left.", "confidence": 3}
        return Reply(json.dumps(merging))

    return choose


def test_conclusions_are_left_out_before_quotes(server: ChatServer) -> None:
    server.default = keeping_all(Truthful(recall=0.1))
    notes = [
        note.model_copy(update={"claim": f"{note.claim} {'It left as it always had. ' * 20}"})
        for note in many_notes(12)
    ]
    draft = with_reader(server, lambda reader: reader.answer("When did the boat leave?", notes), window=4_096)
    assert (draft.found, draft.warnings) == (True, ())
    answered, _ = blocks_of(sent(server))
    assert sum("evidence" in block.header for block in answered) == 12


def test_evidence_that_is_left_out_is_told(server: ChatServer) -> None:
    server.default = keeping_all(Truthful(recall=0.1))
    sentences = [f"{number} times the boat left, {'and so on, ' * 60}day by day." for number in range(10, 30)]
    document = document_of(" ".join(sentences))
    notes = [
        checked_note([(document, Span(0, 9))], found=True, quotes=[sentence], claim=f"Number {number}.", confidence=3)
        for number, sentence in enumerate(sentences)
    ]
    draft = with_reader(server, lambda reader: reader.answer("Which boat left day by day?", notes), window=4_096)
    assert draft.found
    assert draft.claims[0].support == "quoted"
    assert len(set(draft.warnings)) == 1
    assert "weaker half" in draft.warnings[0]


def test_evidence_that_merging_finds_beside_the_point_is_no_answer(server: ChatServer) -> None:
    server.default = answering(merge={"found": False})
    draft = with_reader(server, lambda reader: reader.answer("Who?", many_notes(120)), window=4_096)
    assert (draft.found, draft.claims) == (False, ())


def test_evidence_that_overflows_is_merged_in_smaller_parts(server: ChatServer) -> None:
    question = "When did the boat leave on day 77?"
    server.default = overflowing(9_000, lambda size: "The prompt is too long.")
    draft = with_reader(server, lambda reader: reader.answer(question, many_notes(120)))
    assert draft.claims[0].text == "On day 77 the boat left Brackwater at 5 hours."
    assert draft.warnings == ()
    assert len(server.requests) < 40


def answer(server: ChatServer, answering_as: Any, question: str = "Who?", **options: Any) -> Any:
    server.default = answering(answer=answering_as)
    return with_reader(server, lambda reader: reader.answer(question, three_notes(), **options))


def test_claims_cite_the_evidence_they_number(server: ChatServer) -> None:
    claims = [
        {"text": "He died in May.", "evidence": [1, 1, 3, 99]},
        {"text": "She was kind.", "evidence": [-1, 44]},
        {"text": "Not mentioned.", "evidence": [2]},
        {"text": "Both did.", "evidence": [2, 1]},
    ]
    draft = answer(server, {"found": True, "claims": claims})
    assert [(claim.text, claim.support, len(claim.citations), claim.confidence) for claim in draft.claims] == [
        ("He died in May.", "quoted", 1, 4),
        ("She was kind.", "unsupported", 0, UNQUOTED_CONFIDENCE),
        ("Both did.", "quoted", 2, 4),
    ]
    assert draft.confidence == 3


def test_figures_that_no_quote_has_are_marked_and_trusted_less(server: ChatServer) -> None:
    claims = [{"text": "In 1066 he died, in May 1912.", "evidence": [1]}]
    draft = answer(server, {"found": True, "claims": claims}, "What happened in 1066?")
    assert draft.claims[0].unquoted_figures == ("1912",)
    assert draft.claims[0].confidence == 2


def test_claims_of_which_none_has_a_quote_are_no_answer(server: ChatServer) -> None:
    pieces: list[str] = []
    claims = [{"text": "She was kind.", "evidence": []}, {"text": "He fell.", "evidence": [9]}]
    server.default = answering(
        answer={"found": True, "claims": claims},
        direct={"found": True, "claims": [{"quotes": ["She was kind."], "text": "She was kind.", "confidence": 5}]},
    )
    draft = with_reader(server, lambda reader: reader.answer("Who?", three_notes(), on_text=pieces.append))
    assert (draft.found, draft.claims, draft.confidence) == (False, (), 0)
    assert draft.warnings == (UNQUOTED_ANSWER,)
    # What was shown while it was written is void.
    assert "She was kind." in "".join(pieces)
    assert pieces[-1] == ""
    direct = with_reader(server, lambda reader: reader.answer_from([passage_of(STORY)], "Who?"))
    assert (direct.found, direct.claims, direct.warnings, direct.dropped) == (False, (), (UNQUOTED_ANSWER,), 1)


@pytest.mark.parametrize("given", [{"found": False, "claims": [{"text": "He.", "evidence": [1]}]}, {"found": True}])
def test_not_in_the_document_is_an_answer(server: ChatServer, given: dict[str, Any]) -> None:
    assert answer(server, given) == with_reader(server, lambda reader: reader.answer("Who?", [Note(found=False)]))
    assert len(server.requests) == 1


def test_the_text_streams_and_ends_as_the_drafts(server: ChatServer) -> None:
    pieces: list[str] = []
    claims = [{"text": "He died in May – «sadly» 😀.", "evidence": [1]}, {"text": "She reigned.", "evidence": [2]}]
    given = json.dumps({"found": True, "claims": claims})
    server.default = Reply(given, pieces=len(given))
    draft = with_reader(server, lambda reader: reader.answer("Who?", three_notes(), on_text=pieces.append))
    assert "".join(pieces) == draft.text == "He died in May – «sadly» 😀.\nShe reigned."
    assert len(pieces) > 20
    assert "" not in pieces


def test_a_second_answer_streams_anew(server: ChatServer) -> None:
    pieces: list[str] = []
    bad = '{"found": true, "claims": [{"text": "He fell", "evidence": "none at all"}], "oops'
    good = '{"found": true, "claims": [{"text": "He died.", "evidence": [1]}]}'
    server.script(Reply(bad), Reply(good))
    draft = with_reader(server, lambda reader: reader.answer("Who?", three_notes(), on_text=pieces.append))
    assert "".join(pieces[pieces.index("") :]) == draft.text == "He died."


def test_a_broken_stream_is_an_error_not_an_answer(server: ChatServer) -> None:
    server.default = Cut('{"found": true, "claims": [{"text": "He d')
    with pytest.raises(Exception, match="test"):
        with_reader(server, lambda reader: reader.answer("Who?", three_notes()))


# Summaries, choices, judgements


def test_summaries_have_points_with_citations(server: ChatServer) -> None:
    document = handbook()
    chunks = Chunker().chunks(document)[10:14]
    summary = with_reader(
        server, lambda reader: reader.summarize([Passage.of_chunk(document, chunk) for chunk in chunks], words=100)
    )
    assert len(summary.points) == len(chunks)
    assert all(point.citations and point.heading_path for point in summary.points)
    assert with_reader(server, lambda reader: reader.summarize([], words=100)).points == ()


def test_a_quote_that_stands_nowhere_is_no_citation_of_a_summary(server: ChatServer) -> None:
    points = [{"text": "A king died.", "quote": "The king was killed."}, {"text": "Not mentioned.", "quote": ""}]
    server.default = answering(summarize={"points": points})
    summary = with_reader(server, lambda reader: reader.summarize([passage_of(STORY)], words=50))
    assert [(point.text, point.citations) for point in summary.points] == [("A king died.", ())]


def test_a_summary_of_many_parts_is_shortened(server: ChatServer) -> None:
    document = document_of(long_story(400))
    passages = [Passage(document, span) for span in sentence_spans(document.text)]
    server.default = (honest := Truthful())
    summary = with_reader(server, lambda reader: reader.summarize(passages, words=80), window=4_096)
    assert {"summarize", "condense"} <= set(honest.read)
    assert 20 < summary.words <= 160
    assert all(point.citations for point in summary.points)


def test_shortening_that_leaves_nothing_is_not_believed(server: ChatServer) -> None:
    points = [{"text": "The boat left Brackwater every day of the year.", "quote": ""}]
    server.default = answering(summarize={"points": points}, condense={"points": []})
    summary = with_reader(server, lambda reader: reader.summarize([passage_of(long_story(400))], words=5), window=4_096)
    assert len(summary.points) > 1


def test_choosing_names_an_option_or_none(server: ChatServer) -> None:
    options = ["The lights and their keepers", "Fares and free travel of bell-ringers", "Floods"]

    def choose(reader: PromptedReader) -> Awaitable[Any]:
        return reader.choose("Why do the bell-ringers travel free?", options, ["The ferries"])

    choice = with_reader(server, choose)
    assert (choice.option, bool(choice.reason)) == (1, True)
    assert blocks_of(sent(server))[0][-1].header == {"already read": "not an option"}
    for number in (0, 4, -1):
        server.default = answering(choose={"reason": "", "option": number, "confidence": 5})
        assert with_reader(server, choose).option is None
    assert with_reader(server, lambda reader: reader.choose("Why?", [], [])).option is None
    assert len(server.requests) == 4


def test_long_options_are_shortened_to_fit(server: ChatServer) -> None:
    options = [long_story(200), f"Swans. {long_story(200)}", long_story(200)]
    choice = with_reader(server, lambda reader: reader.choose("Swans?", options, options), window=4_096)
    assert choice.option == 1
    assert tokens_sent(server)[0] + server.requests[0].body["max_tokens"] < 4_096


def claims_of_story() -> list[Claim]:
    cited = checked_note([(document_of(STORY), Span(0, 21))], found=True, quotes=["The king died in May."]).citations
    return [
        Claim(text="The king died in June.", citations=cited),
        Claim(text="The king died in May.", citations=cited),
        Claim(text="The queen reigned."),
    ]


def test_judging_goes_by_quotes_and_passages(server: ChatServer) -> None:
    question, claims = "When did the king die?", claims_of_story()
    judgement = with_reader(server, lambda reader: reader.judge(question, claims))
    assert judgement.verdicts == ("contradicted", "supported", "contradicted")
    assert judgement.best == 1
    judgement = with_reader(server, lambda reader: reader.judge(question, claims, passages=[passage_of(STORY)]))
    assert judgement.verdicts == ("contradicted", "supported", "supported")
    blocks, _ = blocks_of(sent(server))
    assert [block.header.get("claim") for block in blocks] == [None, "1", "2", "3"]
    assert with_reader(server, lambda reader: reader.judge(question, [])).verdicts == ()


def test_no_claim_is_supported_by_nothing(server: ChatServer) -> None:
    judged = {"reason": "", "supported": [3, 9], "contradicted": [1, 3], "best": 3, "confidence": 5}
    server.default = answering(judge=judged)
    judgement = with_reader(server, lambda reader: reader.judge("When?", claims_of_story()))
    assert judgement.verdicts == ("contradicted", "not_shown", "not_shown")
    assert judgement.best is None


# The same skills without a model


def test_the_offline_reader_has_the_same_skills() -> None:
    reader: Reader = OfflineReader(load_embedder())
    passage = passage_of(STORY)
    assert reader.parts([passage, passage], "When did the king die?") == [[passage, passage]]
    assert reader.parts([], "Who?") == []
    pieces: list[str] = []

    async def ask() -> Any:
        note = await reader.read_many([passage], "When did the king die?")
        draft = await reader.answer("When did the king die?", [note], on_text=pieces.append)
        judged = await reader.judge("When did the king die?", claims_of_story(), passages=[passage])
        return draft, judged, await reader.judge("When?", claims_of_story()[2:]), await reader.judge("When?", [])

    draft, judged, unsupported, nothing = asyncio.run(ask())
    assert "".join(pieces) == draft.text != ""
    assert judged.best == 1
    assert judged.verdicts[1:] == ("supported", "not_shown")
    assert (unsupported.best, unsupported.verdicts) == (None, ("not_shown",))
    assert (nothing.best, nothing.verdicts) == (None, ())
