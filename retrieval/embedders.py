"""What turns text into vectors, and how one is chosen by name.

The default, `minilm`, is run directly (see `minilm.py`) because importing sentence-transformers alone takes longer than
a whole question may. Any other name or path goes through sentence-transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Matrix = npt.NDArray[np.float32]

Progress = Callable[[int, int], None]
"""Called with (texts embedded so far, texts in all), from the thread that called `embed`."""

DEFAULT_EMBEDDER = "minilm"


class EmbedderError(Exception):
    """An embedder could not be loaded or could not embed. `str(error)` is one line that says what to do."""

    def __init__(self, name: str, problem: str, remedy: str) -> None:
        self.name = name
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"embedder {name}: {problem}; {remedy}")


def ignore_progress(_done: int, _total: int) -> None:
    """The progress callback for callers that show none."""


class Embedder(Protocol):
    """Turns texts into vectors of length 1, so that a dot product is the cosine similarity."""

    @property
    def name(self) -> str:
        """What `load_embedder` was asked for."""
        ...

    @property
    def fingerprint(self) -> str:
        """Short hash of everything the vectors depend on; vectors of different fingerprints must not be compared."""
        ...

    @property
    def dimensions(self) -> int: ...

    @property
    def max_tokens(self) -> int:
        """Tokens of a text that count, the two special ones included; the rest of a longer text is not seen."""
        ...

    def embed(self, texts: Sequence[str], *, progress: Progress = ignore_progress) -> Matrix:
        """Vectors of `texts`, float32 of shape (len(texts), dimensions), each row of length 1."""
        ...


def load_embedder(name: str = DEFAULT_EMBEDDER) -> Embedder:
    """The embedder called `name`: `minilm`, or any sentence-transformers model by hub name or by path.

    Raises EmbedderError when the model is not there or its files cannot be used.
    """
    if name == DEFAULT_EMBEDDER:
        from lcdoc.retrieval.minilm import load_minilm

        return load_minilm()
    from lcdoc.retrieval.sentence_transformer import load_sentence_transformer

    return load_sentence_transformer(name)
