"""What a server says an answer has cost, where it can be believed."""

from __future__ import annotations

from typing import Final

from lcdoc.agents.models.model import TokenUsage

PROMPT_SLACK_TOKENS: Final = 2_048
"""Chat templates, and system prompts that servers add of themselves."""
ANSWER_SLACK_TOKENS: Final = 1_024
MAX_REASONING_TOKENS: Final = 262_144


def believable_usage(
    stated: object, *, prompt_bytes: int, max_tokens: int, answer_bytes: int
) -> tuple[TokenUsage | None, TokenUsage | None]:
    """Tokens in (with the cached ones) and tokens out by the server's `usage`, each None where it cannot be right.

    No tokenizer has more tokens than the text has bytes. An answer may be longer than `max_tokens`: some servers do not
    count the thinking, which is believed where it is stated apart.
    """
    if not isinstance(stated, dict):
        return None, None
    taken: TokenUsage | None = None
    tokens_in = _count(stated.get("prompt_tokens"))
    if tokens_in is not None and 0 < tokens_in <= prompt_bytes + PROMPT_SLACK_TOKENS:
        cached = _count(_detail(stated, "prompt_tokens_details", "cached_tokens"))
        if cached is None:
            cached = _count(stated.get("prompt_cache_hit_tokens"))
        taken = TokenUsage(
            tokens_in=tokens_in, tokens_cached=cached if cached is not None and cached <= tokens_in else 0
        )
    given: TokenUsage | None = None
    tokens_out = _count(stated.get("completion_tokens"))
    if tokens_out is not None:
        reasoning = _count(_detail(stated, "completion_tokens_details", "reasoning_tokens")) or 0
        if reasoning > min(tokens_out, MAX_REASONING_TOKENS):
            reasoning = 0
        most = max_tokens + answer_bytes + ANSWER_SLACK_TOKENS + reasoning
        if tokens_out <= most and (tokens_out > 0 or answer_bytes == 0):
            given = TokenUsage(tokens_out=tokens_out)
    return taken, given


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _detail(stated: dict[object, object], group: str, name: str) -> object:
    details = stated.get(group)
    return details.get(name) if isinstance(details, dict) else None
