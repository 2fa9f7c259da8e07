"""What the engine gives out besides pieces: whole answers, and figures about itself."""

from __future__ import annotations

from dataclasses import dataclass

from lcdoc.local_engine.requests import Finish, Usage
from lcdoc.local_engine.sampling import Sampled


@dataclass(frozen=True, slots=True)
class Output:
    """A whole answer."""

    text: str
    tokens: tuple[Sampled, ...]
    finish: Finish
    usage: Usage


@dataclass(frozen=True, slots=True)
class Stats:
    """What the engine does at this moment, and has done."""

    running: int
    waiting: int
    pages_used: int
    """By requests, and by beginnings of prompts and snapshots that are kept."""
    pages_cached: int
    """Of what is kept, free for whoever needs them once no request uses them."""
    pages: int
    steps: int
    requests: int
    failed: int
    preemptions: int
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    drafted_tokens: int
    accepted_tokens: int
    cuts: int = 0
    """How often recipes cut a sequence."""
    dropped_entries: int = 0
    """Entries of single heads that they took away."""
    cache_bytes: int = 0
    """Of the pages in use."""
