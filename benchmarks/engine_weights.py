"""One set of random weights of the 0.5B Qwen2 shape, as a Hugging Face checkpoint and as a GGUF file.

    python benchmarks/engine_weights.py FOLDER
    LLAMA_PYTHON benchmarks/engine_weights.py FOLDER --gguf

The first makes the checkpoint (1 GB, bfloat16, seeded) unless it is there; it needs torch. The second writes
FOLDER/model-f16.gguf from it, in an environment that has `gguf` and `numpy` and nothing else. Float16 holds every
bfloat16 weight of this size exactly, but for the smallest, which are off by less than 3e-8.
"""

from __future__ import annotations

import argparse
import json
import struct
from collections.abc import Iterator
from itertools import chain, product
from pathlib import Path
from typing import Any

LAYERS, HIDDEN, FEED_FORWARD, HEADS, KV_HEADS, HEAD_DIM, VOCABULARY = 24, 896, 4864, 14, 2, 64, 151_936
ROPE_THETA, EPS, WINDOW = 1_000_000.0, 1e-6, 131_072
GGUF = "model-f16.gguf"
_LETTERS = "etaoinshrdlcumwfgypbvkjxqz"
_NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""Parts of a layer: in a checkpoint, and in a GGUF file."""


def shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    """All tensors of the checkpoint."""
    yield "model.embed_tokens.weight", (VOCABULARY, HIDDEN)
    for layer in range(LAYERS):
        start = f"model.layers.{layer}"
        for name, heads in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)):
            yield f"{start}.self_attn.{name}_proj.weight", (heads * HEAD_DIM, HIDDEN)
            yield f"{start}.self_attn.{name}_proj.bias", (heads * HEAD_DIM,)
        yield f"{start}.self_attn.o_proj.weight", (HIDDEN, HEADS * HEAD_DIM)
        for name in ("gate", "up"):
            yield f"{start}.mlp.{name}_proj.weight", (FEED_FORWARD, HIDDEN)
        yield f"{start}.mlp.down_proj.weight", (HIDDEN, FEED_FORWARD)
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"{start}.{name}.weight", (HIDDEN,)
    yield "model.norm.weight", (HIDDEN,)


def make(folder: Path, *, seed: int = 0) -> None:
    """Write config.json, model.safetensors and tokenizer.json into `folder`, unless they are there."""
    done = folder / "made"
    if done.exists():
        return
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    tensors = {}
    for name, shape in shapes():
        values = torch.randn(shape) * 0.02
        # Norms differ from one and biases from zero: an engine that left them out would not agree.
        tensors[name] = (values + 1 if "norm" in name else values).bfloat16()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    _json(folder / "config.json", _config())
    _json(folder / "generation_config.json", {"eos_token_id": VOCABULARY - 1})
    _json(folder / "tokenizer.json", _tokenizer())
    _json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>"})
    done.touch()


def write_gguf(folder: Path) -> Path:
    """Write the checkpoint of `folder` as float16 GGUF, unless it is there; without a tokenizer."""
    path = folder / GGUF
    if path.exists():
        return path
    import gguf

    part = path.with_suffix(".part")
    writer = gguf.GGUFWriter(part, "qwen2")
    writer.add_name("random-qwen2-0.5b")
    writer.add_context_length(WINDOW)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(ROPE_THETA)
    writer.add_layer_norm_rms_eps(EPS)
    writer.add_vocab_size(VOCABULARY)
    writer.add_tokenizer_model("none")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    for name, values in _tensors(folder / "model.safetensors"):
        # llama.cpp wants vectors in float32.
        writer.add_tensor(_gguf_name(name), values.astype("float16") if values.ndim > 1 else values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part.replace(path)
    return path


def _tensors(path: Path) -> Iterator[tuple[str, Any]]:
    """The bfloat16 tensors of a safetensors file as float32, without torch."""
    import numpy as np

    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    data = np.memmap(path, np.uint16, "r", offset=8 + length)
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = (offset // 2 for offset in entry["data_offsets"])
            wide = data[start:end].astype(np.uint32) << 16
            yield name, wide.view(np.float32).reshape(entry["shape"])


def _gguf_name(name: str) -> str:
    if name == "model.embed_tokens.weight":
        return "token_embd.weight"
    if name == "model.norm.weight":
        return "output_norm.weight"
    layer, _, rest = name.removeprefix("model.layers.").partition(".")
    part, _, kind = rest.rpartition(".")
    return f"blk.{layer}.{_NAMES[part]}.{kind}"


def _config() -> dict[str, Any]:
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": FEED_FORWARD,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "max_position_embeddings": WINDOW,
        "rms_norm_eps": EPS,
        "rope_theta": ROPE_THETA,
        "hidden_act": "silu",
        "use_sliding_window": False,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "eos_token_id": VOCABULARY - 1,
    }


def _tokenizer() -> dict[str, Any]:
    """A byte-level BPE as large as the model's vocabulary: bytes, then words of two, three and four letters."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet = [chr(byte) for byte in printable] + [chr(256 + index) for index in range(256 - len(printable))]
    words = chain.from_iterable(map("".join, product(_LETTERS, repeat=length)) for length in (2, 3, 4))
    grown = [next(words) for _ in range(VOCABULARY - 1 - len(alphabet))]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    end = {"id": VOCABULARY - 1, "content": "<|end|>", "special": True}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {
        "version": "1.0",
        "added_tokens": [{**end, **flags}],
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": None,
        "decoder": level,
        "model": {
            "type": "BPE",
            "vocab": {token: index for index, token in enumerate([*alphabet, *grown])},
            "merges": [[word[:-1], word[-1]] for word in grown],
        },
    }


def _json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def main() -> int:
    """Make the one or the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gguf", action="store_true", help="write the GGUF file from the checkpoint that is there")
    arguments = parser.parse_args()
    if arguments.gguf:
        print(write_gguf(arguments.folder))
    else:
        make(arguments.folder)
        print(arguments.folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
