"""The server as the official client of OpenAI's API sees it. The oracle is the engine, asked in process."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from lcdoc.agents.models.json_schema import object_format, response_format
from lcdoc.agents.models.model import Server as ModelServer
from lcdoc.agents.models.server_statements import discover
from lcdoc.agents.prompts.schemas import Reading, ReasonedReading
from lcdoc.local_engine.sampling import Sampling
from lcdoc.tests.local_engine.checkpoints import edit_json
from lcdoc.tests.local_engine.served_engine import Served, served_engine

CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why did she leave?"}]


@pytest.fixture(scope="module")
def served(checkpoint: Callable[..., Path]) -> Iterator[Served]:
    with served_engine(checkpoint("qwen2", max_position_embeddings=4096)) as running:
        yield running


@pytest.fixture(scope="module")
def client(served: Served) -> openai.OpenAI:
    return served.client()


def chat(client: openai.OpenAI, **options: Any) -> Any:
    return client.chat.completions.create(**{"model": "", "messages": CHAT, "max_tokens": 24, "seed": 5, **options})


def test_a_chat_is_answered_as_the_engine_answers_it(served: Served, client: openai.OpenAI) -> None:
    answer = chat(client, temperature=0.9, top_p=0.95)
    expected = asyncio.run(
        served.engine.complete(CHAT, Sampling(temperature=0.9, top_p=0.95, seed=5, max_tokens=24, stop=()))
    )
    (choice,) = answer.choices
    assert choice.message.content == expected.text
    assert choice.message.role == "assistant"
    assert choice.finish_reason == expected.finish
    assert choice.logprobs is None
    assert answer.object == "chat.completion"
    assert answer.model == served.engine.name
    assert answer.usage.prompt_tokens == expected.usage.prompt == len(served.engine.encode(CHAT))
    assert answer.usage.completion_tokens == expected.usage.output
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_text_parts_and_developers_are_read_as_texts_and_systems(client: openai.OpenAI) -> None:
    parts = [
        {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "text", "text": "Why did"}, {"type": "text", "text": "she leave?"}]},
    ]
    plain = [CHAT[0], {"role": "user", "content": "Why did\nshe leave?"}]
    assert chat(client, messages=parts).choices == chat(client, messages=plain).choices


def test_a_chat_is_streamed(client: openai.OpenAI) -> None:
    whole = chat(client)
    chunks = list(chat(client, stream=True, stream_options={"include_usage": True}))
    first, *middle, finish, usage = chunks
    assert first.choices[0].delta.role == "assistant"
    assert first.choices[0].finish_reason is None
    assert "".join(chunk.choices[0].delta.content for chunk in middle) == whole.choices[0].message.content
    assert len(middle) > 5
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert finish.choices[0].finish_reason == "length"
    assert finish.choices[0].delta.content is None
    assert usage.choices == []
    assert usage.usage.completion_tokens == 24
    assert {chunk.id for chunk in chunks} == {first.id}
    assert not any(chunk.usage for chunk in chat(client, stream=True))


def test_a_stream_is_events_and_ends_with_done(served: Served) -> None:
    body = {"messages": CHAT, "max_tokens": 2, "stream": True}
    answer = served.post("/chat/completions", json=body)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    *events, done, end = answer.text.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    assert all(json.loads(event.removeprefix("data: "))["object"] == "chat.completion.chunk" for event in events)


def test_the_streaming_helper_of_the_client_puts_an_answer_together(client: openai.OpenAI) -> None:
    options = {"max_tokens": 100, "seed": 5, "response_format": ReasonedReading}
    with client.chat.completions.stream(model="", messages=CHAT, **options) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, ReasonedReading)


def test_completions_continue_texts_and_tokens(served: Served, client: openai.OpenAI) -> None:
    prompts = ["The lamp was", "She left"]
    both = client.completions.create(model="", prompt=prompts, seed=3, max_tokens=10, temperature=1)
    assert [choice.index for choice in both.choices] == [0, 1]
    for prompt, choice in zip(prompts, both.choices, strict=True):
        ids = served.engine.encode(prompt)
        expected = asyncio.run(served.engine.complete(prompt, Sampling(temperature=1, seed=3, max_tokens=10)))
        assert choice.text == expected.text
        alone = client.completions.create(model="", prompt=ids, seed=3, max_tokens=10, temperature=1)
        assert alone.choices[0].text == expected.text
    assert both.usage.prompt_tokens == sum(len(served.engine.encode(prompt)) for prompt in prompts)
    assert client.completions.create(model="", prompt="x").usage.completion_tokens <= 16
    pieces = list(
        client.completions.create(model="", prompt=prompts, seed=3, max_tokens=10, temperature=1, stream=True)
    )
    for index in (0, 1):
        own = [piece.choices[0] for piece in pieces if piece.choices[0].index == index]
        assert "".join(piece.text for piece in own) == both.choices[index].text
        assert own[-1].finish_reason == both.choices[index].finish_reason


@pytest.mark.parametrize("form", [response_format, object_format])
def test_a_schema_shapes_the_answer(client: openai.OpenAI, form: Callable[..., Any]) -> None:
    for model, seed in ((Reading, 1), (ReasonedReading, 2)):
        answer = chat(client, response_format=form(model), max_tokens=100, seed=seed)
        assert model.model_validate_json(answer.choices[0].message.content)
        assert answer.choices[0].finish_reason == "stop"


def test_the_parsing_helper_of_the_client_takes_a_pydantic_model(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(
        model="", messages=CHAT, max_tokens=100, seed=4, response_format=ReasonedReading
    )
    assert isinstance(answer.choices[0].message.parsed, ReasonedReading)


def test_any_object_and_patterns_and_plain_text(client: openai.OpenAI) -> None:
    any_object = chat(client, response_format={"type": "json_object"}, max_tokens=60).choices[0].message.content
    assert isinstance(json.loads(any_object), dict)
    for extra in ({"guided_regex": "[ab]{4}-[0-9]+"}, {"structured_outputs": {"regex": "[ab]{4}-[0-9]+"}}):
        content = chat(client, extra_body=extra).choices[0].message.content
        assert re.fullmatch("[ab]{4}-[0-9]+", content)
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    for extra in ({"guided_json": json.dumps(schema)}, {"structured_outputs": {"json": schema}}):
        assert json.loads(chat(client, extra_body=extra).choices[0].message.content).keys() == {"n"}
    assert chat(client, response_format={"type": "text"}).choices == chat(client).choices


def test_log_probabilities_of_a_chat(served: Served, client: openai.OpenAI) -> None:
    answer = chat(client, logprobs=True, top_logprobs=3)
    content = answer.choices[0].logprobs.content
    sampling = Sampling(temperature=1.0, seed=5, max_tokens=24, logprobs=3)
    expected = asyncio.run(served.engine.complete(CHAT, sampling)).tokens
    assert [entry.logprob for entry in content] == pytest.approx([token.logprob for token in expected])
    assert [bytes(entry.bytes) for entry in content] == [
        served.engine.tokenizer.token_bytes(token.token) for token in expected
    ]
    assert all(len(entry.top_logprobs) == 3 for entry in content)
    assert content[0].top_logprobs[0].logprob == pytest.approx(expected[0].top[0][1])
    streamed = [
        entry
        for chunk in chat(client, logprobs=True, top_logprobs=3, stream=True)
        for entry in (chunk.choices[0].logprobs.content if chunk.choices[0].logprobs else [])
    ]
    assert [entry.token for entry in streamed] == [entry.token for entry in content]


def test_log_probabilities_of_a_completion(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="", prompt="The lamp", seed=3, max_tokens=12, logprobs=2)
    found = answer.choices[0].logprobs
    assert len(found.tokens) == len(found.token_logprobs) == len(found.top_logprobs) == len(found.text_offset) == 12
    assert found.text_offset[0] == 0
    assert found.text_offset == sorted(found.text_offset)
    for token, logprob, top in zip(found.tokens, found.token_logprobs, found.top_logprobs, strict=True):
        assert 2 <= len(top) <= 3
        assert top[token] == pytest.approx(logprob)


def test_an_end_token_is_no_part_of_the_log_probabilities(served: Served, client: openai.OpenAI) -> None:
    answer = chat(client, extra_body={"guided_regex": "yes"}, logprobs=True)
    assert "".join(entry.token for entry in answer.choices[0].logprobs.content) == "yes"


def test_a_beginning_that_was_read_before_is_counted_as_cached(client: openai.OpenAI) -> None:
    document = "The keeper kept the lamp for twenty-two years. " * 20
    first, second = (
        chat(client, messages=[{"role": "user", "content": f"{document}{question}"}], max_tokens=1).usage
        for question in ("Who?", "When?")
    )
    assert first.prompt_tokens_details.cached_tokens == 0
    assert second.prompt_tokens - 40 < second.prompt_tokens_details.cached_tokens < second.prompt_tokens


def test_several_choices_differ_and_are_reproducible(client: openai.OpenAI) -> None:
    one, three = chat(client), chat(client, n=3)
    texts = [choice.message.content for choice in three.choices]
    assert [choice.index for choice in three.choices] == [0, 1, 2]
    assert texts[0] == one.choices[0].message.content
    assert len(set(texts)) == 3
    assert three.usage.prompt_tokens == one.usage.prompt_tokens
    assert three.usage.completion_tokens == 72
    streamed = ["", "", ""]
    for chunk in chat(client, n=3, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert streamed == texts


def test_stop_strings_end_an_answer(client: openai.OpenAI) -> None:
    whole = chat(client).choices[0].message.content
    stop = whole[6:9]
    answer = chat(client, stop=[stop, "never"]).choices[0]
    assert answer.message.content == whole[: whole.index(stop)]
    assert answer.finish_reason == "stop"
    assert chat(client, stop=stop).choices[0].message.content == answer.message.content


def test_the_newer_name_of_the_limit_and_the_window_as_the_default(served: Served, client: openai.OpenAI) -> None:
    assert chat(client, max_completion_tokens=3).usage.completion_tokens == 3
    words, long = 1200, CHAT
    while len(served.engine.encode(long)) < 4050:
        words += 10
        long = [{"role": "user", "content": "ab " * words}]
    answer = client.chat.completions.create(model="", messages=long, extra_body={"ignore_eos": True})
    assert answer.usage.total_tokens == served.engine.context_window == 4096
    assert answer.choices[0].finish_reason == "length"


def test_sampling_follows_the_models_makers_unless_told_otherwise(
    checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in checkpoint("qwen2").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    edit_json(folder / "generation_config.json", do_sample=True, temperature=0.5, top_k=3)
    with served_engine(folder) as running:
        expected = asyncio.run(running.engine.complete(CHAT, Sampling(temperature=0.5, top_k=3, seed=5, max_tokens=24)))
        assert chat(running.client()).choices[0].message.content == expected.text
        greedy = asyncio.run(running.engine.complete(CHAT, Sampling(max_tokens=24)))
        assert chat(running.client(), temperature=0).choices[0].message.content == greedy.text


def test_sixteen_at_once_get_what_each_gets_alone(served: Served, client: openai.OpenAI) -> None:
    def ask(number: int) -> dict[str, Any]:
        options = {"messages": [{"role": "user", "content": f"Question {number}: why?"}], "seed": number}
        return {"model": "", "max_tokens": 20, "temperature": 0.8, **options}

    alone = [client.chat.completions.create(**ask(number)).choices[0].message.content for number in range(16)]

    async def together() -> list[str]:
        async with served.async_client() as asking:
            answers = await asyncio.gather(*(asking.chat.completions.create(**ask(number)) for number in range(16)))
        return [answer.choices[0].message.content for answer in answers]

    before = served.engine.stats()
    assert asyncio.run(together()) == alone
    after = served.engine.stats()
    assert after.output_tokens - before.output_tokens > 4 * (after.steps - before.steps)


def test_the_model_and_its_window_are_listed(served: Served, client: openai.OpenAI) -> None:
    (model,) = client.models.list().data
    assert model.id == served.engine.name
    assert client.models.retrieve(model.id).id == model.id
    found = asyncio.run(discover(ModelServer(base_url=served.url, model=""), None))
    assert found.context_window == 4096
    assert found.models == (model.id,)
    assert found.notes == ()
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-4o")
    assert caught.value.code == "model_not_found"


TOOL_TEMPLATE = (
    "{% if tools %}Tools: {{ tools | tojson }}\n{% endif %}{% for message in messages %}{{ message.role }}: "
    "{{ message.content or '' }}{% for call in message.tool_calls or [] %}{{ call.function.arguments.city }}"
    "{% endfor %}{{ '\n' }}{% endfor %}{{ extra or '' }}"
)
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


def test_tools_are_for_templates_that_know_them(client: openai.OpenAI, checkpoint: Callable[..., Path]) -> None:
    with pytest.raises(openai.BadRequestError, match="not supported") as caught:
        chat(client, tools=[TOOL])
    assert caught.value.param == "tools"
    assert chat(client, tools=[TOOL], tool_choice="none").choices == chat(client).choices
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    turns = [*CHAT, {"role": "assistant", "content": None, "tool_calls": [call]}]
    turns.append({"role": "tool", "tool_call_id": "1", "content": "cold"})
    with served_engine(checkpoint("qwen2", template=TOOL_TEMPLATE)) as running:
        asking = running.client()
        with_tools = chat(asking, messages=turns, tools=[TOOL], max_tokens=1).usage.prompt_tokens
        expected = "system: Be brief.\nuser: Why did she leave?\nassistant: Oslo\ntool: cold\nmore"
        extra = {"chat_template_kwargs": {"extra": "more"}}
        answer = chat(asking, messages=turns, max_tokens=1, extra_body=extra)
        assert answer.usage.prompt_tokens == running.engine.count_tokens(expected)
        assert with_tools > answer.usage.prompt_tokens + 20
