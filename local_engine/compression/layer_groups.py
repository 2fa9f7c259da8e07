"""Groups of neighbouring layers, for methods by which some layers decide for others."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from lcdoc.local_engine.errors import InvalidRequestError


def group_numbers(layers: int, groups: int) -> list[int]:
    """For each layer the number of its group, from 0; of `groups` groups that are as equal as can be. Where there are
    fewer layers, each is a group."""
    groups = min(groups, layers)
    return [layer * groups // layers for layer in range(layers)]


def deciding_layers(kinds: Sequence[Hashable], groups: int | None) -> list[int]:
    """For each layer the one that decides for it: the first of its group that is of its kind. None: it does itself."""
    if groups is None:
        return list(range(len(kinds)))
    first: dict[tuple[int, Hashable], int] = {}
    numbered = zip(group_numbers(len(kinds), groups), kinds, strict=True)
    return [first.setdefault(key, layer) for layer, key in enumerate(numbered)]


def check_groups(name: str, groups: int | None) -> None:
    """Raises InvalidRequestError for a number of groups that there cannot be."""
    if groups is not None and groups < 1:
        raise InvalidRequestError(f"{name}: groups is {groups}: give 1 or more, or none")
