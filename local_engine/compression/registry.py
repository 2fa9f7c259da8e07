"""The parts there are, by name. A new one is a file and an entry here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import Any, Final, Literal

from lcdoc.local_engine.compression.parts import names
from lcdoc.local_engine.errors import InvalidRequestError

Kind = Literal["scorer", "budget", "reducer"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A part, told to who chooses one."""

    where: str
    """`module:Class` in the room of its kind."""
    about: str
    """What it keeps, gives or does, as the end of a line that begins with its name."""
    papers: tuple[str, ...] = ()
    """What it is called elsewhere."""
    group: str = ""
    """Of a scorer: what it needs."""
    asks: bool = False
    """Whether it is only as good as its knowledge of the question: no scorer for texts that are kept for later ones."""


_NOTHING: Final = "needs nothing"
_TEXT: Final = "needs the text, and no question"
_QUESTION: Final = "needs the question, at the end of the prompt"
_SECOND_READING: Final = "needs a second reading of the text, and no question"
_MORE: Final = "needs the question, and reads or writes on at each cut"

SCORERS: Final[Mapping[str, Entry]] = {
    "window": Entry("window:Window", "the first and the last entries", ("StreamingLLM", "LM-Infinite"), _NOTHING),
    "knorm": Entry("knorm:KeyNorm", "short keys", ("L2 norm",), _TEXT),
    "keydiff": Entry("keydiff:KeyDiff", "keys that are unlike the others", ("KeyDiff",), _TEXT),
    "lagkv": Entry("lagkv:LagKV", "entries unlike the stretch behind them", ("LagKV",), _TEXT),
    "entropy": Entry("entropy:Entropy", "tokens that the model did not foresee", ("SirLLM",), _TEXT),
    "h2o": Entry("h2o:HeavyHitters", "what all the text attends to", ("H2O",), _TEXT),
    "expected": Entry(
        "expected:ExpectedAttention", "what later queries should attend to", ("Expected Attention",), _TEXT
    ),
    "compactor": Entry("compactor:Compactor", "rare keys, and what is near attends to", ("Compactor",), _TEXT),
    "tova": Entry("tova:Tova", "what the last query attends to, for all heads alike", ("TOVA",), _QUESTION, True),
    "snapkv": Entry("snapkv:SnapKV", "what the last queries attend to, and beside it", ("SnapKV",), _QUESTION, True),
    "keyformer": Entry("keyformer:Keyformer", "what they attend to under noise", ("Keyformer",), _QUESTION, True),
    "criticalkv": Entry(
        "criticalkv:CriticalKV", "what they attend to and the output needs", ("CriticalKV",), _QUESTION, True
    ),
    "chunkkv": Entry("chunkkv:ChunkKV", "whole chunks of text that they attend to", ("ChunkKV",), _QUESTION, True),
    "windowkv": Entry(
        "windowkv:WindowKV", "whole windows of text, for groups of layers", ("WindowKV",), _QUESTION, True
    ),
    "sentence": Entry("sentence:SentenceKV", "whole sentences that they attend to", ("SentenceKV",), _QUESTION, True),
    "kvzip": Entry("kvzip:KVzip", "what telling the text again attends to", ("KVzip",), _SECOND_READING),
    "kvzip+": Entry("kvzip:KVzipPlus", "what of that the output needs", ("KVzip+",), _SECOND_READING),
    "task": Entry("task:TaskAware", "what the task or question attends to", ("Finch", "Beyond RAG"), _MORE, True),
    "speckv": Entry("speckv:SpecKV", "what a draft of the answer attends to", ("SpecKV",), _MORE, True),
}
BUDGETS: Final[Mapping[str, Entry]] = {
    "uniform": Entry("uniform:Uniform", "all the same"),
    "pyramid": Entry("pyramid:Pyramid", "more for lower layers than for upper ones", ("PyramidKV",)),
    "d2o-layers": Entry("d2o_layers:D2OLayers", "more for layers whose attention is spread", ("D2O",)),
    "ada": Entry("ada:Ada", "the heads of a layer compete", ("Ada-KV",)),
    "global": Entry("global_top:Global", "all heads of all layers compete", ("KVzip",)),
    "static": Entry("static_heads:StaticHeads", "more for heads that fetch from afar", ("DuoAttention",)),
    "threshold": Entry("threshold:Threshold", "all that score tau or more, up to the budget", ("KVzap", "DMS")),
}
REDUCERS: Final[Mapping[str, Entry]] = {
    "drop": Entry("drop:Drop", "they are gone"),
    "value-merge": Entry("value_merge:ValueMerge", "values go into the most similar kept entry", ("MergingPress",)),
    "kvmerger": Entry("kvmerger:KVMerger", "runs of similar neighbours become one entry", ("KVMerger",)),
    "d2o": Entry("d2o:D2O", "what is like a kept entry goes into it", ("D2O",)),
    "cam": Entry("cam:CaM", "values are spread over the kept entries behind", ("CaM",)),
    "match": Entry(
        "attention_matching:AttentionMatching", "what is kept is fitted to answer for all", ("Attention Matching",)
    ),
}
_ROOMS: Final[Mapping[Kind, tuple[str, Mapping[str, Entry]]]] = {
    "scorer": ("scorers", SCORERS),
    "budget": ("budgets", BUDGETS),
    "reducer": ("reducers", REDUCERS),
}
_LIKE_ENOUGH: Final = 0.55


def kind_of(name: str) -> Kind:
    """What kind of part `name` is. Raises InvalidRequestError for a name that is none, with what may be meant."""
    for kind, (_, known) in _ROOMS.items():
        if name in known:
            return kind
    meant = _meant(name)
    listed = "; ".join(f"{kind}s: {names(list(known))}" for kind, (_, known) in _ROOMS.items())
    remedy = f": did you mean {meant}?" if meant else f" ({listed})"
    raise InvalidRequestError(f"{name!r} is no part of a compression recipe{remedy}")


def entry_of(name: str) -> Entry:
    """What is told of a part. Raises InvalidRequestError for a name that is none."""
    return _ROOMS[kind_of(name)][1][name]


def part_class(name: str) -> type[Any]:
    """The class of a part. Raises InvalidRequestError for a name that is none."""
    room, known = _ROOMS[kind_of(name)]
    module, _, attribute = known[name].where.partition(":")
    found: type[Any] = getattr(import_module(f"lcdoc.local_engine.compression.{room}.{module}"), attribute)
    return found


def _meant(name: str) -> str | None:
    """The part whose name, or what it is called elsewhere, is most like `name`."""
    called: dict[str, str] = {}
    for _, known in _ROOMS.values():
        called |= {paper.lower(): part for part, entry in known.items() for paper in entry.papers}
    called |= {part: part for _, known in _ROOMS.values() for part in known}
    like = get_close_matches(name.lower(), called, n=1, cutoff=_LIKE_ENOUGH)
    return called[like[0]] if like else None
