"""A model's chat template: messages in, the text of a prompt out, with what came from the messages marked.

A template is a program (Jinja2) that comes with the model's files, so it runs in Jinja's sandbox: it reads no files,
reaches no Python internals, and is stopped when it loops or grows without end. Messages are documents and other
untrusted text; a template is the only one who may write control tokens such as `<|im_end|>`. Which of the result's
tokens are its own is known, because it is run on messages with stand-ins for some characters (`stand_ins.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from jinja2 import TemplateError
from jinja2.exceptions import SecurityError

from lcdoc.local_engine.errors import InvalidRequestError, ModelFilesError
from lcdoc.local_engine.stand_ins import Exchange
from lcdoc.local_engine.template_sandbox import ENVIRONMENT, EndlessError, check_length

PLAIN_TEMPLATE: Final = (
    "{{ bos_token or '' }}{% for message in messages %}{{ message.role | capitalize }}: "
    "{% if message.content is string %}{{ message.content }}"
    "{% else %}{% for part in message.content %}{{ part.text }}{% endfor %}{% endif %}{{ '\n\n' }}"
    "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""For models that come without a template: each message behind its role, and an empty line."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt's text."""

    text: str
    marked: str
    """The same, character for character, with stand-ins in what messages brought: a control token in it is the
    template's own."""


class ChatTemplate:
    """A compiled template. Raises ModelFilesError for one that is not Jinja; `name` is its file, for messages."""

    def __init__(self, source: str, name: str) -> None:
        self.source, self.name = source, name
        try:
            self._template = ENVIRONMENT.from_string(source)
        except (TemplateError, RecursionError) as error:
            raise ModelFilesError(f"{name}: the chat template cannot be read ({error}): correct the file") from None

    def render(
        self, messages: Sequence[Mapping[str, Any]], variables: Mapping[str, Any], *, now: datetime | None = None
    ) -> str:
        """The prompt's text, as of `now`; None: by the clock. Raises InvalidRequestError for messages that the template
        refuses."""
        # As transformers does: a key that holds nothing is left out, which templates can deal with.
        held = [{key: value for key, value in message.items() if value is not None} for message in messages]
        pieces, length = [], 0
        ENVIRONMENT.begin(now)
        try:
            for piece in self._template.generate(messages=_plain(held), **_plain(variables)):
                pieces.append(piece)
                length += len(piece)
                check_length(length)
        except EndlessError:
            raise ModelFilesError(f"{self.name}: the chat template runs without end: correct the file") from None
        except (RecursionError, MemoryError, OverflowError):
            raise ModelFilesError(f"{self.name}: the chat template takes too much memory: correct the file") from None
        except SecurityError as error:
            raise ModelFilesError(
                f"{self.name}: the chat template does what it must not ({error}): do not use this model"
            ) from None
        except TemplateError as error:
            raise InvalidRequestError(f"{self.name}: the chat template refuses these messages: {error}") from None
        except (TypeError, ValueError, AttributeError, ArithmeticError, LookupError) as error:
            raise InvalidRequestError(
                f"{self.name}: the chat template cannot take these messages ({type(error).__name__}: {error}): give "
                "each a role and a content"
            ) from None
        return "".join(pieces)

    def render_marked(
        self,
        messages: Sequence[Mapping[str, Any]],
        trusted: Mapping[str, Any],
        untrusted: Mapping[str, Any],
        controls: Mapping[str, bool],
        *,
        now: datetime | None = None,
    ) -> Rendered:
        """The prompt's text and its marked twin.

        `trusted` variables may hold control tokens (`bos_token`); messages and `untrusted` ones may not. The template
        is shown their texts with stand-ins, so a control token in them does not decide what it does either. For
        `controls` see `stand_ins.Exchange`.
        """
        exchange = Exchange(controls, messages, untrusted)
        marked = self.render(exchange.messages(messages), {**trusted, **exchange.variables(untrusted)}, now=now)
        return Rendered(exchange.undone(marked), marked)


def _plain(value: Any) -> Any:
    """A fresh copy in JSON's own types: objects of other types have methods that the sandbox knows nothing of."""
    if value is None or type(value) in {str, int, float, bool}:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    raise InvalidRequestError(
        f"a message holds a {type(value).__name__}: give text, numbers, lists and objects of them"
    )
