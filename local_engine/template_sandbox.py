"""Where chat templates run: Jinja2's sandbox, set up as transformers does it, with bounds on work and size."""

from __future__ import annotations

import json
import re
import threading
from datetime import datetime
from typing import Any, Final, NoReturn

from jinja2 import Environment, TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

_MOST_TURNS: Final = 300_000
"""Turns of loops and calls of macros that one prompt may take; real templates take some for each message."""
_LONGEST: Final = 50_000_000
"""Characters of any text that a template may put together."""
_TIME: Final = threading.local()
"""When each thread renders: `now`."""
_WIDE: Final = re.compile(r"\d{6}")
"""A width in a format that no prompt needs."""


class EndlessError(Exception):
    """A template took more turns, or made more text, than any prompt needs."""


def check_length(length: int) -> None:
    if length > _LONGEST:
        raise EndlessError


class _Training(Extension):
    """Takes `{% generation %}`, which marks what a model is trained on, as if it were not there."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Counted(NodeTransformer):
    """Puts a count into every loop and macro, and a bound on every text joined with `~`."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def _call(self, name: str, *arguments: nodes.Expr) -> nodes.Call:
        call = nodes.Call(nodes.EnvironmentAttribute(name), list(arguments), [], None, None)
        call.set_environment(self._environment)
        return call

    def _counting(self, node: nodes.For | nodes.Macro | nodes.CallBlock) -> nodes.Node:
        self.generic_visit(node)
        # Reading the attribute counts: a call would go through the sandbox's checks each time.
        node.body.insert(0, nodes.ExprStmt(nodes.EnvironmentAttribute("turn")).set_lineno(node.lineno))
        return node

    visit_For = visit_Macro = visit_CallBlock = _counting  # noqa: N815

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return self._call("bounded", node).set_lineno(node.lineno)


class _Names(Namespace):
    """`namespace()`, without the names by which Python's internals are reached."""

    def __init__(*args: Any, **names: Any) -> None:
        Namespace.__init__(*args, **names)
        for name in dict(*args[1:], **names):
            _refuse_internal(name)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_internal(name)
        super().__setitem__(name, value)


def _refuse_internal(name: object) -> None:
    if str(name).startswith("_"):
        raise SecurityError(f"it sets {name} in a namespace")


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja as transformers sets it up for chat templates, with bounds.

    They stop mistakes and simple bombs. A template that is out to fill the memory still can.
    """

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Training, loopcontrols])
        self._turns = threading.local()
        self.filters["tojson"] = _to_json
        self.globals = {
            "range": self.globals["range"],
            "dict": _make_dict,
            "namespace": _Names,
            "raise_exception": _raise_exception,
            "strftime_now": _strftime_now,
        }

    def begin(self, now: datetime | None) -> None:
        """Start a render, in this thread: count its turns, and have `now` be its time; None: the clock's."""
        self._turns.left = _MOST_TURNS
        _TIME.now = now

    @property
    def turn(self) -> None:
        """Counts one turn of a loop, or one call of a macro."""
        self._turns.left -= 1
        if self._turns.left < 0:
            raise EndlessError

    def bounded(self, value: Any) -> Any:
        if isinstance(value, str | list | tuple):
            check_length(len(value))
        return value

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        template = super()._parse(source, name, filename)
        _Counted(self).visit(template)
        return template

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "*":
            for sequence, times in ((left, right), (right, left)):
                if isinstance(sequence, str | list | tuple) and isinstance(times, int):
                    check_length(len(sequence) * times)
        if operator == "**" and max(abs(left), abs(right)) > 1000:
            raise EndlessError
        if operator == "%" and isinstance(left, str) and _WIDE.search(left):
            raise EndlessError
        return self.bounded(super().call_binop(context, operator, left, right))

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        if any(isinstance(value, int) and abs(value) > _LONGEST for value in (*args, *kwargs.values())):
            raise EndlessError
        # The sandbox has its own function around a text's `format`.
        owner = getattr(getattr(obj, "__wrapped__", obj), "__self__", None)
        if isinstance(owner, str) and obj.__name__.startswith("format") and _WIDE.search(owner):
            raise EndlessError
        return self.bounded(super().call(context, obj, *args, **kwargs))


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it is; Jinja's own escapes it for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _make_dict(*items: Any, **more: Any) -> dict[Any, Any]:
    return dict(*items, **more)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    now: datetime | None = _TIME.now
    return (now or datetime.now()).strftime(form)


ENVIRONMENT: Final = _Environment()
