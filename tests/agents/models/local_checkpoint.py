"""A random-weight model that comes to an end: strings and lists it begins are soon closed, so that tests are quick."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from lcdoc.tests.local_engine.checkpoints import save_checkpoint

_SCORES: Final = {'"': 1.6, "]": 1.4, "{": 1.5, "}": 1.4, "Ġtr": 1.2}
"""Of these tokens, but for a factor that all have in common: other tokens' are random, and below. A string is closed
when it may be, lists have an item or two, and what is asked to be true or false is true."""
_CONSTANT: Final = 4.0


def save_terse(folder: Path, *, window: int = 8192) -> Path:
    """A checkpoint of a small Qwen2 with a tokenizer of 512 tokens.

    Two numbers of the hidden state are what the embedding makes of the last token, and no layer changes them: one is
    the same for all, and one marks a quotation mark, after which something else comes than another mark.
    """
    save_checkpoint(folder, "qwen2", max_position_embeddings=window, num_hidden_layers=2)
    path = folder / "model.safetensors"
    weights: dict[str, Any] = load_file(path)
    tokens = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    embedding, head = weights["model.embed_tokens.weight"], weights["lm_head.weight"]
    embedding[:, 0], embedding[:, 1] = _CONSTANT, 0.0
    embedding[[number for token, number in tokens.items() if token.endswith('"')], 1] = _CONSTANT
    for name, weight in weights.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            weight[:2] = 0.0
    weights["model.norm.weight"][:2] = 1.0
    head[:, :2] = 0.0
    for token, score in _SCORES.items():
        head[tokens[token]] = 0.0
        head[tokens[token], 0] = score
    head[tokens['"'], 1] = -2 * _SCORES['"']
    save_file(weights, path, metadata={"format": "pt"})
    return folder
