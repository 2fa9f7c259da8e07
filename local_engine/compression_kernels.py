"""What watching and cutting a cache computes on its pages, for one kind of device.

`compression_kernels_torch.py` does it by PyTorch's operators, for CPUs, and is what the other is held to;
`compression_kernels_triton.py` by our Triton kernels, for NVIDIA GPUs. A cache is given one of them when it is made
(`assembly.py`), and whoever computes on its pages takes `PageTables.kernels`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    import numpy as np

    from lcdoc.local_engine.batch import Batch
    from lcdoc.local_engine.compaction import Merging, Turn
    from lcdoc.local_engine.compression.parts import Heads
    from lcdoc.local_engine.compression.rows import Stored
    from lcdoc.local_engine.pages import PagePool, Pages
    from lcdoc.local_engine.stored_rows import Rows

Over = Literal["mean", "max"]


class CompressionKernels(Protocol):
    """Shapes as in `compression/parts.py`: H key-value heads with G query heads each, n entries, D numbers a head."""

    def window_scores(
        self,
        heads: Heads,
        queries: Tensor,
        query_positions: Tensor,
        over: Over,
        *,
        beside: Tensor | None = None,
        factors: Tensor | None = None,
    ) -> Tensor:
        """The mean, or the most, of the attention that queries [H, G, w, D] give each entry: float32 [H, n].

        The queries are rotated to `query_positions` (int64 [w]), and do not see entries behind these. `beside` float32
        [H, G, w] is the log-sum-exp of what else a query sees, which takes its part of the attention; `factors`
        float32 [w], above 0, is what a query's attention is multiplied by. A query that sees nothing gives nothing.
        """
        ...

    def log_mass(self, stored: Stored, queries: Tensor, scale: float, *, window: int | None = None) -> Tensor:
        """float32 [C, H, G]: log of the sum of exp(q k scale) over the entries that queries [C, H, G, D] see.

        They are the queries of the last C entries: each sees those up to its own, the last `window` of them.
        """
        ...

    def add_attention_mass(  # noqa: PLR0917
        self,
        mass: Tensor,
        layer: int,
        queries: Tensor,
        lse: Tensor | None,
        batch: Batch,
        index: int,
        scale: float,
        window: int | None,
    ) -> None:
        """Add to `mass` float32 [H, n] the attention that a pass's queries [C, H, G, D] gave each entry of a layer: the
        sum over the queries, the mean over the group.

        `index` is the piece of the batch whose queries they are, and its keys are in the cache already. `lse` float32
        [C, H * G] is what the operations of the same device left of them.
        """
        ...

    def adjacent_similarity(self, heads: Heads) -> Tensor:
        """float32 [H, n - 1]: the cosine of each entry's key and the next one's; 0 where one has no length."""
        ...

    def move(
        self,
        pool: PagePool,
        keep: Tensor,
        kept: NDArray[np.int32],
        source: Pages,
        target: Pages,
        *,
        merging: Merging | None = None,
        turn: Turn | None = None,
    ) -> None:
        """Move what `keep` (bool [L, H, n]) names, `kept` [L, H] of each row, in order, from the pages `source` [L, H,
        *] to the front of the pages `target`, which may name a row's own pages in the same columns.

        Before that others are merged into it, where it is: those pages must not be shared. On the way keys are turned.
        """
        ...

    def load(self, pool: PagePool, where: NDArray[np.int64], keys: Rows, values: Rows) -> None:
        """Write the entries of a snapshot [E] to the places `where` [E] of the pool, seen as [pages * page_size, D]."""
        ...
