"""The command line."""

from __future__ import annotations

from typing import Annotated

import typer

from lcdoc import __version__
from lcdoc.commands.ask import ask
from lcdoc.commands.batch import batch_app
from lcdoc.commands.doctor import doctor
from lcdoc.commands.eval import eval_app
from lcdoc.commands.extract import extract
from lcdoc.commands.index import index
from lcdoc.commands.kv import kv_app
from lcdoc.commands.library import library_app
from lcdoc.commands.models import models
from lcdoc.commands.runs import runs_app
from lcdoc.commands.serve import serve
from lcdoc.commands.show import show
from lcdoc.commands.summarize import summarize
from lcdoc.commands.trace import trace
from lcdoc.commands.workflows import workflows_app

app = typer.Typer(
    name="lcdoc",
    help="Ask documents longer than a model can take. Every quote is checked against the source, with its page.",
    epilog="Try: lcdoc ask book.pdf 'Why did she leave?'",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
for command in (ask, summarize, extract, index, show, trace, models, serve, doctor):
    app.command()(command)
app.add_typer(batch_app, name="batch")
app.add_typer(eval_app, name="eval")
app.add_typer(kv_app, name="kv")
app.add_typer(library_app, name="library")
app.add_typer(runs_app, name="runs")
app.add_typer(workflows_app, name="workflows")


def _version(value: bool) -> None:
    if value:
        typer.echo(f"lcdoc {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Ask documents longer than a model can take. Every quote is checked against the source, with its page."""
