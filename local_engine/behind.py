"""Reading on behind a snapshot: what a recipe may do to it, and what it has to know of it.

By default a snapshot's entries are kept: the recipe is for what comes behind, so that a long answer stays small and the
text is there for the next question, untouched. Where they may be evicted, they and what comes behind are one text: the
amount counts both, and a scorer that goes by what it saw while the text was read has to find that in the snapshot.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from lcdoc.local_engine.compression.entries import Entries, Layout
from lcdoc.local_engine.compression.observation import MASS
from lcdoc.local_engine.compression.positions import Capped, SelfExtend
from lcdoc.local_engine.compression.recipe import Recipe
from lcdoc.local_engine.errors import InvalidRequestError
from lcdoc.local_engine.page_tables import PageTables
from lcdoc.local_engine.snapshot import Snapshot


def check_behind(recipe: Recipe, prefix: Snapshot, *, evicts: bool) -> None:
    """Raise InvalidRequestError where a recipe cannot go on behind a snapshot, which it `evicts` from or keeps."""
    check_scheme(recipe)
    if not evicts:
        if recipe.moves:
            raise InvalidRequestError(
                f"{recipe}: a snapshot's entries stay where they stand: leave positions out, or set evict_prefix"
            )
        if not recipe.drops:
            raise InvalidRequestError(
                f"{recipe}: {recipe.chosen_reducer.name} would merge into a snapshot that is to be kept: leave it out, "
                "or set evict_prefix"
            )
        return
    needs = recipe.needs
    if needs.moments or needs.surprise:
        raise InvalidRequestError(
            f"{recipe} goes by all queries or tokens of the text, which no snapshot holds: read the text with it, or "
            "keep the snapshot"
        )
    lacking = needs.mass and MASS not in prefix.figures
    lacking |= needs.probe == "repeat" and prefix.first > 0
    if lacking and not _alike(recipe, prefix):
        raise InvalidRequestError(
            f"{recipe} goes by what it saw while the text was read, and the snapshot was read with {prefix.recipe}: "
            "read the text with it, or keep the snapshot"
        )


def check_scheme(recipe: Recipe) -> None:
    """Raise InvalidRequestError for a recipe whose keys look otherwise to each token, which no snapshot can hold."""
    if isinstance(recipe.scheme, SelfExtend | Capped):
        raise InvalidRequestError(
            f"{recipe}: a snapshot holds one place for each entry, and {recipe.positions.name} has two distances: take "
            "positions=compact or original"
        )


def entries_behind(prefix: Snapshot, tables: PageTables) -> Entries:
    """What is known of a sequence that begins with a snapshot, before anything is read behind it."""
    device = tables.pool.device
    lengths = torch.from_numpy(prefix.lengths).to(device)
    inside = torch.arange(int(lengths.max()), device=device) < lengths[..., None]

    def rows(flat: Tensor, dtype: torch.dtype) -> Tensor:
        made = torch.zeros(inside.shape, dtype=dtype, device=device)
        made[inside] = flat.to(device, dtype)
        return made

    late = prefix.read - prefix.first
    most = int(lengths.max()) - late
    cut = torch.arange(most, device=device) < (lengths - late)[..., None]
    positions, stands = (rows(each, torch.int64)[..., :most] for each in (prefix.positions, prefix.rotated_at))
    entries = Entries(tables.layers, tables.kv_heads, device)
    entries.begin(
        Layout(positions, stands, cut),
        {name: rows(figure, torch.float32) for name, figure in prefix.figures.items()},
        first=prefix.first,
        base=prefix.first - prefix.shift,
        read=prefix.read,
    )
    return entries


def entries_unseen(prefix: Snapshot, tables: PageTables, read: int) -> Entries:
    """The same of one that has read on, `read` tokens in all, with no recipe that saw it."""
    # What a recipe notes at a cut it will note of the late entries then; what it gathers from each query is incomplete.
    noted = {name: figure for name, figure in prefix.figures.items() if name != MASS}
    entries = entries_behind(replace(prefix, figures=noted), tables)
    entries.read = read
    return entries


def _alike(recipe: Recipe, prefix: Snapshot) -> bool:
    """Whether the snapshot was read with the same parts, however much it kept."""
    try:
        other = Recipe.parse(prefix.recipe)
    except InvalidRequestError:
        return False  # everything was kept, or first one recipe and then another cut it
    return (recipe.chosen_scorer, recipe.chosen_budget, recipe.chosen_reducer) == (
        other.chosen_scorer,
        other.chosen_budget,
        other.chosen_reducer,
    )
