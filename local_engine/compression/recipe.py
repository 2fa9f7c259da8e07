"""A compression method by name: which parts it is made of, how much it keeps, and when.

    snapkv@0.25                              keep a quarter of the entries, by SnapKV's score
    keydiff@2048tok                          keep 2,048 entries a row
    snapkv:window=64,kernel=5+ada:alpha=0.2+kvmerger@0.25
    window+sinks=16+when=during+positions=compact@4096tok
    knorm+positions=self-extend:group=8,neighbours=512@0.25
    kvzip+ratio=0.25, or kvzip:ratio=0.25    the amount, written as an option

A recipe is items joined by `+`, and the amount behind an `@`. An item is a part (`registry.py` lists them) with its
options behind a colon, `name:option=value,option=value`, or an option of the recipe itself, `option=value`: sinks,
recent, protect (named, headings, starts, none), when (during, end), positions (original, compact, self-extend, capped),
and ratio or tokens. There is one scorer, at most one budget (else `uniform`) and at most one reducer (else `drop`), in
any order. A part whose name ends in a plus keeps it: `kvzip+@0.25`, `kvzip++ada@0.25`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, Literal, Self, cast

from lcdoc.local_engine.compression.options import option_values, read_value, written
from lcdoc.local_engine.compression.parts import Budget, Needs, Part, Probe, Reducer, Scorer, names
from lcdoc.local_engine.compression.positions import Capped, Compact, Original, Positions, SelfExtend
from lcdoc.local_engine.compression.registry import SCORERS, Kind, kind_of, part_class
from lcdoc.local_engine.compression.scorers.snapkv import SnapKV
from lcdoc.local_engine.errors import InvalidRequestError

When = Literal["during", "end"]
Protect = Literal["named", "headings", "starts", "none"]

FULL: Final = "full"
"""In place of a recipe: keep everything, whatever the engine's own recipe is."""
AUTO: Final = "auto"
"""In place of a recipe: what `auto.auto_recipe` takes for a request, by its length and the memory there is."""
_RECIPE_OPTIONS: Final = ("sinks", "recent", "protect", "when", "positions", "ratio", "tokens")
SCHEMES: Final[dict[str, type[Positions]]] = {
    "original": Original,
    "compact": Compact,
    "self-extend": SelfExtend,
    "capped": Capped,
}
_DEFAULTS: Final[dict[Kind, str]] = {"budget": "uniform", "reducer": "drop"}
_SINKS: Final = 4
_RECENT: Final = 32
_LEAST_PART: Final = 8
"""Of a small budget, at most so small a part goes to last entries that nothing is known to ask for."""


@dataclass(frozen=True, slots=True)
class Named:
    """A part and the name it goes by."""

    name: str
    part: Part | Positions

    def __str__(self) -> str:
        options = written(self.part)
        return f"{self.name}:{options}" if options else self.name


@dataclass(frozen=True, slots=True)
class Amount:
    """How much is kept: a share of all that was read, or so many entries a row."""

    ratio: float | None = None
    tokens: int | None = None

    def entries(self, read: int) -> int:
        """Entries that a row keeps on average when `read` tokens were read, at least one."""
        if self.tokens is not None:
            return self.tokens
        # As a fraction of what was written: 0.07 of 100 tokens are 7, which binary fractions make 8 of.
        return max(1, math.ceil(Fraction(repr(self.ratio)) * read))

    def __str__(self) -> str:
        return f"@{self.ratio}" if self.tokens is None else f"@{self.tokens}tok"


@dataclass(frozen=True, slots=True)
class Recipe:
    """A compression method. Made by `Recipe.parse`; `str` gives it back in one canonical spelling."""

    chosen_scorer: Named
    chosen_budget: Named
    chosen_reducer: Named
    amount: Amount
    sinks: int = _SINKS
    """First entries that are always kept."""
    recent: int | None = None
    """Last entries that are always kept. None: as many as there are queries in the window that a scorer takes for the
    question, or as its share of the budget asks for, then at most half of the budget; else 32, or an 8th of it."""
    protect: Protect = "named"
    """What else is kept in any case of what the caller knows of the text, within half of the budget (`Marks.settled`):
    `named` spans, such as question and instructions; these and `headings`, or the `starts` of sentences; or `none`."""
    when: When = "during"
    """`during`: after each chunk of the prompt, so that no more than budget + chunk entries a row are ever held; `end`:
    once the prompt is read, as the literature does."""
    positions: Named = Named("original", Original())
    """Where what is kept stands after a cut: see `positions.py`. All but `original` let a text be longer than the
    model's window."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """The recipe that `text` names; see the module. Raises InvalidRequestError naming what is wrong in it."""
        spelled, amount = _split_amount(text)
        options: dict[str, str] = {}
        parts: dict[Kind, Named] = {}
        for item in _items(spelled, text):
            name, colon, listed = item.partition(":")
            if "=" in name:
                _add_options(options, item if colon else name, text)
                continue
            kind = kind_of(name)
            if kind in parts:
                raise InvalidRequestError(
                    f"{text!r} names two {kind}s, {parts[kind].name} and {name}: a recipe has one of each kind"
                )
            parts[kind] = _part(name, listed, options, text)
        if "scorer" not in parts:
            raise InvalidRequestError(f"{text!r} names no scorer: begin with one, as in snapkv@0.25")
        for kind, name in _DEFAULTS.items():
            if kind not in parts:
                parts[kind] = Named(name, part_class(name)())
        kept = _amount(amount, options, text)
        recipe = cls(parts["scorer"], parts["budget"], parts["reducer"], kept, **_frame(options, text))
        recipe._check(text)
        return recipe

    @property
    def scorer(self) -> Scorer:
        return cast("Scorer", self.chosen_scorer.part)

    @property
    def budget(self) -> Budget:
        return cast("Budget", self.chosen_budget.part)

    @property
    def reducer(self) -> Reducer:
        return cast("Reducer", self.chosen_reducer.part)

    @property
    def scheme(self) -> Positions:
        return cast("Positions", self.positions.part)

    @property
    def moves(self) -> bool:
        """Whether kept entries are placed anew at a cut."""
        return self.positions.name != "original"

    @property
    def drops(self) -> bool:
        """Whether what is not kept is gone, with nothing merged."""
        return self.chosen_reducer.name == "drop"

    @property
    def needs(self) -> Needs:
        """What the parts want together. `window` is the text's, unless a probe stands for it."""
        each = (self.scorer.needs, self.budget.needs, self.reducer.needs)
        probe: Probe | None = self.scorer.needs.probe
        window = max(need.window for need in each)
        if probe is not None:
            # A probe's queries stand for the text's wherever a part asks for a window of them; but the cache that a
            # draft is written with is cut by the text's.
            window = SnapKV().window if probe == "draft" else 0
        return Needs(
            window=window,
            mass=any(need.mass for need in each),
            moments=any(need.moments for need in each),
            surprise=any(need.surprise for need in each),
            probe=probe,
            hidden=any(need.hidden for need in each),
            whole_layer=any(need.whole_layer for need in each),
            recent=max(need.recent for need in each),
        )

    @property
    def observes(self) -> bool:
        """Whether queries or logits of its passes have to be looked at."""
        needs = self.needs
        return bool(needs.window or needs.mass or needs.moments or needs.surprise)

    def protects(self, budget: int) -> tuple[int, int]:
        """(first, last) entries that are kept in any case when a row keeps `budget`."""
        recent = self.recent
        if recent is None:
            window = self.scorer.needs.window if self._looks_at_question else 0
            recent = max(window, math.floor(self.needs.recent * budget)) or min(_RECENT, -(-budget // _LEAST_PART))
            recent = min(recent, budget // 2)
        sinks = min(self.sinks, budget // 2)
        return sinks, min(recent, budget - sinks)

    @property
    def _looks_at_question(self) -> bool:
        """Whether the scorer's window is taken for a question, which is then kept itself."""
        known = SCORERS.get(self.chosen_scorer.name)
        return self.scorer.needs.probe is None and (known is None or known.asks)

    def __str__(self) -> str:
        items = [str(self.chosen_scorer)]
        for kind, chosen in (("budget", self.chosen_budget), ("reducer", self.chosen_reducer)):
            if str(chosen) != _DEFAULTS[cast("Kind", kind)]:
                items.append(str(chosen))
        if self.sinks != _SINKS:
            items.append(f"sinks={self.sinks}")
        if self.recent is not None:
            items.append(f"recent={self.recent}")
        if self.protect != "named":
            items.append(f"protect={self.protect}")
        if self.when != "during":
            items.append(f"when={self.when}")
        if self.moves:
            items.append(f"positions={self.positions}")
        return "+".join(items) + str(self.amount)

    def _check(self, text: str) -> None:
        if self.needs.whole_layer and self.budget.ragged:
            whole = self.chosen_scorer if self.scorer.needs.whole_layer else self.chosen_reducer
            raise InvalidRequestError(
                f"{text!r}: {whole.name} has one score for all heads of a layer, and {self.chosen_budget.name} gives "
                "each head its own number: take uniform, pyramid or d2o-layers"
            )


def is_auto(kv: Recipe | str | None) -> bool:
    """Whether the recipe is yet to be chosen."""
    return isinstance(kv, str) and kv.strip().lower() == AUTO


def as_recipe(kv: Recipe | str | None) -> Recipe | None:
    """The recipe, read where it is a text; None for `full`. Raises InvalidRequestError, for `auto` too."""
    if is_auto(kv):
        raise InvalidRequestError("auto goes by the length of a whole text, which is not known here: name a recipe")
    if isinstance(kv, str):
        return None if kv.strip().lower() == FULL else Recipe.parse(kv)
    return kv


def _split_amount(text: str) -> tuple[str, str | None]:
    spelled, at, amount = text.strip().partition("@")
    if "@" in amount:
        raise InvalidRequestError(f"{text!r} has two amounts: write one, @0.25 or @2048tok")
    return spelled, amount.strip() if at else None


def _items(spelled: str, text: str) -> list[str]:
    """What stands between the pluses, a plus that ends a part's name given back to it."""
    items: list[str] = []
    for item in (each.strip() for each in spelled.split("+")):
        if (not item or item.startswith(":")) and items and not items[-1].endswith("+"):
            items[-1] += f"+{item}"
        elif item:
            items.append(item)
        else:
            raise InvalidRequestError(f"{text!r} has nothing before or between its pluses: as in snapkv+ada@0.25")
    return items


def _part(name: str, listed: str, frame: dict[str, str], text: str) -> Named:
    """A part with the options `listed`; an amount that is given with it is the recipe's."""
    made = part_class(name)
    known = option_values(made)
    own: dict[str, str] = {}
    for option in filter(None, listed.split(",")):
        key, _, _ = (word.strip() for word in option.partition("="))
        if key in {"ratio", "tokens"} and key not in known:
            _add_options(frame, option, text)
        else:
            _add_options(own, option, text)
    if listed.endswith(",") or (listed and not own and not frame):
        raise InvalidRequestError(f"{text!r}: {name}: has no option behind its colon or comma")
    return Named(name, made(**_read(name, own, known, text)))


def _read(name: str, given: dict[str, str], known: dict[str, Any], text: str) -> dict[str, Any]:
    """The values of options `given`, of the types `known`."""
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key not in known:
            has = f"it has {names(list(known))}" if known else "it has none"
            raise InvalidRequestError(f"{text!r}: {name} has no option {key!r}: {has}")
        values[key] = read_value(value, known[key], f"{text!r}: {name}: {key}")
    return values


def _scheme(spelled: str, text: str) -> Named:
    """Where entries stand, as `compact` or `self-extend:group=8`."""
    name, _, listed = spelled.partition(":")
    if name not in SCHEMES:
        raise InvalidRequestError(f"{text!r}: positions is {name!r}: it is {names(list(SCHEMES))}")
    given: dict[str, str] = {}
    for option in filter(None, listed.split(",")):
        _add_options(given, option, text)
    made = SCHEMES[name]
    return Named(name, made(**_read(name, given, option_values(made), text)))


def _add_options(options: dict[str, str], option: str, text: str) -> None:
    key, equals, value = (word.strip() for word in option.partition("="))
    if not equals or not key or not value:
        raise InvalidRequestError(f"{text!r}: {option.strip()!r} is no option: write NAME=VALUE")
    if key in options:
        raise InvalidRequestError(f"{text!r} sets {key} twice: set it once")
    options[key] = value


def _amount(behind: str | None, options: dict[str, str], text: str) -> Amount:
    given = [f"@{behind}"] if behind is not None else []
    given += [f"{key}={options[key]}" for key in ("ratio", "tokens") if key in options]
    if len(given) != 1:
        found = f"has {len(given)} amounts, {' and '.join(given)}" if given else "does not say how much is kept"
        raise InvalidRequestError(f"{text!r} {found}: write one, @0.25 for a share or @2048tok for entries a row")
    ratio, tokens = options.get("ratio"), options.get("tokens")
    if behind is not None:
        counted = re.fullmatch(r"(.+?)\s*tok(?:ens)?", behind)
        ratio, tokens = (None, counted[1]) if counted else (behind, None)
    try:
        if tokens is not None and int(tokens) >= 1:
            return Amount(tokens=int(tokens))
        if ratio is not None and 0 < float(ratio) <= 1:
            return Amount(ratio=float(ratio))
    except ValueError:
        pass
    raise InvalidRequestError(
        f"{text!r}: {given[0]!r} is no amount: write @0.25 for a share kept (up to 1), or @2048tok for entries a row"
    )


def _frame(options: dict[str, str], text: str) -> dict[str, Any]:
    """The options of the recipe itself but for the amount."""
    values: dict[str, Any] = {}
    for key, value in options.items():
        if key not in _RECIPE_OPTIONS:
            raise InvalidRequestError(
                f"{text!r}: a recipe has no option {key!r}: it has {names(list(_RECIPE_OPTIONS))}"
            )
        if key in {"ratio", "tokens"}:
            continue
        if key in {"sinks", "recent"}:
            if not value.isdecimal():
                raise InvalidRequestError(f"{text!r}: {key} is {value!r}: give a whole number, 0 or more")
            values[key] = int(value)
        elif key == "positions":
            values[key] = _scheme(value, text)
        else:
            values[key] = read_value(value, {"when": When, "protect": Protect}[key], f"{text!r}: {key}")
    return values
