"""How the last queries attend to the cache: the strip of attention that most scorers look at.

Only w x n numbers for each query head, w being the window: nothing grows with the square of the text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from lcdoc.local_engine.compression.parts import Heads


def window_logits(
    queries: Tensor,
    keys: Tensor,
    query_positions: Tensor,
    positions: Tensor,
    scale: float,
    *,
    bias: Tensor | None = None,
) -> Tensor:
    """q k * scale + bias where a query may see the key, the lowest float32 where not: float32 [H, G, w, n].

    Shapes as for `window_attention`.
    """
    heads, group, window, _ = queries.shape
    # The group's queries are rows of one product, so that no key is copied for each of them.
    logits = queries.to(torch.float32).flatten(1, 2) @ keys.to(torch.float32).mT
    logits = logits.view(heads, group, window, -1).mul_(scale)
    if bias is not None:
        logits += bias[:, None, None]
    hidden = positions[:, None, None] > query_positions[:, None]
    return logits.masked_fill_(hidden, torch.finfo(torch.float32).min)


def window_attention(
    queries: Tensor,
    keys: Tensor,
    query_positions: Tensor,
    positions: Tensor,
    scale: float,
    *,
    bias: Tensor | None = None,
    beside: Tensor | None = None,
) -> Tensor:
    """Attention of each query over the entries that are not behind it: float32 [H, G, w, n].

    `queries` [H, G, w, D] and `keys` [H, n, D] are rotated to `query_positions` int64 [w] and `positions` int64 [H, n].
    `bias` float32 [H, n] is added to what is scaled. `beside` float32 [H, G, w] is the log-sum-exp of what else a query
    sees, which takes its part of the attention. A query that sees nothing attends to nothing: its row is 0.
    """
    logits = window_logits(queries, keys, query_positions, positions, scale, bias=bias)
    blind = (positions.amin(-1, keepdim=True) > query_positions)[:, None, :, None]
    if beside is None:
        return logits.softmax(-1).masked_fill_(blind, 0.0)
    taken = (logits.logsumexp(-1) - beside).sigmoid_().unsqueeze(-1)
    return logits.softmax(-1).mul_(taken).masked_fill_(blind, 0.0)


def window_queries(heads: Heads, last: int | None = None) -> tuple[Tensor, Tensor]:
    """The `last` queries ([H, G, w, D]) and their positions ([w]); all there are by default.

    Another part of the recipe may have asked for a longer window. Raises ValueError where no queries came.
    """
    if heads.queries is None or heads.query_positions is None or not len(heads.query_positions):
        raise ValueError(f"layer {heads.model.layer} came without queries: ask for them by `Needs.window`")
    if last is None:
        return heads.queries, heads.query_positions
    return heads.queries[:, :, -last:], heads.query_positions[-last:]


def mean_attention(heads: Heads, last: int | None = None) -> Tensor:
    """The attention that the `last` queries give each entry, its mean over them and the group: float32 [H, n]."""
    return heads.kernels.window_scores(heads, *window_queries(heads, last), "mean")


def before_window(heads: Heads, last: int | None = None) -> Tensor:
    """bool [H, n]: entries in front of the first of the `last` queries, which all of these could see."""
    _, query_positions = window_queries(heads, last)
    return heads.rotated_at < query_positions[0]
