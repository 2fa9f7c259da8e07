"""Answers of one engine under compression, in a process of its own: told methods, it writes a file for each.

    python benchmarks/kv_cell.py ENGINE FOLDER QUESTIONS [--heads FILE] [--settings agnostic:end:0.25,aware:end:0.25]

ENGINE is lcdoc or kvpress and has to be importable: for kvpress this file is run by another interpreter, so it imports
nothing of lcdoc unless that is what is measured. QUESTIONS is a file of JSON lines, each with an `id`, a `context` and
`asks`, what follows the context, as token ids; `aware`, which of the asks are put behind a context of their own;
`starts`, where sentences of the context begin; and `task`, what tells the kind of question without telling which. Both
engines get the same tokens and answer greedily.

- agnostic: the context alone is read and compressed, then each question is asked of what was kept;
- aware: context and question are read together, once for each question, and compressed together.

On its standard input come lines, a method and a file with a tab between; into the file goes a line of JSON for each
context and setting that is not in it yet, as soon as it is answered, and then a line `done` is printed. A method is a
recipe of lcdoc's without its amount, or `full`; of kvpress, one of `presses`. What an engine cannot do is written down
with the error it gave, and counts as wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import sys
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

    def __init__(self, folder: Path, *, dtype: str = "float32", heads: Path | None = None) -> None:
        from lcdoc import local_engine

        self.version = "lcdoc"
        self._api = local_engine
        # A kept prompt would be answered from the full cache of the prompt before.
        kv = local_engine.KVConfig(prefix_cache=False, page_size=16)
        self._engine = local_engine.Engine.load(folder, dtype=dtype, kv=kv, speculate=False)
        self._sampling = local_engine.Sampling(max_tokens=MOST_TOKENS, temperature=0)
        self._heads = heads
        self.case: dict[str, Any] = {}
        """The context that comes next, and what is known of it."""

    def agnostic(
        self, context: Tokens, asks: Sequence[Tokens], method: str, share: float, when: str
    ) -> tuple[list[str], int]:
        if method == FULL:
            snapshot = asyncio.run(self._engine.prefill(context, kv=FULL))
        else:
            # What kind of question will come may be known, which one is not.
            marks = self._marks(task=self.case.get("task", ()))
            snapshot = asyncio.run(self._engine.prefill(context, kv=self._recipe(method, share, when), marks=marks))
        answers = [self._complete(ask, prefix=snapshot)[0] for ask in asks]
        return answers, snapshot.cache_bytes

    def aware(self, context: Tokens, ask: Tokens, method: str, share: float, when: str) -> tuple[str, int]:
        if method == FULL:
            return self._complete(context + ask, kv=FULL)
        marks = self._marks(task=ask, protected=[(len(context), len(context) + len(ask))])
        return self._complete(context + ask, kv=self._recipe(method, share, when), marks=marks)

    def _marks(self, **known: Any) -> Any:
        from lcdoc.local_engine.compression.marks import Marks

        return Marks(sentence_starts=self.case["starts"], **known)

    def _complete(self, prompt: Tokens, **options: Any) -> tuple[str, int]:
        output = asyncio.run(self._engine.complete(prompt, self._sampling, **options))
        return output.text, output.usage.cache_bytes

    def _recipe(self, method: str, share: float, when: str) -> str:
        parts = method.split("+")
        if "static" in parts:
            parts[parts.index("static")] = f"static:file={self._head_scores()}"
        return f"{'+'.join(parts)}+when={when}@{share}"

    def _head_scores(self) -> Path:
        """Found once, by the first context that needs them."""
        if self._heads is None:
            raise ValueError("static needs a file for head scores: --heads FILE")
        if not self._heads.exists():
            from lcdoc.local_engine.compression.budgets.static_heads import save_head_scores
            from lcdoc.local_engine.compression.known_heads import find_heads

            save_head_scores(self._heads, asyncio.run(find_heads(self._engine, self.case["context"])), "probe")
        return self._heads


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

    def __init__(self, folder: Path, *, dtype: str = "float32", heads: Path | None = None) -> None:
        import kvpress  # noqa: F401 - it changes transformers' attention functions
        import torch
        import transformers

        logging.getLogger("kvpress").setLevel(logging.ERROR)
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
        subject.case = case
    began = time.perf_counter()
    try:
        if protocol == AGNOSTIC:
            given, held = subject.agnostic(case["context"], case["asks"], method, share, when)
        else:
            asks = [case["asks"][index] for index in case["aware"]]
            each = [subject.aware(case["context"], ask, method, share, when) for ask in asks]
            given, held = [text for text, _ in each], max(size for _, size in each)
    except Exception as error:  # noqa: BLE001 - whatever an engine fails with is a result here
        return {**line, "failure": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
    return {**line, "given": given, "bytes": held, "seconds": round(time.perf_counter() - began, 3)}


def written(path: Path) -> list[dict[str, Any]]:
    """The lines that a file has so far; what was being written when its process ended is cut off it."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole, encoding="utf-8")
    return [json.loads(line) for line in whole.splitlines()]


def measure(
    subject: Subject,
    cases: Sequence[dict[str, Any]],
    settings: Sequence[tuple[str, str, float]],
    method: str,
    path: Path,
) -> None:
    """Answer what is not in the file yet."""
    known = {(one["protocol"], one["when"], one["share"], one["id"]) for one in written(path) if "id" in one}
    with path.open("a", encoding="utf-8") as file:
        for protocol, when, share in settings:
            for case in cases:
                if (protocol, when, share, case["id"]) in known or (protocol != AGNOSTIC and not case["aware"]):
                    continue
                line = answered(subject, case, method=method, share=share, when=when, protocol=protocol)
                file.write(json.dumps(line) + "\n")
                file.flush()


def main() -> int:
    """All methods that are asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("questions", type=Path)
    parser.add_argument("--settings", default="agnostic:end:0.25", help="protocol:when:share, separated by commas")
    parser.add_argument("--heads", type=Path, help="head scores of the model; made where the file is not there")
    arguments = parser.parse_args()
    settings: list[tuple[str, str, float]] = []
    for one in arguments.settings.split(","):
        protocol, when, share = one.split(":")
        settings.append((protocol, when, float(share)))
    cases = [json.loads(line) for line in arguments.questions.read_text(encoding="utf-8").splitlines()]
    subject = ENGINES[arguments.engine](arguments.folder, heads=arguments.heads)
    whole = [(protocol, "end", 1.0) for protocol in dict.fromkeys(protocol for protocol, _, _ in settings)]
    for line in sys.stdin:
        method, _, file = line.rstrip("\n").partition("\t")
        measure(subject, cases, whole if method == FULL else settings, method, Path(file))
        print("done", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
