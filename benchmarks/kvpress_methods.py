"""The methods of NVIDIA's kvpress that are among ours, as each of the two calls them; see `kvpress_agreement.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

TOKENS: Final = 620
SINKS: Final = 4
LAG: Final = 64
CHUNK: Final = 20
PIECE: Final = 256
"""Tokens that KVzip has repeated at a time."""
BELOW: Final = 199.998
"""200, for methods of kvpress that round what they drop down, not what they keep."""


@dataclass(frozen=True, slots=True)
class Method:
    """One method, as kvpress and as we call it."""

    press: Callable[[Any, float], Any]
    """From the module kvpress and the share to drop."""
    scorer: str
    options: dict[str, Any] = field(default_factory=dict)
    budget: str = "uniform"
    budget_options: dict[str, Any] = field(default_factory=dict)
    kept: float = 200
    """Entries of a row, on average."""
    sinks: int = 0
    recent: int = 0
    """What kvpress's score always keeps, and our mask protects."""
    eager: bool = False
    """Whether kvpress needs all attention."""
    repeats: bool = False
    """Whether the model repeats the text, and its queries then are looked at."""
    difference: str = ""
    """What is known to differ."""


@dataclass(frozen=True, slots=True)
class HalfBehind:
    """Given to kvpress as a share of budgets, a tensor: the window and half of what it leaves of each."""

    window: int

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, given: tuple[Any, ...] = (), named: Any = None) -> Any:
        budgets, half = given
        return half.window + (budgets - half.window) / 2


METHODS: Final[dict[str, Method]] = {
    "window": Method(lambda k, r: k.StreamingLLMPress(r, SINKS), "window", sinks=SINKS),
    "knorm": Method(lambda k, r: k.KnormPress(r), "knorm"),
    "keydiff": Method(lambda k, r: k.KeyDiffPress(r), "keydiff"),
    # Ranks of different partitions tie: so many are kept that whole ranks are.
    "lagkv": Method(lambda k, r: k.LagKVPress(r, SINKS, LAG), "lagkv", {"lag": LAG}, kept=SINKS + 104 + 8 * 25),
    "lagkv across": Method(
        lambda k, r: k.LagKVPress(r, SINKS, LAG, True), "lagkv", {"lag": LAG, "ranks": False}, sinks=SINKS, recent=104
    ),
    "snapkv": Method(lambda k, r: k.SnapKVPress(r, 32, 5), "snapkv", recent=32),
    "tova": Method(lambda k, r: k.TOVAPress(r), "tova", recent=1),
    "h2o": Method(lambda k, r: k.ObservedAttentionPress(r), "h2o", {"mean": True}, eager=True),
    "expected": Method(
        lambda k, r: k.ExpectedAttentionPress(r, epsilon=0.01, n_sink=SINKS), "expected", {"sinks": SINKS}, sinks=SINKS
    ),
    "expected, epsilon 0": Method(
        lambda k, r: k.ExpectedAttentionPress(r, n_sink=SINKS), "expected", {"epsilon": 0.0}, sinks=SINKS
    ),
    "chunkkv": Method(
        lambda k, r: k.ChunkKVPress(k.SnapKVPress(r, 2 * CHUNK, 5), CHUNK),
        "chunkkv",
        {"chunk": CHUNK, "window": 2 * CHUNK},
        recent=2 * CHUNK,
    ),
    "pyramid": Method(lambda k, r: k.PyramidKVPress(r, 8, 5), "snapkv", {"window": 8}, "pyramid", recent=8),
    "ada": Method(
        lambda k, r: k.AdaKVPress(k.SnapKVPress(r, 32, 5), 0.0), "snapkv", {}, "ada", {"alpha": 0.0}, recent=32
    ),
    "ada, floor 0.9": Method(
        lambda k, r: k.AdaKVPress(k.SnapKVPress(r, 32, 5), 0.9),
        "snapkv",
        {},
        "ada",
        {"alpha": 0.9},
        recent=32,
        difference="the floor: kvpress's is a share of the budget, ours of what protection leaves of it",
    ),
    "ada, expected": Method(
        lambda k, r: k.AdaKVPress(k.ExpectedAttentionPress(r, epsilon=0.01, n_sink=SINKS), 0.0),
        "expected",
        {},
        "ada",
        {"alpha": 0.0},
        sinks=SINKS,
    ),
    # kvpress's first stage counts the window in: 116 is the window and half of what it leaves.
    "criticalkv": Method(
        lambda k, r: k.CriticalKVPress(k.SnapKVPress(r, 32, 5), first_stage_ratio=116.5 / 200),
        "criticalkv",
        recent=32,
    ),
    "criticalkv, ada": Method(
        lambda k, r: k.CriticalAdaKVPress(k.SnapKVPress(r, 32, 5), 0.0, first_stage_ratio=HalfBehind(32)),
        "criticalkv",
        {},
        "ada",
        {"alpha": 0.0},
        recent=32,
    ),
    "criticalkv, plain ada": Method(
        lambda k, r: k.CriticalAdaKVPress(k.SnapKVPress(r, 32, 5), 0.0),
        "criticalkv",
        {},
        "ada",
        {"alpha": 0.0},
        recent=32,
        difference="kvpress's first stage counts the window in",
    ),
    "compactor": Method(
        lambda k, r: k.CompactorPress(r, 8, 4, 152, 48, 0.5),
        "compactor",
        {"chunk": 152, "weight": 0.5},
        sinks=8,
        recent=4,
        difference="our chunks begin at the first entry, not behind the sinks, and the sketch is drawn otherwise",
    ),
    "kvzip": Method(
        lambda k, r: k.KVzipPress(r, n_sink=SINKS, chunk_size=PIECE),
        "kvzip",
        {},
        "global",
        kept=BELOW,
        sinks=SINKS,
        repeats=True,
    ),
    "kvzip+": Method(
        lambda k, r: k.KVzipPress(r, n_sink=SINKS, chunk_size=PIECE, kvzip_plus_normalization=True),
        "kvzip+",
        {},
        "global",
        kept=BELOW,
        sinks=SINKS,
        repeats=True,
    ),
    "kvzip, layers alike": Method(
        lambda k, r: k.KVzipPress(r, True, SINKS, chunk_size=PIECE),
        "kvzip",
        {},
        "ada",
        {"alpha": 0.0},
        kept=BELOW,
        sinks=SINKS,
        repeats=True,
    ),
}
