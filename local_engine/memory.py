"""How much memory there is, and how much of it the cache may have."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import torch

from lcdoc.local_engine.errors import EngineError

_SHARE_OF_HOST = 0.5
"""Of the memory that is free once the weights are loaded: a CPU's memory is not the engine's alone."""
_SHARE_OF_GPU = 0.9


def available_bytes(device: torch.device) -> int:
    """Bytes that can be had on a device now, within the limits of a container."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return max(0, min([_host_available(), *_groups_available()]))


def cache_bytes(device: torch.device, max_memory: float | None, needed_most: int) -> int:
    """Bytes for the cache: `max_memory` (bytes, or a share up to 1 of what is available), else a sensible share.

    `needed_most` is what full windows of all sequences take; more is of no use. Raises EngineError for a limit that is
    none.
    """
    available = available_bytes(device)
    if max_memory is None:
        share = _SHARE_OF_GPU if device.type == "cuda" else _SHARE_OF_HOST
        return min(int(available * share), needed_most)
    if max_memory <= 0:
        raise EngineError(f"max_memory={max_memory} leaves no cache: give bytes, or a share such as 0.5")
    wanted = int(available * max_memory) if max_memory <= 1 else int(max_memory)
    if wanted > available:
        raise EngineError(
            f"max_memory asks for {wanted / 2**20:,.0f} MiB, and {available / 2**20:,.0f} MiB are free: ask for less, "
            "load with quantize, or take a smaller model"
        )
    return min(wanted, needed_most)


def _host_available() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # not Linux
    # What is free without what could be freed: of the physical memory, half is a cautious guess.
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _groups_available() -> Iterator[int]:
    """What this process's control groups leave, for each that has a limit.

    Files that were read, such as the checkpoint, count as used, but make room for whoever needs it.
    """
    for folder, limit, used in _groups():
        try:
            most = int((folder / limit).read_text())
            taken = int((folder / used).read_text())
            lines = [line.split() for line in (folder / "memory.stat").read_text().splitlines()]
        except (OSError, ValueError):
            continue  # no limit, which is written "max", or no such file
        figures = {name: int(number) for name, number in lines}
        of_files = sum(figures.get(f"total_{name}", figures.get(name, 0)) for name in ("active_file", "inactive_file"))
        yield most - max(0, taken - of_files)


def _groups() -> Iterator[tuple[Path, str, str]]:
    """The process's memory groups up to the root, and the files that hold limit and use, of both versions of them."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return  # not Linux
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, files = Path("/sys/fs/cgroup"), ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            root, files = Path("/sys/fs/cgroup/memory"), ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        inner = Path(path.lstrip("/"))
        for folder in (inner, *inner.parents):
            yield root / folder, *files
