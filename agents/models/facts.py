"""What is known of models by their name alone: windows, prices, how they are spoken to.

The table `facts.toml` ships with the package; a user's configuration extends and overrides it. Prices belong to a
service, not to a name: a server of one's own that calls its model `gpt-4o` inherits nothing from the hosted one.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from datetime import date
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from typing import Literal, cast

from pydantic import BaseModel, ConfigDict, Field

from lcdoc.agents.models.model import Prices, Profile

SMALL_PARAMETERS_B = 9.0
"""Billions of parameters up to which a model is spoken to as a small one."""

_SNAPSHOT = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|\d{8})$")
_SIZE = re.compile(r"(?<![a-z0-9.])e?(?P<count>\d+(?:\.\d+)?)(?P<unit>[bm])(?![a-z0-9])")
_STRICT = ConfigDict(extra="forbid", frozen=True, strict=True)


class PriceFacts(BaseModel):
    """US dollars per million tokens, as published."""

    model_config = _STRICT

    input: float = Field(ge=0, allow_inf_nan=False)
    output: float = Field(ge=0, allow_inf_nan=False)
    cached_input: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    cache_write: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """A prompt token written to the service's cache, where that costs more than `input`."""

    def prices(self) -> Prices:
        """What calls are charged. Errs high: any token that was not cached may have been written to the cache."""
        return Prices(max(self.input, self.cache_write or 0.0), self.output, self.cached_input)


class Facts(BaseModel):
    """What is known of a model; None: not known."""

    model_config = _STRICT

    service: str | None = None
    """The hosted service these facts are of; None: they go with the name, wherever it is served."""
    as_of: date | None = None
    context_window: int | None = Field(default=None, gt=0)
    max_prompt_tokens: int | None = Field(default=None, gt=0)
    """Prompts beyond it are refused, or cost a multiple of `prices`."""
    max_output_tokens: int | None = Field(default=None, gt=0)
    prices: PriceFacts | None = None
    profile: Profile | None = None
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] | None = None
    sends_temperature: bool | None = None

    @property
    def usable_window(self) -> int | None:
        """Tokens of prompt and answer together that are admitted, and charged by `prices`, for certain."""
        return min((n for n in (self.context_window, self.max_prompt_tokens) if n is not None), default=None)

    def over(self, other: Facts | None) -> Facts:
        """These facts, with what they leave open taken from `other`."""
        if other is None:
            return self
        return other.model_copy(update={name: getattr(self, name) for name in self.model_fields_set})


class Family(BaseModel):
    """Open weights of one make. `match`: the ends of names, in lower case, with `*` for anything."""

    model_config = _STRICT

    match: list[str] = Field(min_length=1)
    context_window: int | None = Field(default=None, gt=0)
    profile: Profile | None = None


class FactsTable(BaseModel):
    """Facts by name and by family of names."""

    model_config = _STRICT

    models: dict[str, Facts] = {}
    families: list[Family] = []

    def named(self, model: str) -> Facts | None:
        """The facts of exactly this model or, for a dated snapshot that has none, of the model it is one of.

        Regardless of case and of the vendor before a slash.
        """
        known = {name.lower(): facts for name, facts in self.models.items()}
        full = model.strip().lower()
        for name in (full, _SNAPSHOT.sub("", full), _last(full), _SNAPSHOT.sub("", _last(full))):
            if name in known:
                return known[name]
        return None

    def family(self, model: str) -> Facts | None:
        """What a name says of open weights: the window they were trained for, and by their size the profile."""
        name = _last(model.strip().lower())
        facts: dict[str, object] = {}
        if (size := size_b(name)) is not None:
            facts["profile"] = "small" if size <= SMALL_PARAMETERS_B else "large"
        for family in self.families:
            if any(fnmatchcase(name, pattern) for pattern in family.match):
                for field in ("context_window", "profile"):
                    if (value := getattr(family, field)) is not None:
                        facts.setdefault(field, value)
        return Facts.model_validate(facts) if facts else None

    def lookup(self, model: str, *, service: str | None) -> Facts | None:
        """What holds for `model` at `service` (None: a server of one's own); a service's own facts only there."""
        named = self.named(model)
        if named is not None and named.service not in {None, service}:
            named = None
        family = self.family(model)
        return family if named is None else named.over(family)

    def extended(self, models: Mapping[str, Facts]) -> FactsTable:
        """This table, with `models` before its own: field by field where both know the name."""
        merged = {name.lower(): facts for name, facts in self.models.items()}
        for name, facts in models.items():
            merged[name.lower()] = facts.over(self.named(name))
        return FactsTable(models=merged, families=self.families)

    def of_service(self, service: str) -> tuple[str, ...]:
        """The models known of a hosted service."""
        return tuple(name for name, facts in self.models.items() if facts.service == service)


def size_b(model: str) -> float | None:
    """Billions of parameters, from a name such as `Qwen2.5-7B-Instruct`, `gemma3:270m` or `qwen3-30b-a3b`."""
    found = _SIZE.search(model.lower())
    if found is None:
        return None
    return float(found["count"]) * (1.0 if found["unit"] == "b" else 1e-3)


def _last(name: str) -> str:
    """A name without the vendor, or the folder of a file, before it."""
    return re.split(r"[/\\]", name)[-1].removesuffix(".gguf")


@cache
def shipped_facts() -> FactsTable:
    """The table of the package."""
    text = files("lcdoc.agents.models").joinpath("facts.toml").read_text(encoding="utf-8")
    return FactsTable.model_validate(cast("dict[str, object]", tomllib.loads(text)))
