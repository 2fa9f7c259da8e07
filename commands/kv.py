"""`lcdoc kv`: how the cache of a local model can be compressed."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lcdoc.commands.guard import guarded, usage_error
from lcdoc.commands.options import DebugOption, JsonOption, QuietOption

if TYPE_CHECKING:
    from lcdoc.agents.models.local import LocalSource
    from lcdoc.agents.models.local_engines import LocalOptions
    from lcdoc.agents.models.local_facts import LocalFacts
    from lcdoc.screen import Screen

kv_app = typer.Typer(help="How the cache of a local model can be compressed.", no_args_is_help=True)

_AUTO = "auto"
_NAME_WIDTH = 9
_LEAST_WIDTH = 40


@kv_app.command("list")
@guarded
def kv_list(as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """List the parts that recipes are made of, with what each does.

    A recipe is a scorer, a budget and a reducer joined by +, and how much is kept behind @: a share, or tokens.

    lcdoc ask book.pdf "Why did she leave?" --model local/PATH --kv snapkv+ada@0.25

    lcdoc ask book.pdf "Why did she leave?" --model local/PATH --kv keydiff@2048tok
    """
    from lcdoc.agents.models.local_recipes import parts
    from lcdoc.screen import Screen

    with Screen() as screen:
        known = parts()
        if as_json:
            screen.json([part.as_dict() for part in known])
            return
        width = max(len(part.name) for part in known)
        kind = needs = ""
        for part in known:
            if part.kind != kind:
                screen.plain(("\n" if kind else "") + f"{part.kind}s: {part.question}")
                kind, needs = part.kind, ""
            if part.needs != needs:
                screen.plain(f"  {part.needs}")
                needs = part.needs
            screen.plain(f"    {part.name:<{width}}  {part.line}")


@kv_app.command("show")
@guarded
def kv_show(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="As --kv takes it; auto for what that does.")],
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="NAME", help="Also what it takes of this local model's cache."),
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option("--tokens", metavar="N", help="Of a text so long [default: the model's window].", min=1),
    ] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Tell what a recipe means, and what its cache takes.

    lcdoc kv show snapkv:window=64+ada@0.25

    lcdoc kv show keydiff@2048tok --model local/models/qwen --tokens 100000

    lcdoc kv show auto --model local/models/qwen
    """
    from dataclasses import asdict

    from lcdoc.agents.models.local_kv_memory import auto_choices, auto_rules, cache_need
    from lcdoc.agents.models.local_recipes import meaning
    from lcdoc.screen import Screen

    if tokens is not None and model is None:
        raise usage_error("--tokens says how long a text is for a model: name it with --model")
    with Screen() as screen:
        known = None if model is None else _model(model)
        if recipe.strip().lower() == _AUTO:
            choices = auto_rules() if known is None else auto_choices(*known, tokens)
            if as_json:
                screen.json([asdict(choice) for choice in choices])
                return
            _tell(screen, {_AUTO: ["the full cache where its memory has room for it; else"]})
            _tell(screen, {choice.use: choice.lines() for choice in choices})
            return
        told = meaning(recipe)
        need = None if known is None else cache_need(*known, told.recipe, tokens or known[0].window)
        if as_json:
            screen.json(told.as_dict() | ({} if need is None else {"memory": asdict(need)}))
            return
        lines = {name: [value] if isinstance(value, str) else value for name, value in told.as_dict().items()}
        _tell(screen, lines | ({} if need is None else {"memory": need.lines()}))


@kv_app.command("heads")
@guarded
def kv_heads(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A local model, as --model takes it.")],
    text: Annotated[
        Path | None,
        typer.Option("--text", metavar="FILE", help="Find them by this document [default: instructions of lcdoc]."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Write here [default: where static looks, for this model]."),
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Find which heads of a model fetch from afar, for the budget static: once for each model.

    The model reads the beginning of a text and repeats it. Scores go from 0 to 1, a line for each layer.

    lcdoc kv heads local/models/qwen

    lcdoc ask book.pdf "Why did she leave?" --model local/models/qwen --kv snapkv+static@0.25
    """
    from lcdoc.agents.models.local_heads import find_local_heads
    from lcdoc.screen import Screen

    name, source = _source(model)
    with Screen(quiet=quiet) as screen:
        screen.say(f"loading {name}; it reads a text twice")
        found = find_local_heads(name, source, text=text, out=out)
        if as_json:
            screen.json(found.as_dict())
        else:
            for layer, scores in enumerate(found.scores):
                screen.plain(f"layer {layer:>2}  " + " ".join(f"{score:.2f}" for score in scores))
        screen.say(f"head scores, found by {found.tokens:,} tokens, are in {found.path}")
        if found.alike:
            screen.warn("all heads score alike: static tells this model's heads apart by next to nothing")


def _tell(screen: Screen, told: Mapping[str, Sequence[str]]) -> None:
    """Names, and what is said of each in lines that fit beside it."""
    width = max(_NAME_WIDTH, *map(len, told))
    room = max(_LEAST_WIDTH, screen.out.width - width - 2)
    for name, lines in told.items():
        parts = [part for line in lines for part in textwrap.wrap(line, room)]
        for first, part in enumerate(parts):
            screen.plain(f"{'' if first else name:<{width}}  {part}")


def _model(name: str) -> tuple[LocalFacts, LocalOptions]:
    """What is known of a local model before it is loaded. Raises ModelError."""
    from lcdoc.agents.models.local_facts import facts_of

    named, source = _source(name)
    if source.folder is None:
        raise usage_error(f"{name} is not on this machine yet: ask it something, and it is fetched")
    return facts_of(named, source.folder, source.options.device, source.options.rope), source.options


def _source(name: str) -> tuple[str, LocalSource]:
    """Where a local model is, and its name in full. Raises ModelError."""
    from lcdoc.agents.models.config import load_config
    from lcdoc.agents.models.names import not_local, resolve

    chosen = resolve(name, load_config())
    if chosen.local is None:
        raise not_local(name)
    return chosen.spec.name, chosen.local
