"""What a compression method is made of, and what its parts see.

A method is a recipe: a `Scorer` says which entries of the cache matter, a `Budget` how many each layer and head keeps,
and a `Reducer` what becomes of the rest. Each part is one file, named in `registry.py`; any can be combined with any,
unless a part says otherwise. What runs them, when, is `compressor.py`.

Shapes: L layers; H key-value heads; G query heads for each of them; n entries of a row; D numbers a head. Entries are
in the order of their positions. A row (one head of one layer) may be shorter than its neighbour once it was cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, cast

from torch import Tensor

from lcdoc.local_engine.compression.rows import Stored
from lcdoc.local_engine.compression_kernels_torch import TORCH

if TYPE_CHECKING:
    from lcdoc.local_engine.compression_kernels import CompressionKernels

Probe = Literal["repeat", "task", "draft"]
"""What a scorer has the model read after the text, only to see what its queries attend to: the text once more, piece by
piece (KVzip); a description of the task (Finch); an answer drafted on the compressed cache (SpecKV)."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What a scorer wants the engine to compute beside the keys and values. What nobody needs is not computed."""

    window: int = 0
    """The queries of so many last tokens of what was read since the last cut."""
    mass: bool = False
    """The attention each entry got from every query so far: `Heads.state["mass"]` and `["seen"]`, how many queries
    could see it."""
    moments: bool = False
    """Mean and covariance of the queries before rotation."""
    surprise: bool = False
    """-log p of each token given those before it: `Heads.state["surprise"]`."""
    probe: Probe | None = None
    """`window` and `queries` are then those of the probe, and `score` is called for each piece of it; of several
    scores for one entry the highest counts."""
    hidden: bool = False
    """The attention's input that the window's queries were made of."""
    whole_layer: bool = False
    """The score is one for all heads of a layer: rows of a layer cannot differ in length then."""
    groups: int | None = None
    """So many groups of layers, the first layer of each being scored for the others: for an entry at the same place in
    the text the score is the same. None: every layer is scored. See `layer_groups.py`."""
    recent: float = 0.0
    """The share of a row's budget that is protected as its last entries, where the recipe does not say how many."""


@dataclass(frozen=True, slots=True)
class Moments:
    """Of the queries of one layer before rotation, over all tokens read but the sinks."""

    mean: Tensor
    """float32 [H, G, D]"""
    covariance: Tensor
    """float32 [H, G, D, D]"""


@dataclass(frozen=True, slots=True)
class LayerModel:
    """What parts may ask of the model, for one layer."""

    layer: int
    layers: int
    scale: float
    """What attention multiplies q k by."""
    rotate: Callable[[Tensor, Tensor], Tensor]
    """x [..., n, D], positions int64 [..., n] or [n] -> x rotated to those positions. Negative positions rotate back:
    `rotate(keys, -positions)` gives keys as before rotation."""
    output: Callable[[], Tensor]
    """The output projection's weight, [hidden, H, G, D], of these heads."""
    kv_heads: int
    """Of the layer, where `Heads` may show fewer."""


def on_demand(read: Callable[[], Tensor]) -> Tensor:
    """For `keys` and `values` of `Heads`: what is read when it is first asked for."""
    return cast("Tensor", read)


class _OnDemand:
    """A tensor that may be given as a function, which is called when the attribute is first read."""

    def __init__(self, name: str) -> None:
        self._name = f"_{name}"

    def __get__(self, instance: object, owner: type) -> Tensor:
        given: Tensor | Callable[[], Tensor] = vars(instance)[self._name]
        if not isinstance(given, Tensor):
            given = vars(instance)[self._name] = given()
        return given

    def __set__(self, instance: object, given: Tensor | Callable[[], Tensor]) -> None:
        vars(instance)[self._name] = given


@dataclass(frozen=True)
class Heads:
    """The cache of some heads of one layer, all of them with n entries, at the moment it is to be cut.

    Where all rows of a layer are equally long these are all its heads; else a scorer is called head by head.
    """

    model: LayerModel
    keys: Tensor
    """[H, n, D], rotated to `rotated_at`, in the cache's dtype; parts compute in float32. Keys and values are copied
    out of the cache when they are first asked for, which is to be before the cut."""
    values: Tensor
    """[H, n, D]"""
    positions: Tensor
    """int64 [H, n]: where in the text each entry stands."""
    rotated_at: Tensor
    """int64 [H, n]: the position a key is rotated to; differs from `positions` once entries were packed."""
    protected: Tensor
    """bool [H, n]: sinks, the recent window, and named spans, which are kept whatever their score."""
    new: int
    """How many entries, the last ones, were read since the last cut."""
    queries: Tensor | None = None
    """[H, G, w, D], rotated: see `Needs`. w is smaller where less was read."""
    query_positions: Tensor | None = None
    """int64 [w]: what they are rotated to. An entry behind a query's position is not seen by it; probes come after the
    text and see all."""
    beside: Tensor | None = None
    """float32 [H, G, w]: the log-sum-exp of what each query of a probe gives to the probe's own tokens up to itself,
    which are not among the entries and share its attention."""
    hidden: Tensor | None = None
    """[w, hidden]"""
    moments: Moments | None = None
    state: dict[str, Tensor] = field(default_factory=dict)
    """Figures kept for each entry, float32 [H, n], that go where the entry goes; a scorer may add its own."""
    sentence_starts: Tensor | None = None
    """bool [H, n]: entries whose token begins a sentence, where the caller said so."""
    first: int = 0
    """Of the layer's heads, which one is first here."""
    stored: Stored | None = None
    """Where the entries are in a cache; None: in none."""

    @property
    def kernels(self) -> CompressionKernels:
        """What computes on them."""
        return TORCH if self.stored is None else self.stored.kernels


for _name in ("keys", "values"):  # behind the decorator, which would take them for defaults
    setattr(Heads, _name, _OnDemand(_name))


class Scorer(Protocol):
    """Which entries matter."""

    @property
    def needs(self) -> Needs: ...

    def score(self, heads: Heads) -> Tensor:
        """float32 [H, n]: the higher, the sooner kept. What is protected is so by a mask; its scores do not matter."""
        ...


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of a whole sequence, at one cut."""

    values: Tensor
    """float32 [L, H, n], rows filled up to the longest with -inf"""
    valid: Tensor
    """bool [L, H, n]: entries that are there"""
    protected: Tensor
    """bool [L, H, n]: to be kept in any case, and counted in the budget"""
    budget: int
    """Entries that a row may keep on average"""
    window: int
    """Of the protected entries, how many last ones are there because they are recent"""
    spread: Tensor | None = None
    """float32 [L]: how evenly each layer's attention is spread, where the budget asked for it (see `Budget.needs`)"""


class Budget(Protocol):
    """How many entries each row keeps."""

    @property
    def ragged(self) -> bool:
        """Whether heads of one layer may keep different numbers."""
        ...

    @property
    def needs(self) -> Needs: ...

    def keep(self, scores: Scores) -> Tensor:
        """bool [L, H, n]: what is kept. At most `budget * L * H` in all, unless more are protected; with all protected
        entries, and nothing that is not valid."""
        ...


@dataclass(frozen=True, slots=True)
class Reduced:
    """Entries after what is dropped was made up for in what is kept; only kept entries matter."""

    keys: Tensor
    """[H, n, D]"""
    values: Tensor
    bias: Tensor | None = None
    """float32 [H, n], added to q k * scale"""


@dataclass(frozen=True, slots=True)
class Merged:
    """What is dropped goes into what is kept, each entry into one: a kept entry becomes the sum of all that go into it,
    itself among them, each by its share. It is carried out where the entries move."""

    into: Tensor
    """int64 [H, n]: the entry that an entry goes into, a kept one into itself; -1 for none"""
    shares: Tensor
    """float32 [H, n]"""
    keys: bool = True
    """Whether keys are merged, too, or values alone."""
    bias: Tensor | None = None
    """float32 [H, n], added to q k * scale"""


class Reducer(Protocol):
    """What becomes of entries that are not kept."""

    @property
    def needs(self) -> Needs: ...

    @property
    def biased(self) -> bool:
        """Whether it gives a bias."""
        ...

    def reduce(self, heads: Heads, keep: Tensor, scores: Tensor) -> Reduced | Merged:
        """`keep` bool [H, n] and `scores` float32 [H, n] as the other parts gave them."""
        ...


Part = Scorer | Budget | Reducer
Make = Callable[..., Part]
"""A part's class; its keyword arguments are the options a recipe may set."""


def names(parts: Sequence[str]) -> str:
    """For messages: `a, b or c`."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} or {parts[-1]}"
