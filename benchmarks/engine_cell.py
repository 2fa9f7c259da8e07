"""One cell of the engines' table: one engine at one task, measured in a process of its own. Prints a line of JSON.

    python benchmarks/engine_cell.py ENGINE FOLDER [--prompt 4096] [--at-once 1] [--tokens 33] [--option NAME=VALUE]

ENGINE is transformers, llama.cpp or lcdoc, and has to be importable: for llama.cpp this file is run by another
interpreter, so it imports nothing of lcdoc unless that is what is measured. Prompts are random token ids, the same for
all engines. Of each sequence the moment of every token is noted; all speeds are computed from those moments, alike for
all engines:

- prefill: the prompts' tokens until every sequence has its first token;
- decode: the tokens after that moment.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

SHORT_PROMPT = 64
VOCABULARY = 151_936
THREADS = 2

BEST = 20
Best = list[tuple[int, float]]
"""Tokens with their log-probabilities."""
Moments = list[list[float]]
"""For each sequence, when each of its tokens was there, as `time.perf_counter` tells it."""


class Subject(Protocol):
    """An engine to be measured. Making one imports what it needs; nothing is loaded yet."""

    version: str

    def load(self, folder: Path, *, room: int, at_once: int) -> None:
        """Load the model, with a cache for `at_once` sequences of `room` tokens."""
        ...

    def generate(self, prompts: Sequence[Sequence[int]], tokens: int) -> Moments:
        """Compute `prompts` of one length, all at once, and `tokens` tokens greedily for each."""
        ...

    def best(self, prompt: Sequence[int]) -> Best:
        """The best tokens after `prompt`, best first."""
        ...


class Transformers:
    """transformers in bfloat16, with PyTorch's fused attention."""

    def __init__(self, *, dtype: str = "bfloat16") -> None:
        import torch
        import transformers

        torch.set_num_threads(THREADS)
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        self.version = f"transformers {transformers.__version__}, torch {torch.__version__}"
        self._dtype = getattr(torch, dtype)

    def load(self, folder: Path, *, room: int, at_once: int) -> None:
        from transformers import AutoModelForCausalLM

        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=self._dtype, attn_implementation="sdpa")

    def generate(self, prompts: Sequence[Sequence[int]], tokens: int) -> Moments:
        import torch
        from transformers import DynamicCache

        moments: list[float] = []
        with torch.inference_mode():
            cache = DynamicCache(config=self._model.config)
            current = torch.tensor(prompts)
            for _ in range(tokens):
                given = self._model(input_ids=current, past_key_values=cache, logits_to_keep=1)
                current = given.logits[:, -1:].argmax(-1)
                moments.append(time.perf_counter())
        return [moments for _ in prompts]

    def best(self, prompt: Sequence[int]) -> Best:
        import torch

        with torch.inference_mode():
            given = self._model(input_ids=torch.tensor([prompt]), logits_to_keep=1)
            values, ids = given.logits[0, -1].float().log_softmax(-1).topk(BEST)
        return list(zip(ids.tolist(), values.tolist(), strict=True))


class LlamaCpp:
    """llama.cpp through llama-cpp-python's low-level interface; weights and cache in float16."""

    def __init__(self, *, flash_attention: str = "on", ubatch: str = "512") -> None:
        import llama_cpp

        self._api = llama_cpp
        self.version = f"llama-cpp-python {llama_cpp.__version__}"
        self._flash = {"on": 1, "off": 0}[flash_attention]
        self._ubatch = int(ubatch)
        self._quiet = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self._quiet, None)

    def load(self, folder: Path, *, room: int, at_once: int) -> None:
        api = self._api
        api.llama_backend_init()
        of_model = api.llama_model_default_params()
        of_model.n_gpu_layers = 0
        path = str(folder / "model-f16.gguf").encode()
        self._model = api.llama_model_load_from_file(path, of_model)
        if not self._model:
            raise SystemExit(f"{path.decode()}: llama.cpp does not load it; make it with engine_weights.py --gguf")
        settings = api.llama_context_default_params()
        # A sequence has a share of n_ctx, in multiples of 256.
        settings.n_ctx = at_once * -(-room // 256) * 256
        settings.n_seq_max = at_once
        settings.n_batch, settings.n_ubatch = 2048, self._ubatch
        settings.n_threads = settings.n_threads_batch = THREADS
        settings.flash_attn_type = self._flash
        self._context = api.llama_init_from_model(self._model, settings)
        if not self._context:
            raise SystemExit("llama.cpp made no context of these settings")

    def generate(self, prompts: Sequence[Sequence[int]], tokens: int) -> Moments:
        api = self._api
        api.llama_memory_clear(api.llama_get_memory(self._context), True)
        moments: Moments = [[] for _ in prompts]
        current: list[int] = []
        for sequence, prompt in enumerate(prompts):
            for start in range(0, len(prompt), 2048):
                piece = prompt[start : start + 2048]
                self._decode([(token, start + index, sequence) for index, token in enumerate(piece)], last=True)
            current.append(self._best(-1))
            moments[sequence].append(time.perf_counter())
        for step in range(tokens - 1):
            self._decode([(token, len(prompts[n]) + step, n) for n, token in enumerate(current)], last=False)
            current = [self._best(index) for index in range(len(current))]
            now = time.perf_counter()
            for each in moments:
                each.append(now)
        return moments

    def best(self, prompt: Sequence[int]) -> Best:
        import numpy as np

        self.generate([prompt], 1)
        logits = self._values(-1).astype(np.float64)
        values = logits - np.log(np.exp(logits).sum())
        return [(int(token), float(values[token])) for token in np.argsort(-values)[:BEST]]

    def _decode(self, entries: Sequence[tuple[int, int, int]], *, last: bool) -> None:
        """Compute (token, position, sequence) entries; logits of the last one only, or of all."""
        batch = self._api.llama_batch_init(len(entries), 0, 1)
        batch.n_tokens = len(entries)
        for index, (token, position, sequence) in enumerate(entries):
            batch.token[index], batch.pos[index] = token, position
            batch.n_seq_id[index], batch.seq_id[index][0] = 1, sequence
            batch.logits[index] = not last or index == len(entries) - 1
        failed = self._api.llama_decode(self._context, batch)
        self._api.llama_batch_free(batch)
        if failed:
            raise SystemExit(f"llama_decode failed: {failed}")

    def _values(self, index: int) -> Any:
        import numpy as np

        pointer = self._api.llama_get_logits_ith(self._context, index)
        return np.ctypeslib.as_array(pointer, (VOCABULARY,))

    def _best(self, index: int) -> int:
        return int(self._values(index).argmax())


class Lcdoc:
    """The engine of lcdoc, through its own interface. Without drafts: what random weights repeat would flatter it."""

    def __init__(self, *, dtype: str = "bfloat16") -> None:
        import torch

        from lcdoc import local_engine

        torch.set_num_threads(THREADS)
        self._api = local_engine
        self.version = f"lcdoc, torch {torch.__version__}"
        self._dtype = dtype

    def load(self, folder: Path, *, room: int, at_once: int) -> None:
        self._engine = self._api.Engine.load(folder, dtype=self._dtype, speculate=False)

    def generate(self, prompts: Sequence[Sequence[int]], tokens: int) -> Moments:
        sampling = self._api.Sampling(max_tokens=tokens, ignore_eos=True)

        async def one(prompt: Sequence[int]) -> list[float]:
            moments: list[float] = []
            async for piece in self._engine.generate(list(prompt), sampling):
                moments += [time.perf_counter()] * len(piece.tokens)
            return moments

        async def every() -> Moments:
            return await asyncio.gather(*map(one, prompts))

        return asyncio.run(every())

    def best(self, prompt: Sequence[int]) -> Best:
        sampling = self._api.Sampling(max_tokens=1, logprobs=BEST, ignore_eos=True)
        output = asyncio.run(self._engine.complete(list(prompt), sampling))
        return list(output.tokens[0].top)


ENGINES: dict[str, Any] = {"transformers": Transformers, "llama.cpp": LlamaCpp, "lcdoc": Lcdoc}


def measured(subject: Subject, folder: Path, *, prompt: int, at_once: int, tokens: int) -> dict[str, Any]:
    """Load, a short prompt, the same again, then the prompts that are measured. Memory in MB, times in seconds."""
    rng = random.Random(prompt)
    imported = _memory("VmRSS")
    began = time.perf_counter()
    subject.load(folder, room=max(prompt, SHORT_PROMPT) + tokens, at_once=at_once)
    load_s = time.perf_counter() - began
    load_peak = _memory("VmHWM")
    short = _prompt(rng, SHORT_PROMPT)
    first_s = _first(subject, short)
    again_s = _first(subject, _prompt(rng, SHORT_PROMPT))
    base = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    prompts = [_prompt(rng, prompt) for _ in range(at_once)]
    began = time.perf_counter()
    moments = subject.generate(prompts, tokens)
    all_begun = max(each[0] for each in moments)
    decoded = sum(moment > all_begun for each in moments for moment in each)
    return {
        "version": subject.version,
        "prefill_tps": at_once * prompt / (all_begun - began),
        "decode_tps": decoded / (max(each[-1] for each in moments) - all_begun),
        "load_s": load_s,
        "first_s": first_s,
        "again_s": again_s,
        "imported_mb": imported,
        "load_peak_mb": load_peak,
        "base_mb": base,
        "peak_mb": _memory("VmHWM"),
    }


def _first(subject: Subject, prompt: Sequence[int]) -> float:
    began = time.perf_counter()
    return subject.generate([prompt], 1)[0][0] - began


def _prompt(rng: random.Random, tokens: int) -> list[int]:
    return [rng.randrange(1_000, VOCABULARY - 1_000) for _ in range(tokens)]


def _memory(field: str) -> float:
    """`VmRSS` or `VmHWM` of this process in MB; pages of mapped files count as far as they are in memory."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024 / 1e6
    raise SystemExit(f"/proc/self/status has no {field}")


def main() -> int:
    """Measure, or print the best tokens."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--prompt", type=int, default=4_096, help="tokens of a prompt")
    parser.add_argument("--at-once", type=int, default=1, help="sequences computed together")
    parser.add_argument("--tokens", type=int, default=33, help="tokens generated for each; the first is prefill's")
    parser.add_argument("--option", action="append", default=[], help="of the engine, as NAME=VALUE")
    parser.add_argument("--best", action="store_true", help="print the best tokens after a short prompt instead")
    arguments = parser.parse_args()
    subject: Subject = ENGINES[arguments.engine](**dict(option.split("=") for option in arguments.option))
    if arguments.best:
        subject.load(arguments.folder, room=SHORT_PROMPT + 1, at_once=1)
        print(json.dumps(subject.best(_prompt(random.Random(0), SHORT_PROMPT))))
        return 0
    sizes = {"prompt": arguments.prompt, "at_once": arguments.at_once, "tokens": arguments.tokens}
    print(json.dumps({**sizes, **measured(subject, arguments.folder, **sizes)}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
