"""The turns at model servers for a whole cluster: one actor gives them to the processes of all nodes, and of all jobs.

It ends by itself when nobody has asked it for a while, and whoever asks next makes another.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, Final

from lcdoc.agents.models.model import RateLimits
from lcdoc.agents.models.sharing import SIGN_S, Given, Sharing, Told
from lcdoc.jobs.ray.cluster import NAMESPACE, on_head
from lcdoc.memory.owner import Owner

_log = logging.getLogger(__name__)

_NAME: Final = "lcdoc-limits"
_GONE_S: Final = 3 * SIGN_S
"""A member with requests under way that was not heard of for so long is gone."""
_IDLE_S: Final = 600.0
_LOOK_S: Final = 30.0


class Gate:
    """Gives turns. The rules are `Sharing`'s."""

    def __init__(self) -> None:
        self._servers: dict[str, Sharing] = {}
        self.asked_at = time.monotonic()

    def exchange(self, server: str, limits: RateLimits, member: str, told: Told) -> Given:
        """See `SharedLimits.exchange`. Raises ValueError for limits that admit nothing."""
        now = self.asked_at = time.monotonic()
        sharing = self._servers.get(server)
        if sharing is None:
            sharing = self._servers[server] = Sharing(limits, now)
        return sharing.exchange(member, told, now, _is_gone)


def _is_gone(member: str, unseen_s: float) -> bool:
    # Of those on other machines, that they are silent is all that can be told.
    return unseen_s > _GONE_S or Owner.from_text(member).is_gone()


class GateActor:
    """The gate as an actor. Made by `gate`."""

    def __init__(self) -> None:
        self._gate = Gate()
        self._ending = asyncio.get_running_loop().create_task(self._end_when_idle())

    async def exchange(self, server: str, limits: RateLimits, member: str, told: Told) -> Given:
        """See `Gate.exchange`."""
        return self._gate.exchange(server, limits, member, told)

    async def _end_when_idle(self) -> None:
        import ray

        while time.monotonic() - self._gate.asked_at < _IDLE_S:
            await asyncio.sleep(_LOOK_S)
        ray.kill(ray.get_runtime_context().current_actor, no_restart=True)


class ClusterLimits:
    """The gate, as the processes of a node ask it."""

    def __init__(self) -> None:
        self._gate = gate()

    async def exchange(self, server: str, limits: RateLimits, member: str, told: Told) -> Given:
        """See `SharedLimits`."""
        from ray.exceptions import RayActorError

        try:
            given: Given = await self._gate.exchange.remote(server, limits, member, told)
        except RayActorError as error:
            _log.info("the limits of %s begin anew: %s", server, error)
            self._gate = gate()
            given = await self._gate.exchange.remote(server, limits, member, told)
        return given


def gate() -> Any:
    """The handle of the cluster's gate, which is made where there is none."""
    import ray

    return (
        ray.remote(GateActor)
        .options(
            name=_NAME,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=-1,
            max_concurrency=1_000,
            **on_head(),
        )
        .remote()
    )
