"""From `local/PATH` or `local/org/name` to a folder, and what is known of the model in it before it is loaded."""

from __future__ import annotations

from dataclasses import replace

from lcdoc.agents.models.config import Config, ModelEntry
from lcdoc.agents.models.errors import ModelNameError
from lcdoc.agents.models.facts import SMALL_PARAMETERS_B, size_b
from lcdoc.agents.models.local import LocalSource, no_such_model
from lcdoc.agents.models.local_caches import AUTO
from lcdoc.agents.models.local_engines import LocalOptions
from lcdoc.agents.models.local_facts import (
    SEQUENCES,
    LocalFacts,
    auto_window,
    checked_recipe,
    checked_stretching,
    facts_of,
    longest_text,
    message_tokens,
    outlives_window,
)
from lcdoc.agents.models.local_files import PREFIX, hub_cache, identity_of, is_hub_id, located
from lcdoc.agents.models.local_heads import known_heads
from lcdoc.agents.models.local_memory import Fit, steady
from lcdoc.agents.models.model import ModelSpec, Prices, Profile, RateLimits
from lcdoc.agents.models.model_specs import ASSUMED_WINDOW

FREE = Prices(0.0, 0.0)
"""What runs here costs nothing, and that is known."""


def local_target(name: str) -> str | None:
    """What stands behind `local/`; None for other names. Raises ModelNameError for a prefix alone."""
    if not name.lower().startswith(PREFIX):
        return None
    target = name[len(PREFIX) :].strip()
    if not target:
        raise ModelNameError(name, "the model's name is missing", "name its folder, or its name on the hub: local/PATH")
    return target


def with_recipe(name: str) -> tuple[str, str | None]:
    """A local model's name and the recipe of its cache, which may stand behind a `#`."""
    model, _, kv = name.rpartition("#")
    return (model, kv.strip()) if model else (name, None)


def local_source(
    name: str, target: str, entry: ModelEntry | None, config: Config, kv: str | None = None
) -> tuple[str, LocalSource]:
    """Where the model is, and the name that it has in records: that of its entry, of the hub, or its whole path, with
    the recipe `kv` behind it where one was named.

    Raises ModelNameError for a folder that is not there, with those that are; ModelConfigError for a recipe that is
    none.
    """
    if kv is not None:
        recipe = checked_recipe(name, kv)
        name, source = local_source(name, target, entry, config)
        return f"{name}#{recipe}", replace(source, options=replace(source.options, kv=recipe))
    beside = config.path.parent if entry is not None and config.path is not None else None
    folder = located(target, beside=beside)
    if folder is None and not is_hub_id(target):
        raise no_such_model(name, target)
    if entry is None:
        # A run may be gone on with from another working directory.
        whole = folder is not None and not folder.is_relative_to(hub_cache().absolute())
        return PREFIX + (str(folder) if whole else target), LocalSource(target, folder)
    configured = None if entry.kv is None else checked_recipe(name, entry.kv)
    options = LocalOptions(
        entry.dtype or "auto",
        entry.quantize,
        entry.device or "auto",
        entry.max_memory,
        configured,
        None if entry.rope is None else checked_stretching(name, entry.rope),
    )
    return name, LocalSource(target, folder, options)


def local_spec(name: str, source: LocalSource, entry: ModelEntry | None) -> tuple[ModelSpec, tuple[str, ...]]:
    """What is known of the model, and what the user should know of that. Raises ModelNameError for one that is not run.

    The window is the model's, or less where that does not fit the memory that is free, or more where a recipe moves
    together what it keeps.
    """
    entry = entry or ModelEntry()
    prices = FREE if entry.prices is None else entry.prices.prices()
    if source.folder is None:
        named = size_b(source.target)
        profile: Profile = "small" if named is None or named <= SMALL_PARAMETERS_B else "large"
        return (
            ModelSpec(
                name,
                entry.context_window or ASSUMED_WINDOW,
                context_window_known=entry.context_window is not None,
                prices=prices,
                profile=entry.profile or profile,
            ),
            ("it is not on this machine yet: it will be fetched from the hub",),
        )
    facts = facts_of(name, source.folder, source.options.device, source.options.rope)
    longest = longest_text(name, source.folder, source.options)
    heads = known_heads(name, source.folder, source.options.kv)
    window, notes = _window(facts, source.options, entry, longest)
    return (
        ModelSpec(
            name,
            window,
            max_output_tokens=entry.max_output_tokens,
            prices=prices,
            limits=RateLimits(concurrency=entry.concurrency or SEQUENCES.get(facts.device, SEQUENCES["cpu"])),
            profile=entry.profile or _profile(facts),
            message_tokens=message_tokens(name, source.folder),
            identity=" ".join(filter(None, (identity_of(source.folder), source.options.recipe, heads))),
        ),
        notes,
    )


def _window(
    facts: LocalFacts, options: LocalOptions, entry: ModelEntry, longest: int | None
) -> tuple[int, tuple[str, ...]]:
    if longest is not None:
        return min(longest, entry.context_window or longest), ()
    window = min(facts.window, entry.context_window or facts.window)
    notes = []
    if entry.context_window is not None and entry.context_window > facts.window:
        notes.append(f"the model's window is {facts.window:,} tokens; context_window asks for more")
    found: Fit | None = facts.fits(options.quantize or ("float32" if options.dtype == "float32" else "bfloat16"))
    bounded = options.kv is not None and outlives_window(options.kv)
    if found is not None and 0 < found.context < window and options.max_memory is None and not bounded:
        fitting = steady(auto_window(found.context) if options.kv == AUTO else found.context, window)
        notes.append(
            f"a window of {fitting:,} tokens fits the memory that is free; the model's is {facts.window:,}: quantize, "
            "or set context_window"
        )
        window = fitting
    return window, tuple(notes)


def _profile(facts: LocalFacts) -> Profile:
    if facts.sizes is None:
        return "small"
    return "small" if facts.sizes.parameters <= SMALL_PARAMETERS_B * 1e9 else "large"
