"""A random-weight model that comes to an end: strings and lists it begins are soon closed, so that tests are quick."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from lcdoc.tests.local_engine.checkpoints import save_checkpoint

TERSE: Mapping[str, float] = {'"': 12.0, "]": 12.0, "}": 12.0}
"""What is added to the scores of these tokens."""
_CONSTANT = 4.0


def save_terse(folder: Path, *, more: Mapping[str, float] = TERSE, window: int = 8192, seed: int = 0) -> Path:
    """A checkpoint of a small Qwen2 with a tokenizer of 512 tokens, that prefers the tokens of `more`.

    One number of the hidden state is the same for every token, and no layer changes it: what the output matrix makes of
    it is a bias.
    """
    save_checkpoint(folder, "qwen2", max_position_embeddings=window, seed=seed, num_hidden_layers=2)
    path = folder / "model.safetensors"
    weights: dict[str, Any] = load_file(path)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    weights["model.embed_tokens.weight"][:, 0] = _CONSTANT
    for name, weight in weights.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            weight[0] = 0.0
    weights["model.norm.weight"][0] = 1.0
    weights["lm_head.weight"][:, 0] = 0.0
    for token, bias in more.items():
        # The norm makes the constant about one to two.
        weights["lm_head.weight"][tokenizer.token_to_id(token), 0] = bias
    save_file(weights, path, metadata={"format": "pt"})
    return folder
