"""How a recipe is written.

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
from typing import Any, Final, Literal

from lcdoc.local_engine.compression.options import option_values, read_value, written
from lcdoc.local_engine.compression.parts import Part, names
from lcdoc.local_engine.compression.positions import Capped, Compact, Original, Positions, SelfExtend
from lcdoc.local_engine.compression.registry import Kind, kind_of, part_class
from lcdoc.local_engine.errors import InvalidRequestError

When = Literal["during", "end"]
Protect = Literal["named", "headings", "starts", "none"]

DEFAULTS: Final[dict[Kind, str]] = {"budget": "uniform", "reducer": "drop"}
"""What a recipe has that names none of a kind."""
_SCHEMES: Final[dict[str, type[Positions]]] = {
    "original": Original,
    "compact": Compact,
    "self-extend": SelfExtend,
    "capped": Capped,
}
_OPTIONS: Final = ("sinks", "recent", "protect", "when", "positions", "ratio", "tokens")


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
class Spelled:
    """What a text says."""

    parts: dict[Kind, Named]
    """One of each kind."""
    amount: Amount
    options: dict[str, Any]
    """Of the recipe itself, as its fields are called; those that are named."""


def read_recipe(text: str) -> Spelled:
    """What `text` says; see the module. Raises InvalidRequestError naming what is wrong in it."""
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
    for kind, name in DEFAULTS.items():
        if kind not in parts:
            parts[kind] = Named(name, part_class(name)())
    return Spelled(parts, _amount(amount, options, text), _frame(options, text))


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
    if name not in _SCHEMES:
        raise InvalidRequestError(f"{text!r}: positions is {name!r}: it is {names(list(_SCHEMES))}")
    given: dict[str, str] = {}
    for option in filter(None, listed.split(",")):
        _add_options(given, option, text)
    made = _SCHEMES[name]
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
        if key not in _OPTIONS:
            raise InvalidRequestError(f"{text!r}: a recipe has no option {key!r}: it has {names(list(_OPTIONS))}")
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
