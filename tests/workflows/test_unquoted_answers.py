"""An answer without any quote from the documents is not shown, and the user is told so."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from lcdoc.agents.notes import UNQUOTED_ANSWER
from lcdoc.tests.servers.chat_server import Behaviour, ChatServer, Recorded, Reply
from lcdoc.tests.servers.truthful import Truthful, skill_of

RUMOUR = "Hundreds, sailors say."


def answers(*claims: dict[str, Any]) -> Callable[[Recorded], Behaviour]:
    """A model that reads honestly and answers with these claims."""
    honest = Truthful()

    def choose(recorded: Recorded) -> Behaviour:
        known = skill_of(recorded.body["messages"][0]["content"])
        given = {"found": True, "claims": list(claims)}
        return Reply(json.dumps(given)) if known and known[0] == "answer" else honest(recorded)

    return choose


def test_an_answer_without_any_quote_is_not_found_and_the_user_is_told(
    asked: Callable[..., Any], server: ChatServer
) -> None:
    server.default = answers({"text": RUMOUR, "evidence": []}, {"text": "Or more.", "evidence": [999]})
    answer = asked()
    assert (answer.found, answer.claims, answer.confidence) == (False, (), 0)
    assert UNQUOTED_ANSWER in answer.warnings
    assert not answer.partial


def test_beside_a_claim_with_a_quote_one_without_is_marked(asked: Callable[..., Any], server: ChatServer) -> None:
    server.default = answers({"text": "Forty.", "evidence": [1]}, {"text": RUMOUR, "evidence": []})
    answer = asked()
    assert [claim.support for claim in answer.claims] == ["quoted", "unsupported"]
    assert UNQUOTED_ANSWER not in answer.warnings
