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

from lcdoc.local_engine.draws import drawn, uniform
from lcdoc.local_engine.errors import EngineError, InvalidRequestError
from lcdoc.local_engine.penalties import penalised

# Below this, temperatures are greedy: the division would leave float32.
_COLDEST = 1e-5
_MOST_LOGPROBS = 20
# How many of the best tokens are looked at first; each wider try is made only for rows whose border lies outside.
_WIDTHS = (256, 4096)


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
    plain = [number for number, row in enumerate(rows) if not row.sampling.greedy and not _ranks(row.sampling)]
    ranked = [number for number, row in enumerate(rows) if not row.sampling.greedy and _ranks(row.sampling)]

    parts: list[Tensor] = []  # each [3, r] float64: token, best score (of what is allowed), whether it is final
    order = greedy + plain + ranked
    if greedy:
        best, token = _scores(logits, rows, greedy).max(dim=-1)
        parts.append(_result(token, best, torch.ones_like(best)))
    if plain:
        parts.append(_plain(_scores(logits, rows, plain), [rows[number] for number in plain]))
    if ranked:
        scores = _scores(logits, rows, ranked)
        parts.append(_ranked(scores, [rows[number] for number in ranked], _WIDTHS[0]))
    asked = [number for number, row in enumerate(rows) if row.sampling.logprobs is not None]
    results = torch.cat(parts, dim=1)
    if asked:
        places = torch.tensor([order.index(number) for number in asked], device=logits.device)
        chances = _chances(_taken(logits, asked), results[0, places].long(), [rows[number] for number in asked])
        host = torch.cat((results.flatten(), chances.flatten())).cpu()
        chances = host[results.numel() :].view(chances.shape)
    else:
        host = results.flatten().cpu()
    found = host[: results.numel()].view(3, -1)

    for number, best_score in zip(order, found[1].tolist(), strict=True):
        _check(number, best_score)
    if ranked and not bool(found[2].all()):
        # Only these rows pay for looking at more tokens.
        first = len(greedy) + len(plain)
        short = [place for place, final in enumerate(found[2, first:].tolist()) if not final]
        wider = _widened(scores[short], [rows[ranked[place]] for place in short])
        for place, token_id in zip(short, wider, strict=True):
            found[0, first + place] = token_id
        if asked:
            retaken = [int(found[0, order.index(number)]) for number in asked]
            chosen = torch.tensor(retaken, device=logits.device)
            chances = _chances(_taken(logits, asked), chosen, [rows[number] for number in asked]).cpu()

    tokens: list[int] = found[0].long().tolist()
    results_of = {number: Sampled(token) for number, token in zip(order, tokens, strict=True)}
    for place, number in enumerate(asked):
        results_of[number] = _with_chances(
            results_of[number].token, chances[place], rows[number].sampling.logprobs or 0
        )
    return [results_of[number] for number in range(len(rows))]


def _ranks(sampling: Sampling) -> bool:
    return sampling.top_k > 0 or sampling.top_p < 1


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
        forbidden = _forbidden([row.mask for row in chosen if row.mask is not None], scores)
        if len(masked) == len(chosen):
            scores.masked_fill_(forbidden, -math.inf)
        else:
            for place, row_forbidden in zip(masked, forbidden, strict=True):
                scores[place].masked_fill_(row_forbidden, -math.inf)
    if penalising:
        scores = penalised(scores, [(row.sampling, row.history, row.index) for row in chosen])
    return scores


def _forbidden(masks: list[Tensor], scores: Tensor) -> Tensor:
    """What masks do not allow, bool [r, V] on the device of `scores`."""
    tokens = scores.shape[1]
    words = np.zeros((len(masks), -(-tokens // 32)), np.int32)
    for line, mask in zip(words, masks, strict=True):
        given = mask.numpy()
        if mask.dtype == torch.bool:
            octets = np.packbits(given[:tokens], bitorder="little")
            line.view(np.uint8)[: len(octets)] = octets
        else:
            line[: len(given)] = given[: len(line)]
    np.invert(words, out=words)
    if scores.device.type == "cpu":
        bits = np.unpackbits(words.view(np.uint8), axis=1, count=tokens, bitorder="little")
        return torch.from_numpy(bits.view(np.bool_))
    sent = torch.from_numpy(words).to(scores.device, non_blocking=True)
    shifts = torch.arange(32, dtype=torch.int32, device=scores.device)
    return ((sent[:, :, None] >> shifts) & 1).bool().flatten(1)[:, :tokens]


def _result(token: Tensor, best: Tensor, final: Tensor) -> Tensor:
    return torch.stack((token.double(), best.double(), final.double()))


def _column(values: Sequence[float], device: torch.device) -> Tensor:
    """Numbers of the rows as a float64 column [r, 1]."""
    return torch.tensor(values, dtype=torch.float64).to(device, non_blocking=True).unsqueeze(1)


def _warmth(scores: Tensor, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
    """Best score and temperature of each row, both [r, 1] float32."""
    temperature = _column([row.sampling.temperature for row in rows], scores.device)
    return scores.amax(dim=-1, keepdim=True), temperature.float()


def _uniforms(rows: Sequence[Row], device: torch.device) -> Tensor:
    return _column([uniform(row.seed, row.index) for row in rows], device)


def _plain(scores: Tensor, rows: Sequence[Row]) -> Tensor:
    """Rows with temperature and min-p alone: nothing has to be ranked."""
    best, temperature = _warmth(scores, rows)
    # The best score is subtracted first, so that no temperature can overflow.
    weights = ((scores - best) / temperature).exp_()
    floors = [row.sampling.min_p for row in rows]
    if any(floors):
        weights.masked_fill_(weights < _column(floors, scores.device).float(), 0.0)
    return _result(drawn(weights, _uniforms(rows, scores.device)), best.squeeze(1), torch.ones_like(best).squeeze(1))


def _ranked(scores: Tensor, rows: Sequence[Row], width: int) -> Tensor:
    """Rows with top-k or top-p, decided on their `width` best tokens.

    A row is final when the worst token it keeps is better than the worst one looked at: then nothing outside, not even
    a tie, could have been kept. With `width` = V every row is final.
    """
    device, tokens = scores.device, scores.shape[1]
    width = min(width, tokens)
    best, temperature = _warmth(scores, rows)
    if width < tokens:
        ids = scores.topk(width, dim=-1).indices.sort(dim=-1).values
        values = scores.gather(1, ids)
    else:
        ids, values = None, scores
    # Stable, and `values` is in the order of ids: equal scores are ranked by id on every device.
    ranked, order = values.sort(dim=-1, descending=True, stable=True)
    weights = ((ranked - best).double() / temperature).exp_()

    counts = [row.sampling.top_k for row in rows]
    kept = weights > 0
    if any(counts):
        last = torch.tensor([min(count or width, width) - 1 for count in counts]).to(device, non_blocking=True)
        kept &= ranked >= ranked.gather(1, last.unsqueeze(1))
    shares = [row.sampling.top_p for row in rows]
    if any(share < 1 for share in shares):
        inside = weights * kept
        total = inside.sum(dim=-1, keepdim=True)
        if width < tokens and not all(counts):
            mass = ((scores - best) / temperature).exp_().sum(dim=-1, keepdim=True, dtype=torch.float64)
            total = torch.where(_column(counts, device) > 0, total, mass)
        share = _column(shares, device)
        kept &= (inside.cumsum(dim=-1) - inside < share * total) | (share >= 1)
    floors = [row.sampling.min_p for row in rows]
    if any(floors):
        kept &= weights >= _column(floors, device)

    worst = torch.where(kept, ranked, math.inf).amin(dim=-1)
    final = torch.ones_like(worst, dtype=torch.bool)
    if width < tokens:
        seen = torch.tensor([count <= width for count in counts]).to(device, non_blocking=True)
        final = (worst > ranked[:, -1]) & seen
    by_id = torch.zeros_like(weights).scatter_(1, order, weights * kept)
    token = drawn(by_id, _uniforms(rows, device))
    if ids is not None:
        token = ids.gather(1, token.unsqueeze(1)).squeeze(1)
    return _result(token, best.squeeze(1), final)


def _widened(scores: Tensor, rows: Sequence[Row]) -> list[int]:
    """Tokens of rows whose border lies outside the first candidates."""
    found: dict[int, int] = {}
    left = list(range(len(rows)))
    for width in (*_WIDTHS[1:], scores.shape[1]):
        tried = _ranked(scores[left], [rows[place] for place in left], width).cpu()
        for place, token, final in zip(left, tried[0].tolist(), tried[2].tolist(), strict=True):
            if final:
                found[place] = int(token)
        left = [place for place in left if place not in found]
        if not left:
            break
    return [found[place] for place in range(len(rows))]


def _chances(logits: Tensor, chosen: Tensor, rows: Sequence[Row]) -> Tensor:
    """For each row the chosen token's log-probability, the best ones', and their ids: float64 [r, 1 + 2n]."""
    most = min(max(row.sampling.logprobs or 0 for row in rows), logits.shape[1])
    norm = logits.logsumexp(dim=-1, keepdim=True)
    values, ids = logits.topk(most, dim=-1)
    return torch.cat(
        ((logits.gather(1, chosen[:, None]) - norm).double(), (values - norm).double(), ids.double()), dim=1
    )


def _with_chances(token: int, chances: Tensor, wanted: int) -> Sampled:
    numbers: list[float] = chances.tolist()
    most = (len(numbers) - 1) // 2
    top = [(int(numbers[1 + most + place]), numbers[1 + place]) for place in range(most)]
    return Sampled(token, numbers[0], tuple(top[:wanted]))
