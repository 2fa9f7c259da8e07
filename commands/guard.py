"""How commands end: exit codes, one-line errors, Ctrl-C."""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import typer

NOT_FOUND, BAD_INPUT, BUG, INTERRUPTED = 1, 2, 70, 130

Command = TypeVar("Command", bound=Callable[..., Any])


def guarded(command: Command) -> Command:
    """Turn errors the user can mend into one line and exit code 2, and Ctrl-C into 130. --debug shows tracebacks."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        from lcdoc.screen import Screen

        debug = bool(kwargs.get("debug"))
        if debug:
            from lcdoc.agents.models.secrets import install_log_scrubbing

            install_log_scrubbing()
            logging.basicConfig(level=logging.DEBUG, format="%(name)s: %(message)s", stream=sys.stderr)
            logging.getLogger("markdown_it").setLevel(logging.INFO)
        try:
            return command(*args, **kwargs)
        except typer.Exit:
            raise
        except KeyboardInterrupt:
            Screen().fail("interrupted; what was read is kept in the library")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # The reader of our output has gone; let the interpreter's own flush at exit go nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None
        except Exception as error:
            if debug:
                raise
            if _is_for_the_user(error):
                Screen().fail(str(error))
                raise typer.Exit(BAD_INPUT) from None
            Screen().fail(f"a bug in lcdoc: {type(error).__name__}: {error}; --debug shows where")
            raise typer.Exit(BUG) from None

    return run  # type: ignore[return-value]


def _is_for_the_user(error: Exception) -> bool:
    from lcdoc.agents.models.errors import ModelError
    from lcdoc.agents.span_reader.weights import SpanReaderError
    from lcdoc.documents import DocumentError
    from lcdoc.memory import LibraryError
    from lcdoc.retrieval.embedders import EmbedderError
    from lcdoc.workflows.errors import WorkflowError

    read = DocumentError | LibraryError | EmbedderError | SpanReaderError
    return isinstance(error, read | ModelError | WorkflowError)


def usage_error(message: str) -> Exception:
    from lcdoc.screen import Screen

    Screen().fail(message)
    return typer.Exit(BAD_INPUT)
