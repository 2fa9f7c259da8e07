"""Small checkpoints with random weights, in the format of real ones: written by transformers' own classes.

Norms and biases are random too, since ones and zeros would hide their being left out.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
import transformers

from lcdoc.tests.local_engine.tokenizers_made import CHATML, byte_level, save_tokenizer

FAMILIES: Final = ("llama", "mistral", "qwen2", "qwen3", "smollm3", "phi3")
_CLASSES: Final = {
    "llama": "Llama",
    "mistral": "Mistral",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "smollm3": "SmolLM3",
    "phi3": "Phi3",
}
SHAPE: Final[Mapping[str, Any]] = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": None,
}
_OF_FAMILY: Final[Mapping[str, Mapping[str, Any]]] = {
    "mistral": {"sliding_window": None},
    "qwen3": {"head_dim": 16},
    "smollm3": {"num_hidden_layers": 4},
    "phi3": {"original_max_position_embeddings": 512},
}


def rope(kind: str, *, rotary_dim: int = 16, **changes: Any) -> dict[str, Any]:
    """`rope_parameters` of each kind for a window of pretraining of 64, or of 512 where the file's window is that."""
    frequencies = rotary_dim // 2
    kinds: dict[str, dict[str, Any]] = {
        "default": {},
        "linear": {"factor": 4.0},
        "dynamic": {"factor": 3.0},
        "llama3": {
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
        "yarn": {"factor": 8.0, "original_max_position_embeddings": 64},
        "longrope": {
            "factor": 8.0,
            "original_max_position_embeddings": 64,
            "short_factor": [1.0 + 0.05 * i for i in range(frequencies)],
            "long_factor": [1.0 + 0.7 * i for i in range(frequencies)],
        },
    }
    return {"rope_type": kind, "rope_theta": 10_000.0, **kinds[kind], **changes}


def model_config(family: str, **overrides: Any) -> transformers.PretrainedConfig:
    """A small configuration of a family; `overrides` are fields of its config.json."""
    name = _CLASSES[family]
    fields = {
        "dtype": "float32",
        **SHAPE,
        **_OF_FAMILY.get(family, {}),
        **overrides,
        "architectures": [f"{name}ForCausalLM"],
    }
    return getattr(transformers, f"{name}Config")(**fields)


def randomise(model: torch.nn.Module, seed: int = 0) -> None:
    """Weights of a size that keeps every layer's part in the result visible, and scores far enough apart to compare."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 1:
                parameter.copy_(1 + 0.3 * drawn if "norm" in name else 0.3 * drawn)
            elif "embed_tokens" in name:
                parameter.copy_(drawn * 0.5)
            else:
                parameter.copy_(drawn * parameter.shape[1] ** -0.5)


def reference_model(folder: Path, dtype: torch.dtype = torch.float32) -> transformers.PreTrainedModel:
    """The same checkpoint in transformers, as an oracle: plain attention, on the CPU."""
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()


def save_model(
    folder: Path,
    family: str,
    *,
    dtype: torch.dtype = torch.float32,
    shard_size: str = "5GB",
    seed: int = 0,
    **overrides: Any,
) -> Path:
    """A checkpoint of a family: config.json and safetensors, in several files where `shard_size` is small."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    config = model_config(family, **overrides)
    model = getattr(transformers, config.architectures[0])(config)
    randomise(model, seed)
    model.to(dtype).save_pretrained(folder, max_shard_size=shard_size)
    return folder


def save_checkpoint(folder: Path, family: str, *, template: str | None = CHATML, **overrides: Any) -> Path:
    """A model with a byte-level tokenizer of its own, of 512 tokens, and a chat template."""
    save_model(folder, family, **overrides)
    return save_tokenizer(folder, byte_level(), template, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def edit_json(path: Path, **changes: Any) -> None:
    """Set fields of a JSON file; None removes one."""
    fields = json.loads(path.read_text())
    for name, value in changes.items():
        if value is None:
            fields.pop(name, None)
        else:
            fields[name] = value
    path.write_text(json.dumps(fields, indent=2))
