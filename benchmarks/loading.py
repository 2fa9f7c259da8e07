"""How much memory loading a checkpoint takes at its peak, beside what the weights take afterwards.

    python benchmarks/loading.py [--folder FOLDER] [--layers 6] [--vocabulary 40000]

Without a folder a random checkpoint of the Qwen2 shape is written for the time of the run. Each row is a process of its
own: memory that is resident before loading (Python, PyTorch and its threads, warmed up) is taken off, pages of mapped
files count. The budget is 1.15 times the weights as they are held. Linux only, for /proc.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HIDDEN, FEED_FORWARD, HEADS, KV_HEADS, HEAD_DIM = 896, 4864, 14, 2, 64
BUDGET = 1.15
VARIANTS = [("bfloat16", None), ("float32", None), ("bfloat16", "int8"), ("bfloat16", "int4")]


def make(folder: Path, *, layers: int, vocabulary: int, tied: bool = True) -> Path:
    """Write a checkpoint of random bfloat16 weights; no tokenizer."""
    import torch
    from safetensors.torch import save_file

    def drawn(*shape: int) -> torch.Tensor:
        return (torch.randn(shape) * 0.02).bfloat16()

    tensors = {"model.embed_tokens.weight": drawn(vocabulary, HIDDEN), "model.norm.weight": drawn(HIDDEN)}
    if not tied:
        tensors["lm_head.weight"] = drawn(vocabulary, HIDDEN)
    for layer in range(layers):
        start = f"model.layers.{layer}."
        for name, heads in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)):
            tensors[f"{start}self_attn.{name}_proj.weight"] = drawn(heads * HEAD_DIM, HIDDEN)
            tensors[f"{start}self_attn.{name}_proj.bias"] = drawn(heads * HEAD_DIM)
        tensors[f"{start}self_attn.o_proj.weight"] = drawn(HIDDEN, HEADS * HEAD_DIM)
        tensors[f"{start}mlp.gate_proj.weight"] = drawn(FEED_FORWARD, HIDDEN)
        tensors[f"{start}mlp.up_proj.weight"] = drawn(FEED_FORWARD, HIDDEN)
        tensors[f"{start}mlp.down_proj.weight"] = drawn(HIDDEN, FEED_FORWARD)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{start}{name}.weight"] = drawn(HIDDEN)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "intermediate_size": FEED_FORWARD,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "vocab_size": vocabulary,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0,
        "max_position_embeddings": 32_768,
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def measure(folder: Path, dtype: str, quantize: str | None) -> dict[str, float]:
    """Load in a process of its own: bytes of the weights, bytes at the peak and afterwards above before, seconds."""
    command = [sys.executable, __file__, "--one", str(folder), dtype, quantize or "-"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def load_here(folder: Path, dtype_name: str, quantize: Any) -> dict[str, float]:
    """What `measure` tells, of this process."""
    import torch

    from lcdoc.local_engine.config import read_config
    from lcdoc.local_engine.loading import give_back_freed, load_weights
    from lcdoc.local_engine.precision import choose_dtype
    from lcdoc.local_engine.quantization import quantized_linear
    from lcdoc.local_engine.weights import Checkpoint

    cpu = torch.device("cpu")
    torch.set_num_threads(2)
    # Threads, and the code of the kernels that loading runs, belong to what is there before.
    for each in ("bfloat16", "float32"):
        choose_dtype("auto", cpu)
        wide = torch.randn(1024, 1024).to(choose_dtype(each, cpu))
        torch.cat((wide, wide)).float()
        for how in ("int8", "int4"):
            quantized_linear(wide, None, how)(wide)
        del wide
    config = read_config(folder)
    checkpoint = Checkpoint(folder)
    give_back_freed()  # what the warming up left would hide part of what loading takes
    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    start = time.perf_counter()
    weights = load_weights(checkpoint, config, choose_dtype(dtype_name, cpu), cpu, quantize=quantize)
    seconds = time.perf_counter() - start
    return {
        "weights": weights.nbytes,
        "peak": _memory("VmHWM") - before,
        "after": _memory("VmRSS") - before,
        "seconds": seconds,
    }


def _memory(name: str) -> int:
    """Bytes that the kernel counts for this process."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--vocabulary", type=int, default=40_000)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        folder, dtype, quantize = options.one
        print(json.dumps(load_here(Path(folder), dtype, None if quantize == "-" else quantize)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or make(Path(scratch), layers=options.layers, vocabulary=options.vocabulary)
        print(f"{platform.platform()}, Python {platform.python_version()}; {folder if options.folder else 'random'}")
        print(f"{'':<16} {'weights':>9} {'peak':>9} {'after':>9}  peak / weights (at most {BUDGET})")
        for dtype, quantize in VARIANTS:
            found = measure(folder, dtype, quantize)
            sizes = "".join(f"{found[name] / 2**20:>7,.0f} MB" for name in ("weights", "peak", "after"))
            print(f"{quantize or dtype:<16}{sizes}  {found['peak'] / found['weights']:.2f}  {found['seconds']:.1f} s")


if __name__ == "__main__":
    main()
