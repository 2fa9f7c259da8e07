"""Drafts from the prompt: how many tokens a forward pass gives where answers quote, and what a longer pass costs.

    python benchmarks/speculation.py [--folder CHECKPOINT] [--context 4096]

Answers are made of sentences of the sample handbook and of words that are not in that order anywhere, in several
shares; words and punctuation stand for tokens. What is counted is exact: a draft is accepted where the answer goes on
that way. With a checkpoint (benchmarks/engine_weights.py makes one) passes of one and of several tokens are timed in
turns, since drafts are verified in one pass that is longer; the product of both is what drafting gains.
"""

from __future__ import annotations

import argparse
import random
import re
import time
from pathlib import Path
from statistics import mean, median

from lcdoc.local_engine.speculation import PromptLookup, accept

HANDBOOK = Path(__file__).parent.parent / "examples" / "handbook.txt"
ANSWERS = 40
ANSWER_TOKENS = 160
MOST_DRAFTS = 8
SHARES = (1.0, 0.7, 0.3, 0.0)
WIDTHS = (1, 3, 5, 9)


def tokens_of(text: str) -> list[str]:
    """Words and punctuation."""
    return re.findall(r"\w+|[^\w\s]", text)


def answer(sentences: list[list[str]], words: list[str], share: float, rng: random.Random) -> list[str]:
    """About ANSWER_TOKENS tokens, of which `share` is in whole quoted sentences and the rest in scattered words."""
    made: list[str] = []
    while len(made) < ANSWER_TOKENS:
        quote = rng.choice(sentences)
        if share > 0:
            made += ["“", *quote, "”"]
        made += [rng.choice(words) for _ in range(round(len(quote) * (1 / share - 1)) if share else len(quote))]
    return made


def passes(document: list[int], wanted: list[int]) -> tuple[int, int, int]:
    """Passes, drafted and accepted tokens for one answer after a document."""
    lookup, history, done = PromptLookup(MOST_DRAFTS), list(document), 0
    count = drafted = accepted = 0
    while done < len(wanted):
        draft = lookup.propose(history, len(wanted) - done - 1)
        held = accept(draft, wanted[done : done + len(draft) + 1])
        lookup.settle(len(draft), held)
        history += wanted[done : done + held + 1]
        done += held + 1
        count, drafted, accepted = count + 1, drafted + len(draft), accepted + held
    return count, drafted, accepted


def costs(folder: Path, context: int) -> dict[int, float]:
    """Seconds of a pass of so many tokens, relative to one token, behind a context. Medians of turns."""
    import torch

    from lcdoc.local_engine.batch import Piece
    from lcdoc.tests.local_engine.decoding import Bench

    bench = Bench(folder, torch.bfloat16, pages=64 * (context // 64 + 8) * 4, page_size=64, sequences=1)
    slot = bench.tables.open()
    bench.tables.reserve(slot, context + max(WIDTHS))
    text = [100 + place % 1000 for place in range(context)]
    for start in range(0, context, 512):
        bench.decoder.hidden(bench.batch(Piece(slot, text[start : start + 512], start, context, 0)))
    seconds: dict[int, list[float]] = {width: [] for width in WIDTHS}
    for _ in range(8):
        for width in WIDTHS:
            began = time.perf_counter()
            bench.run(Piece(slot, text[:width], context, context, width))
            seconds[width].append(time.perf_counter() - began)
            bench.tables.truncate(slot, width)
    return {width: median(seconds[width]) / median(seconds[1]) for width in WIDTHS}


def main() -> int:
    """Count, time, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="a checkpoint, for the cost of longer passes")
    parser.add_argument("--context", type=int, default=4096)
    arguments = parser.parse_args()
    text = HANDBOOK.read_text(encoding="utf-8")
    numbers: dict[str, int] = {}
    document = [numbers.setdefault(token, len(numbers)) for token in tokens_of(text)]
    sentences = [tokens_of(each) for each in re.split(r"(?<=[.!?])\s+", text)]
    sentences = [each for each in sentences if 8 <= len(each) <= 60]
    relative = costs(arguments.folder, arguments.context) if arguments.folder else {}
    for width, cost in relative.items():
        print(f"a pass of {width} tokens behind {arguments.context}: {cost:.2f} of one of one token")
    print("quoted  tokens a pass  drafted a pass  accepted" + ("  gain" if relative else ""))
    rng = random.Random(1)
    for share in SHARES:
        counts = []
        for _ in range(ANSWERS):
            made = answer(sentences, list(numbers), share, rng)
            wanted = [numbers.setdefault(token, len(numbers)) for token in made]
            counts.append((len(wanted), *passes(document, wanted)))
        tokens_a_pass = sum(each[0] for each in counts) / sum(each[1] for each in counts)
        drafted = sum(each[2] for each in counts) / sum(each[1] for each in counts)
        accepted = sum(each[3] for each in counts) / max(1, sum(each[2] for each in counts))
        gain = ""
        if relative:
            # Between the widths that were timed, the cost is taken to grow evenly.
            slope = mean((relative[width] - 1) / (width - 1) for width in WIDTHS[1:])
            gain = f"  {tokens_a_pass / (1 + slope * drafted):.2f}x"
        print(f"{share:6.0%}  {tokens_a_pass:13.2f}  {drafted:14.2f}  {accepted:8.0%}{gain}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
