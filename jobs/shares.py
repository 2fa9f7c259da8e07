"""How many workers suit a machine, and what each of them gets of it."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Literal

from lcdoc.agents.models.config import load_config
from lcdoc.agents.models.names import is_offline, resolve, wanted
from lcdoc.documents.pool import usable_processors
from lcdoc.jobs.job import Job

Answers = Literal["offline", "server", "here"]
"""Who answers: nobody but lcdoc, a model's server, a model that runs in the worker."""

_FOR_A_SERVER = 4
"""One process sends hundreds of requests a second; more of them help to prepare documents."""


def who_answers(job: Job) -> Answers:
    """Raises ModelNameError, ModelConfigError for a model that means nothing here."""
    config = load_config()
    name = wanted(job.model, config)
    if is_offline(name):
        return "offline"
    return "server" if resolve(name, config).local is None else "here"


def suitable_workers(job: Job) -> int:
    """One for each core offline, a few where a server answers, one for each GPU, or one, where a model runs here."""
    answers = who_answers(job)
    if answers == "here":
        return max(1, len(gpus()))
    return usable_processors() if answers == "offline" else min(usable_processors(), _FOR_A_SERVER)


def environment_of(place: int, workers: int, job: Job) -> dict[str, str]:
    """The environment of the worker at this place, from 0: its share of the cores, and a GPU where a model runs here.

    What the user has set stays as it is.
    """
    environment = dict(os.environ)
    found = gpus() if who_answers(job) == "here" else []
    if found:
        environment["CUDA_VISIBLE_DEVICES"] = found[place % len(found)]
    else:
        threads = str(max(1, usable_processors() // workers))
        for name in ("OMP_NUM_THREADS", "RAYON_NUM_THREADS"):
            environment.setdefault(name, threads)
    return environment


def gpus() -> list[str]:
    """What CUDA calls the GPUs this process may use."""
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for part in named.split(",") if (name := part.strip()) and name != "-1"]
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    try:
        listed = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(number) for number, line in enumerate(listed.splitlines()) if line.startswith("GPU ")]
