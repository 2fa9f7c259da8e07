"""Doing a job on a cluster, and watching it: what `lcdoc batch --on ray` does.

The job is its supervisor's, so whoever watches may end, or die, and watch it again later.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from lcdoc.agents.models.config import Config, load_config
from lcdoc.agents.models.names import is_offline, resolve, wanted
from lcdoc.jobs.job import Job
from lcdoc.jobs.ray.cluster import NAMESPACE, Cluster, connected, nodes
from lcdoc.jobs.ray.errors import RayError
from lcdoc.jobs.ray.supervisor import Look, Order, name_of, supervisor
from lcdoc.jobs.runner import status_now
from lcdoc.memory import Library, shared_url
from lcdoc.memory.job_records import JobStatus

_log = logging.getLogger(__name__)

DETACHED: Final = "the job goes on on the cluster; `lcdoc batch pause` or `cancel` stops it there"
"""What to say where a user stopped watching a job on a cluster that is not one's own."""
_ANSWER_S: Final = 120.0
"""For a supervisor that begins anew to answer."""
_STOP_S: Final = 60.0
_PAUSE_S: Final = 0.2


def run_job(
    library: str | os.PathLike[str] | None,
    job: str,
    *,
    on: str = "ray",
    on_status: Callable[[JobStatus], None] = lambda _status: None,
    on_line: Callable[[str], None] = _log.warning,
    every_s: float = 1.0,
    stop: threading.Event | None = None,
) -> JobStatus:
    """Have the job (an id, its first characters, or a name) done by the cluster that `on` names, and watch it until it
    is finished, paused or cancelled. A job that is under way there is watched.

    `on` is `ray`, for the cluster of $RAY_ADDRESS or one of this machine that ends with the call, or `ray://HOST:PORT`.
    `stop`, or an exception such as Ctrl-C, ends the watching; on a cluster of this machine's own, what is under way is
    given back then, and elsewhere the job goes on. Otherwise as `lcdoc.jobs.runner.run_job`.

    Raises RayError, LibraryError, UnknownJobError, JobError, ModelNameError, ModelConfigError.
    """
    stop = stop or threading.Event()
    shared = shared_url()
    with Library.open(library) as opened:
        record = opened.jobs.find(job)
        order = Order(record.id, str(opened.path), shared, load_config())
        with connected(on) as cluster:
            _check_gpus(Job.of(record.settings).asked_model, order.config)
            _clear(record.id)
            actor = supervisor(order)
            try:
                _watch(actor, opened, record.id, on_status=on_status, on_line=on_line, every_s=every_s, stop=stop)
            finally:
                _end(actor, cluster)
        status = opened.jobs.status(record.id)
        on_status(status)
        return status


def _watch(
    actor: Any,
    library: Library,
    job: str,
    *,
    on_status: Callable[[JobStatus], None],
    on_line: Callable[[str], None],
    every_s: float,
    stop: threading.Event,
) -> None:
    """Until the supervisor has ended. Raises RayError where it is gone, or could not work."""
    said = 0
    while True:
        look = _look(actor, job, said)
        said = look.said
        for line in look.lines:
            on_line(line)
        if look.problem:
            raise RayError(look.problem)
        if look.ending is not None or stop.is_set():
            return
        if (status := status_now(library, job)) is not None:
            on_status(status)
        stop.wait(every_s)


def _clear(job: str) -> None:
    """Have no supervisor there that has ended and waits to be asked how."""
    import ray

    deadline = time.monotonic() + _ANSWER_S
    with suppress(ValueError, ray.exceptions.RayError):
        while time.monotonic() < deadline:
            # Raises ValueError where there is none.
            actor: Any = ray.get_actor(name_of(job), namespace=NAMESPACE)
            look: Look = ray.get(actor.look.remote(0), timeout=_ANSWER_S)
            if look.ending is None:
                return
            ray.kill(actor, no_restart=True)
            time.sleep(_PAUSE_S)


def _look(actor: Any, job: str, said: int) -> Look:
    import ray

    try:
        look: Look = ray.get(actor.look.remote(said), timeout=_ANSWER_S)
    except (ray.exceptions.RayError, ConnectionError, TimeoutError) as error:
        _log.info("%s", error)
        raise RayError(
            "the cluster's head node, or what supervised the job there, is gone",
            f"what was done is kept: when the cluster is up, `lcdoc batch resume {job}` goes on",
        ) from error
    return look


def _end(actor: Any, cluster: Cluster) -> None:
    """Leave nothing behind: a supervisor that has ended, or one whose cluster is about to end."""
    import ray

    with suppress(ray.exceptions.RayError, ConnectionError, TimeoutError):
        if cluster.own:
            ray.get(actor.stop.remote(), timeout=_STOP_S)
        if ray.get(actor.look.remote(0), timeout=_STOP_S).ending is not None:
            ray.kill(actor, no_restart=True)


def _check_gpus(model: str | None, config: Config) -> None:
    """Raises RayError for a local model that is to run on a GPU where no node has one; ModelNameError and
    ModelConfigError for one that cannot be asked at all."""
    name = wanted(model, config)
    if is_offline(name):
        return
    local = resolve(name, config).local
    if local is not None and local.options.device.startswith("cuda") and not any(node.gpus for node in nodes()):
        raise RayError(f"{name} is to run on a GPU, and no node has one", "add such a node, or drop the model's device")
