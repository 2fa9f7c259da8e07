"""From logits to answers: tokens are drawn, drafts are kept or thrown away, text is given out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from lcdoc.local_engine.requests import Finish, Piece, Request
from lcdoc.local_engine.sampling import NoTokenError, Row, Sampled, sample
from lcdoc.local_engine.scheduler import Work

logger = logging.getLogger(__name__)


def prepare(works: Sequence[Work]) -> None:
    """Start computing the masks of constrained requests, beside the forward pass."""
    for work in works:
        if work.piece.logits and work.request.matcher is not None:
            try:
                work.request.matcher.prepare(work.drafts)
            except Exception:
                # `draw` asks for the mask and ends the request, if it cannot be had.
                logger.debug("a mask could not be prepared", exc_info=True)


def draw(works: Sequence[Work], logits: Tensor) -> list[tuple[Work, list[Sampled] | Exception]]:
    """For each work that asked for logits [R, V], the tokens drawn at its positions, or why none could be."""
    asking = [work for work in works if work.piece.logits]
    rows: list[Row] = []
    owners: list[int] = []
    places: list[int] = []
    failed: dict[int, Exception] = {}
    first = 0
    for index, work in enumerate(asking):
        try:
            rows += _rows(work)
        except Exception as error:
            # Its grammar cannot go on, which is nobody else's trouble.
            logger.debug("a mask could not be computed", exc_info=True)
            failed[index] = error
        else:
            owners += [index] * work.piece.logits
            places += range(first, first + work.piece.logits)
        first += work.piece.logits
    wide, numbers = logits.float(), list(range(len(rows)))
    drawn: list[Sampled] = []
    while numbers:
        try:
            kept = wide if len(numbers) == len(wide) else wide[[places[number] for number in numbers]]
            drawn = sample(kept, [rows[number] for number in numbers])
            break
        except NoTokenError as error:
            # It ends its own request; the others are drawn again, and get the same tokens.
            failed[owners[numbers[error.row]]] = error
            numbers = [number for number in numbers if owners[number] not in failed]
    tokens = dict(zip(numbers, drawn, strict=True)) if numbers else {}
    return [
        (work, failed.get(index) or [tokens[number] for number, owner in enumerate(owners) if owner == index])
        for index, work in enumerate(asking)
    ]


def _rows(work: Work) -> list[Row]:
    request = work.request
    masks = None if request.matcher is None else request.matcher.masks(work.drafts)
    rows = []
    for place in range(work.piece.logits):
        history: Sequence[int] = ()
        if request.sampling.penalises:
            history = [*request.tokens, *work.drafts[:place]]
        mask = None if masks is None else masks[place]
        rows.append(Row(request.sampling, history, request.output + place, mask))
    return rows


def absorb(work: Work, drawn: Sequence[Sampled]) -> tuple[Piece, int]:
    """Take over the tokens that hold; returns what to give out and how many drafts were right.

    A drafted position's token was drawn from the model's own distribution given the drafts before it. It holds as long
    as those were what was drawn there: so the answer is the same, token for token, as without drafts.
    """
    request, held, accepted = work.request, list[Sampled](), 0
    text: list[str] = []
    finish: Finish | None = None
    for place, each in enumerate(drawn):
        token = each
        if request.matcher is not None:
            fitting = request.matcher.fit(each.token, request.sampling.max_tokens - request.output)
            if fitting != each.token:
                token = replace(each, token=fitting, logprob=None)
            request.matcher.advance(token.token)
        request.tokens.append(token.token)
        held.append(token)
        shown, finish = _shown(request, token.token)
        text.append(shown)
        right = place < len(work.drafts) and work.drafts[place] == token.token
        accepted += right
        if finish is not None or not right:
            break
    request.drafted += len(work.drafts)
    request.accepted += accepted
    if request.lookup is not None and work.copied:
        request.lookup.settle(len(work.drafts), accepted)
    usage = request.usage if finish is not None else None
    return Piece("".join(text), tuple(held), finish, usage), accepted


def _shown(request: Request, token: int) -> tuple[str, Finish | None]:
    """The text that a new token lets out, and whether it ends the answer."""
    ends = token in request.end_tokens and not request.sampling.ignore_eos
    shown = "" if ends else request.detokenizer.push(token)
    shown, stopped = request.stops.push(shown)
    if stopped:
        return shown, "stop"
    finish: Finish | None = None
    if ends or (request.matcher is not None and request.matcher.ended):
        finish = "stop"
    elif request.output >= request.sampling.max_tokens:
        finish = "length"
    if finish is None:
        return shown, None
    rest, stopped = request.stops.push(request.detokenizer.flush())
    shown += rest + request.stops.flush()
    return shown, "stop" if stopped or request.stops.stopped else finish
