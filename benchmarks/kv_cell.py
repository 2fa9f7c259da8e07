"""Answers of one engine under compression, in a process of its own. Prints a line of JSON for each context.

    python benchmarks/kv_cell.py ENGINE FOLDER QUESTIONS METHOD [--shares 0.5,0.25] [--whens end] [--protocols agnostic]

ENGINE is lcdoc or kvpress and has to be importable: for kvpress this file is run by another interpreter, so it imports
nothing of lcdoc unless that is what is measured. QUESTIONS is a file of JSON lines, each with an `id`, a `context` and
`asks`, what follows the context, as token ids, and `starts`, where sentences of the context begin. Both
engines get the same tokens and answer greedily.

- agnostic: the context alone is read and compressed, then each question is asked of what was kept;
- aware: context and question are read together, once for each question, and compressed together.

METHOD is a recipe of lcdoc's without its amount, or `full`; of kvpress, one of `presses`. What an engine cannot do is
written down with the error it gave, and counts as wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

FULL = "full"
MOST_TOKENS = 64
AGNOSTIC, AWARE = "agnostic", "aware"
Tokens = list[int]


class Subject(Protocol):
    """An engine with its model loaded."""

    version: str

    def agnostic(
        self, context: Tokens, asks: Sequence[Tokens], method: str, share: float, when: str
    ) -> tuple[list[str], int]:
        """Answers, and the bytes of the cache that is held when the context is read."""
        ...

    def aware(self, context: Tokens, ask: Tokens, method: str, share: float, when: str) -> tuple[str, int]:
        """The answer, and the bytes of the cache that is held when the prompt is read."""
        ...


class Lcdoc:
    """lcdoc's own engine, through its interface."""

    def __init__(self, folder: Path, *, dtype: str = "float32") -> None:
        from lcdoc import local_engine

        self.version = "lcdoc"
        self._api = local_engine
        # A kept prompt would be answered from the full cache of the prompt before.
        kv = local_engine.KVConfig(prefix_cache=False, page_size=16)
        self._engine = local_engine.Engine.load(folder, dtype=dtype, kv=kv, speculate=False)
        self._sampling = local_engine.Sampling(max_tokens=MOST_TOKENS, temperature=0)
        self.starts: list[int] = []
        """Where sentences of the context begin that comes next."""

    def agnostic(
        self, context: Tokens, asks: Sequence[Tokens], method: str, share: float, when: str
    ) -> tuple[list[str], int]:
        kv, marks = _recipe(method, share, when), self._marks(method)
        snapshot = asyncio.run(self._engine.prefill(context, kv=kv, marks=marks))
        answers = [self._complete(ask, prefix=snapshot)[0] for ask in asks]
        return answers, snapshot.cache_bytes

    def aware(self, context: Tokens, ask: Tokens, method: str, share: float, when: str) -> tuple[str, int]:
        return self._complete(context + ask, kv=_recipe(method, share, when), marks=self._marks(method))

    def _marks(self, method: str) -> Any:
        from lcdoc.local_engine.compression.marks import Marks

        return None if method == FULL else Marks(sentence_starts=self.starts)

    def _complete(self, prompt: Tokens, **options: Any) -> tuple[str, int]:
        output = asyncio.run(self._engine.complete(prompt, self._sampling, **options))
        return output.text, output.usage.cache_bytes


def _recipe(method: str, share: float, when: str) -> str:
    return FULL if method == FULL else f"{method}+when={when}@{share}"


def presses() -> dict[str, Callable[[float], Any]]:
    """kvpress's methods, by the recipe of lcdoc's they stand beside. Their ratio is the share that is evicted."""
    import kvpress as k

    return {
        "random": lambda gone: k.RandomPress(gone, seed=0),
        "window": k.StreamingLLMPress,
        "h2o": k.ObservedAttentionPress,
        "tova": k.TOVAPress,
        "snapkv:window=32": lambda gone: k.SnapKVPress(gone, window_size=32),
        "snapkv:window=32+ada": lambda gone: k.AdaKVPress(k.SnapKVPress(gone, window_size=32)),
        "snapkv:window=32+pyramid": lambda gone: k.PyramidKVPress(gone, window_size=32),
        "chunkkv:window=32": lambda gone: k.ChunkKVPress(k.SnapKVPress(gone, window_size=32)),
        "knorm": k.KnormPress,
        "keydiff": k.KeyDiffPress,
        "lagkv": k.LagKVPress,
        "expected": lambda gone: k.ExpectedAttentionPress(gone, epsilon=1e-2),
        "expected+ada": lambda gone: k.AdaKVPress(k.ExpectedAttentionPress(gone, epsilon=1e-2)),
        "criticalkv+ada": lambda gone: k.CriticalAdaKVPress(k.SnapKVPress(gone, window_size=32)),
        "compactor": k.CompactorPress,
        "kvzip+global": k.KVzipPress,
        "kvzip++global": lambda gone: k.KVzipPress(gone, kvzip_plus_normalization=True),
        "knorm+value-merge": lambda gone: k.MergingPress(k.KnormPress(gone)),
    }


class Kvpress:
    """kvpress on transformers. It compresses once all is read: `during` is not among what it can do."""

    def __init__(self, folder: Path, *, dtype: str = "float32") -> None:
        import kvpress  # noqa: F401 - it changes transformers' attention functions
        import torch
        import transformers

        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        self._torch, self._dtype, self._folder = torch, getattr(torch, dtype), folder
        self._cache = transformers.DynamicCache
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self._models: dict[str, Any] = {}
        self._end = self._tokenizer.eos_token_id
        self.version = f"kvpress on transformers {transformers.__version__}"
        self._presses = presses()

    def agnostic(
        self, context: Tokens, asks: Sequence[Tokens], method: str, share: float, when: str
    ) -> tuple[list[str], int]:
        model, ids = self._model(method), self._torch.tensor([context])
        cache, _ = self._read(model, ids, method, share, when)
        held = self._bytes(cache)
        lengths = [layer.keys.shape[2] for layer in cache.layers]
        answers = []
        for ask in asks:
            asked = self._torch.tensor([ask])
            given = self._run(model, asked, cache, ids.shape[1])
            answers.append(self._decode(model, given, cache, ids.shape[1] + asked.shape[1]))
            for layer, length in zip(cache.layers, lengths, strict=True):
                layer.keys, layer.values = layer.keys[:, :, :length], layer.values[:, :, :length]
        return answers, held

    def aware(self, context: Tokens, ask: Tokens, method: str, share: float, when: str) -> tuple[str, int]:
        model, ids = self._model(method), self._torch.tensor([context + ask])
        cache, given = self._read(model, ids, method, share, when)
        held = self._bytes(cache)
        return self._decode(model, given, cache, ids.shape[1]), held

    def _model(self, method: str) -> Any:
        from transformers import AutoModelForCausalLM

        attention = "eager" if method == "h2o" else "sdpa"
        if attention not in self._models:
            self._models[attention] = AutoModelForCausalLM.from_pretrained(
                self._folder, dtype=self._dtype, attn_implementation=attention
            ).eval()
        return self._models[attention]

    def _read(self, model: Any, ids: Any, method: str, share: float, when: str) -> tuple[Any, int]:
        if when != "end" and method != FULL:
            raise NotImplementedError("kvpress compresses at the end")
        press = contextlib.nullcontext() if method == FULL else self._presses[method](1 - share)(model)
        for layer in model.model.layers:
            # What AdaKV left there from the context before.
            layer.self_attn.masked_key_indices = None
        cache = self._cache()
        with self._torch.no_grad(), press:
            hidden = model.model(input_ids=ids, past_key_values=cache).last_hidden_state
        with self._torch.no_grad():
            return cache, int(model.lm_head(hidden[0, -1]).argmax())

    def _run(self, model: Any, ids: Any, cache: Any, position: int) -> int:
        positions = self._torch.arange(position, position + ids.shape[1])[None]
        with self._torch.no_grad():
            logits = model(input_ids=ids, past_key_values=cache, position_ids=positions, logits_to_keep=1).logits
        return int(logits[0, -1].argmax())

    def _decode(self, model: Any, token: int, cache: Any, position: int) -> str:
        said: list[int] = []
        while token != self._end and len(said) < MOST_TOKENS:
            said.append(token)
            token = self._run(model, self._torch.tensor([[token]]), cache, position + len(said) - 1)
        return str(self._tokenizer.decode(said, skip_special_tokens=True))

    @staticmethod
    def _bytes(cache: Any) -> int:
        return sum(one.nbytes for layer in cache.layers for one in (layer.keys, layer.values))


ENGINES: dict[str, Callable[..., Subject]] = {"lcdoc": Lcdoc, "kvpress": Kvpress}


def answered(
    subject: Subject, case: dict[str, Any], *, method: str, share: float, when: str, protocol: str
) -> dict[str, Any]:
    """The line for one context: what was given, or the failure."""
    line = {"id": case["id"], "method": method, "share": share, "when": when, "protocol": protocol}
    if isinstance(subject, Lcdoc):
        subject.starts = case["starts"]
    began = time.perf_counter()
    try:
        if protocol == AGNOSTIC:
            given, held = subject.agnostic(case["context"], case["asks"], method, share, when)
        else:
            each = [subject.aware(case["context"], ask, method, share, when) for ask in case["asks"]]
            given, held = [text for text, _ in each], max(size for _, size in each)
    except Exception as error:  # noqa: BLE001 - whatever an engine fails with is a result here
        return {**line, "failure": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
    return {**line, "given": given, "bytes": held, "seconds": round(time.perf_counter() - began, 3)}


def main() -> int:
    """All contexts under one method."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("questions", type=Path)
    parser.add_argument("method")
    parser.add_argument("--shares", default="0.5,0.25,0.125,0.06,0.03", help="of the cache that are kept")
    parser.add_argument("--whens", default="end", help="end, during")
    parser.add_argument("--protocols", default=AGNOSTIC, help="agnostic, aware")
    arguments = parser.parse_args()
    cases = [json.loads(line) for line in arguments.questions.read_text(encoding="utf-8").splitlines()]
    subject = ENGINES[arguments.engine](arguments.folder)
    print(json.dumps({"version": subject.version}), flush=True)
    shares = [1.0] if arguments.method == FULL else [float(one) for one in arguments.shares.split(",")]
    whens = ["end"] if arguments.method == FULL else arguments.whens.split(",")
    for protocol in arguments.protocols.split(","):
        for when in whens:
            for share in shares:
                for case in cases:
                    line = answered(subject, case, method=arguments.method, share=share, when=when, protocol=protocol)
                    print(json.dumps(line), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
