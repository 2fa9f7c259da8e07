"""What constrained output costs: building, masks and forced tokens, with a vocabulary of 151,936 tokens.

    python benchmarks/constraints.py [--vocabulary 151936] [--step-ms 45]

The tokenizer is a byte-level BPE trained on the spot on the text of this package and of made-up words until it has
that many tokens, so that nothing has to be at hand. A random model answers each schema of the workflows; masks are
timed one by one, in processor time on one thread, and the mean is told as a share of a decode step of `--step-ms`.
`fit` is the look at whether the answer can still be finished, which only the last tokens of an answer pay for.
"""

from __future__ import annotations

import argparse
import inspect
import itertools
import json
import platform
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pydantic
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from lcdoc.agents.prompts import schemas
from lcdoc.local_engine.constraints import Grammars
from lcdoc.local_engine.sampling import Row, Sampling, sample

_END = "<|end|>"
_ROOT = Path(__file__).resolve().parents[1]
_SYLLABLES = [
    first + second for first in "bcdfghjklmnprstvwz" for second in ("a", "e", "i", "o", "u", "an", "er", "or")
]


@dataclass(frozen=True)
class Plain:
    backend: Tokenizer
    vocab_size: int
    eos_ids: frozenset[int]


def words() -> Iterator[str]:
    """Real words and punctuation of this package first, then made-up ones without end."""
    texts = [file.read_text(encoding="utf-8") for file in sorted(_ROOT.glob("*/*.py"))]
    splitter = pre_tokenizers.ByteLevel(add_prefix_space=False)
    seen = dict.fromkeys(word for text in texts for word, _ in splitter.pre_tokenize_str(text) if len(word) < 16)
    yield from seen
    for size in itertools.count(2):
        for parts in itertools.product(_SYLLABLES, repeat=size):
            yield "Ġ" + "".join(parts)
            yield "".join(parts)


def big_tokenizer(size: int) -> Plain:
    """A byte-level BPE in which every word is reached by merges from its left."""
    vocabulary = {_END: 0} | {letter: place for place, letter in enumerate(pre_tokenizers.ByteLevel.alphabet(), 1)}
    merges: dict[tuple[str, str], None] = {}
    for word in words():
        for end in range(2, len(word) + 1):
            merges[word[: end - 1], word[end - 1]] = None
            vocabulary.setdefault(word[:end], len(vocabulary))
            if len(vocabulary) == size:
                break
        if len(vocabulary) == size:
            break
    backend = Tokenizer(models.BPE(vocabulary, list(merges)))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([_END])
    return Plain(backend, size, frozenset({0}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--step-ms", type=float, default=45.0)
    parser.add_argument("--tokens", type=int, default=200, help="tokens of each answer")
    options = parser.parse_args()
    torch.set_num_threads(1)

    began = time.perf_counter()
    tokenizer = big_tokenizer(options.vocabulary)
    made = time.perf_counter()
    grammars = Grammars(tokenizer)
    print(f"{platform.processor() or platform.machine()}, {options.vocabulary:,} tokens")
    print(f"tokenizer made in {made - began:.1f} s, grammars ready in {time.perf_counter() - made:.2f} s")

    shapes = [
        shape
        for _, shape in inspect.getmembers(schemas, inspect.isclass)
        if issubclass(shape, pydantic.BaseModel) and shape is not pydantic.BaseModel
    ]
    columns = ("build ms", "mask us", "p95", "most", "step", "fit us", "p95", "forced")
    print(f"{'schema':<18}" + "".join(f"{column:>9}" for column in columns))
    everything: list[float] = []
    for shape in shapes:
        began = time.process_time()
        grammar = grammars.compile_schema(shape.model_json_schema())
        built = time.process_time() - began
        matcher = grammar.start()
        noise = torch.Generator().manual_seed(1)
        masks, fits, written, forced = [], [], [], 0
        while len(written) < options.tokens and not matcher.ended:
            coming = matcher.forced()
            forced += len(coming)
            if not coming:
                began = time.process_time()
                mask = matcher.mask()
                masks.append((time.process_time() - began) * 1e6)
                logits = torch.randn(1, options.vocabulary, generator=noise)
                row = Row(Sampling(temperature=1.0, seed=1), written, len(written), mask)
                coming = [sample(logits, [row])[0].token]
            for token in coming:
                began = time.process_time()
                fitting = matcher.fit(token, options.tokens - len(written))
                fits.append((time.process_time() - began) * 1e6)
                matcher.advance(fitting)
                written.append(fitting)
                if fitting != token or matcher.ended:
                    break
        shape.model_validate_json(tokenizer.backend.decode(written))
        everything += masks
        share = statistics.mean(masks) / (options.step_ms * 1e3)
        print(
            f"{shape.__name__:<18}{built * 1e3:9.1f}{statistics.median(masks):9.0f}{quantile(masks):9.0f}"
            f"{max(masks):9.0f}"
            f"{share:9.2%}{statistics.median(fits):9.0f}{quantile(fits):9.0f}{forced / len(written):9.0%}"
        )
    share = statistics.mean(everything) / (options.step_ms * 1e3)
    print(
        json.dumps({"masks": len(everything), "mean_us": round(statistics.mean(everything)), "share": round(share, 4)})
    )


def quantile(values: list[float]) -> float:
    return sorted(values)[int(0.95 * (len(values) - 1))]


if __name__ == "__main__":
    main()
