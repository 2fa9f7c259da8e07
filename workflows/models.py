"""What the command line tells of models: the configured ones, and what is known of one."""

from __future__ import annotations

import asyncio
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lcdoc.agents.models.config import ConfigFileError, ModelEntry, config_path, config_template, load_config
from lcdoc.agents.models.discovery import resolve_online
from lcdoc.agents.models.names import is_offline, resolve, wanted
from lcdoc.memory import Library


def configured_models() -> dict[str, Any]:
    """The configuration's path, the default model, and each configured model's address. Raises ConfigFileError."""
    config = load_config()
    path = config_path()
    return {
        "configuration": f"{path}" if path.exists() else f"{path} (not there; --init writes a sample)",
        "default": wanted(None, config),
        "models": [f"{name}: {_address(entry)}" for name, entry in config.models.items()],
    }


def _address(entry: ModelEntry) -> str:
    return "#".join(part for part in (entry.url, entry.model) if part)


def known_of(name: str, library: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """What is known of a model, its server asked where needed; never its key. Raises ModelError, LibraryError."""
    if is_offline(name):
        return {"model": "offline", "notes": ["answers are made of sentences of the documents; nothing is asked"]}
    with Library.open(library) as opened:
        chosen = asyncio.run(resolve_online(resolve(name, load_config()), memos=opened.memos))
    spec, server = chosen.spec, chosen.spec.server
    window = f"{spec.context_window:,} tokens" + ("" if spec.context_window_known else " (assumed)")
    return {
        "model": spec.name,
        "address": server.base_url if server else None,
        "asked for": server.model if server else None,
        "key": "set" if chosen.key else "none",
        "window": window,
        "longest answer": None if spec.max_output_tokens is None else f"{spec.max_output_tokens:,} tokens",
        "prices": None if spec.prices is None else asdict(spec.prices) | {"per": "million tokens, US dollars"},
        "limits": asdict(spec.limits),
        "profile": spec.profile,
        "notes": list(chosen.notes),
    }


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
