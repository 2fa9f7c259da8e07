"""A model that summarises to the length it is asked for, in the sentences of the text."""

from __future__ import annotations

import re
from collections import Counter
from random import Random
from typing import Any

from lcdoc.agents.prompts.fence import restored
from lcdoc.retrieval.sentences import sentence_spans
from lcdoc.tests.servers.truthful import Block, Truthful


class Abridger(Truthful):
    """Honest, and of many words where as many are asked for: sentences of every block in turn."""

    def _summarize(self, blocks: list[Block], task: str, _: Random) -> dict[str, Any]:
        left = int(re.findall(r"at most (\d+) words", task)[0])
        texts = [[restored(span.of(block.text)) for span in sentence_spans(block.text)] for block in blocks]
        chosen: list[tuple[int, int]] = []
        for turn in range(max(map(len, texts))):
            for block, sentences in enumerate(texts):
                if turn < len(sentences) and len(sentences[turn].split()) > 4:
                    left -= len(sentences[turn].split())
                    if left < 0 and chosen:
                        break
                    chosen.append((block, turn))
        points = [texts[block][turn] for block, turn in sorted(chosen)]
        return {"points": [{"text": " ".join(one.split()), "quote": one} for one in points]}

    def _condense(self, blocks: list[Block], task: str, _: Random) -> dict[str, Any]:
        """The points with the rarest words, in order."""
        left = int(re.findall(r"at most (\d+) words", task)[0])
        counts = Counter(word for block in blocks for word in set(block.text.split()))

        def rarity(block: Block) -> float:
            return sum(1 / counts[word] for word in block.text.split()) / len(block.text.split())

        kept: list[Block] = []
        for block in sorted(blocks, key=rarity, reverse=True):
            left -= len(block.text.split())
            if left < 0 and kept:
                break
            kept.append(block)
        numbers = sorted(int(block.header["point"]) for block in kept)
        texts = {int(block.header["point"]): block.text for block in kept}
        return {"points": [{"text": texts[number], "evidence": [number]} for number in numbers]}
