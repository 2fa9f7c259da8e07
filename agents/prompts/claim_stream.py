"""The text of an answer's claims while its JSON is still coming."""

from __future__ import annotations

from typing import Any

from lcdoc.agents.models.model import OnText
from lcdoc.agents.prompts.checks import plain

_THINKING_ENDS = "</think>"


class ClaimStream:
    """Takes the raw pieces of an `Answering` and passes on the growth of its claims' text, a line for each claim.

    An empty piece, which says that the answer begins anew, is passed on if anything was shown. `finish` makes good what
    the stream showed otherwise than the checked answer has it.
    """

    def __init__(self, on_text: OnText) -> None:
        self._on_text = on_text
        self._raw = ""
        self._shown = ""

    def __call__(self, piece: str) -> None:
        if not piece:
            self._restart()
            return
        self._raw += piece
        text = claims_text(self._raw)
        # The text may fall short of what was shown only where the JSON breaks off; `finish` settles that.
        if len(text) > len(self._shown) and text.startswith(self._shown):
            self._show(text)

    def finish(self, text: str) -> None:
        """The answer's text is `text`: what is missing is passed on, or all of it anew if it differs."""
        if not text.startswith(self._shown):
            self._restart()
        if text != self._shown:
            self._show(text)

    def _show(self, text: str) -> None:
        growth, self._shown = text[len(self._shown) :], text
        self._on_text(growth)

    def _restart(self) -> None:
        self._raw = ""
        if self._shown:
            self._shown = ""
            self._on_text("")


def claims_text(raw: str) -> str:
    """The claims' texts in the beginning `raw` of an answer, a line each; empty while there is none."""
    from pydantic_core import from_json

    raw = raw.rpartition(_THINKING_ENDS)[2]
    start = raw.find("{")
    if start < 0:
        return ""
    try:
        value: Any = from_json(raw[start:].rstrip("` \n"), allow_partial="trailing-strings")
    except ValueError:
        return ""
    claims = value.get("claims") if isinstance(value, dict) and value.get("found") is True else None
    if not isinstance(claims, list):
        return ""
    texts = [claim.get("text") for claim in claims if isinstance(claim, dict)]
    return "\n".join(line for text in texts if isinstance(text, str) and (line := plain(text)))
