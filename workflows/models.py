"""What the command line tells of models: the configured ones, those found on this machine, and what is known of one."""

from __future__ import annotations

import asyncio
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lcdoc.agents.models.config import ConfigFileError, ModelEntry, config_path, config_template, load_config
from lcdoc.agents.models.discovery import resolve_online
from lcdoc.agents.models.errors import ModelError
from lcdoc.agents.models.local import LocalSource
from lcdoc.agents.models.local_facts import facts_of
from lcdoc.agents.models.local_files import FoundModel, Sizes, found_models, hub_cache, model_folders, sizes_of
from lcdoc.agents.models.local_memory import Weights
from lcdoc.agents.models.names import Chosen, is_offline, resolve, wanted, with_kv
from lcdoc.memory import Library

_WEIGHTS: tuple[Weights, ...] = ("bfloat16", "int8", "int4")


@dataclass(frozen=True, slots=True)
class LocalListing:
    """A checkpoint on this machine."""

    name: str
    """As `--model` takes it."""
    folder: str
    bytes_on_disk: int | None
    parameters: int | None
    window: int | None
    """Tokens; None where the engine does not run the model."""
    fits: dict[str, int]
    """How many tokens of cache fit beside the weights, by how these are held; what does not fit at all is not there."""
    problem: str
    """Why it is not run; empty where it is."""

    def line(self) -> str:
        """The listing in one line."""
        size = None if self.bytes_on_disk is None else f"{_bytes(self.bytes_on_disk)} on disk"
        count = None if self.parameters is None else f"{_count(self.parameters)} parameters"
        if self.problem:
            return f"{self.name}: {', '.join(filter(None, [size, count, '']))}not run: {self.problem}"
        return f"{self.name}: {', '.join(filter(None, [size, count]))}, window {self.window:,}; {self.fitting()}"

    def fitting(self) -> str:
        """What fits this machine's memory now."""
        if not self.fits:
            return "too large for the memory that is free"
        return "fits as " + ", ".join(f"{weights} with {tokens:,} tokens" for weights, tokens in self.fits.items())


def configured_models() -> dict[str, Any]:
    """The configuration's path, the default model, and each configured model's address. Raises ConfigFileError."""
    config = load_config()
    path = config_path()
    return {
        "configuration": f"{path}" if path.exists() else f"{path} (not there; --init writes a sample)",
        "default": wanted(None, config),
        "models": [f"{name}: {_address(entry)}" for name, entry in config.models.items()],
    }


def local_models() -> list[LocalListing]:
    """The checkpoints on this machine, those that are not run included. Reads configurations and headers only."""
    return [_listing(model) for model in found_models()]


def looked_in() -> list[str]:
    """The folders in which `local_models` looked."""
    return [*(f"{folder.absolute()}" for folder in model_folders()), f"{hub_cache()}"]


def _listing(model: FoundModel) -> LocalListing:
    sizes = sizes_of(model.folder)
    try:
        facts = facts_of(model.name, model.folder)
    except ModelError as error:
        return _listed(model, sizes, None, {}, error.problem.removeprefix(f"{model.folder}: "))
    fits: dict[str, int] = {}
    for weights in _WEIGHTS:
        fit = facts.fits(weights)
        if fit is not None and fit.context > 0:
            fits[weights] = fit.context
    return _listed(model, sizes, facts.window, fits, "")


def _listed(
    model: FoundModel, sizes: Sizes | None, window: int | None, fits: dict[str, int], problem: str
) -> LocalListing:
    return LocalListing(
        model.name,
        str(model.folder.absolute()),
        None if sizes is None else sizes.bytes_on_disk,
        None if sizes is None else sizes.parameters,
        window,
        fits,
        problem,
    )


def _address(entry: ModelEntry) -> str:
    return "#".join(part for part in (entry.url, entry.model) if part)


def known_of(name: str, library: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """What is known of a model, its server asked where needed; never its key. Raises ModelError, LibraryError."""
    if is_offline(name):
        return {"model": "offline", "notes": ["answers are made of sentences of the documents; nothing is asked"]}
    chosen = resolve(name, load_config())
    if chosen.local is None:
        with Library.open(library) as opened:
            chosen = asyncio.run(resolve_online(chosen, memos=opened.memos))
    spec = chosen.spec
    window = f"{spec.context_window:,} tokens" + ("" if spec.context_window_known else " (assumed)")
    return {
        "model": spec.name,
        **(_served(chosen) if chosen.local is None else _here(spec.name, chosen.local)),
        "window": window,
        "longest answer": None if spec.max_output_tokens is None else f"{spec.max_output_tokens:,} tokens",
        "prices": None if spec.prices is None else asdict(spec.prices) | {"per": "million tokens, US dollars"},
        "limits": asdict(spec.limits),
        "profile": spec.profile,
        "notes": list(chosen.notes),
    }


def with_recipe(model: str | None, kv: str) -> str:
    """The name of a local model whose cache is compressed by `kv`. Raises ModelError."""
    return with_kv(model, kv, load_config())


def _served(chosen: Chosen) -> dict[str, Any]:
    server = chosen.spec.server
    return {
        "address": server.base_url if server else None,
        "asked for": server.model if server else None,
        "key": "set" if chosen.key else "none",
    }


def _here(name: str, source: LocalSource) -> dict[str, Any]:
    if source.folder is None:
        return {"folder": None}
    listing = _listing(FoundModel(name, source.folder))
    return {
        "folder": listing.folder,
        "size": None if listing.bytes_on_disk is None else f"{_bytes(listing.bytes_on_disk)} on disk",
        "parameters": None if listing.parameters is None else _count(listing.parameters),
        "memory": listing.fitting(),
        "loaded as": source.options.recipe,
    }


def _bytes(number: int) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e8 else f"{number / 1e6:.1f} MB"


def _count(number: int) -> str:
    return f"{number / 1e9:.1f}B" if number >= 1e9 else f"{number / 1e6:.0f}M" if number >= 1e6 else f"{number:,}"


def write_sample() -> Path:
    """Write the commented sample to where the configuration is looked for. Raises ConfigFileError if one is there."""
    path = config_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(config_template())
    except FileExistsError:
        raise ConfigFileError(path, "it is there already", "edit it, or move it away first") from None
    except OSError as error:
        problem = f"it cannot be written ({error.strerror})"
        raise ConfigFileError(path, problem, "name another with LCDOC_CONFIG") from error
    return path
