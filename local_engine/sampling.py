"""From logits to tokens: penalties, filters and one draw per row, reproducible in any batch.

Order and meaning of the filters are those of transformers' generate(): repetition penalty, temperature, top-k, top-p,
min-p; presence and frequency penalties are OpenAI's, subtracted right after the repetition penalty. A mask comes before
all of them.

A draw is the inverse of the cumulative distribution, in the order of token ids, at one uniform number that depends on
nothing but (seed, ordinal of the token). So a request gets the same tokens alone, in a batch, and when several
positions are verified at once; and since the order is by id, a rounding difference of the logits moves the borders a
little but never swaps two tokens.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from lcdoc.local_engine.draws import uniform
from lcdoc.local_engine.errors import EngineError, InvalidRequestError
from lcdoc.local_engine.filters import draw_ranked, draw_unranked, draw_wider
from lcdoc.local_engine.masks import forbidden
from lcdoc.local_engine.penalties import penalised

# Below this, temperatures are greedy: the division would leave float32.
_COLDEST = 1e-5
_MOST_LOGPROBS = 20


class NoTokenError(EngineError):
    """A row has no token that could be drawn. `row` is its number in the batch."""

    def __init__(self, row: int, message: str) -> None:
        super().__init__(message)
        self.row = row


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one request's tokens are chosen. Temperature 0 is greedy; 0 and 1 switch the filters off.

    `logprobs` asks for the chosen token's and the best n tokens' log-probabilities. They are the model's own: before
    mask, penalties, temperature and filters.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    max_tokens: int = 1024
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        """Raise InvalidRequestError for the first value that is out of range."""
        ranges: tuple[tuple[str, bool, str], ...] = (
            ("temperature", 0 <= self.temperature < math.inf, "0 (greedy) or more"),
            ("top_k", self.top_k >= 0, "0 (off) or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1 (off)"),
            ("min_p", 0 <= self.min_p <= 1, "from 0 (off) to 1"),
            ("repetition_penalty", 0 < self.repetition_penalty < math.inf, "above 0; 1 is off"),
            ("presence_penalty", -2 <= self.presence_penalty <= 2, "from -2 to 2"),
            ("frequency_penalty", -2 <= self.frequency_penalty <= 2, "from -2 to 2"),
            ("seed", self.seed is None or -(1 << 63) <= self.seed < (1 << 64), "an integer of 64 bits"),
            ("max_tokens", self.max_tokens >= 1, "1 or more"),
            ("stop", all(self.stop), "texts that are not empty"),
            ("logprobs", self.logprobs is None or 0 <= self.logprobs <= _MOST_LOGPROBS, f"0 to {_MOST_LOGPROBS}"),
        )
        for name, holds, wanted in ranges:
            if not holds:
                raise InvalidRequestError(f"{name} is {getattr(self, name)!r}; it must be {wanted}")

    @property
    def greedy(self) -> bool:
        return self.temperature < _COLDEST

    @property
    def penalises(self) -> bool:
        return self.repetition_penalty != 1 or self.presence_penalty != 0 or self.frequency_penalty != 0

    @property
    def ranks(self) -> bool:
        """Whether the filters have to know a token's rank."""
        return self.top_k > 0 or self.top_p < 1

    def seeded(self) -> Sampling:
        """The same with a seed: its own or a fresh random one. Call it once a request, so that all its rows agree."""
        return self if self.seed is not None else replace(self, seed=secrets.randbits(63))


@dataclass(slots=True)
class Row:
    """One token to draw.

    `history` is the prompt and all tokens of the answer so far; it is read only when there are penalties (an array of
    ids costs nothing to pass, a list is converted). `index` counts the answer's tokens before this one, so the last
    `index` ids of `history` are the answer's. `mask` is what may be drawn, on the CPU: bool [V], or int32 words of
    32 tokens, lowest bit first, as llguidance writes them; tokens beyond its end are not allowed.
    """

    sampling: Sampling
    history: Sequence[int] | np.ndarray[tuple[int], np.dtype[np.integer]]
    index: int
    mask: Tensor | None = None
    seed: int = field(init=False)

    def __post_init__(self) -> None:
        self.sampling = self.sampling.seeded()
        self.seed = self.sampling.seed or 0


@dataclass(frozen=True, slots=True)
class Sampled:
    """A drawn token; `top` holds (token, log-probability) of the best ones, best first."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


def sample(logits: Tensor, rows: Sequence[Row]) -> list[Sampled]:
    """Draw a token for each row of `logits` [R, V] (float32, left as it is).

    On a CUDA device everything stays there but the result: one copy for the whole batch, and one more in the rare step
    in which a nucleus is wider than the candidates.

    Raises NoTokenError, naming the row, when its mask leaves no token or its logits are not finite.
    """
    if logits.dim() != 2 or logits.shape[0] != len(rows) or logits.dtype != torch.float32:
        raise EngineError(
            f"{len(rows)} rows need float32 logits [{len(rows)}, V], not {logits.dtype} {[*logits.shape]}"
        )
    if not rows:
        return []
    greedy = [number for number, row in enumerate(rows) if row.sampling.greedy]
    ranked = [number for number, row in enumerate(rows) if not row.sampling.greedy and row.sampling.ranks]
    unranked = [number for number, row in enumerate(rows) if not row.sampling.greedy and not row.sampling.ranks]
    asked = [number for number, row in enumerate(rows) if row.sampling.logprobs is not None]
    order = [*greedy, *unranked, *ranked]

    parts: list[Tensor] = []
    if greedy:
        best, token = _scores(logits, rows, greedy).max(dim=-1)
        parts.append(torch.stack((token.double(), best.double(), torch.ones_like(best).double())))
    if unranked:
        parts.append(draw_unranked(_scores(logits, rows, unranked), _draws(rows, unranked)))
    if ranked:
        scores = _scores(logits, rows, ranked)
        parts.append(draw_ranked(scores, _draws(rows, ranked)))
    results = torch.cat(parts, dim=1)
    chances = _chances(logits, rows, asked, results[0, [order.index(number) for number in asked]])
    host = torch.cat((results.flatten(), chances.flatten())).cpu()
    results, chances = host[: results.numel()].view(3, -1), host[results.numel() :].view(chances.shape)

    for number, best_score in zip(order, results[1].tolist(), strict=True):
        _check(number, best_score)
    wider = [place for place, final in enumerate(results[2].tolist()) if not final]
    if wider:
        # Only these rows pay for looking at more tokens.
        first = len(order) - len(ranked)
        again = scores[[place - first for place in wider]]
        results[0, wider] = draw_wider(again, _draws(rows, [order[place] for place in wider]))
        chances = _chances(logits, rows, asked, results[0, [order.index(number) for number in asked]]).cpu()

    tokens: list[int] = results[0].long().tolist()
    sampled = {number: Sampled(token) for number, token in zip(order, tokens, strict=True)}
    for number, line in zip(asked, chances, strict=True):
        sampled[number] = _with_chances(sampled[number].token, line, rows[number].sampling.logprobs or 0)
    return [sampled[number] for number in range(len(rows))]


def _draws(rows: Sequence[Row], numbers: list[int]) -> list[tuple[Sampling, float]]:
    return [(rows[number].sampling, uniform(rows[number].seed, rows[number].index)) for number in numbers]


def _check(row: int, best: float) -> None:
    if math.isfinite(best):
        return
    if best == -math.inf:
        raise NoTokenError(row, f"row {row}: the mask leaves no token to draw; its grammar cannot go on from here")
    raise NoTokenError(row, f"row {row}: the model's logits hold {best}; its weights or its cache are damaged")


def _taken(logits: Tensor, numbers: list[int]) -> Tensor:
    """Those rows; the tensor itself where it is all of them."""
    if len(numbers) == logits.shape[0]:
        return logits
    return logits[torch.tensor(numbers, device=logits.device)]


def _scores(logits: Tensor, rows: Sequence[Row], numbers: list[int]) -> Tensor:
    """Logits [r, V] of rows `numbers`, masked and penalised; rows that need neither are not copied."""
    chosen = [rows[number] for number in numbers]
    scores = _taken(logits, numbers)
    masked = [place for place, row in enumerate(chosen) if row.mask is not None]
    penalising = [row for row in chosen if row.sampling.penalises]
    if scores is logits and (masked or penalising):
        scores = scores.clone(memory_format=torch.contiguous_format)
    if masked:
        banned = forbidden([row.mask for row in chosen if row.mask is not None], scores)
        if len(masked) == len(chosen):
            scores.masked_fill_(banned, -math.inf)
        else:
            for place, row_banned in zip(masked, banned, strict=True):
                scores[place].masked_fill_(row_banned, -math.inf)
    if penalising:
        scores = penalised(scores, [(row.sampling, row.history, row.index) for row in chosen])
    return scores


def _chances(logits: Tensor, rows: Sequence[Row], numbers: list[int], chosen: Tensor) -> Tensor:
    """For each of those rows the chosen token's log-probability, the best ones', their ids: float64 [r, 1 + 2n]."""
    if not numbers:
        return torch.empty(0, 1, dtype=torch.float64, device=logits.device)
    own = _taken(logits, numbers)
    most = min(max(rows[number].sampling.logprobs or 0 for number in numbers), logits.shape[1])
    norm = own.logsumexp(dim=-1, keepdim=True)
    values, ids = own.topk(most, dim=-1)
    picked = own.gather(1, chosen.to(logits.device).long().unsqueeze(1))
    return torch.cat(((picked - norm).double(), (values - norm).double(), ids.double()), dim=1)


def _with_chances(token: int, chances: Tensor, wanted: int) -> Sampled:
    numbers: list[float] = chances.tolist()
    most = (len(numbers) - 1) // 2
    top = [(int(numbers[1 + most + place]), numbers[1 + place]) for place in range(most)]
    return Sampled(token, numbers[0], tuple(top[:wanted]))
