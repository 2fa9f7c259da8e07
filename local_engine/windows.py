"""How many tokens of prompt and answer a request may have: what the model's window allows, and what the cache holds."""

from __future__ import annotations

import math
from typing import Final

from lcdoc.local_engine.compression.allowance import Allowance
from lcdoc.local_engine.compression.positions import Capped, SelfExtend
from lcdoc.local_engine.config import ModelConfig
from lcdoc.local_engine.errors import InvalidRequestError, RequestTooLargeError
from lcdoc.local_engine.page_tables import PageTables
from lcdoc.local_engine.snapshot import Snapshot

_ENDLESS: Final = 1_000_000_000
"""The window of a text that is moved together as it is read: what positions of 32 bits hold, in round figures."""


def rotated_by_length(config: ModelConfig) -> bool:
    """Whether keys depend on how long the whole prompt is, and fit no prompt of another length."""
    return config.rope.kind in {"dynamic", "longrope"}


def room_in_full(tables: PageTables) -> int:
    """Entries a row that the cache holds, of one sequence that has all of it."""
    return tables.pool.pages // (tables.layers * tables.kv_heads) * tables.pool.page_size


def window_in_full(config: ModelConfig, tables: PageTables) -> int:
    """Where everything is kept."""
    return min(config.context_window, room_in_full(tables))


def window_behind(config: ModelConfig, tables: PageTables, prefix: Snapshot) -> int:
    """A snapshot's text among them: the model's window, where the text's entries stand, or what the cache holds behind
    them."""
    size = tables.pool.page_size
    row_pages = tables.pool.pages // prefix.lengths.size
    uniform = bool((prefix.lengths == prefix.lengths.flat[0]).all())
    held = int(prefix.lengths.flat[0]) if uniform else math.ceil(prefix.lengths.mean()) + size
    return min(config.context_window + prefix.shift, prefix.read + max(0, row_pages * size - held))


def window_cut(config: ModelConfig, allowance: Allowance) -> int:
    """Where the cache holds only a part of them. Raises RequestTooLargeError, InvalidRequestError."""
    recipe, trained = allowance.recipe, config.context_window
    if not recipe.moves:
        return trained
    if rotated_by_length(config):
        raise InvalidRequestError(
            f"{recipe}: keys of this model are rotated by the text's length and cannot be moved: take "
            "positions=original"
        )
    if recipe.when == "end":
        return trained
    room = trained - allowance.chunk
    if isinstance(recipe.scheme, SelfExtend):
        group, neighbours = recipe.scheme.group, recipe.scheme.neighbours
        return max(0, room - neighbours + neighbours // group) * group
    held = recipe.scheme.reach if isinstance(recipe.scheme, Capped) else allowance.budget(0)
    if held > room:
        raise RequestTooLargeError(
            f"{recipe} holds entries up to {held:,} tokens away, and the model's window of {trained:,} leaves "
            f"{room:,} beside a chunk: keep fewer, or set reach"
        )
    return _ENDLESS
