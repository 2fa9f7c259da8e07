"""Document text in a request: fenced as data, with markers its author cannot know, and without control tokens.

A block opens with a line `<data-CODE>` and ends at the line `</data-CODE>` of the same code, and only there. The code
is a keyed hash of what the block holds: the same text always gives the same bytes, so that the call store and the
servers' prefix caches know it again, yet nobody without the library's secret can write a line that closes the block.
Writing down a code that was seen does not help either, since it changes the text and so the code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import blake2b
from itertools import count

from lcdoc.agents.models.errors import ModelConfigError

JOINER = "\u2060"
"""WORD JOINER, put inside whatever looks like a control token: invisible, and ignored when quotes are compared."""
_CODE_BYTES = 8
_LEAST_SECRET_BYTES = 16
_HEADER_CHARACTERS = 300

# Chat templates of all families mark turns by one of a few shapes. Shapes are matched, not names, since new models
# bring new names; what is merely code or markup in a document loses nothing by an invisible character.
_CONTROL_TOKEN = re.compile(
    r"""
      (?<=[<＜]) (?=[|｜])                                          # <|im_start|>  <|eot_id|>  <｜User｜>
    | (?<=[|｜]) (?=[>＞])
    | (?<=[<＜]) (?= [/／]? (?:[^\W\d]|▁)[\w:.\-]{0,63} \s? /? [>＞])  # <start_of_turn>  </s>  <tool_call>  <<SYS>>
    | (?<=[<＜]) (?= 0x[0-9A-Fa-f]{2}>)
    | (?<=\[) (?= /? (?:[A-Z][A-Z0-9_]{2,40}|[gs]MASK) \])          # [INST]  [/TOOL_CALLS]  [gMASK]
    | (?<=\]) (?= ~!?b[\[\]]) | (?<=\[) (?= e~\[)                   # ]~b]  [e~[
    """,
    re.VERBOSE,
)


class Fence:
    """Makes blocks of data. `secret` is the library's; it never appears in a request."""

    def __init__(self, secret: bytes) -> None:
        """Raises ModelConfigError for a secret of fewer than 16 bytes."""
        if len(secret) < _LEAST_SECRET_BYTES:
            raise ModelConfigError("prompts", f"the fence's secret has {len(secret)} bytes", "give it 16 or more")
        # A key for this use only: no other keyed hash of the library's secret gives a code.
        self._key = blake2b(b"lcdoc prompt fence 1", key=secret[:64]).digest()

    def wrap(self, text: str, header: Mapping[str, str] | None = None) -> str:
        """`text` as a block, headed by `name: value` lines that are data as well. Ends without a line break."""
        lines = [f"{name}: {one_line(value)}" for name, value in (header or {}).items() if value]
        content = neutral("\n".join([*lines, "", text] if lines else ["", text]))
        code = next(code for attempt in count() if (code := self._code(content, attempt)) not in content)
        return f"<data-{code}>\n{content}\n</data-{code}>"

    def _code(self, content: str, attempt: int) -> str:
        data = attempt.to_bytes(4, "big") + content.encode("utf-8", "replace")
        return blake2b(data, key=self._key, digest_size=_CODE_BYTES).hexdigest()


def neutral(text: str) -> str:
    """`text` in which no server finds a control token of a chat template; `restored` undoes it in quotes."""
    return _CONTROL_TOKEN.sub(JOINER, text)


def restored(text: str) -> str:
    """What a model wrote, without the joiners it may have copied."""
    return text.replace(JOINER, "")


def one_line(text: str) -> str:
    """`text` on one line and not longer than a heading may be: titles and file names are a document's data, too."""
    line = " ".join(text.split())
    return line if len(line) <= _HEADER_CHARACTERS else f"{line[: _HEADER_CHARACTERS - 1]}…"
