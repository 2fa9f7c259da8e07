"""What keeping documents will take, and by which recipe, before a model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lcdoc.agents.models.errors import ModelConfigError
from lcdoc.agents.models.local import LocalModel
from lcdoc.agents.models.local_caches import AUTO, INT8, serves_any_question
from lcdoc.agents.models.local_facts import LocalFacts, checked_recipe, facts_of
from lcdoc.memory.caches import KeptCache

_PLACE_BYTES = 8
"""Where an entry of a row stands, and what its key is rotated to."""
_SCALE_BYTES = 4
"""Of a key and a value in a byte a number."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What reading and keeping takes."""

    pieces: int
    tokens: int
    bytes: int
    seconds: float | None
    """None: this model has not kept anything yet that would tell."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A recipe, in its canonical spelling, and why; no reason where it was asked for."""

    recipe: str
    reason: str = ""


def chosen_recipe(model: LocalModel, asked: str | None, tokens: Sequence[int], before: Sequence[str]) -> Chosen:
    """How pieces of so many `tokens` each are kept: as `asked`, else by the model's own recipe where that serves any
    question, else as the document was kept `before`, else what fits memory and the room for kept caches best.

    Raises ModelConfigError.
    """
    name = model.spec.name
    if asked is not None and asked.strip().lower() != AUTO:
        return Chosen(checked_recipe(name, asked))
    own = _own(model)
    if asked is None and own is not None and serves_any_question(own):
        return Chosen(own, "the model's own")
    suffix = INT8 if model.settings.precision == "int8" else ""
    if known := next((one for one in before if one.endswith(INT8) == bool(suffix)), None):
        return Chosen(known.removesuffix(INT8), "as what is kept of it already")
    return _auto(model, tokens)


def _facts(model: LocalModel) -> LocalFacts:
    return facts_of(model.spec.name, model.folder, model.options.device, model.options.rope)


def _auto(model: LocalModel, tokens: Sequence[int]) -> Chosen:
    from lcdoc.local_engine.compression.auto import auto_recipe
    from lcdoc.local_engine.errors import EngineError

    facts, longest = _facts(model), max(tokens, default=1)
    on_disk = model.settings.limit // _entry_bytes(facts, model)
    if sum(tokens) > on_disk:
        # Of all pieces as much as there is room for on the disk: `auto_recipe` counts twice what a document takes.
        room = 2 * int(longest * on_disk / sum(tokens))
    else:
        fit = facts.fits()
        room = 2 * longest if fit is None or not fit.context else max(fit.context, longest)
    try:
        choice = auto_recipe("document", longest, room)
    except EngineError as error:
        if sum(tokens) > on_disk:
            raise ModelConfigError(
                model.spec.name,
                f"{sum(tokens):,} tokens are to be kept, and kept_caches.limit has room for {on_disk:,}",
                "raise it in the configuration, or keep less of each piece with --kv",
            ) from error
        raise ModelConfigError(model.spec.name, str(error)) from error
    return Chosen(choice.kv, choice.reason)


def estimate(model: LocalModel, recipe: str, tokens: Sequence[int], kept: Sequence[KeptCache]) -> Estimate:
    """What reading pieces of so many `tokens` each, and keeping them by `recipe`, takes: by what was `kept` of other
    pieces, where this model kept any, else by the sizes of its cache."""
    from lcdoc.local_engine.compression.recipe import as_recipe

    parsed = as_recipe(recipe)
    entries = sum(each if parsed is None else min(each, parsed.amount.entries(each)) for each in tokens)
    spelled = recipe + (INT8 if model.settings.precision == "int8" else "")
    mine = [one for one in kept if one.model == model.identity]
    alike = [one for one in mine if one.recipe.endswith(INT8) == spelled.endswith(INT8)]
    if alike:
        entry_bytes = sum(one.bytes for one in alike) / sum(one.entries for one in alike)
    else:
        entry_bytes = _entry_bytes(_facts(model), model)
    # A second reading, as some recipes take, counts: so only those by the same one tell.
    same = [one for one in mine if one.recipe == spelled]
    pace = sum(one.seconds for one in same) / sum(one.tokens for one in same) if same else None
    total = sum(tokens)
    return Estimate(len(tokens), total, int(entries * entry_bytes), None if pace is None else total * pace)


def check(model: LocalModel, recipe: str, total_bytes: int) -> None:
    """Raise ModelConfigError where what is kept by `recipe` would not be read, or pushes itself out again."""
    own, limit, name = _own(model), model.settings.limit, model.spec.name
    if own is not None and own != recipe:
        raise ModelConfigError(
            name, f"it reads by its own kv, {own}, and not from caches by {recipe}", "keep by that, or name none for it"
        )
    if own is not None and not serves_any_question(own):
        raise ModelConfigError(name, f"{own} goes by the question, which a kept document has not", "take another kv")
    if not limit:
        raise ModelConfigError(name, "kept_caches.limit is 0, which keeps nothing", "raise it in the configuration")
    if total_bytes > limit:
        raise ModelConfigError(
            name,
            f"this would take about {total_bytes / 1e6:,.0f} MB, and kept_caches.limit is {limit / 1e6:,.0f} MB",
            "raise it in the configuration, or keep less of each piece with --kv",
        )


def _own(model: LocalModel) -> str | None:
    """The recipe by which the model reads everything."""
    return None if model.options.kv == AUTO else model.options.kv


def _entry_bytes(facts: LocalFacts, model: LocalModel) -> int:
    """Of one entry of all rows, in a file."""
    if model.settings.precision == "int8":
        return facts.cache_numbers_per_token + facts.cache_rows * (_PLACE_BYTES + _SCALE_BYTES)
    width = 4 if "float32" in (model.options.dtype, facts.stored) else 2
    return facts.cache_numbers_per_token * width + facts.cache_rows * _PLACE_BYTES
