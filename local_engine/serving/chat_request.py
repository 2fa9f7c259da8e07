"""The body of `/v1/chat/completions`, read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lcdoc.local_engine.serving.asked import (
    Asked,
    Served,
    check_model,
    read_choices,
    read_limit,
    read_sampling,
    read_streaming,
)
from lcdoc.local_engine.serving.constraint_fields import read_constraint
from lcdoc.local_engine.serving.fields import Fields

_ROLES = ("system", "developer", "user", "assistant", "tool")
_KEPT = ("name", "tool_calls", "tool_call_id", "reasoning_content")
# What the server itself gives a template; a request must not take its place.
_RESERVED = frozenset({"messages", "tools", "documents", "add_generation_prompt"})


def read_chat(body: Mapping[str, Any], served: Served) -> Asked:
    """What a chat asks for. Raises Problem naming the first field that is wrong; unknown fields are passed over."""
    fields = Fields(body)
    check_model(fields, served)
    messages = _messages(fields)
    top = fields.integer("top_logprobs")
    wants_logprobs = fields.flag("logprobs")
    if top is not None and not wants_logprobs:
        raise fields.wrong("top_logprobs", "left out where `logprobs` is not true")
    sampling = read_sampling(fields, served.defaults, (top or 0) if wants_logprobs else None)
    stream, include_usage = read_streaming(fields)
    return Asked(
        field="messages",
        prompts=(messages,),
        sampling=sampling,
        max_tokens=read_limit(fields, "max_completion_tokens", "max_tokens"),
        default_tokens=None,
        n=read_choices(fields),
        stream=stream,
        include_usage=include_usage,
        constraint=read_constraint(fields),
        tools=_tools(fields),
        variables=_variables(fields),
    )


def _messages(fields: Fields) -> list[dict[str, Any]]:
    given = fields.items("messages")
    if given is None:
        raise fields.missing("messages", "the chat so far")
    if not given:
        raise fields.wrong("messages", "an array of at least one message")
    messages = []
    for number, each in enumerate(given):
        name = f"messages[{number}]"
        if not isinstance(each, dict):
            raise fields.wrong(name, "an object with `role` and `content`")
        messages.append(_message(Fields(each, name)))
    return messages


def _message(fields: Fields) -> dict[str, Any]:
    role = fields.text("role")
    if role not in _ROLES:
        raise fields.wrong("role", f"one of {', '.join(map(repr, _ROLES))}")
    content = _content(fields)
    if content is None and not (role == "assistant" and fields.has("tool_calls")):
        raise fields.missing("content", "a string or an array of text parts")
    kept = {name: fields.values[name] for name in _KEPT if fields.has(name)}
    if "tool_calls" in kept:
        kept["tool_calls"] = [_tool_call(call) for call in fields.items("tool_calls") or ()]
    # Templates know OpenAI's newer name for it no more than most models do.
    return {"role": "system" if role == "developer" else role, "content": content, **kept}


def _content(fields: Fields) -> str | None:
    content = fields.values.get("content")
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise fields.wrong("content", "a string or an array of text parts")
    texts = []
    for number, part in enumerate(content):
        name = f"content[{number}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text":
            shown = kind if isinstance(kind, str) else "of no type"
            raise fields.wrong(name, f"a part of type 'text', and is {shown[:40]}: this model reads text only")
        text = Fields(part, fields.path(name)).text("text")
        if text is None:
            raise fields.missing(f"{name}.text", "the part's text")
        texts.append(text)
    return "\n".join(texts)


def _tool_call(call: Any) -> Any:
    """A call with its arguments as an object, which is how templates print them; OpenAI has them as JSON's text."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(arguments := function.get("arguments"), str):
        return call
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        return call
    return {**call, "function": {**function, "arguments": value}} if isinstance(value, dict) else call


def _tools(fields: Fields) -> tuple[Any, ...]:
    tools = fields.items("tools") or []
    for number, tool in enumerate(tools):
        if not isinstance(tool, dict):
            raise fields.wrong(f"tools[{number}]", "an object")
    choice = fields.values.get("tool_choice")
    if choice == "none":
        return ()
    if choice not in (None, "auto"):
        raise fields.unsupported("tool_choice", "'auto' or 'none'")
    return tuple(tools)


def _variables(fields: Fields) -> Mapping[str, Any]:
    given = fields.fields("chat_template_kwargs")
    if given is None:
        return {}
    for name in given.values:
        if name in _RESERVED or not name.isidentifier() or name.startswith("_") or name.endswith("_token"):
            raise given.wrong(name[:80], "left out: it is not for requests to set")
    return given.values
