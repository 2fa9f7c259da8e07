"""What is still known of a text while a long answer is written about it, by recipes that hold equally many entries.

    python benchmarks/kv_long_answers.py OUT [--model MODEL] [--budgets 256,128] [--recipes "snapkv h2o"] [--cases 8]

MODEL is a folder of train_probe.py. Each case is a short text with facts and an answer several times as long, which
comes back to every fact in each of its rounds, in another order, between sentences of its own. The answer is given to
the model as it should be, and cut as it grows, as the engine does while it writes; right is a fact whose every token is
what the model would have written. OUT is then a table in Markdown.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer

from lcdoc.benchmarks.kv_positions import PAGE
from lcdoc.benchmarks.probe_tasks import BEGIN, END, Sentences, Task, Tasks, natural_text
from lcdoc.benchmarks.train_probe import encoded
from lcdoc.local_engine.batch import Piece, gather
from lcdoc.local_engine.compression.allowance import Allowance
from lcdoc.local_engine.compression.compressor import Compressor
from lcdoc.local_engine.compression.recipe import Recipe
from lcdoc.local_engine.config import read_config
from lcdoc.local_engine.decoder import Decoder
from lcdoc.local_engine.loading import load_weights
from lcdoc.local_engine.operations_cpu import CpuOperations
from lcdoc.local_engine.page_tables import PageTables
from lcdoc.local_engine.pages import PagePool
from lcdoc.local_engine.rope import Rope
from lcdoc.local_engine.weights import Checkpoint

MODEL = Path(__file__).parent / "data" / "probe"
RECIPES = "snapkv chunkkv windowkv windowkv:groups=none h2o compactor tova window keydiff lagkv"
FULL = "knorm@4096tok"
FACTS: tuple[Task, ...] = ("needle",) * 4 + ("values",) * 2 + ("trace",) * 2 + ("copy",) * 2
TEXT_WORDS, BETWEEN_WORDS = 40, 6
LONGEST = 4096
CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Part:
    """Tokens of an answer: `given` ones, and those that are wanted behind them, none between two facts."""

    given: list[int]
    wanted: list[int]
    round: int


def cases(
    tokenizer: Tokenizer, sentences: Sentences, count: int, rounds: int
) -> Iterator[tuple[list[int], list[Part]]]:
    """Texts, and the answers about them."""
    for index in range(count):
        case, rng = Tasks(f"long {index}", sentences).case(TEXT_WORDS, FACTS), random.Random(f"long {index}")
        parts: list[Part] = []
        for number in range(rounds):
            for question in rng.sample(case.questions, len(case.questions)):
                between = "".join(f" {sentence}" for sentence in sentences.run(rng, BETWEEN_WORDS))
                parts += [
                    Part(encoded(tokenizer, between), [], number),
                    Part(encoded(tokenizer, question.text), encoded(tokenizer, f"{question.answer}{END}"), number),
                ]
        yield encoded(tokenizer, f"{BEGIN}{case.text}"), parts


class Writer:
    """A model, and a cache for one text with its answer."""

    def __init__(self, folder: Path) -> None:
        config = read_config(folder)
        weights = load_weights(Checkpoint(folder), config, torch.float32, CPU)
        self._decoder = Decoder(config, weights, Rope(config), CpuOperations(config))
        pool = PagePool(config.layers * config.kv_heads * (LONGEST // PAGE + 4), PAGE, config.head_dim, torch.float32)
        self._tables = PageTables(pool, 2, config.layers, config.kv_heads, LONGEST // PAGE + 4)
        self._compressor = Compressor(self._tables, encode=lambda _: ())

    @property
    def cuts(self) -> int:
        """How often answers were cut."""
        return self._compressor.cuts

    @torch.inference_mode()
    def right(self, text: Sequence[int], parts: Sequence[Part], recipe: str) -> list[tuple[int, bool]]:
        """Of each fact the round that it stands in, and whether it is right."""
        slot = self._tables.open()
        held = self._compressor.begin(self._decoder, slot, Allowance(Recipe.parse(recipe), len(text), 128))
        tokens, done, found = list(text), 0, []
        for part in [Part(tokens, [], 0), *parts]:
            if done:
                tokens = [*tokens, *part.given, *part.wanted]
            logits = []
            while done < len(tokens):
                size = min(128, len(tokens) - done)
                piece = Piece(slot, tokens[done : done + size], done - held.shift, len(text), size)
                logits.append(
                    self._decoder.forward(gather([piece], self._tables, CPU, self._compressor.observer([held])))
                )
                done += size
                # As where the next token is known, and no more.
                self._compressor.settle(self._decoder, held, tokens if done < len(text) else [*tokens[:done], 0], done)
            if part.wanted:
                foretold = torch.cat(logits)[-len(part.wanted) - 1 : -1].argmax(-1).tolist()
                found.append((part.round, foretold == part.wanted))
        self._tables.free(slot)
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--text", type=Path, help="a folder of .txt files; what this project says of itself by default")
    parser.add_argument("--budgets", default="256,128")
    parser.add_argument("--recipes", default=RECIPES)
    parser.add_argument("--cases", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = Tokenizer.from_file(str(asked.model / "tokenizer.json"))
    sentences = Sentences(natural_text(asked.text), testing=True)
    made, writer = list(cases(tokenizer, sentences, asked.cases, asked.rounds)), Writer(asked.model)
    lengths = [(len(text), sum(len(part.given) + len(part.wanted) for part in parts)) for text, parts in made]
    texts, answers = (sum(each) / len(made) for each in zip(*lengths, strict=True))
    lines = [
        f"{len(made)} texts of {texts:,.0f} tokens and answers of {answers:,.0f} on average, {len(FACTS)} facts.\n",
        "| recipe | " + " | ".join(f"round {number + 1}" for number in range(asked.rounds)) + " | all | seconds |",
        "|---|" + "---:|" * (asked.rounds + 2),
    ]
    recipes = [f"{name}@{budget}tok" for budget in asked.budgets.split(",") for name in asked.recipes.split()]
    for recipe in [FULL, *recipes]:
        start = time.perf_counter()
        found = [one for text, parts in made for one in writer.right(text, parts, recipe)]
        shares = [[right for number, right in found if number == wanted] for wanted in range(asked.rounds)]
        told = [f"{100 * sum(each) / len(each):.0f}" for each in (*shares, [right for _, right in found])]
        name = "full" if recipe == FULL else f"`{recipe}`"
        lines.append(f"| {name} | {' | '.join(told)} | {time.perf_counter() - start:.0f} |")
        print(lines[-1], flush=True)
    asked.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
