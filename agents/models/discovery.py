"""Filling in what a name leaves open by what its server says: the model, its window, its prices.

Where the server does not say it, the window is a cautious assumption, and the user is told.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, replace
from typing import Final

from lcdoc.agents.models.addresses import is_loopback
from lcdoc.agents.models.errors import ConnectionFailedError, ModelNameError
from lcdoc.agents.models.local import OnProgress, fetched
from lcdoc.agents.models.memos import Memos
from lcdoc.agents.models.model import Prices, Server
from lcdoc.agents.models.names import Chosen
from lcdoc.agents.models.server_fields import window_tokens
from lcdoc.agents.models.server_statements import LISTED, SET_WINDOW, Discovered, discover

REMEMBERED_S: Final = 86_400.0
REMEMBERED_LOCAL_S: Final = 60.0
"""A server on this machine is restarted with other options at will, and is quick to ask again."""

_log = logging.getLogger(__name__)


async def resolve_online(
    chosen: Chosen, *, memos: Memos | None = None, timeout_s: float = 5.0, on_progress: OnProgress = lambda *_: None
) -> Chosen:
    """`chosen` with what its server says filled in: the model where the name left it open, window, prices.

    Asks only where something is missing, and remembers the answer in `memos`. What the configuration says stands. A
    local model that this machine does not have yet is fetched from the hub; `on_progress` is told of that.

    Raises ModelNameError where the model is left open and the server lists several or none, or where the hub does not
    give it; ConnectionFailedError where the server cannot be asked for it.
    """
    if chosen.local is not None and chosen.local.folder is None:
        return chosen.at_folder(await fetched(chosen.spec.name, chosen.local, on_progress))
    server = chosen.spec.server
    if server is None or (server.model and chosen.spec.context_window_known):
        return chosen
    found = _remembered(server, memos)
    if found is None:
        found = await discover(server, chosen.key, secret_headers=chosen.secret_headers, timeout_s=timeout_s)
        _remember(server, found, memos)
    if not server.model:
        chosen = chosen.at_model(_only_model(chosen, found))
    return _informed(chosen, found)


def _only_model(chosen: Chosen, found: Discovered) -> str:
    if len(found.models) == 1:
        return found.models[0]
    name = chosen.spec.name
    configured = chosen.origin is not None and chosen.origin.entry is not None
    example = found.models[0] if found.models else "NAME"
    how = f'set model = "{example}" in its entry' if configured else f"name it: {name.rstrip('#')}#{example}"
    if found.models:
        listed = ", ".join(found.models[:LISTED]) + (" ..." if len(found.models) > LISTED else "")
        raise ModelNameError(name, f"the server has {len(found.models)} models: {listed}", how)
    if found.notes:
        raise ConnectionFailedError(name, found.notes[0], f"start the server, or correct its address or key, or {how}")
    raise ModelNameError(name, "the server lists no models", how)


def _informed(chosen: Chosen, found: Discovered) -> Chosen:
    """The server's statements where the configuration made none, and what the user should know of them."""
    spec = chosen.spec
    notes: list[str] = []
    if not spec.context_window_known:
        notes += found.notes
        if found.context_window is None:
            window = f"{spec.context_window:,}"
            notes.append(f"the server does not say how long its window is; {window} tokens are assumed: {SET_WINDOW}")
        else:
            # Beyond it the service charges more than the prices say.
            usable = min(found.context_window, chosen.longest_prompt or found.context_window)
            spec = replace(spec, context_window=usable, context_window_known=found.context_window_known)
    if spec.prices is None and found.prices is not None:
        spec = replace(spec, prices=found.prices)
        notes.append("prices are those that the server lists; another provider behind it may cost more")
    spec = replace(spec, max_output_tokens=spec.max_output_tokens or found.max_output_tokens)
    for note in notes:
        _log.info("%s: %s", spec.name, note)
    return replace(chosen, spec=spec, notes=tuple(dict.fromkeys((*chosen.notes, *notes))))


def _memo_key(server: Server) -> str:
    return f"server/1 {server.base_url} {server.model}"


def _remembered(server: Server, memos: Memos | None) -> Discovered | None:
    raw = memos.get(_memo_key(server)) if memos is not None else None
    if raw is None:
        return None
    try:
        kept = json.loads(raw)
        charged = kept["prices"]
        prices = Prices(charged["input"], charged["output"], charged["cached_input"]) if charged else None
        models = tuple(map(str, kept["models"]))
        window, longest = window_tokens(kept["window"]), window_tokens(kept["max_output"])
        return Discovered(models, window, prices, longest, tuple(kept["notes"]))
    except (ValueError, KeyError, TypeError, IndexError):
        _log.warning("what was remembered of %s cannot be read; it is asked again", server.base_url)
        return None


def _remember(server: Server, found: Discovered, memos: Memos | None) -> None:
    # An assumption is none of the server's words: it may say more the next time.
    if memos is None or found.context_window is None or not found.context_window_known:
        return
    kept = {
        # Of many models, only that there are some matters.
        "models": found.models[:LISTED],
        "window": found.context_window,
        "max_output": found.max_output_tokens,
        "prices": asdict(found.prices) if found.prices else None,
        "notes": found.notes,
    }
    ttl_s = REMEMBERED_LOCAL_S if is_loopback(server.base_url) else REMEMBERED_S
    memos.set(_memo_key(server), json.dumps(kept), ttl_s=ttl_s)
