"""Heads with fixed roles, found once for a model and stored ("DuoAttention: Efficient Long-Context LLM Inference with
Retrieval and Streaming Heads", section 3).

Some heads fetch from anywhere in a text, the others look at its beginning and at what is near, and need no more of
it. DuoAttention trains a gate for each head to find out which is which; the highest score that KVzip gives any entry of
a head tells nearly as well, without training, from one text ("KVzip", section 4.3), and that is what `head_scores`
makes of a scored cache.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lcdoc.local_engine.compression.budgets.shares import Bounds
from lcdoc.local_engine.compression.budgets.uniform import kept
from lcdoc.local_engine.compression.parts import Needs, Scores
from lcdoc.local_engine.errors import InvalidRequestError

_FORMAT = "lcdoc head scores 1"


@dataclass(frozen=True, slots=True)
class StaticHeads:
    """Retrieval heads share what streaming heads leave, by score; these keep what is protected and the last entries."""

    file: str = ""
    """The model's head scores, as `save_head_scores` writes them. Empty: those that are kept for the model, which the
    engine knows (`known_heads.py`)."""
    retrieval: float = 0.5
    """The part of all heads that may fetch from anywhere: those with the highest head scores; 0 to 1, at least one."""
    recent: int = 256
    """How many last entries a streaming head keeps, within the budget."""
    _scores: Tensor | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        if not 0 <= self.retrieval <= 1:
            raise InvalidRequestError(f"static: retrieval is {self.retrieval}: give a number from 0 to 1")
        if self.recent < 0:
            raise InvalidRequestError(f"static: recent is {self.recent}: give 0 or more entries")
        if self.file:
            object.__setattr__(self, "_scores", load_head_scores(Path(self.file)))

    def of_model(self, scores: Tensor) -> StaticHeads:
        """The same with a model's head scores, float32 [L, H]."""
        budget = replace(self)
        object.__setattr__(budget, "_scores", scores)
        return budget

    @property
    def ragged(self) -> bool:
        return True

    @property
    def needs(self) -> Needs:
        return Needs()

    def keep(self, scores: Scores) -> Tensor:
        """bool [L, H, n]; see `parts.Budget`. Raises InvalidRequestError where the file is of another kind of model."""
        layers, heads, _ = scores.valid.shape
        if self._known.shape != (layers, heads):
            made_for = " x ".join(map(str, self._known.shape))
            raise InvalidRequestError(
                f"{self.file or 'static'}: holds scores of {made_for} heads where the model has {layers} x {heads}: "
                "make head scores with this model"
            )
        fetching = self.retrieval_heads()
        rows = Bounds.of(scores)
        from_end = scores.valid.flip(-1).cumsum(dim=-1).flip(-1)
        near = (scores.valid & (scores.protected | (from_end <= self.recent))).sum(dim=-1).cpu()
        # Streaming heads are full with what is near; where the budget has no room for that, all heads get alike.
        counts = Bounds(rows.least, torch.where(fetching, rows.most, near), rows.total).fitted(
            lambda level: torch.full((layers,), level, dtype=torch.float64), float(int(rows.most.max()))
        )
        place = torch.arange(scores.valid.shape[-1], device=scores.values.device, dtype=torch.float32)
        streaming = ~fetching.to(scores.values.device).unsqueeze(-1)
        ordered = torch.where(streaming, place, scores.values)
        return kept(Scores(ordered, scores.valid, scores.protected, scores.budget, scores.window), counts)

    def retrieval_heads(self) -> Tensor:
        """bool [L, H]; of equal heads the earlier ones."""
        known = self._known
        count = max(1, round(self.retrieval * known.numel()))
        chosen = known.flatten().sort(descending=True, stable=True).indices[:count]
        return torch.zeros(known.numel(), dtype=torch.bool).scatter_(0, chosen, True).view_as(known)

    @property
    def _known(self) -> Tensor:
        """Raises InvalidRequestError where there is no file, and no engine has given its model's scores."""
        if self._scores is None:
            raise InvalidRequestError("static: no head scores are known: name their file, as in static:file=heads.json")
        return self._scores


def head_scores(scores: Scores) -> Tensor:
    """float32 [L, H] of a cache that KVzip has scored: the highest score of an entry that is not protected."""
    free = scores.valid & ~scores.protected
    if not bool(free.any(dim=-1).all()):
        raise InvalidRequestError("head scores need unprotected entries in every head: score a longer text")
    return scores.values.masked_fill(~free, -torch.inf).amax(dim=-1).cpu()


def save_head_scores(path: Path, scores: Tensor, model: str) -> None:
    """Store float [L, H] as JSON: `format`, `model` (its name, for people), and `scores`, a list for each layer."""
    fields = {"format": _FORMAT, "model": model, "scores": scores.tolist()}
    path.write_text(json.dumps(fields, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def load_head_scores(path: Path) -> Tensor:
    """float32 [L, H]. Raises InvalidRequestError for a file that cannot be read, or holds something else."""
    try:
        fields: Any = json.loads(path.read_bytes())
    except OSError as error:
        raise InvalidRequestError(
            f"{path}: cannot be read ({error.strerror}): name a file of head scores made for this model"
        ) from None
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(f"{path}: not readable as JSON ({error}): make the head scores again") from None
    if not isinstance(fields, dict) or fields.get("format") != _FORMAT:
        raise InvalidRequestError(f"{path}: is no file of head scores ({_FORMAT!r}): make the head scores again")
    table = fields.get("scores")
    if not _is_table(table):
        raise InvalidRequestError(
            f"{path}: its scores are not one finite number for each head, equally many in each layer: "
            "make the head scores again"
        )
    return torch.tensor(table, dtype=torch.float32)


def _is_table(table: object) -> bool:
    return (
        isinstance(table, list)
        and bool(table)
        and all(isinstance(row, list) and row and len(row) == len(table[0]) for row in table)
        and all(
            isinstance(each, int | float) and not isinstance(each, bool) and math.isfinite(each)
            for row in table
            for each in row
        )
    )
