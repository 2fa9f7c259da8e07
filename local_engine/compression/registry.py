"""The parts there are, by name. A new one is a file and a line here."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Literal

from lcdoc.local_engine.compression.parts import names
from lcdoc.local_engine.errors import InvalidRequestError

Kind = Literal["scorer", "budget", "reducer"]

SCORERS = {
    "window": "window:Window",
    "h2o": "h2o:HeavyHitters",
    "tova": "tova:Tova",
    "snapkv": "snapkv:SnapKV",
    "chunkkv": "chunkkv:ChunkKV",
    "keyformer": "keyformer:Keyformer",
    "entropy": "entropy:Entropy",
    "knorm": "knorm:KeyNorm",
    "keydiff": "keydiff:KeyDiff",
    "lagkv": "lagkv:LagKV",
    "expected": "expected:ExpectedAttention",
    "compactor": "compactor:Compactor",
    "criticalkv": "criticalkv:CriticalKV",
    "kvzip": "kvzip:KVzip",
    "kvzip+": "kvzip:KVzipPlus",
    "task": "task:TaskAware",
    "windowkv": "windowkv:WindowKV",
    "sentence": "sentence:SentenceKV",
    "speckv": "speckv:SpecKV",
}
BUDGETS = {
    "uniform": "uniform:Uniform",
    "pyramid": "pyramid:Pyramid",
    "ada": "ada:Ada",
    "global": "global_top:Global",
    "d2o-layers": "d2o_layers:D2OLayers",
    "static": "static_heads:StaticHeads",
    "threshold": "threshold:Threshold",
}
REDUCERS = {
    "drop": "drop:Drop",
    "value-merge": "value_merge:ValueMerge",
    "kvmerger": "kvmerger:KVMerger",
    "d2o": "d2o:D2O",
    "cam": "cam:CaM",
    "match": "attention_matching:AttentionMatching",
}
_ROOMS: dict[Kind, tuple[str, dict[str, str]]] = {
    "scorer": ("scorers", SCORERS),
    "budget": ("budgets", BUDGETS),
    "reducer": ("reducers", REDUCERS),
}


def kind_of(name: str) -> Kind:
    """What kind of part `name` is. Raises InvalidRequestError for a name that is none, with those that are."""
    for kind, (_, known) in _ROOMS.items():
        if name in known:
            return kind
    listed = "; ".join(f"{kind}s: {names(list(known))}" for kind, (_, known) in _ROOMS.items())
    raise InvalidRequestError(f"{name!r} is no part of a compression recipe ({listed})")


def part_class(name: str) -> type[Any]:
    """The class of a part. Raises InvalidRequestError for a name that is none."""
    kind = kind_of(name)
    room, known = _ROOMS[kind]
    module, _, attribute = known[name].partition(":")
    found: type[Any] = getattr(import_module(f"lcdoc.local_engine.compression.{room}.{module}"), attribute)
    return found
