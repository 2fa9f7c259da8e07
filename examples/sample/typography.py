"""Straight quotes and hyphens of the source to those of print."""

from __future__ import annotations

import re

from sample.book import Run, Runs

_OPENING = re.compile(r"(^|[\s(\[])([\"'])")


def curly(text: str, before: str = "") -> str:
    """`text` with curly quotes. `before` is the character in front of it, where there is one."""
    text = _OPENING.sub(lambda m: m[1] + ("\u201c" if m[2] == '"' else "\u2018"), before + text)[len(before) :]
    return text.replace('"', "\u201d").replace("'", "\u2019")


def printed(runs: Runs) -> Runs:
    """`runs` with curly quotes; a quote at the start of a run is judged by the run before it."""
    done: list[Run] = []
    before = ""
    for run in runs:
        text = curly(run.text, before)
        before = run.text[-1:] or before
        done.append(Run(text, run.bold, run.italic, run.note))
    return tuple(done)
