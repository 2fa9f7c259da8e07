"""Reaching a Ray cluster, one's own or another's, and telling in one line why it cannot be used."""

from __future__ import annotations

import importlib.util
import logging
import os
import platform
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from lcdoc import __version__
from lcdoc.jobs.ray.errors import RayError

_log = logging.getLogger(__name__)

NAMESPACE: Final = "lcdoc"
_AUTHORISED: Final = "RAY_AUTH_MODE"
_VARIABLE: Final = "RAY_ADDRESS"
_REACHED_S: Final = 5.0
"""Ray itself tries for minutes."""
_ANSWERED_S: Final = 60.0
"""For a node to start a process that says which versions it has."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster that is connected."""

    address: str
    """Empty for one's own."""

    @property
    def own(self) -> bool:
        """Whether it was started here, and ends here."""
        return not self.address


@dataclass(frozen=True, slots=True)
class Node:
    """A node that lives."""

    id: str
    host: str
    cpus: float
    gpus: float
    store_bytes: float
    """Of its object store."""
    is_head: bool


@contextmanager
def connected(on: str) -> Iterator[Cluster]:
    """The cluster that `on` names: `ray` is the one of $RAY_ADDRESS, or one of this machine, which ends with the block;
    `ray://HOST:PORT` is another's. Raises RayError."""
    if importlib.util.find_spec("ray") is None:
        raise RayError("Ray is not installed", "pip install 'lcdoc[ray]'")
    # Before Ray is imported: it reads them then.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    if ray.is_initialized():
        yield Cluster(str(ray.get_runtime_context().gcs_address))
        return
    address = _address(on)
    _connect(address)
    try:
        if address:
            _check_versions()
        yield Cluster(address)
    finally:
        ray.shutdown()


def is_own(on: str) -> bool:
    """Whether `on` names a cluster that is started for a job and ends with it."""
    return on == "ray" and not os.environ.get(_VARIABLE)


def nodes() -> list[Node]:
    """The nodes that live, the head first."""
    import ray

    told: Any = ray
    found = [
        Node(
            node["NodeID"],
            node["NodeManagerHostname"],
            node["Resources"].get("CPU", 0.0),
            node["Resources"].get("GPU", 0.0),
            node["Resources"].get("object_store_memory", 0.0),
            "node:__internal_head__" in node["Resources"],
        )
        for node in told.nodes()
        if node["Alive"]
    ]
    return sorted(found, key=lambda node: not node.is_head)


def on_head() -> dict[str, Any]:
    """Options for an actor that is to run on the head node, beside the library."""
    return {"resources": {"node:__internal_head__": 0.001}}


def on_node(node_id: str) -> dict[str, Any]:
    """Options for a task or an actor that is to run on this node and on no other."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node_id, soft=False)}


def _address(on: str) -> str:
    """Empty: a cluster of one's own. Raises RayError."""
    if on == "ray":
        return os.environ.get(_VARIABLE, "")
    if not on.startswith("ray://"):
        raise RayError(f"{on!r} is no place for a job", "it is ray, or ray://HOST:10001")
    return on


def _connect(address: str) -> None:
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "namespace": NAMESPACE}
    if address:
        _reach(address)
    try:
        if address:
            ray.init(address=address, **quiet)
        else:
            # Another's cluster on this machine, which `ray start` has left word of, is not taken for one's own.
            ray.init(address="local", include_dashboard=False, **quiet)
    except (RuntimeError, ConnectionError, OSError, ValueError) as error:
        said = " ".join(str(error).split())
        if "ersion mismatch" in said or "ersions mismatch" in said:
            raise RayError(f"{address}: {said}", "install the same Ray and Python here as there") from error
        if address.startswith("ray://") and "timeout" in said and not os.environ.get(_AUTHORISED):
            # Ray's client sends its token only where it is told to, and a server that misses it does not say so.
            remedy = f"if the cluster asks for a token, set {_AUTHORISED}=token and RAY_AUTH_TOKEN; check `ray status`"
            raise RayError(f"{address} does not answer: {said}", remedy) from error
        where = address or "a cluster of this machine's own"
        raise RayError(
            f"{where} cannot be used: {said}", f"check the cluster (`ray status`) and ${_VARIABLE}"
        ) from error
    _silence()


def _reach(address: str) -> None:
    """Raises RayError where nobody listens: Ray would try for minutes and then end the process."""
    if address == "auto":
        return
    if address.startswith("ray://") and importlib.util.find_spec("grpc") is None:
        raise RayError(f"{address} needs Ray's client", "pip install 'ray[client]'")
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        host, port = parts.hostname, parts.port or (10001 if parts.scheme == "ray" else 6379)
        socket.create_connection((host or "", port), timeout=_REACHED_S).close()
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise RayError(
            f"no Ray cluster can be reached at {address} ({said})", "start it, or correct the address"
        ) from error


def _silence() -> None:
    """Ray prints what becomes of its nodes to standard output, where results go, and has no switch for that."""
    from ray._private import worker

    def say(data: Any, *_rest: Any, **_options: Any) -> None:
        for line in data.get("lines", ()):
            _log.info("Ray: %s", str(line).partition("\n")[0])

    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = say


def _versions() -> tuple[str, str]:
    return __version__, platform.python_version()


def _check_versions() -> None:
    """Raises RayError where a node has another lcdoc, or none."""
    import ray

    asked = ray.remote(_versions)
    living = nodes()
    said = [(node, asked.options(num_cpus=0, **on_node(node.id)).remote()) for node in living]
    for node, reference in said:
        try:
            version, _ = ray.get(reference, timeout=_ANSWERED_S)
        except (ImportError, ray.exceptions.RaySystemError, ray.exceptions.RuntimeEnvSetupError) as error:
            problem = f"node {node.host} has no lcdoc that can be imported"
            raise RayError(problem, f"pip install 'lcdoc[ray]=={__version__}' there") from error
        except (ray.exceptions.RayError, TimeoutError) as error:
            # It died, or is too busy to answer: the job goes on without it, or meets it again.
            _log.info("node %s does not say which lcdoc it has: %s", node.host, error)
            continue
        if version != __version__:
            raise RayError(
                f"node {node.host} has lcdoc {version}, and this is {__version__}", "install the same on all nodes"
            )
