"""Whether our parts keep the entries that NVIDIA's kvpress keeps, given the same keys, values and queries.

    python benchmarks/kvpress_agreement.py record FILE     with kvpress (0.5.5 needs transformers < 5.3)
    python benchmarks/kvpress_agreement.py compare FILE    with lcdoc

The two do not live in one environment. `record` makes a small Llama and a small Qwen2 with random weights, has kvpress
compress a random text with each of its methods, and writes what a scorer sees and what was kept. `compare` scores the
same tensors, cuts to the same budget, and prints the share of kvpress's entries that we keep too. It ends with status 1
where a method without a known difference falls short of 100 %.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from kvpress_methods import METHODS, PIECE, SINKS, TOKENS, Method
from safetensors import safe_open
from torch import Tensor


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("mode", choices=["record", "compare"])
    parser.add_argument("file", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.mode == "record":
        from kvpress_recording import record

        record(asked.file)
    elif not compare(asked.file):
        sys.exit(1)


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
                ours = _kept(method, seen, theirs)
                both, rows = (ours & theirs).sum() / theirs.sum(), (ours == theirs).all(-1)
                counts, average = f"{int(rows.sum())}/{rows.numel()}", theirs.sum() / rows.numel()
                print(f"{name:22}{family:8}{average:7.1f}{both:11.2%}{counts:>12}  {method.difference}")
                fine &= bool(method.difference) or bool(rows.all())
    return fine


def _kept(method: Method, seen: dict[str, Tensor], theirs: Tensor) -> Tensor:
    """What our parts keep of as many entries as kvpress did."""
    from lcdoc.local_engine.compression.parts import Scores
    from lcdoc.local_engine.compression.registry import part_class

    scorer, budget = part_class(method.scorer)(**method.options), part_class(method.budget)(**method.budget_options)
    protected = torch.zeros_like(theirs)
    protected[..., : method.sinks] = True
    protected[..., TOKENS - method.recent :] = True
    layers, count = theirs.shape[:2]
    seek = _repeated if method.repeats else _read
    values = torch.stack([seek(scorer, seen, layer, protected[layer]) for layer in range(layers)])
    # kvpress's pyramid divides all of the budget, the window too.
    room = int(theirs.sum()) // (layers * count)
    kept: Tensor = budget.keep(Scores(values, torch.ones_like(theirs), protected, room, window=0))
    return kept


def _read(scorer: Any, seen: dict[str, Tensor], layer: int, protected: Tensor) -> Tensor:
    """The scores of a layer, float32 [H, n], when the text was read."""
    from lcdoc.local_engine.compression.parts import Heads, Moments

    keys, queries, plain = seen["keys"][layer], seen["queries"][layer], seen["plain"][layer]
    count, _, n, dim = queries.shape
    window = min(scorer.needs.window, n)
    positions = torch.arange(n).expand(count, n).contiguous()
    unseen = torch.ones(n, n, dtype=torch.bool).triu(1)
    attention = (queries @ keys.unsqueeze(1).mT * dim**-0.5).masked_fill(unseen, -torch.inf).softmax(-1)
    after = plain[:, :, SINKS:]
    around = after - after.mean(2, keepdim=True)
    heads = Heads(
        _model(seen, layer),
        keys,
        seen["values"][layer],
        positions,
        positions,
        protected,
        new=n,
        queries=queries[:, :, n - window :] if window else None,
        query_positions=torch.arange(n - window, n) if window else None,
        moments=Moments(after.mean(2), around.mT @ around / (n - SINKS)),
        state={
            "mass": attention.sum(2).mean(1),
            "seen": torch.arange(n, 0, -1, dtype=torch.float32).expand(count, n),
        },
    )
    scores: Tensor = scorer.score(heads)
    return scores


def _repeated(scorer: Any, seen: dict[str, Tensor], layer: int, protected: Tensor) -> Tensor:
    """The scores of a layer, float32 [H, n], when the text was repeated.

    As in the paper, what repeats a piece attends to the sinks, that piece, and itself; as in the engine, the scorer is
    told of the last only the log-sum-exp.
    """
    from lcdoc.local_engine.compression.parts import Heads

    keys, values = seen["keys"][layer], seen["values"][layer]
    count, n, _ = keys.shape
    scores = torch.zeros(count, n)
    for number in range(-(-n // PIECE)):
        repeat = {name: seen[f"repeat/{number}/{layer}/{name}"] for name in ("queries", "keys", "values", "hidden")}
        start, end = seen[f"repeat/{number}/{layer}/piece"].tolist()
        queries, own = repeat["queries"], repeat["keys"]
        length, dim = own.shape[1:]
        later = torch.ones(length, length, dtype=torch.bool).triu(1)
        logits = (queries @ own.unsqueeze(1).mT * dim**-0.5).masked_fill(later, -torch.inf)
        shown = torch.cat([torch.arange(min(SINKS, start)), torch.arange(start, end)])
        positions = shown.expand(count, -1)
        heads = Heads(
            _model(seen, layer),
            keys[:, shown],
            values[:, shown],
            positions,
            positions,
            torch.zeros_like(positions, dtype=torch.bool),
            new=end - start,
            queries=queries,
            query_positions=torch.arange(n, n + length),
            beside=logits.logsumexp(-1),
            hidden=repeat["hidden"],
        )
        scores[:, start:end] = scorer.score(heads)[:, min(SINKS, start) :]
    return scores


def _model(seen: dict[str, Tensor], layer: int) -> Any:
    from lcdoc.local_engine.compression.parts import LayerModel

    layers, count, group, _, dim = seen["queries"].shape

    def rotate(x: Tensor, at: Tensor) -> Tensor:
        angles = at[..., None].to(torch.float32) * seen["frequencies"]
        cosines, sines, (left, right) = angles.cos(), angles.sin(), x.chunk(2, -1)
        return torch.cat([left * cosines - right * sines, right * cosines + left * sines], -1)

    output = seen["output"][layer]
    return LayerModel(layer, layers, dim**-0.5, rotate, lambda: output.view(len(output), count, group, dim), count)


if __name__ == "__main__":
    main()
