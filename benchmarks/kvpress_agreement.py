"""Whether our parts keep the entries that NVIDIA's kvpress keeps, given the same keys, values and queries.

    python benchmarks/kvpress_agreement.py record FILE      in an environment with kvpress (0.5.5 needs transformers < 5.3)
    python benchmarks/kvpress_agreement.py compare FILE     in lcdoc's

`record` makes a small Llama and a small Qwen2 with random weights, has kvpress compress a random text with each of its
methods, and writes what a scorer sees and what was kept. `compare` scores the same tensors, cuts to the same budget, and
prints the share of kvpress's entries that we keep too. It ends with status 1 where a method without a known difference
falls short of 100 %.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

TOKENS: Final = 620
SINKS: Final = 4
LAG: Final = 64
CHUNK: Final = 20
PIECE: Final = 256
"""Tokens that kvzip has repeated at a time."""


@dataclass(frozen=True, slots=True)
class Method:
    """One method, as kvpress and as we call it."""

    press: Callable[[Any, float], Any]
    """From the module kvpress and the share to drop."""
    scorer: str
    options: dict[str, Any] = field(default_factory=dict)
    budget: str = "uniform"
    budget_options: dict[str, Any] = field(default_factory=dict)
    kept: int = 200
    """Entries of a row, on average."""
    sinks: int = 0
    recent: int = 0
    """What kvpress's score always keeps, and our mask protects."""
    eager: bool = False
    """Whether kvpress needs all attention."""
    difference: str = ""
    """What is known to differ."""


METHODS: Final[dict[str, Method]] = {
    "window": Method(lambda k, r: k.StreamingLLMPress(r, SINKS), "window", sinks=SINKS),
    "knorm": Method(lambda k, r: k.KnormPress(r), "knorm"),
    "keydiff": Method(lambda k, r: k.KeyDiffPress(r), "keydiff"),
    # Ranks of different partitions tie: so many are kept that whole ranks are.
    "lagkv": Method(lambda k, r: k.LagKVPress(r, SINKS, LAG), "lagkv", {"lag": LAG}, kept=SINKS + 104 + 8 * 25),
    "lagkv across": Method(
        lambda k, r: k.LagKVPress(r, SINKS, LAG, True), "lagkv", {"lag": LAG, "ranks": False}, sinks=SINKS, recent=104
    ),
    "snapkv": Method(lambda k, r: k.SnapKVPress(r, 32, 5), "snapkv", recent=32),
    "tova": Method(lambda k, r: k.TOVAPress(r), "tova", recent=1),
    "h2o": Method(lambda k, r: k.ObservedAttentionPress(r), "h2o", {"mean": True}, eager=True),
    "expected": Method(
        lambda k, r: k.ExpectedAttentionPress(r, epsilon=0.01, n_sink=SINKS), "expected", {"sinks": SINKS}, sinks=SINKS
    ),
    "expected, epsilon 0": Method(
        lambda k, r: k.ExpectedAttentionPress(r, n_sink=SINKS), "expected", {"epsilon": 0.0}, sinks=SINKS
    ),
    "chunkkv": Method(
        lambda k, r: k.ChunkKVPress(k.SnapKVPress(r, 2 * CHUNK, 5), CHUNK),
        "chunkkv",
        {"chunk": CHUNK, "window": 2 * CHUNK},
        recent=2 * CHUNK,
    ),
    "pyramid": Method(lambda k, r: k.PyramidKVPress(r, 8, 5), "snapkv", {"window": 8}, "pyramid", recent=8),
    "ada": Method(
        lambda k, r: k.AdaKVPress(k.SnapKVPress(r, 32, 5), 0.0), "snapkv", {}, "ada", {"alpha": 0.0}, recent=32
    ),
    "ada, floor 0.9": Method(
        lambda k, r: k.AdaKVPress(k.SnapKVPress(r, 32, 5), 0.9),
        "snapkv",
        {},
        "ada",
        {"alpha": 0.9},
        recent=32,
        difference="the floor: kvpress's is a share of the budget, ours of what protection leaves of it",
    ),
    "ada, expected": Method(
        lambda k, r: k.AdaKVPress(k.ExpectedAttentionPress(r, epsilon=0.01, n_sink=SINKS), 0.0),
        "expected",
        {},
        "ada",
        {"alpha": 0.0},
        sinks=SINKS,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("mode", choices=["record", "compare"])
    parser.add_argument("file", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.mode == "record":
        record(asked.file)
    elif not compare(asked.file):
        sys.exit(1)


# In kvpress's environment.


def record(file: Path) -> None:
    """Writes, for each model and layer, what scorers see, and for each method what kvpress kept: bool [L, H, n]."""
    import kvpress
    import transformers

    transformers.logging.disable_progress_bar()
    tensors: dict[str, Tensor] = {}
    shared = {
        "vocab_size": 1024,
        "hidden_size": 96,
        "intermediate_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "initializer_range": 0.12,
    }
    for seed, family in enumerate(("Llama", "Qwen2")):
        torch.manual_seed(seed)
        made = getattr(transformers, f"{family}ForCausalLM")(getattr(transformers, f"{family}Config")(**shared))
        for name, parameter in made.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.5)
        with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
            made.save_pretrained(folder)
            model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa").eval()
            # No token twice: in the first layer its keys would be equally long, and ties fall as they may.
            ids = torch.randperm(1024)[None, :TOKENS]
            seen = _seen(model, ids)
            tensors |= {f"{family}/{name}": tensor for name, tensor in seen.items()}
            for name, method in METHODS.items():
                model.set_attn_implementation("eager" if method.eager else "sdpa")
                # A little above, so that kvpress, which rounds down, keeps just as many.
                share = 1 - (method.kept + 0.001) / TOKENS
                kept = _kept(model, ids, method.press(kvpress, share), seen["keys"])
                tensors[f"{family}/kept/{name}"] = kept
    versions = {"kvpress": _version("kvpress"), "transformers": transformers.__version__, "torch": torch.__version__}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file, {"versions": json.dumps(versions)})
    print(f"{len(tensors)} tensors written to {file}")


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


def _seen(model: Any, ids: Tensor) -> dict[str, Tensor]:
    """Keys and values [L, H, n, D], queries before and after rotation [L, H, G, n, D], and what parts ask of a model."""
    from transformers import DynamicCache
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    inputs: list[Tensor] = []
    hooks = [
        layer.self_attn.register_forward_pre_hook(
            lambda _, __, named: inputs.append(named["hidden_states"]), with_kwargs=True
        )
        for layer in model.model.layers
    ]
    cache = DynamicCache()
    model.model(ids, past_key_values=cache)
    for hook in hooks:
        hook.remove()
    cosines, sines = model.model.rotary_emb(inputs[0], torch.arange(TOKENS)[None])
    plain, rotated = [], []
    for layer, hidden in zip(model.model.layers, inputs, strict=True):
        heads = layer.self_attn.q_proj(hidden).view(1, TOKENS, -1, layer.self_attn.head_dim).transpose(1, 2)
        turned, _ = apply_rotary_pos_emb(heads, heads, cosines, sines)
        grouped = (2, -1, TOKENS, layer.self_attn.head_dim)
        plain.append(heads.reshape(grouped))
        rotated.append(turned.reshape(grouped))
    return {
        "keys": torch.cat([layer.keys for layer in cache.layers]),
        "values": torch.cat([layer.values for layer in cache.layers]),
        "plain": torch.stack(plain),
        "queries": torch.stack(rotated),
        "hidden": torch.cat(inputs),
        "output": torch.stack([layer.self_attn.o_proj.weight for layer in model.model.layers]),
        "frequencies": model.model.rotary_emb.inv_freq,
        "tokens": ids[0],
    }


def _kept(model: Any, ids: Tensor, press: Any, keys: Tensor) -> Tensor:
    """What `press` leaves of the cache. Some presses leave it whole, and name what attention is to pass over."""
    from transformers import DynamicCache

    for layer in model.model.layers:
        layer.self_attn.masked_key_indices = None
    cache = DynamicCache()
    with press(model):
        model.model(input_ids=ids, past_key_values=cache)
    kept = torch.zeros(keys.shape[:3], dtype=torch.bool)
    for number, (layer, of_layer) in enumerate(zip(model.model.layers, cache.layers, strict=True)):
        if layer.self_attn.masked_key_indices is not None:
            _, heads, places = layer.self_attn.masked_key_indices
            kept[number] = True
            kept[number, heads, places] = False
            continue
        for head, left in enumerate(of_layer.keys[0]):
            # Nearly the same keys: attention that is written out rounds otherwise.
            distances, places = torch.cdist(left, keys[number, head]).min(-1)
            kept[number, head, places] = True
            if distances.max() > 0.01 or int(kept[number, head].sum()) != len(left):
                raise RuntimeError(f"{press} left keys that are not those of the model")
    return kept


# In lcdoc's environment.


def compare(file: Path) -> bool:
    """Prints a row for each method and model; whether all that should agree do."""
    fine = True
    with safe_open(file, "pt") as stored:
        versions = json.loads(stored.metadata()["versions"])
        print(", ".join(f"{package} {version}" for package, version in versions.items()))
        print(f"{'method':22}{'model':8}{'kept':>7}{'also kept':>11}{'rows equal':>12}  known difference")
        for name, method in METHODS.items():
            for family in ("Llama", "Qwen2"):
                seen = {
                    key.split("/", 1)[1]: stored.get_tensor(key)
                    for key in stored.keys()  # noqa: SIM118
                    if key.startswith(f"{family}/") and "/kept/" not in key
                }
                theirs = stored.get_tensor(f"{family}/kept/{name}")
                ours = _ours(method, seen, theirs)
                both, rows = (ours & theirs).sum() / theirs.sum(), (ours == theirs).all(-1)
                counts = f"{int(rows.sum())}/{rows.numel()}"
                print(
                    f"{name:22}{family:8}{theirs.sum() / rows.numel():7.1f}{both:11.2%}{counts:>12}  {method.difference}"
                )
                fine &= bool(method.difference) or bool(rows.all())
    return fine


def _ours(method: Method, seen: dict[str, Tensor], theirs: Tensor) -> Tensor:
    """What our parts keep of as many entries as kvpress did."""
    from lcdoc.local_engine.compression.parts import Scores
    from lcdoc.local_engine.compression.registry import part_class

    scorer, budget = part_class(method.scorer)(**method.options), part_class(method.budget)(**method.budget_options)
    protected = torch.zeros_like(theirs)
    protected[..., : method.sinks] = True
    protected[..., TOKENS - method.recent :] = True
    layers, count = theirs.shape[:2]
    values = torch.stack([scorer.score(_heads(scorer.needs, seen, layer, protected[layer])) for layer in range(layers)])
    # kvpress's pyramid divides all of the budget, the window too.
    room = int(theirs.sum()) // (layers * count)
    kept: Tensor = budget.keep(Scores(values, torch.ones_like(theirs), protected, room, window=0))
    return kept


def _heads(needs: Any, seen: dict[str, Tensor], layer: int, protected: Tensor) -> Any:
    from lcdoc.local_engine.compression.parts import Heads, LayerModel, Moments

    keys, queries, plain = seen["keys"][layer], seen["queries"][layer], seen["plain"][layer]
    count, group, n, dim = queries.shape
    positions = torch.arange(n).expand(count, n).contiguous()

    def rotate(x: Tensor, at: Tensor) -> Tensor:
        angles = at[..., None].to(torch.float32) * seen["frequencies"]
        cosines, sines, (left, right) = angles.cos(), angles.sin(), x.chunk(2, -1)
        return torch.cat([left * cosines - right * sines, right * cosines + left * sines], -1)

    output = seen["output"][layer]
    model = LayerModel(
        layer, len(seen["keys"]), dim**-0.5, rotate, lambda: output.view(len(output), count, group, dim), count
    )
    logits = (queries @ keys.unsqueeze(1).mT * dim**-0.5).masked_fill(
        torch.ones(n, n, dtype=torch.bool).triu(1), -torch.inf
    )
    after = plain[:, :, SINKS:]
    around = after - after.mean(2, keepdim=True)
    return Heads(
        model,
        keys,
        seen["values"][layer],
        positions,
        positions,
        seen["tokens"].expand(count, n),
        protected,
        new=n,
        queries=queries[:, :, n - needs.window :] if needs.window else None,
        query_positions=torch.arange(n - needs.window, n) if needs.window else None,
        hidden=seen["hidden"][layer, n - needs.window :] if needs.hidden else None,
        moments=Moments(after.mean(2), around.mT @ around / (n - SINKS)),
        state={
            "mass": logits.softmax(-1).sum(2).mean(1),
            "seen": torch.arange(n, 0, -1, dtype=torch.float32).expand(count, n),
        },
    )


if __name__ == "__main__":
    main()
