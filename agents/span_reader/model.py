"""The span reader at work: a question and texts in, answers out, in numpy on all cores.

Source: "DeFormer: Decomposing Pre-trained Transformers for Faster Question Answering": the lower layers read the
question and each window apart, the upper ones both together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lcdoc.agents.span_reader import weights
from lcdoc.agents.span_reader.spans import Answer, answers_of
from lcdoc.agents.span_reader.weights import PATH, SpanReaderError
from lcdoc.agents.span_reader.windows import Vocabulary, Window
from lcdoc.retrieval import bert
from lcdoc.retrieval.bert import Encoder, Layer, Matrix, encoder_from, equal_runs
from lcdoc.retrieval.minilm import packaged_model
from lcdoc.retrieval.packs import cores, even_packs, one_blas_thread

PACK_TOKENS = 1024
"""Of windows read together by one thread, about."""


class SpanModel:
    """Reads windows for a question. Safe to share between threads."""

    def __init__(self, encoder: Encoder, first: int, own: Mapping[str, Matrix], vocabulary: Vocabulary) -> None:
        """`first` is the number of the lowest of `encoder`'s layers that read question and window together.

        `own` has what the encoder does not: `kinds` (3, width), `head.weight` (2, width), `head.bias` (2,). Raises
        KeyError naming what is missing.
        """
        self._encoder = encoder
        self._lower, self._upper = encoder.layers[:first], encoder.layers[first:]
        self._kinds, self._head, self._bias = own["kinds"], own["head.weight"], own["head.bias"]
        self.vocabulary = vocabulary

    def answers(self, question: str, texts: Sequence[str], *, each: int = 1) -> list[list[Answer]]:
        """Of every text its `each` best answers that do not overlap, best first; none of a text without words."""
        asked = self.vocabulary.question(question)
        windows = [(index, window) for index, text in enumerate(texts) for window in self.vocabulary.windows(text)]
        found: list[list[Answer]] = [[] for _ in texts]
        logits = self.logits(asked, [window for _, window in windows])
        for (index, window), own in zip(windows, logits, strict=True):
            found[index] += answers_of(own, window, texts[index], most=each)
        return [_distinct(answers)[:each] for answers in found]

    def logits(self, question: Sequence[int], windows: Sequence[Window]) -> list[Matrix]:
        """For each window the logits of "no answer" and of its inner tokens, as starts and ends: (1 + tokens, 2)."""
        if not windows:
            return []
        logits: list[Matrix] = [np.empty((0, 2), dtype=np.float32)] * len(windows)
        with one_blas_thread():
            asked = self._apart([question])

            def read(pack: list[int]) -> None:
                together = self._together(question, asked, [windows[index].ids for index in pack])
                for index, own in zip(pack, together, strict=True):
                    logits[index] = own

            packs = even_packs([len(window.ids) for window in windows], PACK_TOKENS, cores())
            if len(packs) == 1:
                read(packs[0])
            else:
                with ThreadPoolExecutor(min(cores(), len(packs)), thread_name_prefix="read") as pool:
                    list(pool.map(read, packs))
        return logits

    def _apart(self, texts: Sequence[Sequence[int]]) -> Matrix:
        """States of the texts, one behind the other, after the lower layers."""
        x, runs = self._encoder.embedded(texts), equal_runs([len(text) for text in texts])
        for layer in self._lower:
            x = self._layer(layer, x, runs)
        return x

    def _together(self, question: Sequence[int], asked: Matrix, windows: Sequence[Sequence[int]]) -> list[Matrix]:
        lengths = [len(window) for window in windows]
        parts = np.split(self._apart(windows), np.cumsum(lengths)[:-1])
        x = np.concatenate([states for part in parts for states in (asked, part)])
        x += self._kinds[np.concatenate([self.vocabulary.kinds(question, window) for window in windows])]
        joined = [len(question) + length for length in lengths]
        runs = equal_runs(joined)
        for layer in self._upper[:-1]:
            x = self._layer(layer, x, runs)
        # Of the last layer only those states are made that the head looks at: not the question's, but for the first.
        starts = np.cumsum([0, *joined[:-1]]).tolist()
        looked_at = [
            [start, *range(start + len(question) + 1, start + length - 1)]
            for start, length in zip(starts, joined, strict=True)
        ]
        x = self._layer(self._upper[-1], x, runs, np.concatenate(looked_at))
        logits = x @ self._head.T + self._bias
        return np.split(logits, np.cumsum([len(rows) for rows in looked_at])[:-1])

    def _layer(
        self,
        layer: Layer,
        x: Matrix,
        runs: Sequence[tuple[int, int, int]],
        rows: npt.NDArray[np.int64] | slice = slice(None),
    ) -> Matrix:
        """The states after a layer, of the tokens `rows` alone."""
        attended = bert.attention(layer, x, runs, self._encoder.heads)
        return bert.feed_forward(layer, bert.attention_output(layer, attended[rows], x[rows]))


def _distinct(answers: list[Answer]) -> list[Answer]:
    """Best first, without those that overlap a better one: windows do."""
    kept: list[Answer] = []
    for answer in sorted(answers, key=lambda answer: -answer.margin):
        if not any(answer.overlaps(other) for other in kept):
            kept.append(answer)
    return kept


@lru_cache(maxsize=2)
def load_span_model(path: Path = PATH) -> SpanModel:
    """The packaged model, loaded once a process; or that of another file of the same kind.

    Raises SpanReaderError when its weights are missing, damaged, or of another release of the packaged MiniLM, and
    EmbedderError when that cannot be read.
    """
    packaged = packaged_model()
    trained, recipe = weights.read(path, packaged.tensors)
    try:
        encoder = encoder_from({**packaged.tensors, **trained}, heads=packaged.heads, epsilon=packaged.epsilon)
        return SpanModel(encoder, recipe.first, trained, Vocabulary.of(packaged.tokenizer()))
    except KeyError as error:
        raise SpanReaderError(f"{path}: {error} is missing; reinstall lcdoc") from error
