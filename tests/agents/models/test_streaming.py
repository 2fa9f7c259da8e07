"""The reader of events and the answer they make."""

from __future__ import annotations

import pytest

from lcdoc.agents.models.streaming import Answer, EventReader, NotTheProtocolError


def events_of(*parts: bytes):
    reader = EventReader()
    return [event for part in parts for event in reader.feed(part)] + reader.finish()


def test_events_are_the_same_however_the_bytes_are_cut():
    data = (
        b': comment\r\n\r\nevent: x\r\nid: 1\r\ndata: {"a": 1}\r\n\r\ndata:{"b": "\xc3\xbc"}\n'
        b'data: {"c":\ndata: 3}\n\nretry: 5\ndata: [DONE]\n\n'
    )
    whole = events_of(data)
    assert whole == [{"a": 1}, {"b": "ü"}, {"c": 3}, None]
    for size in (1, 2, 3, 7):
        assert events_of(*(data[start : start + size] for start in range(0, len(data), size))) == whole


def test_an_event_without_its_blank_line_counts():
    assert events_of(b'data: {"a": 1}') == [{"a": 1}]
    with pytest.raises(NotTheProtocolError):
        events_of(b'data: {"a": ')


@pytest.mark.parametrize(
    "part",
    [b"x" * 1_000_000, b"data: " + b"[" * 1_000_000, b'data: {"a":\n' * 1_000, b"no event\n" * 100_000],
    ids=["no line end", "an endless event", "an event of many lines", "no event"],
)
def test_what_never_ends_is_given_up(part):
    reader = EventReader()
    with pytest.raises(NotTheProtocolError):
        for _ in range(100):
            reader.feed(part)


def answer_of(*deltas) -> Answer:
    answer = Answer(max_bytes=1_000, max_reasoning_bytes=1_000)
    for delta in deltas:
        answer.add({"choices": [{"index": 0, "delta": delta}]})
    return answer


def test_halves_of_a_character_in_two_pieces_are_one():
    answer = Answer(max_bytes=1_000, max_reasoning_bytes=1_000)
    pieces = [answer.add({"choices": [{"delta": {"content": text}}]}) for text in ("a\ud83d", "\ude00b", "\ud83d")]
    pieces.append(answer.add({"choices": [{"delta": {}, "finish_reason": "stop"}]}))
    assert answer.text == "".join(pieces) == "a😀b\ufffd"


def test_deltas_of_other_shapes():
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "yes"}]
    answer = answer_of({"content": None, "tool_calls": [{"x": 1}]}, {"content": parts}, {"content": 5}, None)
    assert (answer.text, answer.reasoning) == ("yes", "hm")
    refused = answer_of({"refusal": "I cannot"})
    assert (refused.text, refused.finish) == ("I cannot", "content_filter")
    other = Answer(max_bytes=9, max_reasoning_bytes=9)
    assert other.add({"choices": [{"index": 1, "delta": {"content": "another"}}]}) == ""


def test_a_finish_reason_that_is_a_failure():
    answer = answer_of({"content": "some"})
    answer.add({"choices": [{"delta": {}, "finish_reason": "error"}]})
    answer.done = True
    assert not answer.complete


def test_logprobs_with_a_wrong_one_among_them_are_none():
    answer = Answer(max_bytes=9, max_reasoning_bytes=9)
    for value in (-0.1, "x"):
        logprobs = {"content": [{"token": "a", "logprob": value}]}
        answer.add({"choices": [{"delta": {"content": "a"}, "logprobs": logprobs}]})
    assert answer.logprobs is None
