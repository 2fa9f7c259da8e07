"""What is known of a model before it is asked: the configuration's word before that of the facts."""

from __future__ import annotations

from typing import Final

from rapidfuzz import fuzz, process

from lcdoc.agents.models.addresses import Address
from lcdoc.agents.models.config import ModelEntry
from lcdoc.agents.models.errors import ModelConfigError
from lcdoc.agents.models.facts import Facts, FactsTable
from lcdoc.agents.models.model import ModelSpec, Prices, RateLimits, Server

ASSUMED_WINDOW: Final = 8_192
"""Tokens taken for the window where nothing is known of it."""


def spec_of(
    name: str, address: Address, entry: ModelEntry | None, table: FactsTable
) -> tuple[ModelSpec, tuple[str, ...]]:
    """What is known of the model, and what the user should know of that. Raises ModelConfigError."""
    entry = entry or ModelEntry()
    facts, certain = _facts(name, address, entry, table)
    # Where the window is the family's, the server may have narrowed it.
    window = entry.context_window or facts.usable_window
    prices, notes = _prices(name, address, entry, facts)
    server = Server(
        base_url=address.base_url,
        model=address.model,
        structured=entry.structured,
        max_tokens_field=entry.max_tokens_field or facts.max_tokens_field or "max_tokens",
        sends_temperature=_first(entry.sends_temperature, facts.sends_temperature, True),
        headers=tuple(entry.headers.items()),
        extra_body=tuple(entry.extra_body.items()),
    )
    spec = ModelSpec(
        name=name,
        context_window=window or ASSUMED_WINDOW,
        server=server,
        context_window_known=entry.context_window is not None or (certain and window is not None),
        max_output_tokens=entry.max_output_tokens or facts.max_output_tokens,
        prices=prices,
        limits=RateLimits(
            entry.requests_per_minute, entry.tokens_per_minute, entry.concurrency or RateLimits().concurrency
        ),
        profile=entry.profile or facts.profile or "large",
    )
    return spec, notes


def _facts(name: str, address: Address, entry: ModelEntry, table: FactsTable) -> tuple[Facts, bool]:
    """The facts that hold, and whether their window does so for certain."""
    if entry.like is not None:
        like = entry.like.strip()
        named, family = table.named(like), table.family(like)
        if named is None and family is None:
            close = process.extractOne(like.lower(), list(table.models), scorer=fuzz.ratio, score_cutoff=60)
            hint = f"did you mean {close[0]}?" if close else "take it out and give context_window and prices"
            raise ModelConfigError(name, f"nothing is known of {like}, which it is said to be like", hint)
        facts = (named or Facts()).over(family)
        # They were asked for, so they hold here as they do at the service.
        return facts.model_copy(update={"service": None}), named is not None
    named = table.named(address.model)
    if named is not None and named.service not in {None, address.service}:
        named = None
    certain = named is not None and named.context_window is not None and (named.service is None or address.original)
    return table.lookup(address.model, service=address.service) or Facts(), certain


def _prices(name: str, address: Address, entry: ModelEntry, facts: Facts) -> tuple[Prices | None, tuple[str, ...]]:
    if entry.prices is not None:
        return entry.prices.prices(), ()
    if facts.prices is None or not (facts.service is None or address.original):
        return None, ()
    if entry.context_window and facts.max_prompt_tokens and entry.context_window > facts.max_prompt_tokens:
        limit = f"{facts.max_prompt_tokens:,}"
        return None, (f"the known prices of {name} hold for prompts up to {limit} tokens, so its costs are not known",)
    return facts.prices.prices(), ()


def _first(*values: bool | None) -> bool:
    return next(value for value in values if value is not None)
