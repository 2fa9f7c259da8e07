"""One cell of compression's speed: an engine with one way to hold its cache. Prints a line of JSON (engine_cell.py).

    python benchmarks/kv_speed_cell.py ENGINE FOLDER [--kv RECIPE] [--prompt 4096] [--tokens 33]

ENGINE is transformers (always with its full cache), kvpress or lcdoc, and has to be importable: for kvpress this file
is run by another interpreter, so it imports nothing of lcdoc unless that is what is measured. RECIPE is lcdoc's, with
its amount; for kvpress a press of kv_cell.py and the share it keeps, `snapkv:window=32@0.1`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Sequence
from pathlib import Path

import engine_cell
import kv_cell


class Compressed(engine_cell.Lcdoc):
    """lcdoc under a recipe."""

    def __init__(self, recipe: str) -> None:
        super().__init__()
        self._recipe = recipe
        self.cache_mb: float | None = None

    def generate(self, prompts: Sequence[Sequence[int]], tokens: int) -> engine_cell.Moments:
        sampling = self._api.Sampling(max_tokens=tokens, ignore_eos=True)

        async def one(prompt: Sequence[int]) -> list[float]:
            moments: list[float] = []
            async for piece in self._engine.generate(list(prompt), sampling, kv=self._recipe):
                moments += [time.perf_counter()] * len(piece.tokens)
                if piece.usage is not None:
                    self.cache_mb = piece.usage.cache_bytes / 1e6
            return moments

        async def every() -> engine_cell.Moments:
            return await asyncio.gather(*map(one, prompts))

        return asyncio.run(every())


class Pressed(engine_cell.Transformers):
    """kvpress on transformers: the whole prompt is read, then compressed."""

    def __init__(self, method: str) -> None:
        super().__init__()
        name, _, share = method.partition("@")
        self._press = kv_cell.presses()[name](1 - float(share))
        self.version = f"kvpress, {self.version}"
        self.cache_mb: float | None = None

    def generate(self, prompts: Sequence[Sequence[int]], tokens: int) -> engine_cell.Moments:
        import torch
        from transformers import DynamicCache

        moments: list[float] = []
        (prompt,) = prompts
        with torch.inference_mode():
            cache = DynamicCache()
            with self._press(self._model):
                hidden = self._model.model(input_ids=torch.tensor([prompt]), past_key_values=cache).last_hidden_state
            current = self._model.lm_head(hidden[:, -1:]).argmax(-1)
            moments.append(time.perf_counter())
            for step in range(tokens - 1):
                positions = torch.tensor([[len(prompt) + step]])
                given = self._model(input_ids=current, past_key_values=cache, position_ids=positions)
                current = given.logits[:, -1:].argmax(-1)
                moments.append(time.perf_counter())
        self.cache_mb = sum(one.nbytes for layer in cache.layers for one in (layer.keys, layer.values)) / 1e6
        return [moments]


def main() -> int:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine", choices=("transformers", "kvpress", "lcdoc"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kv", default=kv_cell.FULL)
    parser.add_argument("--prompt", type=int, default=4_096, help="tokens of the prompt")
    parser.add_argument("--tokens", type=int, default=33, help="tokens generated; the first is prefill's")
    arguments = parser.parse_args()
    subject: engine_cell.Transformers | Compressed
    if arguments.engine == "lcdoc":
        subject = Compressed(arguments.kv)
    elif arguments.kv != kv_cell.FULL:
        subject = Pressed(arguments.kv)
    else:
        subject = engine_cell.Transformers()
    sizes = {"prompt": arguments.prompt, "at_once": 1, "tokens": arguments.tokens}
    figures = engine_cell.measured(subject, arguments.folder, **sizes)
    print(json.dumps({**sizes, "kv": arguments.kv, **figures, "cache_mb": getattr(subject, "cache_mb", None)}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
