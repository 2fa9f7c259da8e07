"""How well a model reads on beyond its window: perplexity by depth for every way to give positions.

    python benchmarks/kv_positions.py MODEL OUT --text BOOKS [--depths 1,2,4,8,16,32] [--texts 8] [--schemes "..."]

MODEL is a folder such as train_book_model.py makes. The same tokens of held-out books, half a window of each text, are
foretold behind more and more of what stands before them: one window of text, two, four. Every scheme sees the same
tokens, at every depth, so that all differences are the scheme's and the depth's. Text is read as the engine reads it,
in pieces, and cut between them.

A scheme is how frequencies are stretched, or what is kept and where it stands. What has to be told a length, is told
the depth's. OUT gets a JSON file for each scheme, which is not measured again, positions.md and positions.svg.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import torch
from tokenizers import Tokenizer

from lcdoc.benchmarks.probe_tasks import BEGIN, Sentences, natural_text
from lcdoc.benchmarks.train_probe import encoded
from lcdoc.local_engine.batch import Piece, gather
from lcdoc.local_engine.compression.allowance import Allowance
from lcdoc.local_engine.compression.compressor import Compressor
from lcdoc.local_engine.compression.positions import smallest_group
from lcdoc.local_engine.compression.recipe import Recipe
from lcdoc.local_engine.compression.stretched_rope import STRETCHES, stretched
from lcdoc.local_engine.config import ModelConfig, read_config
from lcdoc.local_engine.decoder import Decoder
from lcdoc.local_engine.loading import load_weights
from lcdoc.local_engine.operations_cpu import CpuOperations
from lcdoc.local_engine.page_tables import PageTables
from lcdoc.local_engine.pages import PagePool
from lcdoc.local_engine.rope import Rope
from lcdoc.local_engine.weights import Checkpoint

CPU = torch.device("cpu")
FLUENT = 1.2
"""A text stays fluent where perplexity is at most so many times that of one window."""
PAGE = 16
ORIGINAL = "original"
COMPACT = ("window", "keydiff", "lagkv", "snapkv", "expected")
"""Scorers that are tried with compact positions, half a window kept."""


@dataclass(frozen=True, slots=True)
class Scheme:
    """One way, at one depth."""

    name: str
    stretch: str | None = None
    recipe: str | None = None
    """None: all is kept where it is"""


def scheme_names() -> list[str]:
    """All, in the order of the table."""
    kept = [f"{scorer}, compact" for scorer in COMPACT]
    return [ORIGINAL, *STRETCHES, "self-extend", "capped", "window, capped", *kept, "window, self-extend"]


def scheme_of(name: str, window: int, length: int) -> Scheme:
    """The scheme of that name for a text of `length` tokens."""
    if name == ORIGINAL:
        return Scheme(name)
    if name in STRETCHES:
        return Scheme(name, stretch=name)
    reach, near = window - chunk_of(window), window // 4
    extended = f"self-extend:group={smallest_group(length, reach, near)},neighbours={near}"
    places = {"compact": "compact", "self-extend": extended, "capped": f"capped:reach={reach}"}
    scorer, comma, positions = name.partition(", ")
    if not comma:
        scorer, positions = "", scorer
    if positions not in places:
        raise SystemExit(f"--schemes: {name!r} is none of {'; '.join(scheme_names())}")
    kept = f"@{window // 2}tok" if scorer else "@1.0"
    return Scheme(name, recipe=f"{scorer or 'knorm'}+positions={places[positions]}{kept}")


def chunk_of(window: int) -> int:
    """Tokens that are read between two cuts."""
    return max(16, window // 4)


class Reader:
    """A model, and a cache for one text."""

    def __init__(self, folder: Path, longest: int) -> None:
        self.config = read_config(folder)
        self._weights = load_weights(Checkpoint(folder), self.config, torch.bfloat16, CPU)
        self._operations = CpuOperations(self.config)
        rows = self.config.layers * self.config.kv_heads
        pool = PagePool(rows * (longest // PAGE + 4), PAGE, self.config.head_dim, torch.bfloat16)
        self._tables = PageTables(pool, 2, self.config.layers, self.config.kv_heads, 64)
        self._compressor = Compressor(self._tables, encode=lambda _: ())

    @torch.inference_mode()
    def surprise(self, tokens: Sequence[int], scheme: Scheme, last: int) -> float:
        """-log p, in the mean over the `last` tokens of a text."""
        decoder = Decoder(
            self.config, self._weights, Rope(_stretched(self.config, scheme, len(tokens))), self._operations
        )
        window, tables = self.config.context_window, self._tables
        chunk = chunk_of(window)
        slot, held = tables.open(), None
        if scheme.recipe is not None:
            allowance = Allowance(Recipe.parse(scheme.recipe), len(tokens), chunk, window)
            held = self._compressor.begin(decoder, slot, allowance)
        total, read, done = 0.0, 0, 0
        while done < len(tokens):
            size = min(chunk, len(tokens) - done)
            if held is not None:
                size = min(size, held.allowance.readable(done, len(tokens), self._compressor.rows(slot)))
            piece = Piece(slot, tokens[done : done + size], done - (held.shift if held else 0), len(tokens), size)
            if held is not None:
                piece = held.placed(piece)
            logits = decoder.forward(gather([piece], tables, CPU, self._compressor.observer([held])))
            done += size
            first = max(done - size + 1, len(tokens) - last)
            wanted = torch.tensor(tokens[first : done + 1], dtype=torch.int64)
            foretold = logits[first - 1 - (done - size) :][: len(wanted)].float().log_softmax(-1)
            total -= float(foretold.gather(-1, wanted[:, None]).sum())
            read += len(wanted)
            if held is not None:
                self._compressor.settle(decoder, held, tokens, done)
        tables.free(slot)
        if read != last:
            raise SystemExit(f"{read} of {last} tokens were foretold: give longer texts")
        return total / last


def _stretched(config: ModelConfig, scheme: Scheme, length: int) -> ModelConfig:
    return config if scheme.stretch is None else stretched(config, scheme.stretch, length)


def texts_of(tokens: Sequence[int], begin: Sequence[int], *, longest: int, count: int) -> list[list[int]]:
    """Stretches of `longest` tokens, as far apart as they can be. Raises SystemExit where they would overlap."""
    if count * longest > len(tokens):
        raise SystemExit(f"{count} texts of {longest:,} tokens are more than the {len(tokens):,} there are: --texts")
    step = len(tokens) // count
    return [[*begin, *tokens[index * step : index * step + longest]] for index in range(count)]


def behind(text: Sequence[int], begin: int, tokens: int) -> list[int]:
    """The end of a text, `tokens` tokens with its `begin` first ones in front."""
    return [*text[:begin], *text[len(text) - tokens + begin :]]


# --- what is shown ---------------------------------------------------------------------------------------------------


def table(found: dict[str, dict[int, float]], depths: Sequence[int]) -> str:
    """Markdown: perplexities, in bold where the text stays fluent."""
    base = found.get(ORIGINAL, {}).get(min(depths), math.nan)
    heads = "".join(f" {depth}x |" for depth in depths)
    lines = [f"| scheme |{heads}", f"|---|{'---:|' * len(depths)}"]
    for name, by_depth in found.items():
        cells = []
        for depth in depths:
            value = by_depth.get(depth)
            shown = "" if value is None else f"{value:,.1f}" if value < 1_000 else f"{value:,.0f}"
            cells.append(f" **{shown}** |" if value is not None and value <= FLUENT * base else f" {shown} |")
        lines.append(f"| {name} |{''.join(cells)}")
    return "\n".join(lines)


_WIDTH, _HEIGHT, _LEFT, _TOP, _PLOT_WIDTH, _PLOT_HEIGHT = 820, 420, 60, 40, 500, 330
_COLOURS = ("#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f3c8d")


def plot(found: dict[str, dict[int, float]], depths: Sequence[int]) -> str:
    """Perplexity over depth, both logarithmic: an SVG image."""
    values = [value for one in found.values() for value in one.values()]
    low, high = math.log(min(values) * 0.9), math.log(max(values) * 1.1)
    span = math.log(depths[-1] / depths[0]) or 1.0

    def place(depth: int, value: float) -> tuple[float, float]:
        across = math.log(depth / depths[0]) / span
        return _LEFT + 15 + across * (_PLOT_WIDTH - 30), _TOP + (high - math.log(value)) / (high - low) * _PLOT_HEIGHT

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        f'font-size="12"><rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_LEFT}" y="22" font-size="15">Perplexity of the same tokens behind more text, in windows</text>',
    ]
    ticks = [base * 10**power for power in range(7) for base in (1, 2, 5) if low <= math.log(base * 10**power) <= high]
    for tick in ticks:
        x, y = place(depths[0], tick)
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{_LEFT + _PLOT_WIDTH}" stroke="#dddddd"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:,}</text>')
    for depth in depths:
        x, _ = place(depth, values[0])
        parts.append(f'<text x="{x:.1f}" y="{_TOP + _PLOT_HEIGHT + 18}" text-anchor="middle">{depth}x</text>')
    for index, (name, by_depth) in enumerate(found.items()):
        colour, dashes = _COLOURS[index % len(_COLOURS)], "" if index < len(_COLOURS) else "5 3"
        style = f'fill="none" stroke="{colour}" stroke-width="1.6" stroke-dasharray="{dashes}"'
        at = " ".join("{:.1f},{:.1f}".format(*place(depth, value)) for depth, value in sorted(by_depth.items()))
        y, beside = _TOP + 10 + 18 * index, _LEFT + _PLOT_WIDTH + 20
        parts.append(f'<polyline points="{at}" {style}/><path d="M{beside} {y}h24" {style}/>')
        parts.append(f'<text x="{beside + 30}" y="{y + 4}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>\n"])


def main() -> int:
    """Measure what is not yet, write all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--text", type=Path, required=True, help="a folder of .txt books")
    parser.add_argument("--depths", default="1,2,4,8,16,32", help="windows of text")
    parser.add_argument("--texts", type=int, default=8)
    parser.add_argument("--schemes", default=";".join(scheme_names()), help="separated by semicolons")
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    depths = sorted(int(depth) for depth in arguments.depths.split(","))
    tokenizer = Tokenizer.from_file(str(arguments.model / "tokenizer.json"))
    begin = encoded(tokenizer, BEGIN)
    window = read_config(arguments.model).context_window
    reader = Reader(arguments.model, depths[-1] * window)
    held_out = Sentences(natural_text(arguments.text), testing=True)
    tokens = encoded(tokenizer, "".join(f" {one}" for one in held_out.all))
    texts = texts_of(tokens, begin, longest=depths[-1] * window, count=arguments.texts)
    found: dict[str, dict[int, float]] = {}
    for name in arguments.schemes.split(";"):
        path = out / f"{name.replace(', ', '-')}.json"
        known = {int(depth): value for depth, value in json.loads(path.read_text()).items()} if path.exists() else {}
        for depth in depths:
            if depth not in known:
                began = time.perf_counter()
                scheme = scheme_of(name, window, depth * window)
                each = [
                    reader.surprise(behind(text, len(begin), depth * window), scheme, window // 2) for text in texts
                ]
                known[depth] = math.exp(sum(each) / len(each))
                path.write_text(json.dumps(known), encoding="utf-8")
                print(f"{name}, {depth}x: {known[depth]:.2f} ({time.perf_counter() - began:.0f} s)", flush=True)
        found[name] = {depth: known[depth] for depth in depths}
    said = (
        f"{len(texts)} texts, window {window:,}; bold: at most {FLUENT} times the perplexity of one window.\n\n"
        f"{table(found, depths)}\n"
    )
    (out / "positions.md").write_text(said, encoding="utf-8")
    (out / "positions.svg").write_text(plot(found, depths), encoding="utf-8")
    print(said)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
