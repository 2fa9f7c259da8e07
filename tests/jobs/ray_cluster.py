"""A real Ray cluster of several node processes on this machine, and ways to take parts of it away."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from lcdoc.tests.servers.behaviours import Behaviour, Exchange, Recorded
from lcdoc.tests.servers.truthful import Truthful

_STORE_BYTES = 100 << 20


class Nodes:
    """A head that does no work, and nodes of one processor each."""

    def __init__(self, count: int) -> None:
        from ray.cluster_utils import Cluster

        # Where Ray leaves word of a cluster; it does not make the folder itself.
        Path("/tmp/ray").mkdir(exist_ok=True)
        options = {"include_dashboard": False, "object_store_memory": _STORE_BYTES}
        self._cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **options})
        self._workers = [self._add() for _ in range(count)]
        self._cluster.wait_for_nodes()

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def _add(self) -> Any:
        return self._cluster.add_node(num_cpus=1, object_store_memory=_STORE_BYTES)

    def kill_one(self) -> None:
        """A node dies with all its processes, and another comes."""
        node = self._workers.pop(0)
        raylet = node.all_processes["raylet"][0].process.pid
        children = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(raylet)], capture_output=True, text=True, check=False
        )
        for pid in [raylet, *map(int, children.stdout.split())]:
            with_kill(pid)
        self._workers.append(self._add())

    def close(self) -> None:
        self._cluster.shutdown()


def with_kill(pid: int) -> None:
    """SIGKILL, unless it is gone."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


class Holding:
    """An honest model that answers so many requests, and keeps those behind them waiting until it is let go."""

    def __init__(self, answered: int) -> None:
        self._left = answered
        self._go = threading.Event()
        self._truthful = Truthful()
        self.held = 0

    def let_go(self) -> None:
        self._go.set()

    def __call__(self, recorded: Recorded) -> Behaviour:
        behaviour = self._truthful(recorded)
        if self._left > 0 or self._go.is_set():
            self._left -= 1
            return behaviour
        self.held += 1
        return _Held(behaviour, self._go)


class _Held(Behaviour):
    is_answer = True

    def __init__(self, behaviour: Behaviour, go: threading.Event) -> None:
        self._behaviour = behaviour
        self._go = go

    async def play(self, exchange: Exchange) -> None:
        while not self._go.is_set():
            await asyncio.sleep(0.02)
        await self._behaviour.play(exchange)


def driver(library: Path, job: str) -> subprocess.Popen[bytes]:
    """A process that has the job done on the cluster of $RAY_ADDRESS, and watches it."""
    program = "import sys; from lcdoc.jobs.ray.driver import run_job; run_job(sys.argv[1], sys.argv[2])"
    return subprocess.Popen([sys.executable, "-c", program, str(library), job], stdout=subprocess.DEVNULL)
