"""What is held back for a request: everything that is sent along, and the longest answer that may come."""

import asyncio

import pytest

from lcdoc.agents.models.budget import BudgetedModel
from lcdoc.agents.models.errors import BudgetExceededError
from lcdoc.agents.models.ledger import Budget, Ledger
from lcdoc.agents.models.model import Message, ModelSpec, Request, Server
from lcdoc.agents.models.openai_client import OpenAIModel
from lcdoc.agents.models.wire import FormattedRequest
from lcdoc.agents.models.worst_case import longest_answer, prompt_tokens
from lcdoc.tests.servers.chat_server import ChatServer, Reply

ASK = Request((Message("user", "What is it?"),), max_tokens=64)
FORM = {"type": "json_object", "schema": {"type": "object", "properties": {"claim": {"type": "string"}}}}


def spec_of(url="http://127.0.0.1:9/v1", *, most=None, **fields):
    return ModelSpec("local/test", 8192, Server(url, "test", **fields), max_output_tokens=most)


def tokens_of(request, **fields):
    return prompt_tokens(OpenAIModel(spec_of(**fields), None, count=len), request)


def test_fields_of_the_configuration_are_part_of_the_prompt():
    bare = tokens_of(ASK)
    assert tokens_of(ASK, extra_body=(("response_format", FORM),)) == bare + len(str(FORM))
    tools = (("tools", [{"type": "function", "function": {"name": "look", "description": "Look it up. " * 50}}]),)
    assert tokens_of(ASK, extra_body=tools) > bare + 500


def test_a_format_of_the_configuration_takes_the_place_of_ours():
    request = FormattedRequest(ASK.messages, response_format={"type": "json_schema", "json_schema": {"a": "b" * 500}})
    assert tokens_of(request, extra_body=(("response_format", FORM),)) == tokens_of(ASK) + len(str(FORM))


@pytest.mark.parametrize(
    ("extra", "most", "tokens"),
    [
        ({}, None, 64),
        ({}, 32, 32),
        ({"max_tokens": 500}, None, 500),
        ({"max_tokens": 500}, 300, 300),
        ({"max_tokens": 20}, None, 20),
        ({"max_completion_tokens": 500}, None, 500),
        ({"max_tokens": True, "n": "2"}, None, 64),
        ({"n": 3}, None, 192),
    ],
)
def test_the_longest_answer_is_the_one_that_is_asked_for(extra, most, tokens):
    assert longest_answer(spec_of(most=most, extra_body=tuple(extra.items())), ASK) == tokens


def test_a_cap_on_tokens_holds_for_what_the_configuration_adds():
    usage = {"prompt_tokens": 400, "completion_tokens": 4}

    async def go(url):
        inner = OpenAIModel(spec_of(url, extra_body=(("response_format", FORM),)), None)
        needed = prompt_tokens(inner, ASK) + 64
        answered, refused = Ledger(Budget(tokens=needed)), Ledger(Budget(tokens=needed - 1))
        await BudgetedModel(inner, answered).complete(ASK)
        with pytest.raises(BudgetExceededError):
            await BudgetedModel(inner, refused).complete(ASK)
        await inner.aclose()

    with ChatServer() as server:
        server.default = Reply('{"claim": "it"}', usage=usage)
        asyncio.run(go(server.url))
    assert len(server.requests) == 1
